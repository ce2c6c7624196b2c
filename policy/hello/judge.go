package hello

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// Extensions that matter here.
const (
	extServerName = 0      // RFC 6066, section 3
	extECH        = 0xfe0d // RFC 9849, section 5
)

// Judge judges one ClientHello message, header included. Of the result, Name and ECH are set. Errors are
// [*Error].
func Judge(message []byte) (Hello, error) {
	var w walked
	if !w.walk(message) {
		return Hello{}, refuse(policy.Malformed, "fields of the ClientHello don't fit its length")
	}
	if w.twice {
		return Hello{}, refuse(policy.Malformed, "an extension comes twice")
	}
	if !w.has(extServerName) {
		if _, err := parse(message); err != nil {
			return Hello{}, err
		}
		return Hello{}, refuse(policy.NoName, "no server name")
	}
	if w.name == nil {
		return Hello{}, refuse(policy.Malformed, "server name list isn't one host name")
	}
	name, err := canonical(w.name) // before crypto/tls, which refuses some of these as malformed
	if err != nil {
		return Hello{}, err
	}
	seen, err := parse(message)
	if err != nil {
		return Hello{}, err
	}
	if seen.ServerName != string(w.name) || !slices.Equal(seen.Extensions, w.extensions) {
		return Hello{}, refuse(policy.Malformed, "two parsers see two names")
	}
	return Hello{Name: name, ECH: w.has(extECH)}, nil
}

// canonical returns a server name as a link.Name. What ParseName would repair is refused here.
func canonical(b []byte) (link.Name, error) {
	s := string(b)
	if strings.HasSuffix(s, ".") {
		return "", refuse(policy.BadName, "trailing dot")
	}
	name, err := link.ParseName(s)
	if err != nil {
		return "", &Error{Reason: policy.BadName, Detail: "not a host name", Err: err}
	}
	return name, nil
}

var errSeen = errors.New("seen")

// judge is the server that parses: it ends each handshake when it has seen the hello. It is never changed.
var judge = &tls.Config{
	GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		i.Conn.(*onlyHello).seen = i
		return nil, errSeen
	},
}

// parse lets crypto/tls read the message, put into records of its own.
func parse(message []byte) (*tls.ClientHelloInfo, error) {
	c := &onlyHello{message: message}
	err := tls.Server(c, judge).Handshake()
	if c.seen == nil {
		return nil, &Error{Reason: policy.Malformed, Detail: "not a ClientHello", Err: err}
	}
	return c.seen, nil
}

// onlyHello is a connection on which a message comes, in records, and that nothing is ever written to.
type onlyHello struct {
	message []byte // what wasn't read yet, behind left
	header  [recordHeader]byte
	begun   int // bytes of header that were read; of the first one none at first
	left    int // bytes of the record whose header was read
	seen    *tls.ClientHelloInfo
}

// Read gives as much as there is room for: of a hello in one record, all of it.
func (c *onlyHello) Read(b []byte) (n int, err error) {
	for n < len(b) {
		if c.left == 0 {
			if c.begun == 0 {
				size := min(len(c.message), maxRecord)
				if size == 0 {
					break
				}
				c.header = [recordHeader]byte{recordHandshake, 3, 1, byte(size >> 8), byte(size)}
			}
			m := copy(b[n:], c.header[c.begun:])
			n, c.begun = n+m, c.begun+m
			if c.begun < recordHeader {
				break
			}
			c.begun, c.left = 0, min(len(c.message), maxRecord)
		}
		m := copy(b[n:], c.message[:c.left])
		n, c.left, c.message = n+m, c.left-m, c.message[m:]
	}
	if n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (*onlyHello) Write([]byte) (int, error)        { return 0, io.ErrClosedPipe }
func (*onlyHello) Close() error                     { return nil }
func (*onlyHello) LocalAddr() net.Addr              { return nil }
func (*onlyHello) RemoteAddr() net.Addr             { return nil }
func (*onlyHello) SetDeadline(time.Time) error      { return nil }
func (*onlyHello) SetReadDeadline(time.Time) error  { return nil }
func (*onlyHello) SetWriteDeadline(time.Time) error { return nil }

// walked is what a walk over a ClientHello finds.
type walked struct {
	extensions []uint16 // in order
	twice      bool     // one of them comes more than once
	name       []byte   // nil where the server name list isn't exactly one host name

	few [24]uint16 // room for the extensions of most hellos
}

func (w *walked) has(extension uint16) bool { return slices.Contains(w.extensions, extension) }

// walk goes over the fields of a ClientHello (RFC 8446, section 4.1.2), and reports whether they fit. It is
// no judge: it can only refuse what crypto/tls lets pass, and tell reasons apart.
func (w *walked) walk(message []byte) bool {
	w.extensions = w.few[:0]
	b := field(message)
	b.skip(messageHeader + 2 + 32) // version, random
	b.vector(1)                    // session ID
	b.vector(2)                    // cipher suites
	b.vector(1)                    // compression methods
	if b == nil {
		return false
	}
	if len(b) == 0 {
		return true // a hello of the time before extensions
	}
	list := b.vector(2)
	if b == nil || len(b) != 0 {
		return false
	}
	for len(list) > 0 {
		kind := list.uint16()
		body := list.vector(2)
		if list == nil {
			return false
		}
		w.twice = w.twice || w.has(kind)
		w.extensions = append(w.extensions, kind)
		if kind == extServerName {
			w.name = oneHostName(body)
		}
	}
	return true
}

// oneHostName returns the name in a server name extension, nil unless it is the only entry, of type
// host name, and not empty.
func oneHostName(body field) []byte {
	list := body.vector(2)
	if body == nil || len(body) != 0 || len(list) < 1 || list[0] != 0 {
		return nil
	}
	list.skip(1)
	name := list.vector(2)
	if list == nil || len(list) != 0 || len(name) == 0 {
		return nil
	}
	return name
}

// field is what is left of a message. It is nil after it was too short once, and stays nil.
type field []byte

func (f *field) skip(n int) field {
	if *f == nil || len(*f) < n {
		*f = nil
		return nil
	}
	head := (*f)[:n]
	*f = (*f)[n:]
	return head
}

func (f *field) uint16() uint16 {
	b := f.skip(2)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

// vector takes a length of the given number of bytes and as many bytes as it says.
func (f *field) vector(prefix int) field {
	n := 0
	for _, c := range f.skip(prefix) {
		n = n<<8 | int(c)
	}
	return f.skip(n)
}
