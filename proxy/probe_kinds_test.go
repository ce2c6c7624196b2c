package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/postern-link/postern/link"
)

// webServer is Go's HTTP server, with what it has seen of the last probe.
type webServer struct {
	addr    netip.AddrPort
	mu      sync.Mutex
	name    string // server name of the last hello
	request string // method, host and path of the last request
	command string // of the last PROXY header
}

// seen returns what the server has seen since the last time.
func (s *webServer) seen() (name, request, command string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, request, command = s.name, s.request, s.command
	s.name, s.request, s.command = "", "", ""
	return
}

// newWebServer starts a server that answers with a status, over TLS or not, behind a PROXY header that it demands or not.
func newWebServer(t *testing.T, overTLS, header bool, status int) *webServer {
	t.Helper()
	s := new(webServer)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.request = r.Method + " " + r.Host + " " + r.RequestURI
		s.mu.Unlock()
		if status != http.StatusEarlyHints {
			w.WriteHeader(status)
			return
		}
		w.WriteHeader(status)
		w.WriteHeader(http.StatusOK)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if over, ok := c.(*tls.Conn); ok {
			c = over.NetConn()
		}
		if with, ok := c.(*proxyproto.Conn); ok {
			if h := with.ProxyHeader(); h != nil {
				s.mu.Lock()
				s.command = map[proxyproto.ProtocolVersionAndCommand]string{proxyproto.LOCAL: "local", proxyproto.PROXY: "proxy"}[h.Command]
				s.mu.Unlock()
			}
		}
		return ctx
	}
	if header {
		server.Listener = &proxyproto.Listener{Listener: server.Listener, Policy: func(net.Addr) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil }}
	}
	if overTLS {
		server.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			s.mu.Lock()
			s.name = h.ServerName
			s.mu.Unlock()
			return nil, nil
		}}
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	s.addr = server.Listener.Addr().(*net.TCPAddr).AddrPort()
	return s
}

