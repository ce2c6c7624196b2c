package rawhello

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// Types of records (RFC 8446 section 5.1).
const (
	recordCipherSpec byte = 20
	recordAlert      byte = 21
	recordHandshake  byte = 22
	recordData       byte = 23
)

// maxHandshake bounds what is held of a handshake message in bytes: chains of certificates are the longest.
const maxHandshake = 256 << 10

// ErrNotTLS is that of a server whose bytes are no TLS records.
var ErrNotTLS = errors.New("no TLS record")

// Alert is the alert that ended a connection (RFC 8446 section 6).
type Alert struct{ Level, Code byte }

// Error names the alert where it is one that servers answer names and versions with.
func (a Alert) Error() string {
	if name := alerts[a.Code]; name != "" {
		return "alert " + name
	}
	return fmt.Sprintf("alert %d", a.Code)
}

var alerts = map[byte]string{
	0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 40: "handshake_failure", 47: "illegal_parameter", 49: "access_denied",
	50: "decode_error", 51: "decrypt_error", 70: "protocol_version", 80: "internal_error", 86: "inappropriate_fallback", 90: "user_canceled",
	100: "no_renegotiation", 109: "missing_extension", 110: "unsupported_extension", 112: "unrecognized_name", 116: "certificate_required", 120: "no_application_protocol",
	121: "ech_required",
}

// Conn is a connection whose handshake is done, or was begun. It isn't for use by several goroutines.
type Conn struct {
	conn    net.Conn
	in, out half
	body    []byte // handshake bytes that weren't taken yet
	data    []byte // application data that wasn't read yet
	state   State
	session *Session // of TLS 1.2, once there is one
	// Of the last handshake, for the next one on this connection (RFC 5746 section 3.5).
	clientFinished []byte
	suite          *suite
}

// half is one direction: nothing is encrypted while it has no cipher.
type half struct {
	aead  cipher.AEAD
	iv    []byte // 12 bytes in TLS 1.3, 4 in TLS 1.2
	seq   uint64
	tls13 bool
}

// nonce returns that of the next record: RFC 8446 section 5.3, RFC 5288 section 3.
func (h *half) nonce(explicit []byte) []byte {
	if !h.tls13 {
		return append(slices.Clone(h.iv), explicit...)
	}
	n := slices.Clone(h.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, h.seq) {
		n[len(n)-8+i] ^= b
	}
	return n
}

// seal returns the record of one piece of plaintext.
func (h *half) seal(kind byte, b []byte) []byte {
	switch {
	case h.aead == nil:
		return append([]byte{kind, 3, 3, byte(len(b) >> 8), byte(len(b))}, b...)
	case h.tls13:
		n := len(b) + 1 + h.aead.Overhead()
		head := []byte{recordData, 3, 3, byte(n >> 8), byte(n)}
		b = h.aead.Seal(head, h.nonce(nil), append(slices.Clone(b), kind), head)
	default:
		explicit := binary.BigEndian.AppendUint64(nil, h.seq)
		n := len(explicit) + len(b) + h.aead.Overhead()
		head := append([]byte{kind, 3, 3, byte(n >> 8), byte(n)}, explicit...)
		b = h.aead.Seal(head, h.nonce(explicit), b, h.additional(kind, len(b)))
	}
	h.seq++
	return b
}

// additional is the additional data of a record of TLS 1.2.
func (h *half) additional(kind byte, n int) []byte {
	return append(binary.BigEndian.AppendUint64(nil, h.seq), kind, 3, 3, byte(n>>8), byte(n))
}

// open returns the type and plaintext of a record.
func (h *half) open(kind byte, head, b []byte) (byte, []byte, error) {
	if h.aead == nil || h.tls13 && kind != recordData {
		return kind, b, nil // also the change_cipher_spec that TLS 1.3 servers send for show
	}
	var err error
	if h.tls13 {
		b, err = h.aead.Open(nil, h.nonce(nil), b, head)
		for err == nil && len(b) > 0 && b[len(b)-1] == 0 {
			b = b[:len(b)-1] // padding
		}
		if err == nil && len(b) == 0 {
			return 0, nil, errors.New("a record of nothing but padding")
		}
		if err == nil {
			kind, b = b[len(b)-1], b[:len(b)-1]
		}
	} else if len(b) < 8+h.aead.Overhead() {
		err = errors.New("a record that is too short")
	} else {
		b, err = h.aead.Open(nil, h.nonce(b[:8]), b[8:], h.additional(kind, len(b)-8-h.aead.Overhead()))
	}
	h.seq++
	return kind, b, err
}

