package preface

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"testing/iotest"

	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/hello"
)

// reason returns why an error refuses; "" for none.
func reason(t testing.TB, err error) policy.Reason {
	t.Helper()
	var e *hello.Error
	if err != nil && !errors.As(err, &e) {
		t.Fatalf("%T: %v", err, err)
	}
	if err == nil {
		return ""
	}
	return e.Reason
}

// peer is the other side: what it sends, and what it is sent.
type peer struct {
	io.Reader
	got bytes.Buffer
}

func (p *peer) Write(b []byte) (int, error) { return p.got.Write(b) }

// pieces reads random pieces of a text.
type pieces struct {
	b    []byte
	rand *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), 1+p.rand.IntN(9))], p.b)
	p.b = p.b[n:]
	return n, nil
}

// cuts are the ways in which bytes arrive. X28: they change nothing, but for what a test says.
func cuts(t *testing.T, b []byte) map[string]io.Reader {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return map[string]io.Reader{
		"at once":      bytes.NewReader(b),
		"byte by byte": iotest.OneByteReader(bytes.NewReader(b)),
		"random":       &pieces{b, rand.New(rand.NewPCG(seed, 0))},
	}
}

func request(code uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, code)
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestPostgres(t *testing.T) {
	ssl, gss := request(postgresSSL), request(postgresGSS)
	if !bytes.Equal(ssl, PostgresSSLRequest()) {
		t.Fatalf("request % x", PostgresSSLRequest())
	}
	startup := cat([]byte{0, 0, 0, 20, 0, 3, 0, 0}, []byte("user\x00me\x00\x00\x00\x00\x00"))
	tests := []struct {
		name   string
		sent   []byte
		reason policy.Reason
		direct bool
		answer string
		atOnce bool // only where the bytes arrive together
	}{
		{"X18 SSLRequest", ssl, "", false, "S", false},
		{"direct TLS", []byte{22, 3, 1, 0, 5, 1}, "", true, "", false},
		{"X19 startup in clear", startup, policy.NoTLS, false, "", false},
		{"X19 startup of a length of 8", request(196608), policy.NoTLS, false, "", false},
		{"cancel in clear", cat([]byte{0, 0, 0, 16}, binary.BigEndian.AppendUint32(nil, postgresCancel), make([]byte, 8)), policy.NoTLS, false, "", false},
		{"pipelined hello, CVE-2021-23214", cat(ssl, []byte{22, 3, 1}), policy.Malformed, false, "", true},
		{"pipelined behind GSSENCRequest", cat(gss, ssl), policy.Malformed, false, "", true},
		{"GSSENCRequest twice", nil, policy.Malformed, false, "N", false},
		{"GSSENCRequest, startup", nil, policy.NoTLS, false, "N", false},
		{"GSSENCRequest, TLS", nil, policy.NoTLS, false, "N", false},
		{"GSSENCRequest, SSLRequest", nil, "", false, "NS", false},
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), policy.NoTLS, false, "", false},
		{"PROXY header", []byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), policy.NoTLS, false, "", false},
		{"nothing", nil, policy.Truncated, false, "", false},
		{"half a request", ssl[:6], policy.Truncated, false, "", false},
		{"longer request", cat([]byte{0, 0, 0, 9}, ssl[4:], []byte{0}), policy.NoTLS, false, "", false},
	}
	second := map[string][]byte{"GSSENCRequest twice": gss, "GSSENCRequest, startup": startup,
		"GSSENCRequest, TLS": {22, 3, 1, 0, 5, 1, 0, 0}, "GSSENCRequest, SSLRequest": ssl}
	for _, test := range tests {
		for cut, r := range cuts(t, test.sent) {
			if test.atOnce && cut != "at once" {
				continue
			}
			if then := second[test.name]; then != nil { // sent when the first was answered
				r = io.MultiReader(bytes.NewReader(gss), iotest.OneByteReader(bytes.NewReader(then)))
			}
			t.Run(test.name+" "+cut, func(t *testing.T) {
				p := &peer{Reader: r}
				first, direct, err := Postgres(p)
				if got := reason(t, err); got != test.reason || direct != test.direct || p.got.String() != test.answer {
					t.Errorf("%v, direct %v, answer %q", err, direct, p.got.String())
				}
				if direct && !bytes.HasPrefix(test.sent, first) || direct && len(first) == 0 {
					t.Errorf("first % x", first)
				}
			})
		}
	}
}

func TestPostgresAnswer(t *testing.T) {
	for _, test := range []struct {
		name, sent string
		reason     policy.Reason
	}{
		{"yes", "S", ""},
		{"no", "N", policy.NoTLS},
		{"error", "E\x00\x00\x00\x05\x00", policy.NoTLS},
		{"GSSAPI", "G", policy.NoTLS},
		{"bytes behind, CVE-2021-23222", "SR", policy.Malformed},
		{"the end", "", policy.Target},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := PostgresAnswer(bytes.NewReader([]byte(test.sent))); reason(t, err) != test.reason {
				t.Error(err)
			}
		})
	}
}