// The three kinds of probes, at Go's servers, with and without PROXY headers.
func TestProbeKinds(t *testing.T) {
	t.Parallel()
	names := []link.ResourceName{{Public: "*.pattern.example"}, {Public: "one.example"}, {Public: "two.example"}}
	tcp, overTLS := link.Probe{}, link.Probe{Kind: link.ProbeTLS}
	get := func(path string, status int) link.Probe {
		return link.Probe{Kind: link.ProbeHTTP, Path: path, Status: status}
	}
	silent := serve(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	resets := serve(t, func(c *net.TCPConn) { c.SetLinger(0) })
	endless := serve(t, func(c *net.TCPConn) {
		for {
			if _, err := io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
				return
			}
		}
	})
	type servers struct{ plain, over, teapot, hints *webServer }
	for _, header := range []link.ProxyProtocol{link.ProxyOff, link.ProxyV2, link.ProxyAzure} {
		with := header != link.ProxyOff
		s := servers{newWebServer(t, false, with, 200), newWebServer(t, true, with, 200), newWebServer(t, false, with, 418), newWebServer(t, false, with, 103)}
		for _, tt := range []struct {
			name   string
			probe  link.Probe
			names  []link.ResourceName
			addr   netip.AddrPort
			server *webServer // that must have seen it
			sees   string     // server name or request
			bad    string     // part of the error
		}{
			{"tcp", tcp, names, silent, nil, "", ""},
			{"tcp, resets", tcp, names, resets, nil, "", ""},
			{"tls", overTLS, names, s.over.addr, s.over, "one.example", ""},
			{"tls by name", link.Probe{Kind: link.ProbeTLS, Name: "db.example"}, names, s.over.addr, s.over, "db.example", ""},
			{"tls without names", overTLS, nil, s.over.addr, s.over, "", ""},
			{"tls, to HTTP", overTLS, names, s.plain.addr, nil, "", "probe tls"},
			{"tls, silent", overTLS, names, silent, nil, "", "timeout"},
			{"tls, resets", overTLS, names, resets, nil, "", "probe tls"},
			{"http", get("/up?x=1", 0), names, s.plain.addr, s.plain, "GET one.example /up?x=1", ""},
			{"http without names", get("/", 0), nil, s.plain.addr, s.plain, "GET " + s.plain.addr.String() + " /", ""},
			{"http, the status", get("/", 418), names, s.teapot.addr, s.teapot, "GET one.example /", ""},
			{"http, after hints", get("/", 0), names, s.hints.addr, s.hints, "GET one.example /", ""},
			{"http, bad status", get("/", 0), names, s.teapot.addr, s.teapot, "GET one.example /", "status 418"},
			{"http, another status", get("/", 204), names, s.plain.addr, s.plain, "GET one.example /", "status 200"},
			{"http, to TLS", get("/", 0), names, s.over.addr, nil, "", "status"},
			{"http, silent", get("/", 0), names, silent, nil, "", "timeout"},
			{"http, resets", get("/", 0), names, resets, nil, "", "probe http"},
			{"http, without end", get("/", 0), names, endless, nil, "", "no "},
		} {
			t.Run(string(header)+" "+tt.name, func(t *testing.T) {
				w := newWorld(t, Settings{})
				v := service("svc", 7001, tt.addr, func(v *link.Service) { v.ProxyProtocol, v.Names, v.Probe = header, tt.names, tt.probe }).Service
				timeout := patience
				if strings.Contains(tt.name, "silent") {
					timeout = 100 * time.Millisecond
				}
				err := w.proxy.probeTarget(t.Context(), &v, tt.addr, timeout)
				if tt.bad == "" && err != nil && !isResetError(err) { // who resets may do so before our header is written
					t.Fatal(err)
				}
				if tt.bad != "" && (err == nil || !blames(err) || !strings.Contains(err.Error(), tt.bad) && !isResetError(err)) {
					t.Fatalf("error %v, want one of the target's with %q", err, tt.bad)
				}
				if strings.Contains(tt.name, "silent") && tt.bad != "" && !timedOut(err) {
					t.Errorf("%v isn't taken for silence", err)
				}
				if tt.server == nil {
					return
				}
				name, request, command := tt.server.seen()
				if name+request != tt.sees {
					t.Errorf("the server sees %q, want %q", name+request, tt.sees)
				}
				if with && request != "" && command != "local" {
					t.Errorf("the server sees the PROXY command %q", command)
				}
			})
		}
	}
}

// A probe of any kind goes nowhere that a flow mayn't (A21), and ends with its context.
func TestProbesObeyTheRules(t *testing.T) {
	for _, probe := range []link.Probe{{}, {Kind: link.ProbeTLS}, {Kind: link.ProbeHTTP, Path: "/"}} {
		t.Run(string(probe.Kind), func(t *testing.T) {
			g := newTarget(t)
			w := newWorld(t, Settings{})
			v := service("svc", 7001, g.addr(), func(v *link.Service) { v.Tenant, v.Probe = "b", probe }).Service
			if err := w.proxy.probeTarget(t.Context(), &v, g.addr(), patience); !errors.As(err, new(forbidden)) || blames(err) {
				t.Errorf("error %v", err)
			}
			select {
			case c := <-g.conns:
				c.Close()
				t.Error("a forbidden target was probed")
			default:
			}
			if probe.Kind == "" {
				return
			}
			v.Tenant = ""
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- w.proxy.probeTarget(ctx, &v, g.addr(), time.Hour) }()
			c := <-g.conns // connected, and waits for an answer
			defer c.Close()
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) || blames(err) {
				t.Errorf("error %v of a probe that was called off", err)
			}
		})
	}
}

