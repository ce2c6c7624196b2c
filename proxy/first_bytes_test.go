package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// helloFor is the ClientHello that crypto/tls sends for a name.
func helloFor(t testing.TB, name string) []byte {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
		close(done)
	}()
	b := make([]byte, 32<<10)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	<-done
	return b[:n]
}

// checkRefused checks that a client was reset for a reason, and that no target was dialled for it.
// The client is nil where the reset came while it was connecting.
func checkRefused(t *testing.T, w *world, client *net.TCPConn, reason policy.Reason) {
	t.Helper()
	if client != nil {
		if b, err := io.ReadAll(client); len(b) > 0 || err == nil && !wasReset(client) {
			t.Errorf("the client read %q, error %v", b, err)
		}
	}
	eventually(t, "the line of the flow", func() bool { return len(w.log.lines("flow refused")) == 1 })
	if line := w.log.lines("flow refused")[0]; !strings.Contains(line, "reason="+string(reason)+" ") {
		t.Errorf("want %s: %s", reason, line)
	}
	if w.metric(t, "postern_proxy_refused_total", string(reason)) != 1 {
		t.Error("not counted once")
	}
	if w.dials(t) != 0 {
		t.Error("a target was dialled")
	}
}

func TestPinnedRefuses(t *testing.T) {
	t.Parallel()
	hello := helloFor(t, "allowed.example")
	tests := []struct {
		name   string
		reason policy.Reason
		send   func(*net.TCPConn)
	}{
		{"X01 no name", policy.NoName, func(c *net.TCPConn) { c.Write(helloFor(t, "")) }},
		{"X02 other name", policy.NameDenied, func(c *net.TCPConn) { c.Write(helloFor(t, "other.example")) }},
		{"X09 other name over two records", policy.NameDenied, func(c *net.TCPConn) {
			b := helloFor(t, "other.example")
			at := 5 + bytes.Index(b[5:], []byte("other")) + 2
			first, second := b[5:at], b[at:]
			c.Write([]byte{22, 3, 1, byte(len(first) >> 8), byte(len(first))})
			c.Write(first)
			c.Write([]byte{22, 3, 1, byte(len(second) >> 8), byte(len(second))})
			c.Write(second)
		}},
		{"X10 large", policy.TooLarge, func(c *net.TCPConn) { c.Write([]byte{22, 3, 1, 0x40, 0, 1, 0, 0x42, 0x68}) }},
		{"X15 PROXY header", policy.NoTLS, func(c *net.TCPConn) { io.WriteString(c, "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n") }},
		{"X16 silence", policy.Timeout, func(*net.TCPConn) {}},
		{"X17 HTTP", policy.NoTLS, func(c *net.TCPConn) { io.WriteString(c, "GET / HTTP/1.0\r\n\r\n") }},
		{"X23 trickle", policy.Timeout, func(c *net.TCPConn) {
			for i := range hello[:10] {
				c.Write(hello[i : i+1])
				time.Sleep(20 * time.Millisecond)
			}
		}},
		{"half a hello", policy.Truncated, func(c *net.TCPConn) {
			c.Write(hello[:100])
			c.CloseWrite()
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := newTarget(t)
			w := newWorld(t, Settings{HelloTimeout: 400 * time.Millisecond},
				service("svc", 7001, g.addr(), pinned), endpoint("e", "svc", nextAddr(t)))
			c := dial(t, w.first())
			test.send(c)
			checkRefused(t, w, c, test.reason)
			var lines []string
			eventually(t, "its line", func() bool {
				lines = w.log.lines("flow refused")
				return len(lines) == 1
			})
			if !strings.Contains(lines[0], "verdict="+string(test.reason)) || strings.Contains(lines[0], `rule="network`) {
				t.Errorf("the line contradicts itself: %s", lines[0])
			}
		})
	}
}

