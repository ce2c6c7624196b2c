package hello

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// FuzzRead is X27: a hello that we let pass is one where every reader sees the same name. The
// readers are crypto/tls on the very bytes that the target gets, and a parser on cryptobyte.
func FuzzRead(f *testing.F) {
	good := message(host(allowed), versions)
	f.Add(records(good, maxRecord))
	f.Add(records(good, 1))
	f.Add(append(records(good, 7, 100), record(23, []byte("early"))...))
	f.Add(records(message(sni(sniEntry{0, allowed}, sniEntry{1, "x"}), versions), maxRecord))
	f.Add(records(message(host(allowed), host("other.example"), versions), maxRecord))
	f.Add(records(message(host("a.example."), versions, ext{extECH, []byte{1}}), maxRecord))
	f.Add(captured(f, &tls.Config{ServerName: allowed}))
	f.Add([]byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Read(bytes.NewReader(b))
		bytewise, err1 := Read(iotest.OneByteReader(bytes.NewReader(b)))
		// How the bytes come changes nothing, but for what happens to be held of the bytes behind.
		if len(b) <= MaxBytes && (bytewise.Name != h.Name || (err == nil) != (err1 == nil)) {
			t.Fatalf("whole: %q %v, bytewise: %q %v", h.Name, err, bytewise.Name, err1)
		}
		if err != nil {
			return
		}
		if !bytes.HasPrefix(b, h.Bytes) || len(h.Bytes) > MaxBytes {
			t.Fatalf("%d bytes were changed or are too many", len(h.Bytes))
		}
		checkReaders(t, h.Bytes, string(h.Name), h.ECH)
	})
}

// fromMemory is a connection that nothing can be written to.
type fromMemory struct {
	net.Conn // nil
	*bytes.Reader
}

func (c fromMemory) Read(b []byte) (int, error)     { return c.Reader.Read(b) }
func (fromMemory) Write([]byte) (int, error)        { return 0, io.ErrClosedPipe }
func (fromMemory) Close() error                     { return nil }
func (fromMemory) LocalAddr() net.Addr              { return nil }
func (fromMemory) RemoteAddr() net.Addr             { return nil }
func (fromMemory) SetDeadline(time.Time) error      { return nil }
func (fromMemory) SetReadDeadline(time.Time) error  { return nil }
func (fromMemory) SetWriteDeadline(time.Time) error { return nil }

// fold is ASCII lower case, on its own so as not to share a fault with the code under test.
func fold(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// second returns every name of every server name extension, of whatever type, in the first
// handshake message of the records.
func second(raw []byte) (names []string, ech bool) {
	var all []byte
	in := cryptobyte.String(raw)
	for {
		var kind uint8
		var version uint16
		var body cryptobyte.String
		if !in.ReadUint8(&kind) || !in.ReadUint16(&version) || !in.ReadUint16LengthPrefixed(&body) || kind != recordHandshake {
			break
		}
		all = append(all, body...)
	}
	msg := cryptobyte.String(all)
	var kind uint8
	var body, session, suites, compression, list cryptobyte.String
	if !msg.ReadUint8(&kind) || !msg.ReadUint24LengthPrefixed(&body) || !body.Skip(34) ||
		!body.ReadUint8LengthPrefixed(&session) || !body.ReadUint16LengthPrefixed(&suites) ||
		!body.ReadUint8LengthPrefixed(&compression) || !body.ReadUint16LengthPrefixed(&list) {
		return nil, false
	}
	for !list.Empty() {
		var kind uint16
		var ext, entries cryptobyte.String
		if !list.ReadUint16(&kind) || !list.ReadUint16LengthPrefixed(&ext) {
			return nil, false
		}
		ech = ech || kind == extECH
		if kind != extServerName || !ext.ReadUint16LengthPrefixed(&entries) {
			continue
		}
		for !entries.Empty() {
			var entry uint8
			var name cryptobyte.String
			if !entries.ReadUint8(&entry) || !entries.ReadUint16LengthPrefixed(&name) {
				return nil, false
			}
			names = append(names, string(name))
		}
	}
	return names, ech
}

// FuzzWatcher: how a target's bytes are cut into segments and records, and what comes first that clients pass over, never changes
// what its first message is.
func FuzzWatcher(f *testing.F) {
	retry := append([]byte{serverHello, 0, 0, 44, 3, 3}, retryRandom[:]...)
	f.Add(retry, uint8(1), uint8(1), uint8(0))
	f.Add(retry, uint8(7), uint8(3), uint8(2))
	f.Add(retry, uint8(7), uint8(3), uint8(14))
	f.Add(retry[:20], uint8(5), uint8(0), uint8(1))
	f.Add(append([]byte{serverHello, 0, 0, 44, 3, 3}, make([]byte, 40)...), uint8(9), uint8(0), uint8(0))
	f.Add([]byte{11, 0, 0, 1, 0}, uint8(2), uint8(2), uint8(0))
	f.Fuzz(func(t *testing.T, message []byte, size, segment, warnings uint8) {
		if len(message) > maxRecord {
			return
		}
		want := Unknown
		for i, c := range message { // the slow and obvious reading
			if i == 0 && c != serverHello || i >= 6 && i < 38 && c != retryRandom[i-6] {
				want = Other
				break
			}
			if i == 37 {
				want = Retry
				break
			}
		}
		var sent []byte
		for range warnings % 4 {
			sent = append(sent, record(recordAlert, []byte{1, 112})...)
		}
		if warnings&4 != 0 {
			sent = append(sent, record(recordCipherSpec, []byte{1})...)
		}
		if warnings&8 != 0 && len(sent) > 0 {
			sent[1] = 2 // nobody looks at the version of the first record
		}
		sent = append(sent, records(message, int(size)+1)...)
		var w Watcher
		got := w.Watch(nil)
		for len(sent) > 0 {
			n := min(int(segment)+1, len(sent))
			got, sent = w.Watch(sent[:n]), sent[n:]
		}
		if got != want {
			t.Fatalf("%d, want %d", got, want)
		}
	})
}
