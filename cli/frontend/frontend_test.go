package frontend

import (
	"cmp"
	"context"
	"crypto/ecdh"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/postern-link/postern/cli/frontend/peers"
	"github.com/postern-link/postern/link"
)

// nginxDefault is two hosts as everybody writes them.
const nginxDefault = `
events {}
http {
	access_log off;
	ssl_protocols TLSv1.2 TLSv1.3; # as Debian has it
	server {
		listen ADDR:8443 ssl http2;
		server_name a.example;
		ssl_certificate CERTS/a.example.crt;
		ssl_certificate_key CERTS/a.example.key;
		location / { return 200 "the data of A\n"; }
	}
	server {
		listen ADDR:8443 ssl http2;
		server_name b.example;
		ssl_certificate CERTS/b.example.crt;
		ssl_certificate_key CERTS/b.example.key;
		location / { return 200 "the data of B\n"; }
	}
}
`

// check runs a check and returns the verdicts by item.
func check(t *testing.T, cfg Config) (*Report, map[string]Item) {
	t.Helper()
	r, err := Check(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]Item{}
	for _, i := range r.Items {
		by[i.Name] = i
		t.Logf("%-14s %-7s %s", i.Name, i.Verdict, i.Seen)
	}
	return r, by
}

func fill(conf, addr, certs string) string {
	return strings.NewReplacer("ADDR", addr, "CERTS", certs).Replace(conf)
}

// TestNginxDefault: X24, E15, E17, E18 and E13 against two hosts with default settings.
func TestNginxDefault(t *testing.T) {
	certs, roots := peers.Certificates(t, "a.example", "b.example")
	addr := peers.Address()
	peers.Nginx(t, fill(nginxDefault, addr, certs), addr+":8443")
	_, by := check(t, Config{Addr: addr + ":8443", Name: "a.example", Other: "b.example", Roots: roots, Timeout: 20 * time.Second})
	for item, want := range map[string]Verdict{
		"no-name": Fail, "host": Fail, "authority": Fail, "host-form": Fail, "name-form": Fail, "absolute-form": Fail, "two-hosts": Pass, "pipelined": Fail,
		"second-hello": Fail, "ech": Pass, "renegotiation": Pass, "proxy-header": Pass,
	} {
		if by[item].Verdict != want {
			t.Errorf("%s: %+v, want %s", item, by[item], want)
		}
	}
}

// haproxyDefault is two sites behind HAProxy as everybody writes them.
const haproxyDefault = `
defaults
	mode http
	timeout client 30s
	timeout server 30s
	timeout connect 5s
frontend sites
	bind ADDR:8443 ssl crt CERTS/a.example.pem crt CERTS/b.example.pem alpn h2,http/1.1
	use_backend a if { hdr(host) -i a.example }
	use_backend b if { hdr(host) -i b.example }
backend a
	server a BACKEND-A
backend b
	server b BACKEND-B
`

// TestHAProxyDefault: X24 against HAProxy, where the name of the first hello is kept (E13) and Host chooses.
func TestHAProxyDefault(t *testing.T) {
	certs, roots := peers.Certificates(t, "a.example", "b.example")
	addr := peers.Address()
	conf := strings.NewReplacer("BACKEND-A", backend(t, "a"), "BACKEND-B", backend(t, "b")).Replace(fill(haproxyDefault, addr, certs))
	peers.HAProxy(t, conf, addr+":8443")
	r, by := check(t, Config{Addr: addr + ":8443", Name: "a.example", Other: "b.example", Roots: roots, Timeout: 20 * time.Second})
	for item, want := range map[string]Verdict{"no-name": Fail, "host": Fail, "authority": Fail, "pipelined": Fail, "two-hosts": Pass, "ech": Pass, "renegotiation": Pass, "proxy-header": Pass} {
		if by[item].Verdict != want {
			t.Errorf("%s: %+v, want %s", item, by[item], want)
		}
	}
	if _, ok := by["proxy-missing"]; ok || r.Verdict != Fail {
		t.Errorf("%+v", r)
	}
	if want := "answer 421 where Host isn't the server name: docs/providers.md#host"; by["host"].Do != want || by["ech"].Do != "" {
		t.Errorf("to do: %q, want %q", by["host"].Do, want)
	}
}

// pair is a front end of Go's with two sites, which a test bends.
type pair struct {
	handler http.HandlerFunc // nil: a site for each host, and no look at the server name
	tls     func(*tls.Config)
	listen  func(net.Listener) net.Listener
}

// page answers with the site of a host.
func page(w http.ResponseWriter, host string) { io.WriteString(w, "the data of "+host+"\n") }

// bound answers 421 where Host isn't the server name.
func bound(w http.ResponseWriter, r *http.Request) {
	if r.Host != r.TLS.ServerName {
		http.Error(w, "misdirected", http.StatusMisdirectedRequest)
		return
	}
	page(w, r.Host)
}

