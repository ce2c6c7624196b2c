package privatelink

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// SelfSigned writes a certificate for 127.0.0.1 and ::1 and its key, and returns their paths and what to trust.
func SelfSigned(t *testing.T) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "dns"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	return cert, key, roots
}

// serving is the handler that the servers of these tests have, another one for each question.
type serving struct{ atomic.Pointer[Privatelink] }

func (*serving) Name() string { return name }

func (s *serving) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	return s.Load().ServeDNS(ctx, w, r)
}

// transports serve one handler at 127.0.0.1 and ::1, in each way that a node can.
type transports struct {
	*serving
	t     *testing.T
	roots *x509.CertPool
	at    map[string]string // addresses, by "udp", "tcp", "tls" or "https" and the host
	conns map[string]*dns.Conn
	https map[string]*http.Client
}

func serveTransports(t *testing.T) *transports {
	t.Helper()
	cert, key, roots := SelfSigned(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	s := &transports{serving: new(serving), t: t, roots: roots, at: make(map[string]string),
		conns: make(map[string]*dns.Conn), https: make(map[string]*http.Client)}
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		s.at["udp "+host] = conn.LocalAddr().String()
		for _, network := range []string{"tcp", "tls", "https"} {
			l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
			if err != nil {
				t.Fatal(err)
			}
			s.at[network+" "+host] = l.Addr().String()
			config := &dnsserver.Config{Zone: ".", Transport: network, ListenHosts: []string{host}}
			config.ReadTimeout, config.IdleTimeout = time.Minute, time.Minute // each client keeps its connection
			config.AddPlugin(func(plugin.Handler) plugin.Handler { return s.serving })
			group := []*dnsserver.Config{config}
			var srv interface {
				Serve(l net.Listener) error
				ServePacket(conn net.PacketConn) error
				Stop() error
			}
			if network != "tcp" {
				config.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}}
			}
			switch network {
			case "tcp":
				srv, err = dnsserver.NewServer("dns://"+l.Addr().String(), group)
			case "tls":
				srv, err = dnsserver.NewServerTLS("tls://"+l.Addr().String(), group)
			case "https":
				srv, err = dnsserver.NewServerHTTPS("https://"+l.Addr().String(), group)
			}
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 2)
			n := 1
			go func() { done <- srv.Serve(l) }()
			if network == "tcp" {
				n = 2
				go func() { done <- srv.ServePacket(conn) }()
			}
			t.Cleanup(func() {
				_ = srv.Stop()
				for range n {
					<-done
				}
			})
		}
	}
	t.Cleanup(func() {
		for _, c := range s.conns {
			c.Close()
		}
		for _, c := range s.https {
			c.CloseIdleConnections()
		}
	})
	s.Store(newServer(t, link.Empty()).Privatelink)
	for _, host := range []string{"127.0.0.1", "::1"} { // each has begun
		for _, way := range []string{"udp", "tcp", "tls", "POST", "GET"} {
			s.ask(way, host, packed(t, "ready.example. A", nil))
		}
	}
	return s
}

// ask sends a query by "udp", "tcp", "tls", "POST" or "GET" from an address and returns the answer to it, nil where there is only a
// status of HTTP.
func (s *transports) ask(way, from string, query []byte) []byte {
	s.t.Helper()
	host := "127.0.0.1"
	if strings.Contains(from, ":") {
		host = "::1"
	}
	if way == "POST" || way == "GET" {
		return s.askHTTPS(way, from, s.at["https "+host], query)
	}
	c := s.conns[way+from]
	if c == nil {
		c = s.dial(way, from, s.at[way+" "+host])
		s.conns[way+from] = c
	}
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := c.Write(query); err != nil {
		s.t.Fatal(err)
	}
	answer, err := c.ReadMsgHeader(nil)
	if err != nil {
		s.t.Fatalf("%s from %s: %x: %v", way, from, query, err)
	}
	return answer
}

func (s *transports) dial(way, from, to string) *dns.Conn {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	var conn net.Conn
	var err error
	switch way {
	case "udp":
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
		conn, err = d.Dial("udp", to)
	case "tcp":
		conn, err = d.Dial("tcp", to)
	default:
		conn, err = tls.DialWithDialer(&d, "tcp", to, &tls.Config{RootCAs: s.roots})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return &dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize}
}

func (s *transports) askHTTPS(method, from, to string, query []byte) []byte {
	s.t.Helper()
	c := s.https[from]
	if c == nil {
		c = ClientHTTPS(from, s.roots)
		s.https[from] = c
	}
	answer, err := AskHTTPS(c, method, to, query)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer
}

