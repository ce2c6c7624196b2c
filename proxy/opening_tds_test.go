package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/pires/go-proxyproto"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// tdsPacket is one packet that is the last of its message.
func tdsPacket(kind byte, body []byte) []byte {
	n := len(body) + 8
	return append([]byte{kind, 1, byte(n >> 8), byte(n), 0, 0, 1, 0}, body...)
}

// tdsPrelogin is a PRELOGIN that says e of encryption.
func tdsPrelogin(kind, e byte) []byte {
	return tdsPacket(kind, []byte{0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xff, 16, 0, 0, 1, 0, 0, e})
}

// wrapping is a connection whose TLS handshake is in packets, as both sides of TDS 7 have it. Each write is cut into
// packets of the given size.
type wrapping struct {
	net.Conn
	size int
	left int  // of the packet that is read
	bare bool // the handshake is over
}

func (w *wrapping) Read(b []byte) (int, error) {
	if w.bare {
		return w.Conn.Read(b)
	}
	if w.left == 0 {
		head := make([]byte, 8)
		if _, err := io.ReadFull(w.Conn, head); err != nil {
			return 0, err
		}
		w.left = int(head[2])<<8 + int(head[3]) - 8
	}
	n, err := w.Conn.Read(b[:min(len(b), w.left)])
	w.left -= n
	return n, err
}

func (w *wrapping) Write(b []byte) (int, error) {
	if w.bare {
		return w.Conn.Write(b)
	}
	for rest := b; len(rest) > 0; {
		n := min(w.size, len(rest))
		if _, err := w.Conn.Write(tdsPacket(0x12, rest[:n])); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(b), nil
}

// sqlServer speaks TDS 7 up to the login, or TDS 8 where a client begins with TLS; then it sends back what comes. The
// handshake is of TLS 1.2, whose last message is the server's, so that both sides know where the packets end.
func sqlServer(e byte, config *tls.Config, size int) func(net.Conn) {
	return func(c net.Conn) {
		first := make([]byte, 1)
		if _, err := io.ReadFull(c, first); err != nil {
			return
		}
		if first[0] == 22 {
			over(&begun{c, first}, config)
			return
		}
		io.ReadFull(c, make([]byte, len(tdsPrelogin(0x12, 1))-1))
		c.Write(tdsPrelogin(4, e))
		config = config.Clone()
		config.MaxVersion = tls.VersionTLS12
		w := &wrapping{Conn: c, size: size}
		s := tls.Server(w, config)
		if s.Handshake() == nil {
			w.bare = true
			io.Copy(s, s)
		}
	}
}

// begun is a connection of which some was read already.
type begun struct {
	net.Conn
	first []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}

// X21: PRELOGIN, then a hello in packets, cut in many ways; and TDS 8.
func TestTDS(t *testing.T) {
	for _, test := range []struct {
		name       string
		e          byte
		size, most int
	}{{"at once", 1, 4088, 1 << 20}, {"login only", 0, 4088, 1 << 20}, {"small packets", 3, 7, 1 << 20}, {"X28 in pieces", 1, 100, 3}} {
		t.Run(test.name, func(t *testing.T) {
			w := worldOf(t, link.PinTDS, newDatabase(t, sqlServer(test.e, serverTLS(), test.size)))
			c := sliced{dial(t, w.first()), test.most}
			c.Write(tdsPrelogin(0x12, test.e))
			if _, err := io.ReadFull(c, make([]byte, len(tdsPrelogin(4, 1)))); err != nil {
				t.Fatal(err)
			}
			wrapped := &wrapping{Conn: c, size: test.size}
			s := tls.Client(wrapped, clientTLS("allowed.example"))
			if err := s.Handshake(); err != nil {
				t.Fatal(err)
			}
			wrapped.bare = true
			talks(t, s)
		})
	}
	t.Run("X21 TDS 8", func(t *testing.T) {
		w := worldOf(t, link.PinTDS, newDatabase(t, sqlServer(1, retrying(), 4088)))
		talks(t, tls.Client(dial(t, w.first()), clientTLS("allowed.example")))
	})
}

// X21: of a denied client at most the PRELOGIN reaches the target.
func TestTDSRefuses(t *testing.T) {
	t.Parallel()
	good := tdsPrelogin(0x12, 1)
	for _, test := range []struct {
		name        string
		first, then []byte
		reason      policy.Reason
		received    []byte
	}{
		{"X21 denied name", good, tdsPacket(0x12, helloFor(t, "other.example")), policy.NameDenied, good},
		{"no name", good, tdsPacket(0x12, helloFor(t, "")), policy.NoName, good},
		{"login in clear after encryption was asked for", tdsPrelogin(0x12, 0), tdsPacket(0x10, make([]byte, 90)), policy.NoTLS, tdsPrelogin(0x12, 0)},
		{"TLS without packets", good, helloFor(t, "allowed.example"), policy.NoTLS, good},
		{"bytes behind the hello", good, tdsPacket(0x12, append(helloFor(t, "allowed.example"), 23, 3, 3, 0, 1, 0)), policy.Malformed, good},
		{"silence", good, nil, policy.Timeout, good},
		{"X21 TDS 8, denied name", helloFor(t, "other.example"), nil, policy.NameDenied, nil},
		{"no encryption", tdsPrelogin(0x12, 2), nil, policy.NoTLS, nil},
		{"login at once", tdsPacket(0x10, make([]byte, 90)), nil, policy.NoTLS, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t, sqlServer(1, serverTLS(), 4088))
			w := worldOf(t, link.PinTDS, d)
			c := dial(t, w.first())
			c.Write(test.first)
			if test.received != nil {
				io.ReadFull(c, make([]byte, len(tdsPrelogin(4, 1))))
				c.Write(test.then)
			}
			if !isReset(c) {
				t.Error("not reset")
			}
			ended(t, w, test.reason)
			if got := d.received(); got != string(test.received) {
				t.Errorf("the target received %q", got)
			}
			if len(w.log.lines("flow refused")) != 1 {
				t.Error("not counted as refused")
			}
		})
	}
	t.Run("a target that doesn't encrypt", func(t *testing.T) {
		w := worldOf(t, link.PinTDS, newDatabase(t, sqlServer(2, serverTLS(), 4088)))
		c := dial(t, w.first())
		c.Write(good)
		if got, _ := io.ReadAll(c); len(got) > 0 {
			t.Errorf("the client received %q", got)
		}
		ended(t, w, policy.NoTLS)
	})
}

