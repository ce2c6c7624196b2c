package rawhello

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
)

// Types of handshake messages (RFC 8446 section 4, RFC 5246 section 7.4).
const (
	typeServerHello         byte = 2
	typeNewTicket           byte = 4
	typeEncryptedExtensions byte = 8
	typeCertificate         byte = 11
	typeServerKey           byte = 12
	typeCertificateRequest  byte = 13
	typeHelloDone           byte = 14
	typeCertificateVerify   byte = 15
	typeClientKey           byte = 16
	typeFinished            byte = 20
	typeKeyUpdate           byte = 24
	typeMessageHash         byte = 254
)

// retryRandom is the random of a ServerHello that is a HelloRetryRequest (RFC 8446 section 4.1.3).
var retryRandom = sha256.Sum256([]byte("HelloRetryRequest"))

// Config is one handshake.
type Config struct {
	// Hello is the first ClientHello.
	Hello *Hello
	// Second is called when the server asks for a second hello, with what it would be by RFC 8446 section 4.1.2. What
	// it returns is sent. Nil sends it as it is.
	Second func(*Hello) *Hello
	// Records and Segments cut the first hello as [Records] and [Write] do, SecondRecords and SecondSegments the second one.
	Records, Segments             []int
	SecondRecords, SecondSegments []int
}

// State is what was seen of a handshake.
type State struct {
	Version uint16 // zero before the ServerHello
	Suite   uint16
	Group   uint16 // of TLS 1.3's key exchange; of a HelloRetryRequest the group asked for
	// Retried: the server asked for a second hello.
	Retried bool
	// Resumed: the server took the session of TLS 1.2 that it was shown.
	Resumed bool
	ALPN    string
	// Certificates is the chain that the server presents, in DER and its order, as far as it could be parsed. It is
	// empty when a session was resumed.
	Certificates []*x509.Certificate
	// RetryConfigs: the server sent configurations of ECH, which who has keys for it answers GREASE with
	// (RFC 9849 section 7.1).
	RetryConfigs bool
}

// Handshake sends a hello and goes on until application data can be exchanged. The caller sets the deadline of
// conn and closes it. With an error the Conn is there too, for the state that was reached; the error is an [Alert]
// where the server sent one.
func Handshake(conn net.Conn, cfg Config) (*Conn, error) {
	c := &Conn{conn: conn}
	first := cfg.Hello.Message()
	if err := Write(conn, Records(first, cfg.Records...), cfg.Segments...); err != nil {
		return c, err
	}
	return c, c.answer(cfg, first)
}

// answer reads what the server says to a hello that was sent, and goes on by its version.
func (c *Conn) answer(cfg Config, transcript []byte) error {
	h := cfg.Hello
	s, whole, err := c.serverHello()
	if err != nil {
		return err
	}
	if s.retry() {
		if h, transcript, err = c.retry(cfg, s, transcript, whole); err != nil {
			return err
		}
		if s, whole, err = c.serverHello(); err != nil {
			return err
		}
		if s.retry() {
			return errors.New("the server asks for a third hello")
		}
	}
	transcript = append(transcript, whole...)
	c.state.Version, c.state.Suite = s.version, s.suite
	if c.suite = suites[s.suite]; c.suite == nil || c.suite.tls13 != (s.version == TLS13) {
		return fmt.Errorf("the server chose suite %04x of version %04x, which this client doesn't know", s.suite, s.version)
	}
	switch s.version {
	case TLS13:
		return c.handshake13(h, s, transcript)
	case TLS12:
		return c.handshake12(h, s, transcript)
	}
	return fmt.Errorf("the server chose version %04x", s.version)
}

