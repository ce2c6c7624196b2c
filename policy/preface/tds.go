package preface

import (
	"encoding/binary"
	"io"

	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/hello"
)

// Packets of TDS ([MS-TDS] 2.2.3.1).
const (
	tdsHeader   = 8    // bytes: type, status, length (2), process, packet, window
	tdsReply    = 0x04 // type of what a server answers
	tdsPrelogin = 0x12 // type of a PRELOGIN, and of what wraps the TLS handshake
	tdsLast     = 0x01 // status of the last packet of a message
)

// Options of a PRELOGIN ([MS-TDS] 2.2.6.5).
const (
	optionVersion    = 0x00
	optionEncryption = 0x01
	optionEnd        = 0xff
	optionSize       = 5 // of an entry: token, offset (2), length (2)
	versionSize      = 6

	encryptOff      = 0x00 // the login only
	encryptOn       = 0x01
	encryptRequired = 0x03
	encryptCert     = 0x80 // flag: with a certificate of the client's
)

// Bounds of a PRELOGIN with its packet headers, in bytes. That of a client reaches the target before the
// name is known, so that it has room for what drivers send and for little else.
const (
	MaxClientPrelogin = 1 << 10
	MaxTargetPrelogin = 4 << 10
	// MaxWrapped bounds a ClientHello with the packets around it: one that is cut into crumbs is too large.
	MaxWrapped = 2 * hello.MaxBytes
)

// Prelogin reads the PRELOGIN of an SQL Server client, TDS 7, which must leave room for TLS. Raw is
// what the client sent, with nothing behind it. Direct: the client began with TLS instead, as in TDS 8, and raw is what
// was read of that. Errors are [hello.Error]: a client that doesn't offer encryption, or speaks something else, is
// [policy.NoTLS].
func Prelogin(r io.Reader) (raw []byte, direct bool, err error) {
	b, err := fill(r, make([]byte, 0, MaxClientPrelogin+1), 1)
	switch {
	case err != nil:
		return nil, false, clientEnded(err, "PRELOGIN")
	case b[0] == recordHandshake:
		return b, true, nil
	case b[0] != tdsPrelogin:
		return nil, false, refuse(policy.NoTLS, "client begins with a packet of type %#02x instead of PRELOGIN", b[0])
	}
	raw, body, err := message(r, b, tdsPrelogin, MaxClientPrelogin, clientEnded)
	if err != nil {
		return nil, false, err
	}
	e, ok := encryption(body)
	switch {
	case !ok:
		return nil, false, refuse(policy.Malformed, "options of the client's PRELOGIN don't fit it")
	case !encrypts(e):
		return nil, false, refuse(policy.NoTLS, "client offers no encryption: %#02x", e)
	}
	return raw, false, nil
}

// PreloginAnswer reads the answer to a PRELOGIN, which must agree to encryption, if only of the login. Raw is
// what the target sent, with nothing behind it. Errors are [hello.Error]: one that doesn't encrypt, or can't
// be understood, is [policy.NoTLS].
func PreloginAnswer(r io.Reader) (raw []byte, err error) {
	b, err := fill(r, make([]byte, 0, MaxTargetPrelogin+1), 1)
	switch {
	case err != nil:
		return nil, targetEnded(err, "answer to the PRELOGIN")
	case b[0] != tdsReply:
		return nil, refuse(policy.NoTLS, "target answers the PRELOGIN with a packet of type %#02x", b[0])
	}
	raw, body, err := message(r, b, tdsReply, MaxTargetPrelogin, targetEnded)
	if err != nil {
		return nil, err
	}
	switch e, ok := encryption(body); {
	case !ok:
		return nil, refuse(policy.NoTLS, "target's answer to the PRELOGIN can't be understood")
	case !encrypts(e):
		return nil, refuse(policy.NoTLS, "target doesn't encrypt: %#02x", e)
	}
	return raw, nil
}

// message reads the packets of one message, of which b has the beginning. It returns them, and what they carry.
func message(r io.Reader, b []byte, kind byte, most int, ended func(error, string) error) (raw, body []byte, err error) {
	for at := 0; ; {
		if b, err = fill(r, b, at+tdsHeader); err != nil {
			return nil, nil, ended(err, "whole PRELOGIN")
		}
		size, last, err := packet(b[at:], kind)
		switch {
		case err != nil:
			return nil, nil, err
		case at+size > most:
			return nil, nil, refuse(policy.TooLarge, "PRELOGIN of more than %d bytes", most)
		}
		if b, err = fill(r, b, at+size); err != nil {
			return nil, nil, ended(err, "whole PRELOGIN")
		}
		body = append(body, b[at+tdsHeader:at+size]...)
		at += size
		switch {
		case last && len(b) > at:
			return nil, nil, refuse(policy.Malformed, "bytes behind the PRELOGIN, before its answer")
		case last:
			return b, body, nil
		case at+tdsHeader > most:
			return nil, nil, refuse(policy.TooLarge, "PRELOGIN of more than %d bytes", most)
		}
	}
}

