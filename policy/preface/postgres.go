package preface

import (
	"encoding/binary"
	"io"

	"github.com/postern-link/postern/policy"
)

// Codes in the place of a protocol version ("Message Formats").
const (
	postgresCancel = 80877102
	postgresSSL    = 80877103
	postgresGSS    = 80877104
)

// postgresRequest is the size of a request for encryption, in bytes: its length and its code.
const postgresRequest = 8

// PostgresSSLRequest returns the request for TLS as a client sends it.
func PostgresSSLRequest() []byte {
	b := binary.BigEndian.AppendUint32(nil, postgresRequest)
	return binary.BigEndian.AppendUint32(b, postgresSSL)
}

// Postgres reads what a PostgreSQL client sends up to its request for TLS, which it says yes to; the
// ClientHello comes next. A request for GSSAPI encryption before that is answered no, once. Direct: the
// client began with TLS instead, and first is what was read of it; then nothing was answered.
//
// What is pipelined behind a request, before its answer, is [policy.Malformed]: a hello that was sent
// without waiting could have been put there by somebody else (CVE-2021-23214). A start in clear, and a request to
// cancel in clear, are [policy.NoTLS]. Errors are [hello.Error].
func Postgres(rw io.ReadWriter) (first []byte, direct bool, err error) {
	for gss := false; ; gss = true {
		b := make([]byte, 0, 64) // more than a request, so that what is behind it shows
		if b, err = fill(rw, b, 1); err != nil {
			return nil, false, clientEnded(err, "request for TLS")
		}
		if b[0] == recordHandshake && !gss {
			return b, true, nil
		}
		for len(b) < postgresRequest {
			if err := checkPostgres(b); err != nil {
				return nil, false, err
			}
			if b, err = fill(rw, b, len(b)+1); err != nil {
				return nil, false, clientEnded(err, "request for TLS")
			}
		}
		code, err := postgresCode(b)
		if err != nil {
			return nil, false, err
		}
		switch {
		case code == postgresSSL:
			return nil, false, answer(rw, 'S')
		case code == postgresGSS && !gss:
			if err := answer(rw, 'N'); err != nil {
				return nil, false, err
			}
		default:
			return nil, false, refuse(policy.Malformed, "client asks for GSSAPI encryption again")
		}
	}
}

// checkPostgres refuses early what can't become a request: the length of one is known.
func checkPostgres(b []byte) error {
	for i, c := range b[:min(len(b), 4)] {
		if c != [4]byte{3: postgresRequest}[i] {
			return refuse(policy.NoTLS, "client begins in clear, with % x", b)
		}
	}
	return nil
}

// postgresCode returns the code of the request that b is.
func postgresCode(b []byte) (uint32, error) {
	if err := checkPostgres(b); err != nil {
		if len(b) >= postgresRequest && binary.BigEndian.Uint32(b[4:]) == postgresCancel {
			return 0, refuse(policy.NoTLS, "client asks in clear to cancel")
		}
		return 0, err
	}
	code := binary.BigEndian.Uint32(b[4:])
	switch {
	case code != postgresSSL && code != postgresGSS:
		return 0, refuse(policy.NoTLS, "client begins in clear, with code %d", code)
	case len(b) > postgresRequest:
		return 0, refuse(policy.Malformed, "%d bytes behind the request for encryption, before its answer", len(b)-postgresRequest)
	}
	return code, nil
}

func answer(w io.Writer, c byte) error {
	if _, err := w.Write([]byte{c}); err != nil {
		return refuse(policy.Client, "answer to the request for encryption: %v", err)
	}
	return nil
}

// PostgresAnswer reads a target's answer to [PostgresSSLRequest]: one byte that says yes. Anything else, an
// error message too, is [policy.NoTLS]. Bytes behind the answer are [policy.Malformed]: they came in clear and
// would be taken for the target's first words inside TLS (CVE-2021-23222).
func PostgresAnswer(r io.Reader) error {
	b, err := fill(r, make([]byte, 0, 2), 1)
	switch {
	case err != nil:
		return targetEnded(err, "answer to the request for TLS")
	case b[0] != 'S':
		return refuse(policy.NoTLS, "target answers %q to the request for TLS", b[0])
	case len(b) > 1:
		return refuse(policy.Malformed, "bytes of the target behind its answer to the request for TLS")
	}
	return nil
}