// Deadlines have reasons of their own, by whose they are.
func TestSilence(t *testing.T) {
	late := iotest.ErrReader(os.ErrDeadlineExceeded)
	for name, read := range map[string]func() error{
		"postgres": func() error { _, _, err := Postgres(&peer{Reader: late}); return err },
		"tds":      func() error { _, _, err := Prelogin(late); return err },
		"mysql":    func() error { _, err := SSLRequest(late); return err },
	} {
		if err := read(); reason(t, err) != policy.Timeout {
			t.Errorf("client of %s: %v", name, err)
		}
	}
	for name, read := range map[string]func() error{
		"postgres": func() error { return PostgresAnswer(late) },
		"tds":      func() error { _, err := PreloginAnswer(late); return err },
		"mysql":    func() error { _, _, err := Greeting(late); return err },
	} {
		if err := read(); reason(t, err) != policy.NoTarget {
			t.Errorf("target of %s: %v", name, err)
		}
	}
}

// greeting is that of a MySQL server with the given abilities.
func greeting(able uint16) []byte {
	body := cat([]byte{10}, []byte("8.4.3\x00"), make([]byte, 4), []byte("abcdefgh\x00"),
		binary.LittleEndian.AppendUint16(nil, able), []byte{33, 2, 0, 0xff, 0xc7, 21}, make([]byte, 10),
		[]byte("abcdefghijkl\x00mysql_native_password\x00"))
	return mysql(0, body)
}

// mysql is a packet.
func mysql(seq byte, body []byte) []byte {
	n := len(body)
	return append([]byte{byte(n), byte(n >> 8), byte(n >> 16), seq}, body...)
}

// sslRequest is that of a client with the given abilities.
func sslRequest(able uint32) []byte {
	return binary.LittleEndian.AppendUint32(nil, able)
}

const both = mysqlTLS | mysqlProtocol

func TestGreeting(t *testing.T) {
	tooMany := mysql(0, []byte("\xff\x10\x04Too many connections"))
	tests := []struct {
		name   string
		sent   []byte
		reason policy.Reason
		over   bool
	}{
		{"with TLS", greeting(0xf7fe | both), "", false},
		{"with TLS and more behind", cat(greeting(both), []byte("more")), "", false},
		{"without TLS", greeting(0xf7fe &^ mysqlTLS), policy.NoTLS, false},
		{"before 4.1", greeting(mysqlTLS), policy.NoTLS, false},
		{"error", tooMany, "", true},
		{"protocol 9", mysql(0, []byte("\x093.20\x00\x01\x02\x03\x04abcdefgh\x00")), policy.NoTLS, false},
		{"version without an end", mysql(0, bytes.Repeat([]byte{10}, 80)), policy.NoTLS, false},
		{"ends before the abilities", mysql(0, greeting(both)[4:4+1+6+4+9+1]), policy.NoTLS, false},
		{"no zero behind the nonce", mysql(0, bytes.Replace(greeting(both)[4:], []byte("h\x00"), []byte("h\x01"), 1)), policy.NoTLS, false},
		{"empty", mysql(0, nil), policy.NoTLS, false},
		{"too large", mysql(0, append([]byte{10}, make([]byte, MaxGreeting)...)), policy.NoTLS, false},
		{"sequence number", mysql(1, greeting(both)[4:]), policy.NoTLS, false},
		{"half", greeting(both)[:30], policy.Target, false},
		{"nothing", nil, policy.Target, false},
	}
	for _, test := range tests {
		for cut, r := range cuts(t, test.sent) {
			t.Run(test.name+" "+cut, func(t *testing.T) {
				raw, over, err := Greeting(r)
				if reason(t, err) != test.reason || over != test.over {
					t.Fatalf("over %v, error %v", over, err)
				}
				if err != nil {
					return
				}
				if rest, _ := io.ReadAll(r); !bytes.Equal(append(raw, rest...), test.sent) || len(raw) != 4+mysqlLength(test.sent) {
					t.Errorf("read % x", raw)
				}
			})
		}
	}
}

func TestSSLRequest(t *testing.T) {
	filler := make([]byte, 28)
	good := mysql(1, cat(sslRequest(both), filler))
	login := mysql(1, cat(sslRequest(mysqlProtocol), filler, []byte("root\x00secret")))
	tests := []struct {
		name   string
		sent   []byte
		reason policy.Reason
	}{
		{"X28 request, hello", cat(good, []byte{22, 3, 1, 0, 5}), ""},
		{"X29 login without TLS", login, policy.NoTLS},
		{"X29 login of 32 bytes", mysql(1, cat(sslRequest(mysqlProtocol), filler)), policy.NoTLS},
		{"login that says TLS", mysql(1, cat(sslRequest(both), filler, []byte("root\x00"))), policy.NoTLS},
		{"before 4.1", mysql(1, cat(sslRequest(mysqlTLS), filler)), policy.Malformed},
		{"request of before 4.1", mysql(1, []byte{0, 8, 0, 0}), policy.NoTLS},
		{"sequence number", mysql(2, good[4:]), policy.Malformed},
		{"TLS at once", []byte{22, 3, 1, 0, 5}, policy.NoTLS},
		{"half", good[:20], policy.Truncated},
		{"nothing", nil, policy.Truncated},
	}
	for _, test := range tests {
		for cut, r := range cuts(t, test.sent) {
			t.Run(test.name+" "+cut, func(t *testing.T) {
				raw, err := SSLRequest(r)
				if reason(t, err) != test.reason {
					t.Fatal(err)
				}
				if err != nil {
					return
				}
				if rest, _ := io.ReadAll(r); !bytes.Equal(append(raw, rest...), test.sent) || len(raw) != 36 {
					t.Errorf("read % x", raw)
				}
			})
		}
	}
}
