// Package hello judges the first bytes of a TLS flow: it finds the one server name that every
// reader of them must see, or says why there is none.
//
// The rules, so that two people would write the same code:
//
//  1. Records are read until the first handshake message is whole, however the bytes are cut into
//     segments and records; see [MaxMessage] and [MaxBytes] for the bounds. The caller sets one
//     deadline for all of it.
//  2. What is not a plain run of handshake records with exactly one ClientHello in front is
//     refused: other record types, empty records, bytes behind the hello in its last record.
//  3. crypto/tls parses the message. A walk of our own over the extensions refuses what it lets
//     pass (names of unknown type) and says which reason applies; both must see the same name.
//  4. No extension comes twice. Whether Encrypted ClientHello (RFC 9849) is among them is reported: the
//     name is then the outer one, and package policy refuses it unless the service says otherwise.
//  5. The name is the only one, of type host name, made of letters, digits and hyphens; no address
//     and no trailing dot, since front ends disagree about it.
//
// The bytes themselves are forwarded unchanged. Whether the name is allowed is for package policy.
//
// Then the target's first handshake message is looked at by a [Watcher]. After a HelloRetryRequest the
// client sends a second hello, in clear, and a front end may serve the name in that one: [ReadSecond] gives
// it the same judgement, and it must say the same as the first.
package hello

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// Bounds of what is read, in bytes.
const (
	// MaxMessage bounds a handshake message: its header and body.
	MaxMessage = 16 << 10
	// MaxBytes bounds all that is held of a first hello: the message, the record headers around it, and
	// what came behind it in the last read. A hello cut into so many records that their headers don't
	// fit is too large.
	MaxBytes = 20 << 10
	// MaxSecond is the same for a second hello with what may stand in front of it: early data, of which
	// servers take 16 KiB.
	MaxSecond = 32 << 10

	// firstBuffer is what a client that has sent a record's header can have reserved at most; from there
	// on it is twice what it has sent. Hellos with post-quantum key shares fit in.
	firstBuffer = 2 << 10
)

// Hello is a judged ClientHello.
type Hello struct {
	// Name is the server name, in canonical form; with ECH the outer one.
	Name link.Name
	// ECH: the hello has the extension of Encrypted ClientHello, genuine or not.
	ECH bool
	// Bytes are the records that hold the hello, and of a second one those in front of it. They go to the
	// target as they are. Rest is what was read behind them, and lies behind them in the same array:
	// Bytes[:len(Bytes)+len(Rest)] is both, and what is appended to Bytes is written over Rest.
	Bytes, Rest []byte
}

// Error says why first bytes were refused.
type Error struct {
	Reason policy.Reason
	Detail string // for logs
	Err    error  // of the reader or parser; may be nil
}

// Error returns the reason and the detail.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Reason, e.Detail, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Reason, e.Detail)
}

// Unwrap returns the error of the reader or parser.
func (e *Error) Unwrap() error { return e.Err }

func refuse(reason policy.Reason, detail string) *Error {
	return &Error{Reason: reason, Detail: detail}
}

// Read reads from r until the first handshake message is whole, and judges it. It may read beyond
// the message, never beyond [MaxBytes], and holds nothing before the first byte has come. Errors are
// [*Error]: a passed deadline of r is [policy.Timeout], any other end [policy.Truncated].
func Read(r io.Reader) (Hello, error) {
	return read(r, &Scanner{}, MaxBytes)
}

// Whole judges the first handshake message of b, which is all that a client has sent so far, as [Read] does. It reports
// false where more has to come. Of the result, Bytes and Rest lie in b.
func Whole(b []byte) (h Hello, whole bool, err error) {
	var s Scanner
	whole, refused := s.Scan(b)
	if refused != nil {
		return Hello{}, false, refused
	}
	if !whole {
		return Hello{}, false, nil
	}
	h, err = s.judge(b)
	return h, err == nil, err
}

// judge judges the message that is whole in b.
func (s *Scanner) judge(b []byte) (Hello, error) {
	h, err := Judge(s.message)
	if err != nil {
		return Hello{}, err
	}
	h.Bytes, h.Rest = b[:s.next], b[s.next:]
	return h, nil
}

// ReadSecond reads the hello that follows a HelloRetryRequest, as [Read] does, and compares it with the
// first: another name, or Encrypted ClientHello in one of them alone, is [policy.HelloChanged]. In front of
// it may stand change_cipher_spec and early data (RFC 8446, sections D.4 and 4.2.10), all together no more
// than [MaxSecond].
func ReadSecond(r io.Reader, first Hello) (Hello, error) {
	h, err := read(r, &Scanner{Second: true}, MaxSecond)
	switch {
	case err != nil:
		return Hello{}, err
	case h.Name != first.Name:
		return Hello{}, refuse(policy.HelloChanged, fmt.Sprintf("the second hello names %s, the first %s", h.Name, first.Name))
	case h.ECH != first.ECH:
		return Hello{}, refuse(policy.HelloChanged, "encrypted ClientHello in one of two hellos")
	}
	return h, nil
}

func read(r io.Reader, s *Scanner, bound int) (Hello, error) {
	b := make([]byte, 0, recordHeader)
	for {
		if len(b) == cap(b) {
			if len(b) >= bound {
				return Hello{}, refuse(policy.TooLarge, fmt.Sprintf("no whole hello in %d bytes", bound))
			}
			b = append(make([]byte, 0, min(s.room(b), bound)), b...)
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if n > 0 {
			whole, refused := s.Scan(b)
			if refused != nil {
				return Hello{}, refused
			}
			if whole {
				return s.judge(b)
			}
		}
		if err != nil {
			return Hello{}, ended(err, len(b))
		}
	}
}

func ended(err error, n int) *Error {
	e := &Error{Reason: policy.Truncated, Detail: fmt.Sprintf("client ended after %d bytes", n), Err: err}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e.Reason, e.Detail = policy.Timeout, fmt.Sprintf("no whole hello in time, %d bytes", n)
	}
	return e
}
