package hello

import (
	"encoding/binary"
	"fmt"

	"github.com/postern-link/postern/policy"
)

// Record and message layout (RFC 8446, sections 4 and 5.1).
const (
	recordHeader     = 5
	messageHeader    = 4
	maxRecord        = 1 << 14         // plaintext of one record
	maxCiphertext    = maxRecord + 256 // what early data may be at most, section 5.2
	recordCipherSpec = 20
	recordAlert      = 21
	recordHandshake  = 22
	recordData       = 23
	clientHello      = 1
	serverHello      = 2
)

// Scanner puts the first handshake message together from the records that hold it. The zero Scanner
// is ready. It looks at each byte once, however often it is asked.
type Scanner struct {
	// Second: what is scanned follows a HelloRetryRequest, and change_cipher_spec and early data may stand in
	// front of the message.
	Second bool

	next    int    // offset of the first record that wasn't taken yet
	message []byte // of the records taken, header included
}

// Scan looks at all bytes that the client has sent so far, which must begin with those of the last
// call. It reports whether the first message is whole, or an error for bytes that no continuation can
// make good.
func (s *Scanner) Scan(b []byte) (whole bool, err *Error) {
	for {
		rest := b[s.next:]
		if err := s.check(rest); err != nil {
			return false, err
		}
		if len(rest) < recordHeader {
			return false, nil
		}
		n := int(binary.BigEndian.Uint16(rest[3:]))
		if rest[0] != recordHandshake { // in front of a second hello
			if len(rest) < recordHeader+n {
				return false, nil
			}
			s.next += recordHeader + n
			continue
		}
		if len(rest) < recordHeader+n {
			// The size is known before the message is whole; don't hold what is refused anyway.
			return false, s.checkMessage(rest[recordHeader:], false)
		}
		body := rest[recordHeader : recordHeader+n : recordHeader+n]
		if err := s.checkMessage(body, true); err != nil {
			return false, err
		}
		s.next += recordHeader + n
		if len(s.message) == 0 && len(body) >= messageHeader && len(body) == messageSize(body) {
			s.message = body // the usual hello: one record, and no copy
			return true, nil
		}
		s.message = append(s.message, body...)
		if len(s.message) >= messageHeader && len(s.message) == messageSize(s.message) {
			return true, nil
		}
	}
}

// room returns how large a buffer should be when b has filled the last one: what its record needs, but no
// more than twice of what the client has sent already.
func (s *Scanner) room(b []byte) int {
	some := max(firstBuffer, 2*len(b))
	rest := b[s.next:]
	if len(rest) < recordHeader {
		return some
	}
	return min(some, len(b)-len(rest)+recordHeader+int(binary.BigEndian.Uint16(rest[3:])))
}

// check looks at as much of a record header as is there.
func (s *Scanner) check(rest []byte) *Error {
	bad := func(what string, v byte) *Error {
		if s.next == 0 && !s.Second {
			return refuse(policy.NoTLS, fmt.Sprintf("first record has %s %d", what, v))
		}
		return refuse(policy.Malformed, fmt.Sprintf("a later record has %s %d", what, v))
	}
	front := s.Second && len(s.message) == 0 && len(rest) > 0 && (rest[0] == recordCipherSpec || rest[0] == recordData)
	switch {
	case s.Second && len(rest) > 0 && rest[0] == recordAlert:
		return refuse(policy.Truncated, "client gave up with an alert")
	case len(rest) > 0 && rest[0] != recordHandshake && !front:
		return bad("type", rest[0])
	case len(rest) > 1 && rest[1] != 3:
		return bad("major version", rest[1])
	case len(rest) < recordHeader:
		return nil
	}
	n := binary.BigEndian.Uint16(rest[3:])
	switch {
	case front && rest[0] == recordCipherSpec && (n != 1 || len(rest) > recordHeader && rest[recordHeader] != 1):
		return refuse(policy.Malformed, "change_cipher_spec isn't one byte 1")
	case n == 0:
		return refuse(policy.Malformed, "empty record")
	case n > maxRecord && !(front && n <= maxCiphertext):
		return refuse(policy.TooLarge, fmt.Sprintf("record of %d bytes", n))
	}
	return nil
}

// checkMessage looks at the message as it would be with more, which is the body of a record or,
// unless whole, the beginning of one.
func (s *Scanner) checkMessage(more []byte, whole bool) *Error {
	var head [messageHeader]byte
	n := copy(head[:], s.message)
	n += copy(head[n:], more)
	if n > 0 && head[0] != clientHello {
		return refuse(policy.Malformed, fmt.Sprintf("handshake message of type %d instead of ClientHello", head[0]))
	}
	if n < messageHeader {
		return nil
	}
	size := messageSize(head[:])
	switch {
	case size > MaxMessage:
		return refuse(policy.TooLarge, fmt.Sprintf("ClientHello of %d bytes", size))
	case whole && len(s.message)+len(more) > size:
		return refuse(policy.Malformed, "bytes behind the ClientHello in its record")
	}
	return nil
}

// messageSize returns the size of a handshake message, header included.
func messageSize(b []byte) int {
	return messageHeader + (int(b[1])<<16 | int(b[2])<<8 | int(b[3]))
}
