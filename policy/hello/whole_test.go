package hello

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/postern-link/postern/policy"
	"golang.org/x/crypto/cryptobyte"
)

// segments gives bytes in pieces of random sizes, small ones more often.
type segments struct {
	b      []byte
	random *rand.Rand
}

func (s *segments) Read(b []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := 1 + s.random.IntN(1+s.random.IntN(4000))
	n = copy(b[:min(n, len(b))], s.b)
	s.b = s.b[n:]
	return n, nil
}

func cut(b []byte, seed uint64) *segments {
	return &segments{b, rand.New(rand.NewPCG(seed, 1))}
}

// FuzzWhole drives what a flow behind a first hello goes through: a Watcher over what the target sends, and after a
// HelloRetryRequest ReadSecond over what the client does. Random segments say the same as the whole; and a second hello
// that is let through is one in which crypto/tls and a parser on cryptobyte see the name of the first.
func FuzzWhole(f *testing.F) {
	retry := append([]byte{serverHello, 0, 0, 44, 3, 3}, append(retryRandom[:], 0, 19, 1, 0, 0, 0)...)
	good := records(message(host(allowed), versions), maxRecord)
	ccs, early := record(recordCipherSpec, []byte{1}), record(recordData, make([]byte, 300))
	f.Add(records(retry, 7), good, uint64(1), false)
	f.Add(records(retry, 99), slices.Concat(ccs, early, good, early), uint64(2), false)
	f.Add(append(record(recordAlert, []byte{1, 112}), records(retry, 50)...), slices.Concat(early, records(good[5:], 1)), uint64(3), false)
	f.Add(records(retry, 99), records(message(host("other.example"), versions), maxRecord), uint64(4), false)
	f.Add(records(retry, 99), records(message(host("ALLOWED.example"), versions, grease), maxRecord), uint64(5), true)
	f.Add(records(append([]byte{serverHello, 0, 0, 44, 3, 3}, make([]byte, 40)...), 99), good, uint64(6), false)
	f.Add([]byte("HTTP/1.0 400 Bad Request\r\n"), []byte("GET /"), uint64(7), false)
	f.Fuzz(func(t *testing.T, target, client []byte, seed uint64, ech bool) {
		var whole, pieces Watcher
		want := whole.Watch(target)
		from, buf, got := cut(target, seed), make([]byte, 4096), pieces.Watch(nil)
		for n, err := from.Read(buf); err == nil; n, err = from.Read(buf) {
			now := pieces.Watch(buf[:n])
			if got != Unknown && now != got {
				t.Fatalf("%d after %d", now, got)
			}
			got = now
		}
		if got != want {
			t.Fatalf("%d in pieces, %d as a whole", got, want)
		}
		if got != Retry {
			return
		}
		first := Hello{Name: allowed, ECH: ech}
		h, err := ReadSecond(cut(client, seed), first)
		again, err2 := ReadSecond(bytes.NewReader(client), first)
		if len(client) <= MaxSecond && ((err == nil) != (err2 == nil) || again.Name != h.Name) {
			t.Fatalf("in pieces %q %v, as a whole %q %v", h.Name, err, again.Name, err2)
		}
		if err != nil {
			return
		}
		both := h.Bytes[:len(h.Bytes)+len(h.Rest)] // as the proxy takes them
		if !bytes.HasPrefix(client, both) || !bytes.HasSuffix(both, h.Rest) || len(both) > MaxSecond {
			t.Fatalf("%d bytes and %d behind were changed or are too many", len(h.Bytes), len(h.Rest))
		}
		checkReaders(t, handshakeOf(h.Bytes), allowed, ech)
	})
}

// handshakeOf returns the records of a second hello without those that stand in front of it.
func handshakeOf(raw []byte) []byte {
	in := cryptobyte.String(raw)
	for {
		rest := in
		var kind uint8
		var version uint16
		var body cryptobyte.String
		if !in.ReadUint8(&kind) || !in.ReadUint16(&version) || !in.ReadUint16LengthPrefixed(&body) {
			return nil
		}
		if kind != recordCipherSpec && kind != recordData {
			return rest
		}
	}
}

// checkReaders checks that crypto/tls and a parser on cryptobyte see one name in a hello, and the same.
func checkReaders(t *testing.T, raw []byte, name string, ech bool) {
	t.Helper()
	var seen string
	tls.Server(fromMemory{nil, bytes.NewReader(raw)}, &tls.Config{
		GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			seen = i.ServerName
			return nil, errSeen
		},
	}).Handshake()
	if fold(seen) != name {
		t.Fatalf("crypto/tls sees %q, we see %q", seen, name)
	}
	names, hasECH := second(raw)
	if hasECH != ech || len(names) != 1 || fold(names[0]) != name {
		t.Fatalf("the second parser sees %q (ECH %v), we see %q (%v)", names, hasECH, name, ech)
	}
}

// FuzzRetry: where crypto/tls as a client sends a second hello in clear, a Watcher has said so. What comes in front of
// the HelloRetryRequest is anything.
func FuzzRetry(f *testing.F) {
	f.Add([]byte{}, uint16(24), uint16(0x1301), uint8(99), []byte{})
	f.Add(record(recordAlert, []byte{1, 112}), uint16(23), uint16(0x1302), uint8(1), []byte{0, 44, 0, 3, 0, 1, 7})
	f.Add(record(recordCipherSpec, []byte{1}), uint16(25), uint16(0x1303), uint8(7), []byte{})
	f.Add(record(recordAlert, []byte{2, 0}), uint16(4587), uint16(0x1301), uint8(40), []byte{})
	f.Fuzz(func(t *testing.T, front []byte, group, suite uint16, size uint8, extensions []byte) {
		if len(front)+len(extensions) > maxRecord {
			return
		}
		c := &retrier{front: front, group: group, suite: suite, size: int(size) + 1, extensions: extensions}
		tls.Client(c, &tls.Config{ServerName: allowed, InsecureSkipVerify: true}).Handshake()
		var w Watcher
		if got := w.Watch(c.sent); c.hellos > 1 && got != Retry {
			t.Fatalf("a second hello was sent after % x, the answer is %d", c.sent, got)
		}
	})
}

func TestRetryIsSeen(t *testing.T) {
	c := &retrier{group: 24, suite: 0x1301, size: 9}
	tls.Client(c, &tls.Config{ServerName: allowed, InsecureSkipVerify: true}).Handshake()
	var w Watcher
	if got := w.Watch(c.sent); c.hellos != 2 || got != Retry {
		t.Fatalf("%d hellos, answer %d", c.hellos, got)
	}
}

// retrier is a connection to a server that asks for a second hello, and counts the hellos that it gets.
type retrier struct {
	front, extensions []byte
	group, suite      uint16
	size              int

	hellos int
	rest   []byte
	sent   []byte // what the client has read
	made   bool
}

func (r *retrier) Write(b []byte) (int, error) {
	if len(b) > recordHeader && b[0] == recordHandshake && b[recordHeader] == clientHello {
		if r.hellos++; !r.made {
			r.made = true
			session := b[43:][:1+b[43]]
			body := slices.Concat([]byte{3, 3}, retryRandom[:], session, binary.BigEndian.AppendUint16(nil, r.suite), []byte{0},
				vec16(slices.Concat([]byte{0, 43, 0, 2, 3, 4, 0, 51, 0, 2}, binary.BigEndian.AppendUint16(nil, r.group), r.extensions)))
			m := append([]byte{serverHello, 0, byte(len(body) >> 8), byte(len(body))}, body...)
			r.rest = append(slices.Clone(r.front), records(m, r.size)...)
		}
	}
	return len(b), nil
}

func (r *retrier) Read(b []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.rest)
	r.sent, r.rest = append(r.sent, r.rest[:n]...), r.rest[n:]
	return n, nil
}

func (*retrier) Close() error                     { return nil }
func (*retrier) LocalAddr() net.Addr              { return nil }
func (*retrier) RemoteAddr() net.Addr             { return nil }
func (*retrier) SetDeadline(time.Time) error      { return nil }
func (*retrier) SetReadDeadline(time.Time) error  { return nil }
func (*retrier) SetWriteDeadline(time.Time) error { return nil }

// X10: of a hello that has no end no more is read than may be held, however it is cut.
func TestReadsNoMore(t *testing.T) {
	endless := message(host(allowed), versions, ext{21, make([]byte, 12_000)})
	early := bytes.Repeat(record(recordData, make([]byte, 1000)), 60)
	for name, test := range map[string]struct {
		sent []byte
		most int
	}{
		"X10 records of 1 byte":   {records(endless, 1), MaxBytes},
		"X10 records of 3 bytes":  {records(endless, 3), MaxBytes},
		"X10 over two records":    {records(message(host(allowed), versions, ext{21, make([]byte, 17_000)}), maxRecord), MaxBytes},
		"X10 early data, no end":  {early, MaxSecond},
		"X10 early data, a hello": {append(early[:30_000:30_000], records(endless, maxRecord)...), MaxSecond},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				from := cut(test.sent, seed)
				if test.most == MaxBytes {
					_, err := Read(from)
					check(t, Hello{}, err, policy.TooLarge)
				} else if _, err := ReadSecond(from, Hello{Name: allowed}); err == nil {
					t.Error("let through")
				}
				if n := len(test.sent) - len(from.b); n > test.most {
					t.Errorf("%d bytes were read", n)
				}
			}
		})
	}
}

// X27: hellos of crypto/tls and ones made here, mutated; what is let through has the same name for every reader.
func TestMutatedHellos(t *testing.T) {
	n := 20_000
	if testing.Short() {
		n = 2_000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 27))
	seeds := [][]byte{
		records(message(host(allowed), versions), maxRecord),
		records(message(versions, grease, host(allowed), ext{10, []byte{0, 2, 0, 29}}), 40),
		records(message(sni(sniEntry{0, allowed}, sniEntry{0, "b.example"}), versions), maxRecord),
		captured(t, &tls.Config{ServerName: allowed}),
		captured(t, &tls.Config{ServerName: allowed, MaxVersion: tls.VersionTLS12}),
	}
	let, changed := 0, 0
	for range n {
		b := mutate(random, slices.Clone(seeds[random.IntN(len(seeds))]))
		h, err := Read(bytes.NewReader(b))
		if err != nil {
			continue
		}
		let++
		if h.Name != allowed {
			changed++
		}
		checkReaders(t, h.Bytes, string(h.Name), h.ECH)
		if t.Failed() {
			t.Fatalf("% x", b)
		}
	}
	t.Logf("%d of %d were let through, %d with another name", let, n, changed)
	if let < n/100 || let > n*99/100 {
		t.Error("the mutations are too wild or too tame to tell")
	}
}

// mutate changes a few bytes, mostly where names and lengths are, and mends the outer lengths now and then.
func mutate(random *rand.Rand, b []byte) []byte {
	for range 1 + random.IntN(3) {
		at := random.IntN(len(b))
		if name := bytes.Index(b, []byte(allowed)); name >= 0 && random.IntN(2) == 0 {
			at = max(0, min(len(b)-1, name-9+random.IntN(len(allowed)+18)))
		}
		switch random.IntN(5) {
		case 0:
			b[at] ^= 1 << random.IntN(8)
		case 1:
			b[at] = byte(random.Uint32())
		case 2:
			b = slices.Insert(b, at, byte(random.Uint32()))
		case 3:
			b = slices.Delete(b, at, at+1)
		default:
			end := min(len(b), at+1+random.IntN(30))
			b = slices.Insert(b, at, b[at:end]...)
		}
		if len(b) < 60 {
			return b
		}
	}
	if random.IntN(2) == 0 { // as one record with one message, and extensions to the end
		b[1], b[2] = 3, 1
		binary.BigEndian.PutUint16(b[3:], uint16(len(b)-5))
		b[6] = 0
		binary.BigEndian.PutUint16(b[7:], uint16(len(b)-9))
		at := 5 + 4 + 2 + 32
		at += 1 + int(b[at])
		if at+2 < len(b) {
			at += 2 + int(binary.BigEndian.Uint16(b[at:]))
		}
		if at < len(b) {
			at += 1 + int(b[at])
		}
		if at+2 < len(b) {
			binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2))
		}
	}
	return b
}
