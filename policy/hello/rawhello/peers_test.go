package rawhello

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/postern-link/postern/cli/frontend/peers"
)

// get requests a page over a connection that is there.
func get(t *testing.T, c *Conn, host string) string {
	t.Helper()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const nginxConf = `
events {}
http {
	access_log off;
	ssl_protocols TLSv1.2 TLSv1.3;
	ssl_session_cache shared:all:1m;
	server {
		listen ADDR:8443 ssl;
		server_name a.example;
		ssl_certificate CERTS/a.example.crt;
		ssl_certificate_key CERTS/a.example.key;
		location / { return 200 "$ssl_server_name $ssl_protocol $ssl_session_reused\n"; }
	}
	server {
		listen ADDR:8443 ssl;
		server_name b.example;
		ssl_certificate CERTS/b.example.crt;
		ssl_certificate_key CERTS/b.example.key;
		location / { return 200 "$ssl_server_name $ssl_protocol $ssl_session_reused\n"; }
	}
}
`

const haproxyConf = `
defaults
	mode http
	timeout client 30s
	timeout server 30s
	timeout connect 5s
frontend f
	bind ADDR:8443 ssl crt CERTS/a.example.pem crt CERTS/b.example.pem
	http-request return status 200 content-type text/plain lf-string "%[ssl_fc_sni] %[ssl_fc_protocol] %[ssl_fc_is_resumed]\n"
`

// TestPeers: each front end of the distribution understands the client, and is understood: what name does it take a
// second hello's to be (E13), and does it resume under another name (E15)?
func TestPeers(t *testing.T) {
	certs, _ := peers.Certificates(t, "a.example", "b.example")
	for _, tt := range []struct {
		name    string
		start   func(addr string)
		retry   string // the name that counts of two hellos
		resumed string // the name that counts of a session for b in a hello for a, TLS 1.2
	}{
		{"nginx", func(addr string) {
			peers.Nginx(t, strings.NewReplacer("ADDR", addr, "CERTS", certs).Replace(nginxConf), addr+":8443")
		}, "b.example", "b.example"},
		{"HAProxy", func(addr string) {
			peers.HAProxy(t, strings.NewReplacer("ADDR", addr, "CERTS", certs).Replace(haproxyConf), addr+":8443")
		}, "b.example", "b.example"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := peers.Address()
			tt.start(addr)
			addr += ":8443"
			shake := func(cfg Config) *Conn {
				t.Helper()
				c, err := Handshake(dial(t, addr), cfg)
				if err != nil {
					t.Fatalf("%v, %+v", err, c.State())
				}
				return c
			}
			h := New("a.example")
			for name, cfg := range map[string]Config{
				"plain": {Hello: h}, "records of a byte": {Hello: h, Records: Every(1, h.Message())}, "segments of a byte": {Hello: h, Segments: Every(1, Records(h.Message()))},
				"a second hello": {Hello: New("a.example").Share()}, "in two records": {Hello: New("a.example").Share(), SecondRecords: []int{60}},
				"P-384": {Hello: New("a.example").Share(P384)}, "AES-256": {Hello: with(New("a.example"), func(h *Hello) { h.Suites = []uint16{0x1302} })},
			} {
				c := shake(cfg)
				if got := get(t, c, "a.example"); !strings.HasPrefix(got, "a.example TLSv1.3 ") || common(c.State()) != "a.example" {
					t.Errorf("%s: %q, certificate of %q", name, got, common(c.State()))
				}
			}
			c := shake(Config{Hello: New("a.example").Share(), Second: func(h *Hello) *Hello { return h.Set(Names("b.example")) }})
			if got := get(t, c, "b.example"); !c.State().Retried || !strings.HasPrefix(got, tt.retry) {
				t.Errorf("second hello of b.example: %q, certificate of %q; want %s", got, common(c.State()), tt.retry)
			}

			c = shake(Config{Hello: New12("b.example")})
			if got := get(t, c, "b.example"); !strings.HasPrefix(got, "b.example TLSv1.2 ") || len(c.Session().Ticket) == 0 {
				t.Errorf("TLS 1.2: %q, session %+v", got, c.Session())
			}
			again := shake(Config{Hello: New12("a.example").ResumeTicket(c.Session())})
			if got := get(t, again, "b.example"); !again.State().Resumed || !strings.HasPrefix(got, tt.resumed) {
				t.Errorf("ticket of b.example: resumed %t, %q", again.State().Resumed, got)
			}
			c = shake(Config{Hello: New12("b.example").Drop(ExtTicket)})
			get(t, c, "b.example")
			again = shake(Config{Hello: New12("a.example").Drop(ExtTicket).ResumeID(c.Session())})
			if got := get(t, again, "b.example"); !again.State().Resumed || !strings.HasPrefix(got, tt.resumed) {
				t.Errorf("session ID of b.example: resumed %t, %q", again.State().Resumed, got)
			}

			c = shake(Config{Hello: New12("a.example")})
			var alert Alert
			if err := c.Renegotiate(New12("b.example")); !errors.As(err, &alert) && !errors.Is(err, io.EOF) {
				t.Errorf("renegotiation: %v", err)
			}
		})
	}
}

// TestOpenSSL: s_server with a certificate for each of two names, which renegotiates when it is told to (E16).
func TestOpenSSL(t *testing.T) {
	certs, _ := peers.Certificates(t, "a.example", "b.example")
	addr := peers.Address() + ":8443"
	a, b := certs+"/a.example", certs+"/b.example"
	peers.OpenSSL(t, addr, "-www", "-client_renegotiation", "-cert", a+".crt", "-key", a+".key", "-servername", "b.example", "-cert2", b+".crt", "-key2", b+".key")
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // whose certificate
	}{
		{"no name, X01", Config{Hello: New()}, "a.example"},
		{"empty name", Config{Hello: New("")}, "a.example"},
		{"the other name", Config{Hello: New("b.example")}, "b.example"},
		{"upper case, X04", Config{Hello: New("B.EXAMPLE")}, "b.example"},
		{"trailing dot, X05", Config{Hello: New("b.example.")}, "a.example"},
		{"second hello with the other name, X13", Config{Hello: New("a.example").Share(), Second: func(h *Hello) *Hello { return h.Set(Names("b.example")) }}, "b.example"},
		{"second hello without a name", Config{Hello: New("b.example").Share(), Second: func(h *Hello) *Hello { return h.Drop(ExtServerName) }}, "b.example"},
		{"P-521 wanted", Config{Hello: New("a.example").Set(Groups(P521)).Share()}, "a.example"},
		{"TLS 1.2", Config{Hello: New12("b.example")}, "b.example"},
		{"ECH", Config{Hello: New("a.example").Add(ECH())}, "a.example"},
	} {
		conn := dial(t, addr)
		c, err := Handshake(conn, tt.cfg)
		if err != nil || common(c.State()) != tt.want {
			t.Errorf("%s: certificate of %q, want %q: %v", tt.name, common(c.State()), tt.want, err)
		} else if got := get(t, c, "a.example"); !strings.Contains(got, "s_server") {
			t.Errorf("%s: %q", tt.name, got)
		}
		conn.Close() // it serves one at a time
	}
	c, err := Handshake(dial(t, addr), Config{Hello: New12("a.example")})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Renegotiate(New12("b.example")); err != nil || common(c.State()) != "b.example" {
		t.Fatalf("renegotiation: %v, certificate of %q", err, common(c.State()))
	}
	if got := get(t, c, "b.example"); !strings.Contains(got, "s_server") {
		t.Errorf("after it: %q", got)
	}
}
