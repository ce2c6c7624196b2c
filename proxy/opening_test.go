package proxy

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// handshake puts a message into records with bodies of at most size bytes.
func handshake(message []byte, size int) (out []byte) {
	for part := range slices.Chunk(message, size) {
		out = append(out, 22, 3, 3, byte(len(part)>>8), byte(len(part)))
		out = append(out, part...)
	}
	return out
}

// serverHello is the beginning of a ServerHello that is a HelloRetryRequest or isn't, with all that tells.
func serverHello(retry bool) []byte {
	m := append([]byte{2, 0, 0, 40, 3, 3}, make([]byte, 38)...)
	if retry {
		copy(m[6:], "\xCF\x21\xAD\x74\xE5\x9A\x61\x11\xBE\x1D\x8C\x02\x1E\x65\xB8\x91\xC2\xA2\x11\x16\x7A\xBB\x8C\x5E\x07\x9E\x09\xE2\xC8\xA8\x33\x9C")
	}
	return m
}

// encrypted is a hello with an extension of Encrypted ClientHello that nobody can decrypt.
func encrypted(t testing.TB, name string) []byte {
	ech := slices.Concat([]byte{0xfe, 0x0d, 0, 12, 0, 0, 1, 0, 1, 7, 0, 1, 1, 0, 1, 1})
	b := helloFor(t, name)
	at := 5 + 4 + 2 + 32
	at += 1 + int(b[at])                           // session ID
	at += 2 + int(binary.BigEndian.Uint16(b[at:])) // cipher suites
	at += 1 + int(b[at])                           // compression
	b = slices.Insert(b, at+2, ech...)             // first of the extensions
	for _, length := range []int{at, 7, 3} {       // of the extensions, the message, the record
		binary.BigEndian.PutUint16(b[length:], binary.BigEndian.Uint16(b[length:])+uint16(len(ech)))
	}
	return b
}

var (
	changeCipherSpec = []byte{20, 3, 3, 0, 1, 1}
	earlyData        = append([]byte{23, 3, 3, 0, 200}, bytes.Repeat([]byte{7}, 200)...)
)

// opened is a pinned flow whose first hello has reached the target.
func opened(t *testing.T, settings Settings, first []byte, edit ...func(*link.Service)) (w *world, client, far *net.TCPConn) {
	t.Helper()
	g := newTarget(t)
	w = newWorld(t, settings, service("svc", 7001, g.addr(), append(edit, pinned)...), endpoint("e", "svc", nextAddr(t)))
	client = dial(t, w.first())
	client.Write(first)
	far, _ = g.next()
	if _, err := io.ReadFull(far, make([]byte, len(first)-1)); err != nil {
		t.Fatal(err)
	}
	return w, client, far
}

// checkEnded checks that a flow was cut for a reason, and that nothing more of the client came to the target.
func checkEnded(t *testing.T, w *world, client, far *net.TCPConn, reason policy.Reason) {
	t.Helper()
	if b, err := io.ReadAll(far); len(b) > 0 || err == nil && !wasReset(far) {
		t.Errorf("the target received %d bytes more, error %v", len(b), err)
	}
	if _, err := io.ReadAll(client); err == nil && !wasReset(client) {
		t.Error("the client wasn't reset")
	}
	eventually(t, "the line of the flow", func() bool { return len(w.log.lines("flow ended")) == 1 })
	if line := w.log.lines("flow ended")[0]; !strings.Contains(line, "reason="+string(reason)+" ") {
		t.Errorf("want %s: %s", reason, line)
	}
}