// record reads one record. Alerts are errors, but for the warning that servers of TLS 1.2 go on after when they have no site
// of the name (RFC 6066 section 3).
func (c *Conn) record() (byte, []byte, error) {
	for {
		kind, b, err := c.anyRecord()
		if err != (Alert{Level: 1, Code: 112}) {
			return kind, b, err
		}
	}
}

func (c *Conn) anyRecord() (byte, []byte, error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(c.conn, head); err != nil {
		return 0, nil, err
	}
	n := int(head[3])<<8 | int(head[4])
	if head[0] < recordCipherSpec || head[0] > recordData || head[1] != 3 {
		return 0, nil, fmt.Errorf("%w: it begins with %x", ErrNotTLS, head)
	}
	if n > longestPlainBytes+2048 {
		return 0, nil, fmt.Errorf("a record of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c.conn, b); err != nil {
		return 0, nil, err
	}
	kind, b, err := c.in.open(head[0], head, b)
	if err == nil && kind == recordAlert {
		if len(b) != 2 {
			return 0, nil, fmt.Errorf("an alert of %d bytes", len(b))
		}
		err = Alert{b[0], b[1]}
	}
	return kind, b, err
}

// next returns the next handshake message, whole. Application data that comes before it is kept.
func (c *Conn) next() (kind byte, whole []byte, err error) {
	for {
		if len(c.body) >= 4 {
			n := 4 + (int(c.body[1])<<16 | int(c.body[2])<<8 | int(c.body[3]))
			if n > maxHandshake {
				return 0, nil, fmt.Errorf("a handshake message of %d bytes", n)
			}
			if len(c.body) >= n {
				whole, c.body = c.body[:n:n], c.body[n:]
				return whole[0], whole, nil
			}
		}
		record, b, err := c.record()
		switch {
		case err != nil:
			return 0, nil, err
		case record == recordHandshake:
			c.body = append(c.body, b...)
		case record == recordCipherSpec && c.in.tls13, record == recordCipherSpec && c.in.aead == nil && c.state.Retried:
		case record == recordData && len(c.data) < maxHandshake:
			c.data = append(c.data, b...)
		default:
			return 0, nil, fmt.Errorf("a record of type %d in the handshake", record)
		}
	}
}

// send writes one record.
func (c *Conn) send(kind byte, b []byte) error {
	_, err := c.conn.Write(c.out.seal(kind, b))
	return err
}

// Read reads application data. It ends with [io.EOF] when the server says so, with an [Alert] when it says
// something else.
func (c *Conn) Read(b []byte) (int, error) {
	for len(c.data) == 0 {
		kind, data, err := c.record()
		var alert Alert
		switch {
		case errors.As(err, &alert) && alert.Code == 0:
			return 0, io.EOF
		case err != nil:
			return 0, err
		case kind == recordData:
			c.data = data
		case kind == recordHandshake && (len(data) == 0 || data[0] == typeKeyUpdate):
			return 0, errors.New("the server changes its keys, which this client doesn't follow")
		case kind != recordHandshake: // tickets and requests to renegotiate are passed over
			return 0, fmt.Errorf("a record of type %d between application data", kind)
		}
	}
	n := copy(b, c.data)
	c.data = c.data[n:]
	return n, nil
}

// Write writes application data.
func (c *Conn) Write(b []byte) (int, error) {
	for n := 0; n < len(b); n += longestPlainBytes {
		if err := c.send(recordData, b[n:min(n+longestPlainBytes, len(b))]); err != nil {
			return n, err
		}
	}
	return len(b), nil
}

// Close closes the connection underneath.
func (c *Conn) Close() error { return c.conn.Close() }

// SetDeadline sets that of the connection underneath.
func (c *Conn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }
