package hello

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/postern-link/postern/policy"
)

// ext is one extension.
type ext struct {
	kind uint16
	body []byte
}

// sni is a server name extension with the given entries, each of its own type.
func sni(entries ...sniEntry) ext {
	var list []byte
	for _, e := range entries {
		list = append(list, e.kind)
		list = append(list, vec16([]byte(e.name))...)
	}
	return ext{extServerName, vec16(list)}
}

type sniEntry struct {
	kind byte
	name string
}

func host(name string) ext { return sni(sniEntry{0, name}) }

func vec16(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

// grease is what a client without a configuration of the server sends as Encrypted ClientHello (RFC 9849,
// section 6.2); nobody can tell it from a genuine one.
var grease = ext{extECH, slices.Concat([]byte{0, 0, 1, 0, 1, 7}, vec16(make([]byte, 32)), vec16(make([]byte, 144)))}

var versions = ext{43, []byte{2, 3, 4}} // supported_versions: TLS 1.3

// message is a ClientHello with the given extensions.
func message(extensions ...ext) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0)                       // session ID
	body = append(body, vec16([]byte{19, 1})...) // one cipher suite
	body = append(body, 1, 0)                    // no compression
	var list []byte
	for _, e := range extensions {
		list = binary.BigEndian.AppendUint16(list, e.kind)
		list = append(list, vec16(e.body)...)
	}
	body = append(body, vec16(list)...)
	return append([]byte{clientHello, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

// records cuts bytes into handshake records with the given body sizes; the last one repeats.
func records(b []byte, sizes ...int) (out []byte) {
	for i := 0; len(b) > 0; i++ {
		n := min(sizes[min(i, len(sizes)-1)], len(b))
		out = append(out, record(recordHandshake, b[:n])...)
		b = b[n:]
	}
	return out
}

func record(kind byte, b []byte) []byte {
	return append([]byte{kind, 3, 1, byte(len(b) >> 8), byte(len(b))}, b...)
}

// captured is the hello that crypto/tls itself sends.
func captured(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		tls.Client(client, c).Handshake()
		close(done)
	}()
	b := make([]byte, 64<<10)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	<-done
	return b[:n]
}

const allowed = "allowed.example"

func TestRead(t *testing.T) {
	good := message(host(allowed), versions)
	one := records(good, maxRecord)
	inName := bytes.Index(good, []byte(allowed)) + 4
	padded := func(n int) []byte { return message(host(allowed), versions, ext{21, make([]byte, n)}) }
	long := strings.Repeat("a.", 127) + "example" // 261 bytes

	tests := []struct {
		name  string
		bytes []byte
		want  policy.Reason // empty: the name is allowed.example
	}{
		{"plain", one, ""},
		{"X01 no server name", records(message(versions), maxRecord), policy.NoName},
		{"X01 no extensions at all", records(noExtensions(), maxRecord), policy.NoName},
		{"X04 upper case", records(message(host("Allowed.EXAMPLE"), versions), maxRecord), ""},
		{"X05 trailing dot", records(message(host(allowed+"."), versions), maxRecord), policy.BadName},
		{"X06 space", records(message(host("allowed .example"), versions), maxRecord), policy.BadName},
		{"X06 NUL", records(message(host("allowed.example\x00"), versions), maxRecord), policy.BadName},
		{"X06 UTF-8", records(message(host("allöwed.example"), versions), maxRecord), policy.BadName},
		{"X06 over 253 bytes", records(message(host(long), versions), maxRecord), policy.BadName},
		{"X06 underscore", records(message(host("_allowed.example"), versions), maxRecord), policy.BadName},
		{"X06 port", records(message(host(allowed+":443"), versions), maxRecord), policy.BadName},
		{"X06 IPv4 address", records(message(host("192.0.2.1"), versions), maxRecord), policy.BadName},
		{"X06 IPv6 address", records(message(host("2001:db8::1"), versions), maxRecord), policy.BadName},
		{"X06 empty label", records(message(host("allowed..example"), versions), maxRecord), policy.BadName},
		{"X07 two names, allowed first", records(message(sni(sniEntry{0, allowed}, sniEntry{0, "other.example"}), versions), maxRecord), policy.Malformed},
		{"X07 two names, allowed last", records(message(sni(sniEntry{0, "other.example"}, sniEntry{0, allowed}), versions), maxRecord), policy.Malformed},
		{"X07 the same name twice", records(message(sni(sniEntry{0, allowed}, sniEntry{0, allowed}), versions), maxRecord), policy.Malformed},
		{"X07 two extensions", records(message(host(allowed), host(allowed), versions), maxRecord), policy.Malformed},
		{"X07 two extensions, other name last", records(message(host(allowed), versions, host("other.example")), maxRecord), policy.Malformed},
		{"another extension twice", records(message(host(allowed), versions, versions), maxRecord), policy.Malformed},
		{"unknown name type before", records(message(sni(sniEntry{7, "x"}, sniEntry{0, allowed}), versions), maxRecord), policy.Malformed},
		{"unknown name type behind", records(message(sni(sniEntry{0, allowed}, sniEntry{7, "x"}), versions), maxRecord), policy.Malformed},
		{"empty name", records(message(host(""), versions), maxRecord), policy.Malformed},
		{"empty name list", records(message(sni(), versions), maxRecord), policy.Malformed},
		{"empty name extension", records(message(ext{extServerName, nil}, versions), maxRecord), policy.Malformed},
		{"X09 split in the name", records(good, inName, maxRecord), ""},
		{"X09 split in the name, dot", records(message(host(allowed+"."), versions), inName, maxRecord), policy.BadName},
		{"X09 one byte first", records(good, 1, maxRecord), ""},
		{"X09 header and body apart", records(good, 4, maxRecord), ""},
		{"X09 records of one byte", records(good, 1), ""},
		{"X10 17 KB over two records", records(padded(17_000), maxRecord), policy.TooLarge},
		{"X10 as large as may be", records(padded(MaxMessage-len(good)-4), maxRecord), ""},
		{"X10 one byte more", records(padded(MaxMessage-len(good)-3), maxRecord), policy.TooLarge},
		{"X10 small records around much", records(padded(12_000), 3), policy.TooLarge},
		{"X10 record over 2^14", record(recordHandshake, padded(16_400)), policy.TooLarge},
		{"X12 encrypted hello", records(message(host(allowed), versions, grease), maxRecord), ""},
		{"X12 encrypted hello without a name", records(message(versions, grease), maxRecord), policy.NoName},
		{"X12 encrypted hello, inner", records(message(host(allowed), versions, ext{extECH, []byte{1}}), maxRecord), ""},
		{"X12 encrypted hello cut short", records(message(host(allowed), versions, ext{extECH, []byte{0, 0, 1}}), maxRecord), policy.Malformed},
		{"X14 early data behind", append(slices.Clone(one), record(23, make([]byte, 500))...), ""},
		{"X14 change cipher spec behind", append(slices.Clone(one), record(20, []byte{1})...), ""},
		{"bytes behind the hello in its record", record(recordHandshake, append(slices.Clone(good), 0)), policy.Malformed},
		{"two hellos in one record", record(recordHandshake, append(slices.Clone(good), good...)), policy.Malformed},
		{"empty record first", append(record(recordHandshake, nil), one...), policy.Malformed},
		{"empty record within", append(append(records(good[:20], 20), record(recordHandshake, nil)...), records(good[20:], maxRecord)...), policy.Malformed},
		{"alert within", append(append(records(good[:20], 20), record(21, []byte{1, 0})...), records(good[20:], maxRecord)...), policy.Malformed},
		{"other handshake message", record(recordHandshake, []byte{2, 0, 0, 0}), policy.Malformed},
		{"hello of no bytes", record(recordHandshake, []byte{1, 0, 0, 0}), policy.Malformed},
		{"X17 HTTP", []byte("GET / HTTP/1.1\r\nHost: allowed.example\r\n\r\n"), policy.NoTLS},
		{"X15 PROXY v1", []byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), policy.NoTLS},
		{"SSL 2", []byte{0x80, 0x2e, 1, 0, 2, 0, 21, 0, 0, 0, 16}, policy.NoTLS},
		{"alert first", record(21, []byte{1, 0}), policy.NoTLS},
		{"TLS of another major version", append([]byte{22, 4}, one[2:]...), policy.NoTLS},
		{"nothing", nil, policy.Truncated},
		{"half a record header", one[:3], policy.Truncated},
		{"half a hello", one[:len(one)/2], policy.Truncated},
	}
	for _, test := range tests {
		for how, reader := range map[string]io.Reader{
			"whole":        bytes.NewReader(test.bytes),
			"X08 bytewise": iotest.OneByteReader(bytes.NewReader(test.bytes)),
			"X08 halves":   iotest.HalfReader(bytes.NewReader(test.bytes)),
		} {
			t.Run(test.name+"/"+how, func(t *testing.T) {
				h, err := Read(reader)
				check(t, h, err, test.want)
				if err == nil && !bytes.HasPrefix(test.bytes, h.Bytes) {
					t.Error("bytes were changed")
				}
				if all := slices.Concat(h.Bytes, h.Rest); err == nil && !bytes.HasPrefix(test.bytes, all) {
					t.Error("what is behind was changed")
				}
				if held := len(h.Bytes) + cap(h.Rest); held > MaxBytes {
					t.Errorf("%d bytes held", held)
				}
				if want := strings.HasPrefix(test.name, "X12"); h.ECH != (want && test.want == "") {
					t.Errorf("ECH %v", h.ECH)
				}
			})
		}
	}
}