// X13, E13, E14: the hello behind a HelloRetryRequest is judged, and must say what the first one said.
func TestSecondHello(t *testing.T) {
	t.Parallel()
	hello, ech := helloFor(t, "allowed.example"), encrypted(t, "allowed.example")
	allow := func(s *link.Service) { s.ECHOuter = true }
	bytewise := handshake(hello[5:], 1)
	tests := []struct {
		name   string
		first  []byte
		second []byte
		want   policy.Reason // empty: all of it arrives
		edit   []func(*link.Service)
	}{
		{"the same", hello, hello, "", nil},
		{"in other case", hello, helloFor(t, "ALLOWED.example"), "", nil},
		{"behind change_cipher_spec and early data", hello, slices.Concat(changeCipherSpec, earlyData, earlyData, hello), "", nil},
		{"X08 X09 in records of 1 byte", hello, bytewise, "", nil},
		{"and what follows", hello, slices.Concat(hello, changeCipherSpec, earlyData), "", nil},
		{"behind change_cipher_spec, and what follows", hello, slices.Concat(changeCipherSpec, hello, earlyData, earlyData), "", nil},
		{"ECH in both", ech, ech, "", []func(*link.Service){allow}},
		{"X13 another name", hello, helloFor(t, "other.example"), policy.HelloChanged, nil},
		{"X13 another name behind early data", hello, slices.Concat(earlyData, helloFor(t, "other.example")), policy.HelloChanged, nil},
		{"X13 no name", hello, helloFor(t, ""), policy.NoName, nil},
		{"X13 trailing dot", hello, bytes.Replace(hello, []byte("allowed.example"), []byte("allowed.exampl."), 1), policy.BadName, nil},
		{"X13 ECH in the second alone", hello, ech, policy.HelloChanged, nil},
		{"X13 ECH in the first alone", ech, hello, policy.HelloChanged, []func(*link.Service){allow}},
		{"clear text", hello, []byte("GET / HTTP/1.1\r\n\r\n"), policy.Malformed, nil},
		{"another message", hello, handshake([]byte{11, 0, 0, 1, 0}, 9), policy.Malformed, nil},
		{"alert", hello, []byte{21, 3, 3, 0, 2, 2, 47}, policy.Truncated, nil},
		{"change_cipher_spec that is none", hello, append([]byte{20, 3, 3, 0, 1, 2}, hello...), policy.Malformed, nil},
		{"change_cipher_spec within", hello, slices.Concat(handshake(hello[5:105], 100), changeCipherSpec, handshake(hello[105:], 9999)), policy.Malformed, nil},
		{"X10 more than is held", hello, bytes.Repeat(earlyData, 200), policy.TooLarge, nil},
		{"X16 X23 silence", hello, hello[:100], policy.Timeout, nil},
	}
	for _, test := range tests {
		for _, how := range []string{"after", "at once"} {
			t.Run(test.name+"/"+how, func(t *testing.T) {
				t.Parallel()
				settings := Settings{HelloTimeout: time.Second}
				if test.want == "" {
					settings = Settings{}
				}
				w, client, far := opened(t, settings, test.first, test.edit...)
				answer := handshake(serverHello(true), 7)
				if how == "at once" { // the flow may end before the answer was passed on
					client.Write(test.second)
					far.Write(answer)
				} else {
					for part := range slices.Chunk(answer, 11) { // over records and segments
						far.Write(part)
					}
					io.ReadFull(client, make([]byte, len(answer)))
					client.Write(test.second)
				}
				if test.want != "" {
					checkEnded(t, w, client, far, test.want)
					return
				}
				got := make([]byte, len(test.second))
				if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, test.second) {
					t.Fatalf("the second hello was changed, error %v", err)
				}
				io.WriteString(client, "more")
				client.CloseWrite()
				if rest, err := io.ReadAll(far); string(rest) != "more" || err != nil {
					t.Errorf("%q, error %v", rest, err)
				}
				far.Close()
				eventually(t, "the bytes are counted", func() bool { return w.proxy.Flows() == 0 })
			})
		}
	}
}

// E14: nothing behind the hello reaches the target before its first message, whatever that is; then all of it.
func TestEarlyDataWaits(t *testing.T) {
	t.Parallel()
	hello := helloFor(t, "allowed.example")
	for name, answer := range map[string][]byte{
		"ServerHello":                 handshake(serverHello(false), 9999),
		"ServerHello behind warnings": append([]byte{21, 3, 3, 0, 2, 1, 112}, handshake(serverHello(false), 3)...),
		"alert":                       {21, 3, 3, 0, 2, 2, 40},
		"clear text":                  []byte("HTTP/1.0 400 Bad Request\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			_, client, far := opened(t, Settings{}, hello)
			client.Write(earlyData)
			far.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if n, err := far.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Fatalf("early data came before the answer, error %v", err)
			}
			far.SetReadDeadline(time.Now().Add(patience))
			far.Write(answer)
			client.CloseWrite()
			if got, err := io.ReadAll(far); !bytes.Equal(got, earlyData) || err != nil {
				t.Errorf("%d bytes, error %v", len(got), err)
			}
			far.Close()
			if got, err := io.ReadAll(client); !bytes.Equal(got, answer) || err != nil {
				t.Errorf("the client got %q, error %v", got, err)
			}
		})
	}
}

// What may happen to a flow while the target's first message, or the second hello, is waited for.
func TestEndsWhileWatching(t *testing.T) {
	hello := helloFor(t, "allowed.example")
	for _, retry := range []bool{false, true} {
		name, settings := "no answer yet", Settings{HelloTimeout: patience}
		if retry {
			name = "second hello awaited"
		}
		start := func(t *testing.T) (*world, *net.TCPConn, *net.TCPConn) {
			w, client, far := opened(t, settings, hello)
			if retry {
				b := handshake(serverHello(true), 9999)
				far.Write(b)
				io.ReadFull(client, make([]byte, len(b)))
			}
			return w, client, far
		}
		t.Run("X33 revoked/"+name, func(t *testing.T) {
			w, client, far := start(t)
			client.Write(earlyData)
			checkCut(t, w, revocations["suspend"](w), "flow ended", client)
			if b, _ := io.ReadAll(far); len(b) > 0 {
				t.Errorf("%d bytes reached the target", len(b))
			}
		})
		t.Run("client resets/"+name, func(t *testing.T) {
			w, client, far := start(t)
			client.Write(earlyData)
			client.SetLinger(0)
			client.Close()
			if b, err := io.ReadAll(far); len(b) > 0 || err == nil {
				t.Errorf("%d bytes reached the target, error %v", len(b), err)
			}
			eventually(t, "the flow is over", func() bool { return w.proxy.Flows() == 0 })
		})
	}
	t.Run("client half-closes", func(t *testing.T) {
		_, client, far := opened(t, Settings{}, hello)
		client.CloseWrite()
		if b, err := io.ReadAll(far); len(b) > 0 || err != nil {
			t.Errorf("%d bytes, error %v", len(b), err)
		}
		io.WriteString(far, "late")
		far.Close()
		if b, err := io.ReadAll(client); string(b) != "late" || err != nil {
			t.Errorf("%q, error %v", b, err)
		}
	})
	t.Run("target closes at once", func(t *testing.T) {
		w, client, far := opened(t, Settings{}, hello)
		far.Close()
		if b, err := io.ReadAll(client); len(b) > 0 || err != nil {
			t.Errorf("%q, error %v", b, err)
		}
		client.Close()
		eventually(t, "the flow is over", func() bool { return w.proxy.Flows() == 0 })
	})
	t.Run("target resets", func(t *testing.T) {
		w, client, far := opened(t, Settings{}, hello)
		far.SetLinger(0)
		far.Close()
		if _, err := io.ReadAll(client); err == nil {
			t.Error("the client wasn't reset")
		}
		eventually(t, "the line of the flow", func() bool { return len(w.log.lines("flow ended", "reason=target")) == 1 })
	})
	t.Run("P03 target never answers", func(t *testing.T) {
		w, client, far := opened(t, Settings{}, hello)
		f := w.proxy.live.all()[0]
		now := time.Now()
		f.tend(now)
		f.tend(now.Add(time.Second)) // what moved before is seen
		f.tend(now.Add(2 * link.DefaultIdleTimeout))
		f.tend(now.Add(4 * link.DefaultIdleTimeout))
		checkEnded(t, w, client, far, policy.Idle)
	})
}

// X12, E12: an encrypted hello is refused, unless the service lets it be held to its outer name.
func TestECH(t *testing.T) {
	hello := encrypted(t, "allowed.example")
	t.Run("X12 by default", func(t *testing.T) {
		g := newTarget(t)
		w := newWorld(t, Settings{}, service("svc", 7001, g.addr(), pinned), endpoint("e", "svc", nextAddr(t)))
		c := dial(t, w.first())
		c.Write(hello)
		checkRefused(t, w, c, policy.ECHDenied)
	})
	allow := func(s *link.Service) { s.ECHOuter = true }
	t.Run("X12 ech allow, another outer name", func(t *testing.T) {
		g := newTarget(t)
		w := newWorld(t, Settings{}, service("svc", 7001, g.addr(), pinned, allow), endpoint("e", "svc", nextAddr(t)))
		c := dial(t, w.first())
		c.Write(encrypted(t, "other.example"))
		checkRefused(t, w, c, policy.NameDenied)
	})
	t.Run("X12 ech allow, and then no longer", func(t *testing.T) {
		w, client, _ := opened(t, Settings{}, hello, allow)
		s := *w.now.Load().Service("svc")
		s.ECHOuter = false
		checkCut(t, w, []link.Change{link.PutService{Service: s}}, "flow ended", client)
	})
}