func TestPinnedAllows(t *testing.T) {
	t.Parallel()
	hello := helloFor(t, "allowed.example")
	early := append(bytes.Clone(hello), 23, 3, 3, 0, 5, 'e', 'a', 'r', 'l', 'y')
	tests := []struct {
		name string
		want []byte
		send func(*net.TCPConn)
	}{
		{"whole", hello, func(c *net.TCPConn) { c.Write(hello) }},
		{"X08 byte by byte", hello, func(c *net.TCPConn) {
			for i := range hello {
				c.Write(hello[i : i+1])
			}
		}},
		{"X11 two segments", hello, func(c *net.TCPConn) {
			c.Write(hello[:1000])
			time.Sleep(200 * time.Millisecond)
			c.Write(hello[1000:])
		}},
		{"X14 early data", early, func(c *net.TCPConn) { c.Write(early) }},
		{"X04 upper case", helloFor(t, "ALLOWED.example"), func(c *net.TCPConn) { c.Write(helloFor(t, "ALLOWED.example")) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := newTarget(t)
			w := newWorld(t, Settings{}, service("svc", 7001, g.addr(), pinned), endpoint("e", "svc", nextAddr(t)))
			c := dial(t, w.first())
			test.send(c)
			far, first := g.next()
			// Random fields differ between two hellos; the length and the first byte don't.
			got := make([]byte, min(len(test.want), len(hello))-1)
			if _, err := io.ReadFull(far, got); err != nil || first != 22 {
				t.Fatalf("first byte %d, error %v", first, err)
			}
			io.WriteString(far, "server hello")
			if _, err := io.ReadFull(c, make([]byte, 12)); err != nil {
				t.Fatal(err)
			}
			// Early data waits for the target's first message.
			rest := make([]byte, len(test.want)-1-len(got))
			if _, err := io.ReadFull(far, rest); err != nil {
				t.Fatal(err)
			}
			if test.name != "X04 upper case" && !bytes.Equal(append(got, rest...), test.want[1:]) {
				t.Error("the bytes were changed")
			}
		})
	}
}

// X25: what isn't allowed is reset without a dial, and looks the same from outside.
func TestRefusedBeforeDial(t *testing.T) {
	tests := []struct {
		name   string
		reason policy.Reason
		setup  func(*world)
	}{
		{"X25 source not listed", policy.SourceDenied, func(w *world) { w.swap(endpoint("e", "svc", w.host(), "192.0.2.0/24")) }},
		{"X25 pending", policy.NotApproved, func(w *world) {
			at := w.host()
			w.swap(link.DeleteEndpoint{ID: "e"}, service("svc", 7001, netip.MustParseAddrPort("127.0.0.1:1"), func(s *link.Service) { s.AutoApprove = nil }),
				endpoint("e", "svc", at))
		}},
		{"X25 rejected", policy.NotApproved, func(w *world) { w.swap(revocations["reject"](w)...) }},
		{"X25 disconnected", policy.NotApproved, func(w *world) { w.swap(revocations["remove"](w)...) }},
		{"X25 suspended", policy.Suspended, func(w *world) { w.swap(revocations["suspend"](w)...) }},
		{"X25 not assigned", policy.NoEndpoint, func(w *world) { w.swap(revocations["delete endpoint"](w)...) }},
		{"no snapshot", policy.PolicyError, func(w *world) { w.now.Store(nil) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newTarget(t)
			w := newWorld(t, Settings{}, service("svc", 7001, g.addr()), endpoint("e", "svc", nextAddr(t)))
			at := w.first()
			test.setup(w) // the proxy isn't told, so that it still listens
			// The reset may come while the client still connects.
			var client *net.TCPConn
			if c, err := net.DialTimeout("tcp", at, patience); err == nil {
				client = c.(*net.TCPConn)
				defer client.Close()
			} else if !isResetError(err) {
				t.Fatal(err)
			}
			checkRefused(t, w, client, test.reason)
		})
	}
}

// P19, X15: one header, ours, in front of what the client sends, be that a header or not.
func TestHeaderOnTheWire(t *testing.T) {
	for _, kind := range []link.ProxyProtocol{link.ProxyV1, link.ProxyV2, link.ProxyAzure, link.ProxyAWS, link.ProxyGCP} {
		for _, payload := range []string{"payload", "PROXY TCP4 192.0.2.66 192.0.2.67 1 2\r\n"} {
			t.Run(string(kind)+" "+payload[:5], func(t *testing.T) {
				g := newTarget(t)
				w := newWorld(t, Settings{}, service("svc", 7001, g.addr(), func(s *link.Service) { s.ProxyProtocol = kind }),
					endpoint("e", "svc", nextAddr(t)))
				c := dial(t, w.first())
				io.WriteString(c, payload)
				c.CloseWrite()
				far, h, rest := g.header()
				source, dest, _ := h.TCPAddrs()
				if source.String() != c.LocalAddr().String() || dest.String() != c.RemoteAddr().String() {
					t.Errorf("from %v to %v", source, dest)
				}
				if got, err := io.ReadAll(rest); string(got) != payload || err != nil {
					t.Errorf("payload %q, error %v", got, err)
				}
				if kind == link.ProxyAzure {
					tlvs, _ := h.TLVs()
					if id, ok := tlvparse.FindAzurePrivateEndpointLinkID(tlvs); !ok || link.LinkID(id) != w.connection("e").LinkID {
						t.Errorf("link ID %x", id)
					}
				}
				far.Close()
			})
		}
	}
}

