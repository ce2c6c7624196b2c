package preface

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/hello"
)

// option is one option of a PRELOGIN.
type option struct {
	token byte
	data  []byte
}

var version = option{optionVersion, []byte{8, 0, 1, 0x55, 0, 0}}

// prelogin is the body of a PRELOGIN.
func prelogin(options ...option) []byte {
	var table, data []byte
	at := len(options)*optionSize + 1
	for _, o := range options {
		table = append(table, o.token)
		table = binary.BigEndian.AppendUint16(table, uint16(at+len(data)))
		table = binary.BigEndian.AppendUint16(table, uint16(len(o.data)))
		data = append(data, o.data...)
	}
	return cat(table, []byte{optionEnd}, data)
}

// offers is a usual one, with what it says of encryption.
func offers(e byte) []byte {
	return prelogin(version, option{optionEncryption, []byte{e}}, option{2, []byte("MSSQLServer\x00")}, option{3, []byte{0, 1, 2, 3}},
		option{4, []byte{0}}, option{5, make([]byte, 36)}, option{6, []byte{1}})
}

// packets puts a body into packets with bodies of the given size at most.
func packets(kind byte, body []byte, size int) (out []byte) {
	for id := byte(1); ; id++ {
		n := min(len(body), size)
		last := byte(0)
		if n == len(body) {
			last = tdsLast
		}
		out = append(out, kind, last, byte((n+tdsHeader)>>8), byte(n+tdsHeader), 0, 0, id, 0)
		out = append(out, body[:n]...)
		if body = body[n:]; len(body) == 0 {
			return out
		}
	}
}

func TestPrelogin(t *testing.T) {
	one := func(body []byte) []byte { return packets(tdsPrelogin, body, 4000) }
	good := one(offers(encryptOn))
	with := func(edit func(b []byte)) []byte {
		b := bytes.Clone(good)
		edit(b)
		return b
	}
	tests := []struct {
		name   string
		sent   []byte
		reason policy.Reason
		direct bool
		atOnce bool
	}{
		{"X21 encryption on", good, "", false, false},
		{"encryption of the login", one(offers(encryptOff)), "", false, false},
		{"encryption required", one(offers(encryptRequired)), "", false, false},
		{"with a certificate", one(offers(encryptCert | encryptOn)), "", false, false},
		{"X21 TDS 8", []byte{22, 3, 1, 0, 5}, "", true, false},
		{"several packets", packets(tdsPrelogin, offers(encryptOn), 7), "", false, false},
		{"no encryption", one(offers(2)), policy.NoTLS, false, false},
		{"unknown encryption", one(offers(0x10)), policy.NoTLS, false, false},
		{"encryption isn't spoken of", one(prelogin(version)), policy.Malformed, false, false},
		{"encryption named without a value", one(prelogin(version, option{optionEncryption, nil})), policy.Malformed, false, false},
		{"encryption twice", one(prelogin(version, option{optionEncryption, []byte{1}}, option{optionEncryption, []byte{2}})), policy.Malformed, false, false},
		{"version isn't first", one(prelogin(option{optionEncryption, []byte{1}}, version)), policy.Malformed, false, false},
		{"version of 5 bytes", one(prelogin(option{optionVersion, make([]byte, 5)}, option{optionEncryption, []byte{1}})), policy.Malformed, false, false},
		{"no end of the options", one(bytes.Repeat([]byte{0, 0, 1, 0, 6}, 3)), policy.Malformed, false, false},
		{"option within the table", with(func(b []byte) { b[tdsHeader+7] = 5 }), policy.Malformed, false, false},
		{"option behind the message", with(func(b []byte) { b[tdsHeader+6] = 1 }), policy.Malformed, false, false},
		{"login in clear", packets(0x10, make([]byte, 100), 4000), policy.NoTLS, false, false},
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), policy.NoTLS, false, false},
		{"status", with(func(b []byte) { b[1] = 9 }), policy.Malformed, false, false},
		{"empty packet", with(func(b []byte) { b[2], b[3] = 0, 8 }), policy.Malformed, false, false},
		{"packet smaller than its header", with(func(b []byte) { b[2], b[3] = 0, 3 }), policy.Malformed, false, false},
		{"second packet of another type", with(func(b []byte) { b[1], b[3] = 0, 10; b[10] = 0x10 }), policy.Malformed, false, false},
		{"too large", packets(tdsPrelogin, append(offers(1), make([]byte, MaxClientPrelogin)...), 4000), policy.TooLarge, false, false},
		{"too large in crumbs", packets(tdsPrelogin, append(offers(1), make([]byte, MaxClientPrelogin/2)...), 1), policy.TooLarge, false, false},
		{"pipelined hello", cat(good, packets(tdsPrelogin, []byte{22, 3, 1}, 10)), policy.Malformed, false, true},
		{"half", good[:20], policy.Truncated, false, false},
		{"nothing", nil, policy.Truncated, false, false},
	}
	for _, test := range tests {
		for cut, r := range cuts(t, test.sent) {
			if test.atOnce && cut != "at once" {
				continue
			}
			t.Run(test.name+" "+cut, func(t *testing.T) {
				raw, direct, err := Prelogin(r)
				if reason(t, err) != test.reason || direct != test.direct {
					t.Fatalf("direct %v, error %v", direct, err)
				}
				if rest, _ := io.ReadAll(r); err == nil && !bytes.Equal(append(raw, rest...), test.sent) {
					t.Errorf("read % x", raw)
				}
			})
		}
	}
}

