package integration

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/pires/go-proxyproto"

	"github.com/postern-link/postern/policy/hello/rawhello"
)

// attempt is one thing that a client may try to get another name served than the one that it may reach.
type attempt struct {
	name string // with the number of the hostile case
	// hello is the handshake. Raw is sent instead where it is nil, and what ends the connection is awaited.
	hello func(n names) rawhello.Config
	raw   func(n names) string
	// reason is what a node refuses it for; empty, it lets the handshake complete with the allowed name.
	reason string
	// retried: the front end sees the first hello, and asks for another one.
	retried bool
	// behind is sent with the first hello at once. Where it is a second hello, the one of the handshake isn't sent again.
	behind func(cfg rawhello.Config) []byte
	// mlkem: the hello is that of crypto/tls, with a key share that needs two segments.
	mlkem bool
}

// names are those of a front end: a client may reach allowed, and wants other, which is also the default.
type names struct{ allowed, other string }

// one makes a handshake of a hello.
func one(f func(n names) *rawhello.Hello) func(names) rawhello.Config {
	return func(n names) rawhello.Config { return rawhello.Config{Hello: f(n)} }
}

// named makes the handshake of a hello with names made from the two.
func named(f func(n names) []string) func(names) rawhello.Config {
	return one(func(n names) *rawhello.Hello { return rawhello.New(f(n)...) })
}

// text makes the handshake of a hello with one name, {A} in it being the allowed one and {B} the other.
func text(s string) func(names) rawhello.Config {
	return named(func(n names) []string {
		return []string{strings.NewReplacer("{A}", n.allowed, "{B}", n.other).Replace(s)}
	})
}

// changed makes a handshake with an allowed first hello without a key share, so that another one is asked for, and a change of that.
func changed(f func(n names, h *rawhello.Hello) *rawhello.Hello) func(names) rawhello.Config {
	return func(n names) rawhello.Config {
		return rawhello.Config{Hello: rawhello.New(n.allowed).Share(), Second: func(h *rawhello.Hello) *rawhello.Hello { return f(n, h) }}
	}
}

// list makes the handshake of a hello with a server name list.
func list(f func(n names) []rawhello.Name) func(names) rawhello.Config {
	return one(func(n names) *rawhello.Hello { return rawhello.New(n.allowed).Set(rawhello.NameList(f(n)...)) })
}

// cut makes the handshake of a plain hello whose message is cut.
func cut(name func(names) string, records func(message []byte, name string) []int, segments bool) func(names) rawhello.Config {
	return func(n names) rawhello.Config {
		h := rawhello.New(name(n))
		cfg := rawhello.Config{Hello: h}
		if m := h.Message(); segments {
			cfg.Segments = records(rawhello.Records(m), name(n))
		} else {
			cfg.Records = records(m, name(n))
		}
		return cfg
	}
}

func everyByte(message []byte, _ string) []int { return rawhello.Every(1, message) }

func inName(message []byte, name string) []int {
	return []int{strings.Index(string(message), name) + len(name)/2}
}

func allowed(n names) string { return n.allowed }
func other(n names) string   { return n.other }

// early makes the handshake of a hello that announces early data.
func early(name func(names) string) func(names) rawhello.Config {
	return one(func(n names) *rawhello.Hello {
		return rawhello.New(name(n)).Add(rawhello.Extension{Type: rawhello.ExtEarlyData})
	})
}

// earlyData is a record that nobody can decrypt, which a server passes over.
func earlyData(rawhello.Config) []byte {
	return append([]byte{23, 3, 3, 0, 64}, bytes.Repeat([]byte{0xa5}, 64)...)
}

// hasty makes a handshake whose second hello, for the other name, is made before it is asked for.
func hasty(n names) rawhello.Config {
	first := rawhello.New(n.allowed).Share()
	second := first.Clone().Share(rawhello.X25519).Set(rawhello.Names(n.other))
	return rawhello.Config{Hello: first, Second: func(*rawhello.Hello) *rawhello.Hello { return second }}
}

func secondAtOnce(cfg rawhello.Config) []byte { return rawhello.Records(cfg.Second(nil).Message()) }

const typePadding = 21 // RFC 7685

func large(name string) *rawhello.Hello {
	return rawhello.New(name).Add(rawhello.Extension{Type: typePadding, Body: make([]byte, 17<<10)})
}