// A server that speaks first gets the header at once, without a byte of the client.
func TestServerFirst(t *testing.T) {
	for _, kind := range []link.ProxyProtocol{link.ProxyOff, link.ProxyV2} {
		t.Run(string(kind), func(t *testing.T) {
			addr := serve(t, func(c *net.TCPConn) {
				io.WriteString(c, "220 ready\r\n")
				c.CloseWrite()
				io.Copy(io.Discard, c)
			})
			w := newWorld(t, Settings{}, service("svc", 7001, addr, func(s *link.Service) { s.ProxyProtocol = kind }),
				endpoint("e", "svc", nextAddr(t)))
			got, err := io.ReadAll(dial(t, w.first()))
			if string(got) != "220 ready\r\n" || err != nil {
				t.Errorf("%q, error %v", got, err)
			}
		})
	}
}

// X37: a service without PROXY headers never receives one from a client.
func TestGuard(t *testing.T) {
	const v2 = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
	for name, text := range map[string]string{
		"v1": "PROXY TCP4 192.0.2.66 192.0.2.67 1 2\r\nx", "v1 unknown": "PROXY UNKNOWN\r\nx", "v2": v2 + "\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02x",
	} {
		for _, pieces := range []bool{false, true} {
			t.Run("X37 "+name, func(t *testing.T) {
				g := newTarget(t)
				w := newWorld(t, Settings{}, service("svc", 7001, g.addr()), endpoint("e", "svc", nextAddr(t)))
				c := dial(t, w.first())
				// The target is connected before the client says a word.
				eventually(t, "the flow is connected", func() bool { return w.dials(t) == 1 })
				size := len(text)
				if pieces {
					size = 1
				}
				var err error
				for rest := text; err == nil && len(rest) > 0; rest = rest[size:] {
					_, err = io.WriteString(c, rest[:size])
				}
				if err == nil && !isReset(c) || err != nil && !isResetError(err) {
					t.Error("not reset")
				}
				eventually(t, "the line of the flow", func() bool { return len(w.log.lines("flow ended", "reason=malformed")) == 1 })
				w.proxy.Close()
				g.l.Close()
				for far := range g.conns {
					if b, _ := io.ReadAll(far); len(b) > 0 {
						t.Errorf("the target received %q", b)
					}
					far.Close()
				}
			})
		}
	}
	for name, text := range map[string]string{"X37 like v1": "PROX", "X37 like v2": "\r\n\r\n\x00\r\nQUIT", "X37 a line": "\r\n", "empty": ""} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Settings{}, service("svc", 7001, echo(t)), endpoint("e", "svc", nextAddr(t)))
			c := dial(t, w.first())
			io.WriteString(c, text)
			c.CloseWrite()
			if got, err := io.ReadAll(c); string(got) != text || err != nil {
				t.Errorf("echo %q, error %v", got, err)
			}
		})
	}
}