// packet reads the header of a packet that must be of a kind. An empty packet is refused, as an empty record is.
func packet(b []byte, kind byte) (size int, last bool, err error) {
	size = int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case b[0] != kind:
		return 0, false, refuse(policy.Malformed, "packet of type %#02x instead of %#02x", b[0], kind)
	case b[1]&^tdsLast != 0:
		return 0, false, refuse(policy.Malformed, "packet with status %#02x", b[1])
	case size <= tdsHeader:
		return 0, false, refuse(policy.Malformed, "packet of %d bytes", size)
	}
	return size, b[1] == tdsLast, nil
}

// encryption returns what a PRELOGIN says of encryption. It isn't ok where the options don't fit the message, where
// the version isn't the first of them, where one comes twice, or where nothing is said.
func encryption(body []byte) (e byte, ok bool) {
	var seen [256]bool
	table := 0
	for {
		if table >= len(body) {
			return 0, false
		}
		if body[table] == optionEnd {
			break
		}
		table += optionSize
	}
	for at := 0; at < table; at += optionSize {
		token := body[at]
		offset, size := int(binary.BigEndian.Uint16(body[at+1:])), int(binary.BigEndian.Uint16(body[at+3:]))
		switch {
		case seen[token], (at == 0) != (token == optionVersion):
			return 0, false
		case size > 0 && (offset <= table || offset+size > len(body)): // 0: one that is only named
			return 0, false
		case token == optionVersion && size != versionSize, token == optionEncryption && size != 1:
			return 0, false
		case token == optionEncryption:
			e = body[offset]
		}
		seen[token] = true
	}
	return e, seen[optionEncryption]
}

// encrypts reports whether a side that says e goes on with TLS.
func encrypts(e byte) bool {
	switch e &^ encryptCert {
	case encryptOff, encryptOn, encryptRequired:
		return true
	}
	return false
}

// Unwrapper takes the TLS bytes of a handshake out of the packets that TDS 7 wraps them in, however these are cut.
// The zero Unwrapper is for what a client sends.
type Unwrapper struct {
	// Target: for what a target sends. Packets of a reply are taken too: servers that aren't Microsoft's use them.
	Target bool

	head [tdsHeader]byte
	have int // bytes of head
	left int // bytes of the packet's body that are still to come
}

// Unwrap appends the TLS bytes in b, which follows what it was given before, to dst. An error is for bytes that are no
// such packets, such as a login in clear: [policy.NoTLS].
func (u *Unwrapper) Unwrap(dst, b []byte) ([]byte, error) {
	for len(b) > 0 {
		if u.left == 0 {
			n := copy(u.head[u.have:], b)
			u.have, b = u.have+n, b[n:]
			if err := u.check(); err != nil {
				return dst, err
			}
			continue
		}
		n := min(u.left, len(b))
		dst = append(dst, b[:n]...)
		u.left, b = u.left-n, b[n:]
	}
	return dst, nil
}

// Within reports whether a packet has begun and not ended.
func (u *Unwrapper) Within() bool { return u.have > 0 || u.left > 0 }

// check looks at as much of a header as is there.
func (u *Unwrapper) check() error {
	if t := u.head[0]; t != tdsPrelogin && !(u.Target && t == tdsReply) {
		return refuse(policy.NoTLS, "packet of type %#02x instead of the TLS handshake", t)
	}
	if u.have < tdsHeader {
		return nil
	}
	size, _, err := packet(u.head[:], u.head[0])
	if err != nil {
		return err
	}
	u.have, u.left = 0, size-tdsHeader
	return nil
}

// UnwrapReader reads the TLS bytes out of packets that come from another reader, and keeps the packets, at
// most [MaxWrapped] bytes of them.
type UnwrapReader struct {
	From    io.Reader
	Packets *Unwrapper
	Raw     []byte // everything that was read from From

	ready []byte // TLS bytes that weren't read yet
	err   error
}

// Read implements [io.Reader]; it never takes a byte of From that isn't needed for b. What isn't such packets is an error of [Unwrapper.Unwrap], or that of From.
func (u *UnwrapReader) Read(b []byte) (int, error) {
	for len(u.ready) == 0 && u.err == nil && len(b) > 0 {
		piece := make([]byte, min(len(b), MaxWrapped-len(u.Raw)))
		if len(piece) == 0 {
			u.err = refuse(policy.TooLarge, "no whole hello in %d bytes of packets", MaxWrapped)
			break
		}
		var n int
		n, u.err = u.From.Read(piece)
		u.Raw = append(u.Raw, piece[:n]...)
		var err error
		if u.ready, err = u.Packets.Unwrap(u.ready[:0], piece[:n]); err != nil {
			u.err = err
		}
	}
	n := copy(b, u.ready)
	u.ready = u.ready[n:]
	if n == 0 {
		return 0, u.err
	}
	return n, nil
}

// Whole reports whether what was read ends with a packet, all of whose bytes were taken.
func (u *UnwrapReader) Whole() bool { return len(u.ready) == 0 && !u.Packets.Within() }