// proxied puts a header of the client's own in front of an allowed hello.
func proxied(version byte) func(names) string {
	return func(n names) string {
		h := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:1")), net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.2:443")))
		b, err := h.Format()
		if err != nil {
			panic(err) // of addresses that are written here
		}
		return string(b) + string(rawhello.Records(rawhello.New(n.allowed).Message()))
	}
}

// attempts are all of them, in the order of the table in docs/security.md.
var attempts = []attempt{
	{name: "the allowed name", hello: text("{A}")},
	{name: "X01 no name", hello: named(func(names) []string { return nil }), reason: "no_name"},
	{name: "X01 empty list of names", hello: list(func(names) []rawhello.Name { return nil }), reason: "malformed"},
	{name: "X01 empty name", hello: text(""), reason: "malformed"},
	{name: "X02 the other name", hello: text("{B}"), reason: "name_denied"},
	{name: "X03 look-alike, suffix", hello: text("{A}.evil.test"), reason: "name_denied"},
	{name: "X03 look-alike, prefix", hello: text("evil{A}"), reason: "name_denied"},
	{name: "X03 look-alike, label in front", hello: text("x.{A}"), reason: "name_denied"},
	{name: "X04 allowed name in upper case", hello: named(func(n names) []string { return []string{strings.ToUpper(n.allowed)} })},
	{name: "X05 allowed name with trailing dot", hello: text("{A}."), reason: "bad_name"},
	{name: "X05 other name with trailing dot", hello: text("{B}."), reason: "bad_name"},
	{name: "X06 allowed name with port", hello: text("{A}:443"), reason: "bad_name"},
	{name: "X06 other name with port", hello: text("{B}:443"), reason: "bad_name"},
	{name: "X06 NUL behind the allowed name", hello: text("{A}\x00.{B}"), reason: "bad_name"},
	{name: "X06 UTF-8", hello: text("\u00e4.{A}"), reason: "bad_name"},
	{name: "X06 300 bytes", hello: text(strings.Repeat("long.", 56) + "{A}"), reason: "bad_name"},
	{name: "X07 two names, allowed first", hello: named(func(n names) []string { return []string{n.allowed, n.other} }), reason: "malformed"},
	{name: "X07 two names, other first", hello: named(func(n names) []string { return []string{n.other, n.allowed} }), reason: "malformed"},
	{name: "X07 two extensions, allowed first", hello: one(func(n names) *rawhello.Hello { return rawhello.New(n.allowed).Add(rawhello.Names(n.other)) }), reason: "malformed"},
	{name: "X07 two extensions, other first", hello: one(func(n names) *rawhello.Hello { return rawhello.New(n.other).Add(rawhello.Names(n.allowed)) }), reason: "malformed"},
	{name: "X07 name of another type first", hello: list(func(n names) []rawhello.Name {
		return []rawhello.Name{{Type: 7, Name: n.allowed}, {Type: 0, Name: n.other}}
	}), reason: "malformed"},
	{name: "X08 allowed, in segments of a byte", hello: cut(allowed, everyByte, true)},
	{name: "X08 other, in segments of a byte", hello: cut(other, everyByte, true), reason: "name_denied"},
	{name: "X09 allowed, in records of a byte", hello: cut(allowed, everyByte, false)},
	{name: "X09 other, in records of a byte", hello: cut(other, everyByte, false), reason: "name_denied"},
	{name: "X09 allowed, two records, cut in the name", hello: cut(allowed, inName, false)},
	{name: "X09 other, two records, cut in the name", hello: cut(other, inName, false), reason: "name_denied"},
	{name: "X10 other, 17 KB", hello: one(func(n names) *rawhello.Hello { return large(n.other) }), reason: "too_large"},
	{name: "X10 allowed, 17 KB", hello: one(func(n names) *rawhello.Hello { return large(n.allowed) }), reason: "too_large"},
	{name: "X11 allowed, ML-KEM in two segments", mlkem: true},
	{name: "X12 allowed, ECH", hello: one(func(n names) *rawhello.Hello { return rawhello.New(n.allowed).Add(rawhello.ECH()) }), reason: "ech_denied"},
	{name: "X14 allowed, early data behind it", hello: early(allowed), behind: earlyData},
	{name: "X14 other, early data behind it", hello: early(other), behind: earlyData, reason: "name_denied"},
	{name: "X13 second hello as the first", hello: changed(func(_ names, h *rawhello.Hello) *rawhello.Hello { return h }), retried: true},
	{name: "X13 second hello with the other name", hello: changed(func(n names, h *rawhello.Hello) *rawhello.Hello { return h.Set(rawhello.Names(n.other)) }), retried: true, reason: "hello_changed"},
	{name: "X13 second hello without a name", hello: changed(func(_ names, h *rawhello.Hello) *rawhello.Hello { return h.Drop(rawhello.ExtServerName) }), retried: true, reason: "no_name"},
	{name: "X13 second hello with ECH", hello: changed(func(_ names, h *rawhello.Hello) *rawhello.Hello { return h.Add(rawhello.ECH()) }), retried: true, reason: "hello_changed"},
	{name: "X13 second hello with the other name, before it is asked for", hello: hasty, behind: secondAtOnce, retried: true, reason: "hello_changed"},
	{name: "X17 HTTP in clear", raw: func(n names) string { return "GET / HTTP/1.1\r\nHost: " + n.other + "\r\nConnection: close\r\n\r\n" }, reason: "no_tls"},
	{name: "X37 PROXY v1 in front", raw: proxied(1), reason: "no_tls"},
	{name: "X37 PROXY v2 in front", raw: proxied(2), reason: "no_tls"},
}