// check compares what Read returned with the reason wanted; none: the allowed name.
func check(t *testing.T, h Hello, err error, want policy.Reason) {
	t.Helper()
	if want == "" {
		if err != nil || h.Name != allowed {
			t.Errorf("name %q, error %v", h.Name, err)
		}
		return
	}
	var e *Error
	if !errors.As(err, &e) || e.Reason != want {
		t.Errorf("name %q, error %v, want %s", h.Name, err, want)
	}
	if h.Name != "" || h.Bytes != nil {
		t.Errorf("a refused hello has name %q and %d bytes", h.Name, len(h.Bytes))
	}
}

func noExtensions() []byte {
	b := message()
	b = b[:len(b)-2]
	n := len(b) - messageHeader
	b[2], b[3] = byte(n>>8), byte(n)
	return b
}

// X11: what Go's own client sends, with the ML-KEM key share of today and without.
func TestRealHellos(t *testing.T) {
	for name, curves := range map[string][]tls.CurveID{
		"X11 post-quantum": nil,
		"classic":          {tls.X25519},
	} {
		t.Run(name, func(t *testing.T) {
			b := captured(t, &tls.Config{ServerName: allowed, CurvePreferences: curves})
			h, err := Read(bytes.NewReader(b))
			check(t, h, err, "")
		})
	}
	t.Run("without a name", func(t *testing.T) {
		h, err := Read(bytes.NewReader(captured(t, &tls.Config{InsecureSkipVerify: true})))
		check(t, h, err, policy.NoName)
	})
}