// What a service asks decides what is answered in DNS and where flows go.
func TestProbeDecides(t *testing.T) {
	teapot, good := newWebServer(t, false, false, 418), newWebServer(t, false, false, 200)
	w := newWorld(t, Settings{ProbeInterval: 50 * time.Millisecond}, service("svc", 7001, teapot.addr, func(v *link.Service) {
		v.Probe = link.Probe{Kind: link.ProbeHTTP, Path: "/up"}
	}), endpoint("e", "svc", nextAddr(t)))
	eventually(t, "the target is down", func() bool { return w.status(teapot.addr).Down })
	dial(t, w.first()).Write([]byte("GET / HTTP/1.0\r\n\r\n")) // a flow goes there all the same, and proves nothing
	eventually(t, "the flow is connected", func() bool { return w.dials(t) > 0 })
	if w.proxy.Published("svc") || w.status(teapot.addr).Up {
		t.Error("published by a flow, though the probe failed")
	}
	w.apply(edited(w, func(v *link.Service) { v.Targets = append(v.Targets, link.Target{Addr: good.addr}) })...)
	eventually(t, "it is published", func() bool { return w.proxy.Published("svc") && w.status(good.addr).Up })
	w.apply(edited(w, func(v *link.Service) { v.Probe = link.Probe{} })...)
	eventually(t, "what accepts is up for a probe that connects", func() bool { return w.status(teapot.addr).Up })
}

func TestWordsOf(t *testing.T) {
	a := link.Service{Names: []link.ResourceName{{Public: "one.example"}}}
	if wordsOf(&a) != (words{}) {
		t.Error("who only connects asks something of the name")
	}
	a.Probe = link.Probe{Kind: link.ProbeTLS, Name: "db.example"}
	b := a
	b.Names = nil
	if wordsOf(&a) != wordsOf(&b) {
		t.Error("the same handshake is two questions")
	}
}

func TestReadStatus(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string
		want   int // 0: none
	}{
		"ok":               {"HTTP/1.1 200 OK\r\n\r\n", 200},
		"no reason":        {"HTTP/1.1 204\r\n\r\n", 204},
		"an empty reason":  {"HTTP/1.0 503 \r\n", 503},
		"bare line feed":   {"HTTP/1.1 302 Found\n", 302},
		"interim":          {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 Not Found\r\n", 404},
		"no line end":      {"HTTP/1.1 200 OK", 0},
		"nothing":          {"", 0},
		"HTTP/2":           {"HTTP/2 200\r\n", 0},
		"HTTP/0.9":         {"<html>\r\n", 0},
		"sign":             {"HTTP/1.1 +20 OK\r\n", 0},
		"four digits":      {"HTTP/1.1 2000 OK\r\n", 0},
		"two spaces":       {"HTTP/1.1  200 OK\r\n", 0},
		"out of range":     {"HTTP/1.1 600 \r\n", 0},
		"below":            {"HTTP/1.1 099 \r\n", 0},
		"interim only":     {"HTTP/1.1 100 Continue\r\n\r\n", 0},
		"long line":        {"HTTP/1.1 200 " + strings.Repeat("a", answerLine) + "\r\n", 0},
		"interim for ever": {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxAnswer), 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readStatus(strings.NewReader(tt.answer))
			if got != tt.want || (err == nil) != (tt.want > 0) {
				t.Errorf("status %d, error %v, want %d", got, err, tt.want)
			}
		})
	}
}

// FuzzReadStatus: no answer panics or is read without bound, and a status is one.
func FuzzReadStatus(f *testing.F) {
	for _, s := range []string{"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404\n", "HTTP/1.1 1", "\n\n\n", "HTTP/1.1 101 \r\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.NewReader(bytes.Repeat(b, 1+maxAnswer/max(1, len(b))))
		size := in.Len()
		status, err := readStatus(in)
		if read := size - in.Len(); read > maxAnswer {
			t.Errorf("%d bytes were read", read)
		}
		if (err == nil) != (status >= 200 && status <= 599) {
			t.Errorf("status %d, error %v", status, err)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Error(fmt.Sprint("error of ", len(err.Error()), " bytes"))
		}
	})
}