// P20: a header is read from the peers that send them, and is mandatory for them.
func TestInboundHeader(t *testing.T) {
	peers := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	hello := helloFor(t, "allowed.example")
	t.Run("source and destination count", func(t *testing.T) {
		g := newTarget(t)
		w := newWorld(t, Settings{InboundHeaders: peers},
			service("svc", 7001, g.addr(), pinned, func(s *link.Service) { s.ProxyProtocol = link.ProxyV2 }),
			endpoint("e", "svc", nextAddr(t), "127.9.9.9/32"))
		// Another endpoint, of the same port, is where the peer connects to.
		w.apply(endpoint("front", "svc", nextAddr(t)))
		at := w.now.Load().Endpoint("front").Address
		c := dial(t, netip.AddrPortFrom(at, 7001).String())
		// X22: a mapped source is the IPv4 one.
		h := proxyproto.Header{Version: 2, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv6,
			SourceAddr:      &net.TCPAddr{IP: net.ParseIP("::ffff:127.9.9.9"), Port: 99},
			DestinationAddr: &net.TCPAddr{IP: net.ParseIP("::ffff:" + w.host()), Port: 7001}}
		b, err := h.Format()
		if err != nil {
			t.Fatal(err)
		}
		c.Write(append(b, hello...))
		_, got, _ := g.header()
		source, dest, _ := got.TCPAddrs()
		if source.String() != "127.9.9.9:99" || dest.String() != w.first() {
			t.Errorf("from %v to %v", source, dest)
		}
	})
	for _, test := range []struct {
		name   string
		reason policy.Reason
		send   string
	}{
		{"P20 missing", policy.Malformed, "GET / HTTP/1.0\r\n\r\n"},
		{"P20 malformed v1", policy.Malformed, "PROXY TCP4 nonsense\r\n"},
		{"P20 malformed v2", policy.Malformed, "\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x00"},
		{"P20 source not allowed", policy.SourceDenied, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"},
		{"P20 of UDP", policy.Malformed, "\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newTarget(t)
			w := newWorld(t, Settings{InboundHeaders: peers}, service("svc", 7001, g.addr()), endpoint("e", "svc", nextAddr(t)))
			c := dial(t, w.first())
			io.WriteString(c, test.send)
			checkRefused(t, w, c, test.reason)
		})
	}
	t.Run("P20 truncated", func(t *testing.T) {
		g := newTarget(t)
		w := newWorld(t, Settings{InboundHeaders: peers}, service("svc", 7001, g.addr()), endpoint("e", "svc", nextAddr(t)))
		c := dial(t, w.first())
		io.WriteString(c, "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02")
		c.CloseWrite()
		io.Copy(io.Discard, c)
		eventually(t, "the line of the flow", func() bool { return len(w.log.lines("flow refused")) == 1 })
		if w.dials(t) != 0 {
			t.Error("a target was dialled")
		}
	})
	t.Run("P20 peer not listed", func(t *testing.T) {
		g := newTarget(t)
		w := newWorld(t, Settings{InboundHeaders: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
			service("svc", 7001, g.addr()), endpoint("e", "svc", nextAddr(t)))
		c := dial(t, w.first())
		io.WriteString(c, "PROXY TCP4 127.0.0.9 127.77.0.1 1 2\r\n")
		if !isReset(c) {
			t.Error("not reset")
		}
	})
}

// P20: where a header of a peer that isn't listed is there already, nothing is dialled. A client that
// connects before the listener is accepted on has sent it for sure.
func TestStrangersHeaderBeforeDial(t *testing.T) {
	w := newWorld(t, Settings{})
	w.swap(service("svc", 7001, newTarget(t).addr()), endpoint("e", "svc", nextAddr(t)))
	step, err := w.proxy.Prepare(w.now.Load(), Settings{InboundHeaders: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, w.first())
	io.WriteString(c, "PROXY TCP4 127.0.0.9 127.77.0.1 1 2\r\n")
	step.Commit()
	checkRefused(t, w, c, policy.Malformed)
}

// What a stranger has sent by the time it is looked at arrives whole, however much that is.
func TestStrangersEarlyData(t *testing.T) {
	g := newTarget(t)
	w := newWorld(t, Settings{})
	w.swap(service("svc", 7001, g.addr(), pinned), endpoint("e", "svc", nextAddr(t)))
	step, err := w.proxy.Prepare(w.now.Load(), Settings{InboundHeaders: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	sent := append(helloFor(t, "allowed.example"), random(30<<10)...)
	c := dial(t, w.first())
	c.Write(sent)
	c.CloseWrite()
	step.Commit()
	far, first := g.next()
	io.WriteString(far, "\x16\x03\x03\x00\x04\x02") // what is behind the hello waits for as much as tells what it is
	io.WriteString(far, "\x00\x00\x40\x03\x03\x00")
	rest, err := io.ReadAll(far)
	if got := append([]byte{first}, rest...); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d, error %v", len(got), len(sent), err)
	}
}

// header returns the next connection that isn't a probe, and its PROXY header.
func (g *target) header() (*net.TCPConn, *proxyproto.Header, io.Reader) {
	g.t.Helper()
	for {
		c, first := g.next()
		r := bufio.NewReader(io.MultiReader(bytes.NewReader([]byte{first}), c))
		h, err := proxyproto.Read(r)
		if err != nil {
			g.t.Fatalf("no header: %v", err)
		}
		if h.Command.IsProxy() {
			return c, h, r
		}
		c.Close()
	}
}