// start returns the address, and a configuration to check it with.
func (p pair) start(t *testing.T) Config {
	t.Helper()
	certs, roots := peers.Certificates(t, "a.example", "b.example")
	cfg := &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	for _, name := range []string{"a.example", "b.example"} {
		c, err := tls.LoadX509KeyPair(filepath.Join(certs, name+".crt"), filepath.Join(certs, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = append(cfg.Certificates, c)
	}
	if p.tls != nil {
		p.tls(cfg)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	if p.listen != nil {
		ln = p.listen(ln)
	}
	if p.handler == nil {
		p.handler = func(w http.ResponseWriter, r *http.Request) { page(w, r.Host) }
	}
	srv := &http.Server{Handler: p.handler, TLSConfig: cfg, ErrorLog: log.New(io.Discard, "", 0)}
	go srv.ServeTLS(ln, "", "")
	t.Cleanup(func() { srv.Close() })
	return Config{Addr: addr, Name: "a.example", Other: "b.example", Roots: roots, Timeout: 20 * time.Second}
}

// named refuses hellos without a name, as the default of Go's doesn't.
func named(c *tls.Config) {
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if h.ServerName == "" {
			return nil, errors.New("no name")
		}
		return nil, nil
	}
}

// TestItems: what each kind of front end passes and fails.
func TestItems(t *testing.T) {
	trusting := func(policy proxyproto.Policy) func(net.Listener) net.Listener {
		return func(ln net.Listener) net.Listener {
			return &proxyproto.Listener{Listener: ln, ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return policy, nil }}
		}
	}
	for _, tt := range []struct {
		name   string
		pair   pair
		change func(*Config)
		want   map[string]Verdict // those that aren't pass
	}{
		{"bound to the name", pair{handler: bound, tls: named}, nil, nil},
		{"bound to the name, TLS 1.2", pair{handler: bound, tls: func(c *tls.Config) { named(c); c.MaxVersion = tls.VersionTLS12 }}, nil, nil},
		{"bound to the name, behind a header", pair{handler: bound, tls: named, listen: trusting(proxyproto.REQUIRE)},
			func(c *Config) { c.Header = link.ProxyV2 }, nil},
		{"header if there is one, E21", pair{handler: bound, tls: named, listen: trusting(proxyproto.USE)}, nil, map[string]Verdict{"proxy-header": Fail}},
		{"header if there is one, and expected", pair{handler: bound, tls: named, listen: trusting(proxyproto.USE)},
			func(c *Config) { c.Header = link.ProxyAzure }, map[string]Verdict{"proxy-missing": Fail}},
		{"header twice", pair{handler: bound, tls: named, listen: func(ln net.Listener) net.Listener { return trusting(proxyproto.USE)(trusting(proxyproto.REQUIRE)(ln)) }},
			func(c *Config) { c.Header = link.ProxyV1 }, map[string]Verdict{"proxy-header": Fail}},
		{"keys for ECH, E12", pair{handler: bound, tls: func(c *tls.Config) { named(c); c.EncryptedClientHelloKeys = echKeys(t) }}, nil, map[string]Verdict{"ech": Fail}},
		{"bound, but a default site", pair{handler: func(w http.ResponseWriter, r *http.Request) {
			if r.TLS.ServerName == "" {
				page(w, "a.example")
				return
			}
			bound(w, r)
		}}, nil, map[string]Verdict{"no-name": Fail}},
		{"404 is no proof", pair{tls: named, handler: func(w http.ResponseWriter, r *http.Request) {
			if r.Host != r.TLS.ServerName {
				http.NotFound(w, r)
				return
			}
			page(w, r.Host)
		}}, nil, map[string]Verdict{"host": Unknown, "authority": Unknown, "host-form": Unknown, "name-form": Unknown, "absolute-form": Unknown, "pipelined": Unknown,
			"session-ticket": Unknown, "psk": Unknown}},
		{"sites that differ each time", pair{tls: named, handler: func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%d: ", rand.Int64())
			page(w, r.Host)
		}}, func(c *Config) { c.Expect = "data of b.example" }, map[string]Verdict{"host": Fail, "authority": Fail, "pipelined": Fail, "absolute-form": Fail, "host-form": Fail,
			"name-form": Fail, "session-ticket": Fail, "psk": Fail}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := tt.pair.start(t)
			if tt.change != nil {
				tt.change(&cfg)
			}
			r, _ := check(t, cfg)
			worst := Pass
			for _, i := range r.Items {
				want := cmp.Or(tt.want[i.Name], Pass)
				worst = worse(worst, want)
				if i.Verdict != want {
					t.Errorf("%s: %s (%s), want %s", i.Name, i.Verdict, i.Seen, want)
				}
				if strings.Contains(i.Do, manual+"#"+i.Name) != (want != Pass) {
					t.Errorf("%s: to do: %q", i.Name, i.Do)
				}
			}
			if r.Verdict != worst {
				t.Errorf("%s, want %s", r.Verdict, worst)
			}
		})
	}
}