// retry sends the second hello, and returns it with the transcript so far.
func (c *Conn) retry(cfg Config, s *serverHello, transcript, whole []byte) (*Hello, []byte, error) {
	suite := suites[s.suite]
	c.state.Retried, c.state.Suite = true, s.suite
	if suite == nil || !suite.tls13 {
		return nil, nil, fmt.Errorf("the server asks for a second hello with suite %04x", s.suite)
	}
	h := cfg.Hello.Clone()
	if share := s.extensions[ExtKeyShare]; len(share) == 2 {
		c.state.Group = binary.BigEndian.Uint16(share)
		h.Share(c.state.Group)
	}
	if cookie, ok := s.extensions[ExtCookie]; ok {
		h.Add(Extension{ExtCookie, cookie})
	}
	if cfg.Second != nil {
		h = cfg.Second(h)
	}
	again := h.Message()
	// The first hello stands in the transcript as its digest (RFC 8446 section 4.4.1).
	transcript = slices.Concat(message(typeMessageHash, suite.sum(transcript)), whole, again)
	return h, transcript, Write(c.conn, records(3, again, cfg.SecondRecords), cfg.SecondSegments...)
}

// State returns what was seen of the handshake.
func (c *Conn) State() State { return c.state }

// serverHello is a ServerHello or HelloRetryRequest.
type serverHello struct {
	version    uint16 // the one that was chosen
	random     []byte
	sessionID  []byte
	suite      uint16
	extensions map[uint16][]byte
}

func (s *serverHello) retry() bool { return bytes.Equal(s.random, retryRandom[:]) }

var errShort = errors.New("a message that is too short")

// serverHello reads the server's first message.
func (c *Conn) serverHello() (*serverHello, []byte, error) {
	kind, whole, err := c.next()
	if err != nil {
		return nil, nil, err
	}
	if kind != typeServerHello {
		return nil, nil, fmt.Errorf("a message of type %d instead of a ServerHello", kind)
	}
	s, err := parseServerHello(whole[4:])
	return s, whole, err
}

func parseServerHello(body []byte) (*serverHello, error) {
	r := reader{b: body}
	s := &serverHello{version: r.uint16(), random: r.take(32), sessionID: r.vector8(), suite: r.uint16()}
	r.take(1) // compression
	if r.failed {
		return nil, errShort
	}
	if s.extensions = r.extensions(); r.failed {
		return nil, errShort
	}
	if v := s.extensions[ExtVersions]; len(v) == 2 {
		s.version = binary.BigEndian.Uint16(v)
	}
	return s, nil
}

// reader takes fields from the front of a message. Once one is missing, all are.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || len(r.b) < n {
		r.failed = true
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) number(bytes int) (n int) {
	for _, b := range r.take(bytes) {
		n = n<<8 | int(b)
	}
	return n
}

func (r *reader) uint16() uint16   { return uint16(r.number(2)) }
func (r *reader) vector8() []byte  { return r.take(r.number(1)) }
func (r *reader) vector16() []byte { return r.take(r.number(2)) }
func (r *reader) vector24() []byte { return r.take(r.number(3)) }

// extensions reads a block of extensions, which may be missing at the end of a message. Of doubled ones the
// last one counts.
func (r *reader) extensions() map[uint16][]byte {
	all := map[uint16][]byte{}
	if r.failed || len(r.b) == 0 {
		return all
	}
	in := reader{b: r.vector16()}
	for len(in.b) > 0 && !in.failed {
		kind := in.uint16()
		all[kind] = in.vector16()
	}
	r.failed = r.failed || in.failed
	return all
}

// certificates keeps what of a chain can be parsed. In TLS 1.3 each has extensions (RFC 8446 section 4.4.2).
func (c *Conn) certificates(body []byte, tls13 bool) error {
	r := reader{b: body}
	if tls13 {
		r.vector8() // context
	}
	list := reader{b: r.vector24()}
	c.state.Certificates = nil
	for len(list.b) > 0 && !list.failed && !r.failed {
		der := list.vector24()
		if tls13 {
			list.vector16()
		}
		if cert, err := x509.ParseCertificate(der); err == nil {
			c.state.Certificates = append(c.state.Certificates, cert)
		}
	}
	if r.failed || list.failed {
		return errShort
	}
	return nil
}

// protocol returns the one protocol of an ALPN extension.
func protocol(body []byte) string {
	r := reader{b: body}
	list := reader{b: r.vector16()}
	return string(list.vector8())
}