func TestPreloginAnswer(t *testing.T) {
	one := func(body []byte) []byte { return packets(tdsReply, body, 4000) }
	tests := []struct {
		name   string
		sent   []byte
		reason policy.Reason
	}{
		{"on", one(offers(encryptOn)), ""},
		{"off: the login", one(offers(encryptOff)), ""},
		{"required", one(offers(encryptRequired)), ""},
		{"several packets", packets(tdsReply, offers(encryptOn), 9), ""},
		{"X21 no encryption", one(offers(2)), policy.NoTLS},
		{"not understood", one([]byte{0xfd, 0, 0}), policy.NoTLS},
		{"packet of another type", packets(tdsPrelogin, offers(1), 4000), policy.NoTLS},
		{"bytes behind", cat(one(offers(1)), []byte{tdsReply}), policy.Malformed},
		{"large", one(append(offers(1), make([]byte, MaxTargetPrelogin)...)), policy.TooLarge},
		{"half", one(offers(1))[:20], policy.Target},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			raw, err := PreloginAnswer(bytes.NewReader(test.sent))
			if reason(t, err) != test.reason || err == nil && !bytes.Equal(raw, test.sent) {
				t.Errorf("% x, error %v", raw, err)
			}
		})
	}
}

// Whatever the packets and segments are, the TLS bytes are the same, and the packets are kept.
func TestUnwrap(t *testing.T) {
	tls := make([]byte, 1500)
	for i := range tls {
		tls[i] = byte(rand.Int())
	}
	for _, size := range []int{1, 3, 5, 100, 1499, 1500, 4088} {
		wrapped := packets(tdsPrelogin, tls, size)
		for cut, from := range cuts(t, wrapped) {
			r := &UnwrapReader{From: from, Packets: new(Unwrapper)}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, tls) || !bytes.Equal(r.Raw, wrapped) || !r.Whole() {
				t.Errorf("packets of %d, %s: %d bytes, %d raw, error %v", size, cut, len(got), len(r.Raw), err)
			}
		}
	}
	for _, test := range []struct {
		name   string
		target bool
		sent   []byte
		reason policy.Reason
	}{
		{"login in clear", false, packets(0x10, []byte("login"), 100), policy.NoTLS},
		{"TLS without packets", false, []byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 0}, policy.NoTLS},
		{"reply of a client", false, packets(tdsReply, []byte("x"), 100), policy.NoTLS},
		{"reply of a target", true, packets(tdsReply, []byte("x"), 100), ""},
		{"login of a target", true, packets(0x10, []byte("x"), 100), policy.NoTLS},
		{"status", false, []byte{tdsPrelogin, 2, 0, 9, 0, 0, 0, 0, 1}, policy.Malformed},
		{"empty packet", false, []byte{tdsPrelogin, 1, 0, 8, 0, 0, 0, 0}, policy.Malformed},
		{"crumbs", false, packets(tdsPrelogin, make([]byte, MaxWrapped/8), 1), policy.TooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &UnwrapReader{From: bytes.NewReader(test.sent), Packets: &Unwrapper{Target: test.target}}
			if _, err := io.ReadAll(r); reason(t, err) != test.reason {
				t.Error(err)
			}
			if len(r.Raw) > MaxWrapped {
				t.Errorf("%d bytes held", len(r.Raw))
			}
		})
	}
}

func FuzzPostgres(f *testing.F) {
	f.Add(request(postgresSSL))
	f.Add(cat(request(postgresGSS), request(postgresSSL)))
	f.Add([]byte("\x00\x00\x00\x14\x00\x03\x00\x00user\x00me\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &peer{Reader: iotest.OneByteReader(bytes.NewReader(b))}
		_, direct, err := Postgres(p)
		reason(t, err)
		if err != nil || direct {
			return
		}
		ssl, gss := request(postgresSSL), request(postgresGSS)
		if !bytes.HasPrefix(b, ssl) && !bytes.HasPrefix(b, cat(gss, ssl)) {
			t.Errorf("% x asks for TLS", b)
		}
	})
}