// tried is what came of an attempt.
type tried struct {
	served string // the name in the certificate; empty where the handshake didn't complete
	told   string // the name that the server tells its application
	ended  string // how it ended otherwise
	first  []byte // the first hello, in its records
	behind []byte // what was sent with it
}

// try makes an attempt on a connection. What the front end speaks before and after the handshake it does too.
func (a *attempt) try(conn net.Conn, n names, s speech) tried {
	switch {
	case a.raw != nil:
		_, _ = io.WriteString(conn, a.raw(n)) // what is wrong shows in the read
		answer, err := io.ReadAll(conn)
		line, _, _ := strings.Cut(string(answer), "\r\n")
		if strings.HasPrefix(line, "HTTP/") {
			return tried{ended: line[len("HTTP/1.x "):]}
		}
		return tried{ended: ended(err)}
	case a.mlkem:
		first := &inSegments{Conn: conn, size: 1200}
		c := tls.Client(first, &tls.Config{ServerName: n.allowed, InsecureSkipVerify: true})
		if err := s.before(conn); err != nil {
			return tried{ended: ended(err)}
		}
		if err := c.Handshake(); err != nil {
			return tried{ended: ended(err)}
		}
		t := tried{served: c.ConnectionState().PeerCertificates[0].Subject.CommonName, first: first.sent}
		t.told, t.ended = s.after(c)
		return t
	}
	cfg := a.hello(n)
	t := tried{first: rawhello.Records(cfg.Hello.Message(), cfg.Records...)}
	if err := s.before(conn); err != nil {
		t.ended = ended(err)
		return t
	}
	if a.behind != nil {
		t.behind = a.behind(cfg)
		conn = &withMore{Conn: conn, more: t.behind, swallow: cfg.Second != nil}
	}
	c, err := rawhello.Handshake(conn, cfg)
	if err != nil {
		t.ended = ended(err)
		return t
	}
	if chain := c.State().Certificates; len(chain) > 0 {
		t.served = chain[0].Subject.CommonName
	}
	t.told, t.ended = s.after(c)
	return t
}

// ended is a word for how an attempt ended.
func ended(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "closed"
	}
	return ending(err)
}

// withMore writes more behind its first bytes, in the same segment, and may keep back its second bytes.
type withMore struct {
	net.Conn
	more    []byte
	swallow bool
	writes  int
}

func (c *withMore) Write(b []byte) (int, error) {
	c.writes++
	switch {
	case c.writes == 1:
		_, err := c.Conn.Write(slices.Concat(b, c.more))
		return len(b), err
	case c.writes == 2 && c.swallow:
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// inSegments writes its first bytes in two segments.
type inSegments struct {
	net.Conn
	size int
	sent []byte
}

func (c *inSegments) Write(b []byte) (int, error) {
	if c.sent != nil {
		return c.Conn.Write(b)
	}
	c.sent = slices.Clone(b)
	return len(b), rawhello.Write(c.Conn, b, c.size)
}
