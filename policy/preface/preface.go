// Package preface reads what database protocols exchange in clear before the ClientHello: PostgreSQL's
// request for TLS, the PRELOGIN of SQL Server, and the greeting of MySQL with the answer to it.
//
// Each is a small strict machine over readers and writers that it is given; the caller sets deadlines.
// A preface is read to its end and no further than this package says, and nothing in it is repaired: what
// isn't the one form that leads to TLS is refused. Whether the target may see what was read, and when, is for
// the caller; the hello that follows is for package hello.
//
// The documents are "Message Flow" and "Message Formats" of PostgreSQL's manual, [MS-TDS] 2.2.3.1 and
// 2.2.6.5, and "Connection Phase" of MySQL's internals manual with MariaDB's "Connection".
package preface

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/hello"
)

// recordHandshake is the first byte of a flow that begins with TLS at once (RFC 8446, section 5.1). None of
// the prefaces begins with it.
const recordHandshake = 22

func refuse(reason policy.Reason, format string, args ...any) error {
	return &hello.Error{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// clientEnded is the error for a client that ended, or was silent for too long, in the midst of what it had to send.
func clientEnded(err error, what string) error {
	e := &hello.Error{Reason: policy.Truncated, Detail: "client ended before " + what, Err: err}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e.Reason, e.Detail = policy.Timeout, "client sent no "+what+" in time"
	}
	return e
}

// targetEnded is the same for a target. One that is silent counts as one that didn't answer at all.
func targetEnded(err error, what string) error {
	e := &hello.Error{Reason: policy.Target, Detail: "target ended before " + what, Err: err}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e.Reason, e.Detail = policy.NoTarget, "target sent no "+what+" in time"
	}
	return e
}

// fill reads from r until b has n bytes. It may read as much as b has room for.
func fill(r io.Reader, b []byte, n int) ([]byte, error) {
	for len(b) < n {
		m, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+m]
		if err != nil && len(b) < n {
			return b, err
		}
	}
	return b, nil
}
