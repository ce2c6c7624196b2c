package preface

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/postern-link/postern/policy"
)

// Packets of MySQL: a length of 3 bytes, little-endian, a sequence number, and the body.
const (
	mysqlHeader   = 4
	mysqlVersion  = 10   // of the handshake that every server since 3.21 sends
	mysqlError    = 0xff // first byte of an error
	mysqlRequest  = 32   // bytes of a request for TLS, without the header
	mysqlProtocol = 1 << 9
	mysqlTLS      = 1 << 11
)

// MaxGreeting bounds the greeting of a MySQL server with its header, in bytes.
const MaxGreeting = 4 << 10

// Greeting reads the greeting of a MySQL server, and no further. Raw is what it sent. Over: it is an error of the
// server instead, such as one of too many connections; a client is to have it, and nothing comes after it. A server
// that has no TLS to offer, or whose greeting can't be understood, is [policy.NoTLS]. Errors are [hello.Error].
func Greeting(r io.Reader) (raw []byte, over bool, err error) {
	raw, err = mysqlPacket(r, MaxGreeting)
	switch {
	case err != nil:
		return nil, false, err
	case raw[mysqlHeader] == mysqlError:
		return raw, true, nil
	}
	able, ok := capabilities(raw[mysqlHeader:])
	switch {
	case !ok:
		return nil, false, refuse(policy.NoTLS, "target's greeting can't be understood")
	case able&mysqlTLS == 0 || able&mysqlProtocol == 0:
		return nil, false, refuse(policy.NoTLS, "target's greeting offers no TLS")
	}
	return raw, false, nil
}

// mysqlPacket reads a target's first packet.
func mysqlPacket(r io.Reader, most int) ([]byte, error) {
	head := make([]byte, mysqlHeader)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, targetEnded(err, "greeting")
	}
	n := mysqlHeader + mysqlLength(head)
	switch {
	case n == mysqlHeader || n > most:
		return nil, refuse(policy.NoTLS, "target greets with a packet of %d bytes", n)
	case head[3] != 0:
		return nil, refuse(policy.NoTLS, "target's greeting has sequence number %d", head[3])
	}
	raw := append(head, make([]byte, n-mysqlHeader)...)
	if _, err := io.ReadFull(r, raw[mysqlHeader:]); err != nil {
		return nil, targetEnded(err, "whole greeting")
	}
	return raw, nil
}

func mysqlLength(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

// capabilities returns the lower half of what a server's greeting says that it can do: version of the protocol,
// version of the server up to a NUL, connection ID (4), 8 bytes of a nonce, a zero, and then these 2.
func capabilities(body []byte) (able uint16, ok bool) {
	if body[0] != mysqlVersion {
		return 0, false
	}
	_, rest, found := bytes.Cut(body[1:], []byte{0})
	if !found || len(rest) < 15 || rest[12] != 0 {
		return 0, false
	}
	return binary.LittleEndian.Uint16(rest[13:]), true
}

// SSLRequest reads the answer of a MySQL client to the greeting, which must be the request for TLS, and no further:
// the ClientHello follows without another word of the server. Raw is what the client sent. A client that logs in
// without TLS is [policy.NoTLS]; it is refused upon the header, before its login was read. Errors are [hello.Error].
func SSLRequest(r io.Reader) (raw []byte, err error) {
	raw = make([]byte, mysqlHeader+mysqlRequest)
	if _, err := io.ReadFull(r, raw[:mysqlHeader]); err != nil {
		return nil, clientEnded(err, "request for TLS")
	}
	switch n := mysqlLength(raw); {
	case n != mysqlRequest:
		return nil, refuse(policy.NoTLS, "client answers the greeting with %d bytes: no request for TLS", n)
	case raw[3] != 1:
		return nil, refuse(policy.Malformed, "client's request for TLS has sequence number %d", raw[3])
	}
	if _, err := io.ReadFull(r, raw[mysqlHeader:]); err != nil {
		return nil, clientEnded(err, "whole request for TLS")
	}
	switch able := binary.LittleEndian.Uint32(raw[mysqlHeader:]); {
	case able&mysqlTLS == 0:
		return nil, refuse(policy.NoTLS, "client doesn't ask for TLS")
	case able&mysqlProtocol == 0:
		return nil, refuse(policy.Malformed, "client asks for TLS in a protocol before 4.1")
	}
	return raw, nil
}