// echKeys are keys for Encrypted ClientHello (RFC 9849 section 4).
func echKeys(t *testing.T) []tls.EncryptedClientHelloKey {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(cryptorand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	config := slices.Concat([]byte{7, 0, 0x20, 0, 32}, key.PublicKey().Bytes(), []byte{0, 4, 0, 1, 0, 1, 0, 9}, []byte("a.example"), []byte{0, 0})
	return []tls.EncryptedClientHelloKey{{Config: append([]byte{0xfe, 0x0d, 0, byte(len(config))}, config...), PrivateKey: key.Bytes(), SendAsRetry: true}}
}

// TestNotBegun: where the sites can't be fetched or told apart there is no report, and no verdict.
func TestNotBegun(t *testing.T) {
	for _, tt := range []struct {
		name   string
		pair   pair
		change func(*Config)
		want   string
	}{
		{"alike", pair{handler: func(w http.ResponseWriter, _ *http.Request) { page(w, "both") }}, nil, "answer alike"},
		{"both have the text", pair{}, func(c *Config) { c.Expect = "the data" }, "a.example (200): has the expected text: true, should have it: false"},
		{"none has the text", pair{}, func(c *Config) { c.Expect = "secret" }, "b.example (200): has the expected text: false"},
		{"unknown authority", pair{}, func(c *Config) { c.Roots = x509.NewCertPool() }, "--insecure"},
		{"unknown name", pair{tls: func(c *tls.Config) { c.Certificates = c.Certificates[:1] }}, nil, "b.example at "},
		{"nobody there", pair{}, func(c *Config) { c.Addr = "127.0.0.1:1" }, "refused"},
		{"header needed", pair{listen: func(ln net.Listener) net.Listener {
			return &proxyproto.Listener{Listener: ln, ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil }}
		}}, nil, "--proxy-protocol"},
		{"no end", pair{handler: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				w.Write(make([]byte, 64<<10))
			}
		}}, nil, "answer alike"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := tt.pair.start(t)
			if tt.change != nil {
				tt.change(&cfg)
			}
			r, err := Check(context.Background(), cfg)
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, %v, want %q", r, err, tt.want)
			}
		})
	}
}

// TestSilence: a server that says nothing is unknown, and nobody waits longer for it than was said.
func TestSilence(t *testing.T) {
	over := make(chan struct{})
	cfg := pair{handler: func(w http.ResponseWriter, r *http.Request) {
		if r.Host != r.TLS.ServerName {
			<-over
		}
		page(w, r.Host)
	}}.start(t)
	t.Cleanup(func() { close(over) }) // before the server is closed
	p, err := newProbe(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.cfg.Timeout = 300 * time.Millisecond
	for _, got := range slices.Concat(p.host(context.Background()), p.pipelined(context.Background())) {
		if got.verdict != Unknown {
			t.Errorf("%+v", got)
		}
	}
}

// TestRefusesEverythingAtTheEnd: a front end that shuts out who asks too much passes nothing by it.
func TestRefusesEverythingAtTheEnd(t *testing.T) {
	var n atomic.Int64
	cfg := pair{handler: bound, tls: func(c *tls.Config) {
		c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if n.Add(1) > 4 || h.ServerName == "" {
				return nil, errors.New("shut out")
			}
			return nil, nil
		}
	}}.start(t)
	r, _ := check(t, cfg)
	for _, i := range r.Items {
		if i.Verdict != Unknown {
			t.Errorf("%s: %s (%s)", i.Name, i.Verdict, i.Seen)
		}
	}
}

// TestRenegotiation: E16, against a server that was told to take it and one that wasn't.
func TestRenegotiation(t *testing.T) {
	certs, _ := peers.Certificates(t, "a.example")
	for want, flag := range map[Verdict][]string{Fail: {"-client_renegotiation"}, Pass: nil} {
		addr := peers.Address() + ":8443"
		peers.OpenSSL(t, addr, append([]string{"-www", "-tls1_2", "-cert", certs + "/a.example.crt", "-key", certs + "/a.example.key"}, flag...)...)
		p := &probe{cfg: Config{Addr: addr, Timeout: 20 * time.Second, Path: "/"}, name: &site{name: "a.example"}, other: &site{name: "b.example"}}
		if got := p.renegotiation(context.Background()); len(got) != 1 || got[0].verdict != want {
			t.Errorf("%v: %+v, want %s", flag, got, want)
		}
	}
}