// ClientHTTPS returns a client of HTTPS at an address.
func ClientHTTPS(from string, roots *x509.CertPool) *http.Client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: d.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
}

// AskHTTPS sends a query by POST or GET (RFC 8484) and returns the answer, nil where the server takes it for no query.
func AskHTTPS(c *http.Client, method, to string, query []byte) ([]byte, error) {
	url, body := "https://"+to+"/dns-query", io.Reader(bytes.NewReader(query))
	if method == "GET" {
		url, body = url+"?dns="+base64.RawURLEncoding.EncodeToString(query), nil
	}
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/dns-message")
	reply, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	answer, err := io.ReadAll(reply.Body)
	switch {
	case err != nil:
		return nil, err
	case reply.StatusCode == http.StatusBadRequest:
		return nil, nil
	case reply.StatusCode != http.StatusOK || reply.ProtoMajor != 2 || reply.Header.Get("Content-Type") != "application/dns-message":
		return nil, fmt.Errorf("%s: %s %s, %v", method, reply.Proto, reply.Status, reply.Header)
	}
	return answer, nil
}

// loopback is where a client of the world is in these tests.
func loopback(from string) string {
	switch from {
	case corp6:
		return "::1"
	case stranger:
		return "127.9.0.9"
	}
	return "127." + strings.TrimPrefix(strings.TrimPrefix(from, "::ffff:"), "10.")
}

// TestTransports: whatever is asked, in whatever way, TCP, TLS and HTTPS have the answer of UDP, byte for byte, for the same client.
// What has no room there is whole with them.
func TestTransports(t *testing.T) {
	s := serveTransports(t)
	many := []link.Change{link.PutService{Service: service("many", "many.database.windows.net")}}
	for i := range 90 {
		many = append(many, to("many", "corp", fmt.Sprintf("10.200.0.%d", 100+i)))
	}
	// The networks have their clients on the loopback, too.
	world := world(t)
	for id, more := range map[link.ID][]string{
		"corp": {"127.1.0.0/16", "::1/128"}, "lab": {"127.2.0.0/16", "127.1.99.0/24"}, "bare": {"127.3.0.0/16"},
	} {
		n := *world.Network(id)
		n.Prefixes = append(slices.Clone(n.Prefixes), prefixes(more...)...)
		many = append(many, link.PutNetwork{Network: n})
	}
	world = apply(t, world, many...)
	truncated := 0
	for i, tt := range append(answerCases(), answerCase{name: "many", from: corp, ask: "many.database.windows.net A"},
		answerCase{name: "many, privatelink name", from: corp, ask: "many." + sqlZone + " A"}) {
		for j, shape := range shapes {
			if j != 0 && shape.name != "EDNS 4096" && (i+j)%4 != 0 {
				continue // enough of them
			}
			srv := newServer(t, world)
			if tt.set != nil {
				tt.set(&srv.settings)
			}
			s.Store(srv.Privatelink)
			query := packed(t, tt.ask, shape.change)
			from := loopback(tt.from)
			want := s.ask("udp", from, query)
			passed := len(srv.up.taken())
			if tt.passed && passed != 1 && j == 0 {
				t.Errorf("%s: the next plugin was asked %d times", tt.name, passed)
			}
			for _, way := range []string{"tcp", "tls", "POST", "GET"} {
				got := s.ask(way, from, query)
				if asked := srv.up.taken(); len(asked) != passed {
					t.Errorf("%s, %s, %s: the next plugin was asked %q, by UDP %d times", tt.name, shape.name, way, asked, passed)
				}
				switch {
				case bytes.Equal(got, want):
				case got == nil && len(want) == 12: // no query: HTTP has a status for that, DNS a header alone
				case want[2]&2 != 0 && whole(t, got, want):
					truncated++
				default:
					t.Errorf("%s, %s, %s:\ngot\n%x\nwant\n%x", tt.name, shape.name, way, got, want)
				}
			}
		}
	}
	if truncated == 0 {
		t.Error("no answer by UDP was truncated")
	}
}

// whole reports whether an answer is all of one that was truncated.
func whole(t *testing.T, b, truncated []byte) bool {
	var all, part dns.Msg
	if err := all.Unpack(b); err != nil {
		t.Fatal(err)
	}
	if err := part.Unpack(truncated); err != nil {
		t.Fatal(err)
	}
	n := len(part.Answer)
	if all.Truncated || len(all.Answer) <= n || len(truncated) > maxUDP || text(all.Answer[:n]) != text(part.Answer) {
		return false
	}
	all.Answer, all.Truncated = all.Answer[:n], true
	return all.String() == part.String()
}
