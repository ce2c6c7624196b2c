package hello

import (
	"bytes"
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

// Judge returns the server name of one ClientHello message, header included. Errors are [*Error].
func Judge(message []byte) (link.Name, error) {
	w, ok := walk(message)
	if !ok {
		return "", refuse(policy.Malformed, "fields of the ClientHello don't fit its length")
	}
	if slices.Contains(w.extensions, extECH) {
		return "", refuse(policy.ECHDenied, "encrypted ClientHello")
	}
	if w.twice {
		return "", refuse(policy.Malformed, "an extension comes twice")
	}
	if !slices.Contains(w.extensions, extServerName) {
		if _, err := parse(message); err != nil {
			return "", err
		}
		return "", refuse(policy.NoName, "no server name")
	}
	if w.name == nil {
		return "", refuse(policy.Malformed, "server name list isn't one host name")
	}
	name, err := canonical(w.name)
	if err != nil {
		return "", err
	}
	seen, err := parse(message)
	if err != nil {
		return "", err
	}
	if seen.ServerName != string(w.name) || !slices.Equal(seen.Extensions, w.extensions) {
		return "", refuse(policy.Malformed, "two parsers see two names")
	}
	return name, nil
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

// parse lets crypto/tls read the message, put into records of its own.
func parse(message []byte) (*tls.ClientHelloInfo, error) {
	var records bytes.Buffer
	for rest := message; len(rest) > 0; {
		n := min(len(rest), maxRecord)
		records.Write([]byte{recordHandshake, 3, 1, byte(n >> 8), byte(n)})
		records.Write(rest[:n])
		rest = rest[n:]
	}
	var seen *tls.ClientHelloInfo
	err := tls.Server(readOnly{&records}, &tls.Config{
		GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			seen = i
			return nil, errSeen
		},
	}).Handshake()
	if seen == nil {
		return nil, &Error{Reason: policy.Malformed, Detail: "not a ClientHello", Err: err}
	}
	return seen, nil
}

// readOnly is a connection that reads from memory, and that nothing is ever written to.
type readOnly struct{ r io.Reader }

func (c readOnly) Read(b []byte) (int, error)     { return c.r.Read(b) }
func (readOnly) Write([]byte) (int, error)        { return 0, io.ErrClosedPipe }
func (readOnly) Close() error                     { return nil }
func (readOnly) LocalAddr() net.Addr              { return nil }
func (readOnly) RemoteAddr() net.Addr             { return nil }
func (readOnly) SetDeadline(time.Time) error      { return nil }
func (readOnly) SetReadDeadline(time.Time) error  { return nil }
func (readOnly) SetWriteDeadline(time.Time) error { return nil }

// walked is what a walk over a ClientHello finds.
type walked struct {
	extensions []uint16 // in order
	twice      bool     // one of them comes more than once
	name       []byte   // nil where the server name list isn't exactly one host name
}

// walk goes over the fields of a ClientHello (RFC 8446, section 4.1.2). It is no judge: it can only
// refuse what crypto/tls lets pass, and tell reasons apart.
func walk(message []byte) (w walked, ok bool) {
	b := field(message)
	b.skip(messageHeader + 2 + 32) // version, random
	b.vector(1)                    // session ID
	b.vector(2)                    // cipher suites
	b.vector(1)                    // compression methods
	if b == nil {
		return w, false
	}
	if len(b) == 0 {
		return w, true // a hello of the time before extensions
	}
	list := b.vector(2)
	if b == nil || len(b) != 0 {
		return w, false
	}
	for len(list) > 0 {
		kind := list.uint16()
		body := list.vector(2)
		if list == nil {
			return w, false
		}
		w.twice = w.twice || slices.Contains(w.extensions, kind)
		w.extensions = append(w.extensions, kind)
		if kind == extServerName {
			w.name = oneHostName(body)
		}
	}
	return w, true
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