func FuzzPrelogin(f *testing.F) {
	f.Add(packets(tdsPrelogin, offers(1), 4000))
	f.Add(packets(tdsPrelogin, offers(0), 5))
	f.Add(packets(tdsPrelogin, prelogin(version, option{1, []byte{0x83}}), 4000))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, direct, err := Prelogin(bytes.NewReader(b))
		if reason(t, err); err == nil && !direct && (!bytes.Equal(whole, b) || len(b) > MaxClientPrelogin) {
			t.Errorf("%d bytes of %d", len(whole), len(b))
		}
		// The same byte by byte, but for what is behind.
		if part, _, again := Prelogin(iotest.OneByteReader(bytes.NewReader(b))); err == nil && !direct && (again != nil || !bytes.Equal(part, whole)) {
			t.Errorf("byte by byte: %v", again)
		}
		// What one accepts of a target is the same message with another type.
		if err == nil && !direct && bytes.Count(b, []byte{tdsPrelogin}) == 1 {
			if _, err := PreloginAnswer(bytes.NewReader(cat([]byte{tdsReply}, b[1:]))); err != nil {
				t.Errorf("as an answer: %v", err)
			}
		}
	})
}

func FuzzUnwrap(f *testing.F) {
	f.Add([]byte("a hello"), uint8(3), []byte{1, 2, 3})
	f.Add([]byte{22, 3, 1, 0, 1, 1}, uint8(1), []byte{9})
	f.Fuzz(func(t *testing.T, tls []byte, size uint8, junk []byte) {
		var u Unwrapper
		if got, err := u.Unwrap(nil, junk); err == nil && len(got) > len(junk) {
			t.Errorf("%d bytes out of %d", len(got), len(junk))
		}
		if len(tls) == 0 || size == 0 || len(tls)*(tdsHeader+1) > MaxWrapped {
			return
		}
		r := &UnwrapReader{From: bytes.NewReader(packets(tdsPrelogin, tls, int(size))), Packets: new(Unwrapper)}
		if got, err := io.ReadAll(iotest.OneByteReader(r)); err != nil || !bytes.Equal(got, tls) {
			t.Errorf("%q, error %v", got, err)
		}
	})
}

func FuzzMySQL(f *testing.F) {
	f.Add(greeting(both), mysql(1, cat(sslRequest(both), make([]byte, 28))))
	f.Add(greeting(0), mysql(1, cat(sslRequest(0), make([]byte, 40))))
	f.Fuzz(func(t *testing.T, hi, answer []byte) {
		raw, over, err := Greeting(bytes.NewReader(hi))
		if reason(t, err); err == nil && (!bytes.HasPrefix(hi, raw) || len(raw) > MaxGreeting || over != (raw[4] == mysqlError)) {
			t.Errorf("greeting % x", raw)
		}
		raw, err = SSLRequest(bytes.NewReader(answer))
		if reason(t, err); err == nil && (!bytes.HasPrefix(answer, raw) || len(raw) != 36 || raw[5]&8 == 0) {
			t.Errorf("request % x", raw)
		}
	})
}

// The hello package reads a wrapped hello as it reads a plain one.
func TestWrappedHello(t *testing.T) {
	body := cat([]byte{3, 3}, make([]byte, 32), []byte{0, 0, 2, 19, 1, 1, 0})
	name := []byte("allowed.example")
	sni := cat([]byte{0, 0, 0, byte(len(name) + 5), 0, byte(len(name) + 3), 0, 0, byte(len(name))}, name)
	versions := []byte{0, 43, 0, 3, 2, 3, 4}
	ext := cat(sni, versions)
	body = cat(body, []byte{0, byte(len(ext))}, ext)
	msg := cat([]byte{1, 0, 0, byte(len(body))}, body)
	record := cat([]byte{22, 3, 1, 0, byte(len(msg))}, msg)
	for _, size := range []int{1, 4, 11, 4088} {
		wrapped := packets(tdsPrelogin, record, size)
		for cut, from := range cuts(t, wrapped) {
			r := &UnwrapReader{From: from, Packets: new(Unwrapper)}
			h, err := hello.Read(r)
			if err != nil || string(h.Name) != string(name) || !bytes.Equal(r.Raw, wrapped) {
				t.Errorf("packets of %d, %s: %q, error %v", size, cut, h.Name, err)
			}
		}
	}
}
