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
//  4. No extension comes twice, and Encrypted ClientHello isn't among them.
//  5. The name is the only one, of type host name, made of letters, digits and hyphens; no address
//     and no trailing dot, since front ends disagree about it.
//
// The bytes themselves are forwarded unchanged. Whether the name is allowed is for package policy.
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
	// MaxMessage bounds the handshake message: its header and body.
	MaxMessage = 16 << 10
	// MaxBytes bounds everything that is held: the message, the record headers around it, and what
	// came behind it in the last read. A hello cut into so many records that their headers don't
	// fit is too large.
	MaxBytes = 20 << 10

	firstBuffer = 4 << 10 // enough for a hello with post-quantum key shares
)

// Hello is a judged ClientHello.
type Hello struct {
	// Name is the server name, in canonical form.
	Name link.Name
	// Bytes is everything that was read, in order: the hello and what the client sent right behind
	// it. It goes to the target as it is.
	Bytes []byte
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
// the message, never beyond [MaxBytes]. Errors are [*Error]: a passed deadline of r is
// [policy.Timeout], any other end [policy.Truncated].
func Read(r io.Reader) (Hello, error) {
	var s Scanner
	b := make([]byte, 0, firstBuffer)
	for {
		if len(b) == cap(b) {
			if cap(b) >= MaxBytes {
				return Hello{}, refuse(policy.TooLarge, fmt.Sprintf("no whole hello in %d bytes", MaxBytes))
			}
			b = append(make([]byte, 0, MaxBytes), b...)
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if n > 0 {
			whole, refused := s.Scan(b)
			if refused != nil {
				return Hello{}, refused
			}
			if whole {
				return judge(s.message, b)
			}
		}
		if err != nil {
			return Hello{}, ended(err, len(b))
		}
	}
}

func judge(message, all []byte) (Hello, error) {
	name, err := Judge(message)
	if err != nil {
		return Hello{}, err
	}
	return Hello{Name: name, Bytes: all}, nil
}

func ended(err error, n int) *Error {
	e := &Error{Reason: policy.Truncated, Detail: fmt.Sprintf("client ended after %d bytes", n), Err: err}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e.Reason, e.Detail = policy.Timeout, fmt.Sprintf("no whole hello in time, %d bytes", n)
	}
	return e
}