// X13: a second hello in packets is judged as the first was.
func TestTDSSecondHello(t *testing.T) {
	retry := append([]byte{22, 3, 3, 0, 40, 2, 0, 0, 36, 3, 3},
		0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91,
		0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C, 0, 0, 0)
	for name, test := range map[string]struct {
		answer []byte // of the target
		second string
		reason policy.Reason
	}{
		"another name":              {tdsPacket(0x12, retry), "other.example", policy.HelloChanged},
		"another name, in a reply":  {tdsPacket(4, retry), "other.example", policy.HelloChanged},
		"the same name":             {tdsPacket(0x12, retry), "allowed.example", ""},
		"an answer without packets": {retry, "other.example", policy.HelloChanged},
	} {
		t.Run("X13 "+name, func(t *testing.T) {
			first := tdsPacket(0x12, helloFor(t, "allowed.example"))
			good := tdsPrelogin(0x12, 1)
			d := newDatabase(t, func(c net.Conn) {
				io.ReadFull(c, make([]byte, len(good)))
				c.Write(tdsPrelogin(4, 1))
				io.ReadFull(c, make([]byte, len(first)))
				c.Write(test.answer)
			})
			w := worldOf(t, link.PinTDS, d)
			c := dial(t, w.first())
			c.Write(good)
			io.ReadFull(c, make([]byte, len(tdsPrelogin(4, 1))))
			c.Write(first)
			if _, err := io.ReadFull(c, make([]byte, len(test.answer))); err != nil {
				t.Fatal(err)
			}
			second := tdsPacket(0x12, helloFor(t, test.second))
			c.Write(second)
			if test.reason == "" {
				eventually(t, "the second hello arrives", func() bool { return bytes.HasSuffix([]byte(d.received()), second) })
				return
			}
			if !isReset(c) {
				t.Error("not reset")
			}
			ended(t, w, test.reason)
			if got := d.received(); got != string(good)+string(first) {
				t.Errorf("the target received %q", got)
			}
		})
	}
}

// The PROXY header goes out before the name is known, and names none.
func TestHeaderBeforeTheName(t *testing.T) {
	g := newTarget(t)
	w := newWorld(t, Settings{}, service("svc", 7001, g.addr(), pinned, func(s *link.Service) { s.Pin, s.ProxyProtocol = link.PinTDS, link.ProxyAzure }),
		endpoint("e", "svc", nextAddr(t)))
	c := dial(t, w.first())
	c.Write(tdsPrelogin(0x12, 1))
	_, h, _ := g.header()
	tlvs, err := h.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range tlvs {
		if v.Type == proxyproto.PP2_TYPE_AUTHORITY {
			t.Errorf("authority %q", v.Value)
		}
	}
}