// X16, X23: one deadline for all of it, however the bytes trickle.
func TestDeadline(t *testing.T) {
	for name, pace := range map[string]time.Duration{
		"X16 silence":             time.Hour,
		"X23 a byte each 2 s":     2 * time.Second,
		"X23 a byte each 0.1 s":   100 * time.Millisecond,
		"X23 most, then nothing ": 10 * time.Millisecond,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				began := time.Now()
				server.SetReadDeadline(began.Add(5 * time.Second))
				go func() {
					b := records(message(host(allowed), versions, ext{21, make([]byte, 2000)}), maxRecord)
					for i := range b {
						time.Sleep(pace)
						if _, err := client.Write(b[i : i+1]); err != nil {
							return
						}
					}
				}()
				h, err := Read(server)
				check(t, h, err, policy.Timeout)
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("error %v doesn't wrap its cause", err)
				}
				if took := time.Since(began); took != 5*time.Second {
					t.Errorf("refused after %v", took)
				}
				server.Close()
				client.Close()
				synctest.Wait()
				time.Sleep(time.Hour) // lets a silent client wake and see that it's over
			})
		})
	}
}

func BenchmarkHello(b *testing.B) {
	for name, curves := range map[string][]tls.CurveID{"post-quantum": nil, "classic": {tls.X25519}} {
		hello := captured(b, &tls.Config{ServerName: allowed, CurvePreferences: curves})
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(hello)))
			for b.Loop() {
				if _, err := Read(bytes.NewReader(hello)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
