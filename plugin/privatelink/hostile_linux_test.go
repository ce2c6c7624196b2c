package privatelink_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/internal/freeport"
)

// hostile is a message that no honest client sends, and what it gets.
type hostile struct {
	name  string
	query []byte
	codes []int                                                 // one of these answers it; none: nothing does
	check func(t *testing.T, network string, m *dns.Msg, n int) // if not nil, of an answer of n bytes
}

const bigName = "big.database.windows.net." // it has more addresses than an answer by UDP has room for

const bigAddresses = 100

// unturned is an answer without the last bytes of the addresses of bigName, whose order is another one from time to time.
func unturned(b []byte) []byte {
	b = bytes.Clone(b)
	address := []byte{10, 200, 0}
	for i := 0; i+len(address) < len(b); i++ {
		if at := i + len(address); bytes.Equal(b[i:at], address) && b[at] >= 100 {
			b[at] = 0
		}
	}
	return b
}

// hostiles returns the table, whose queries have its places as IDs.
func hostiles(t *testing.T) (all []hostile) {
	t.Helper()
	plain := func() *dns.Msg { return new(dns.Msg).SetQuestion(privateName, dns.TypeA) }
	pack := func(m *dns.Msg) []byte {
		t.Helper()
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	edns := func(name string, size uint16, change ...func(*dns.OPT)) []byte {
		t.Helper()
		m := new(dns.Msg).SetQuestion(name, dns.TypeA).SetEdns0(size, false)
		for _, f := range change {
			f(m.IsEdns0())
		}
		return pack(m)
	}
	opcode := func(code int) []byte {
		t.Helper()
		m := plain()
		m.Opcode = code
		return pack(m)
	}
	// asking is a message with one question, whose name is as given.
	asking := func(name ...byte) []byte {
		return slices.Concat(header(1), name, []byte{0, 1, 0, 1})
	}
	junk := func(n int) []byte { return bytes.Repeat([]byte("\x00junk\n\xff\xc0\x0c\x3f"), n/10+1)[:n] }
	update := new(dns.Msg).SetUpdate(privateZone)
	rr, err := dns.NewRR(privateName + " 60 IN A 192.0.2.66")
	if err != nil {
		t.Fatal(err)
	}
	update.Insert([]dns.RR{rr})
	twice := plain()
	twice.Question = append(twice.Question, twice.Question[0])
	opts := plain().SetEdns0(1232, false)
	opts.Extra = append(opts.Extra, opts.Extra[0])

	formerr, notimp := []int{dns.RcodeFormatError}, []int{dns.RcodeNotImplemented, dns.RcodeRefused}
	answer := []int{dns.RcodeSuccess}
	headerAlone := func(t *testing.T, _ string, _ *dns.Msg, n int) {
		if n != 12 {
			t.Errorf("%d bytes", n)
		}
	}
	ours := func(t *testing.T, _ string, m *dns.Msg, _ int) {
		if lastA(m) != "10.200.0.5" || m.Truncated {
			t.Errorf("%v", m)
		}
	}
	within := func(most int) func(*testing.T, string, *dns.Msg, int) {
		return func(t *testing.T, network string, m *dns.Msg, n int) {
			if network == "tcp" {
				if m.Truncated || len(m.Answer) != 1+bigAddresses {
					t.Errorf("TC %v, %d records", m.Truncated, len(m.Answer))
				}
				return
			}
			if !m.Truncated || n > most {
				t.Errorf("TC %v, %d bytes, want TC and at most %d", m.Truncated, n, most)
			}
		}
	}
	// Without FORMERR it is the answer.
	either := func(t *testing.T, network string, m *dns.Msg, n int) {
		if m.Rcode == dns.RcodeSuccess {
			ours(t, network, m, n)
		}
	}
	all = []hostile{
		{"D01 0 bytes", nil, nil, nil},
		{"D01 11 bytes", header(1)[:11], nil, nil},
		{"D02 one question, which isn't there", header(1), []int{dns.RcodeFormatError, dns.RcodeServerFailure}, headerAlone},
		{"D03 no question", header(0), formerr, headerAlone},
		{"D03 two questions", pack(twice), formerr, nil},
		{"D04 a response", pack(plain().SetReply(plain())), nil, nil},
		{"D04 a response without a question", edit(header(0), 2, 0x80), nil, nil},
		{"D05 UPDATE", pack(update), notimp, nil},
		{"D05 UPDATE without a record", opcode(dns.OpcodeUpdate), notimp, nil},
		{"D05 NOTIFY", opcode(dns.OpcodeNotify), notimp, nil},
		{"D05 opcode 15", opcode(15), notimp, nil},
		{"D06 a pointer to itself", asking(0xc0, 12), formerr, nil},
		{"D06 a label and a pointer to it", asking(1, 'a', 0xc0, 12), formerr, nil},
		{"D06 257 bytes of a name", asking(append(bytes.Repeat(append([]byte{63}, bytes.Repeat([]byte{'a'}, 63)...), 4), 0)...), formerr, nil},
		{"D06 a label of 64", asking(slices.Concat([]byte{64}, bytes.Repeat([]byte{'a'}, 64), []byte{0})...), formerr, nil},
		{"D08 without EDNS", pack(new(dns.Msg).SetQuestion(bigName, dns.TypeA)), answer, within(512)},
		{"D08 EDNS size 0", edns(bigName, 0), answer, within(512)},
		{"D08 EDNS size 512", edns(bigName, 512), answer, within(512)},
		{"D08 EDNS size 1232", edns(bigName, 1232), answer, within(1232)},
		{"D08 EDNS size 4096", edns(bigName, 4096), answer, within(1232)},
		{"D08 EDNS size 65535", edns(bigName, 65535), answer, within(1232)},
		{"D09 EDNS version 1", edns(privateName, 1232, func(o *dns.OPT) { o.SetVersion(1) }), []int{dns.RcodeBadVers}, func(t *testing.T, _ string, m *dns.Msg, _ int) {
			if len(m.Answer) > 0 || m.IsEdns0().Version() != 0 {
				t.Errorf("%v", m)
			}
		}},
		{"D09 two OPT records", pack(opts), formerr, nil}, // RFC 6891 section 6.1.1
		{"D09 EDNS size 0", edns(privateName, 0), answer, ours},
		{"D10 AXFR", pack(new(dns.Msg).SetQuestion(privateZone, dns.TypeAXFR)), []int{dns.RcodeRefused}, nil},
		{"D10 IXFR", pack(new(dns.Msg).SetQuestion(privateZone, dns.TypeIXFR)), []int{dns.RcodeRefused}, nil},
		{"D21 400 bytes behind the query", append(pack(plain()), junk(400)...), []int{dns.RcodeSuccess, dns.RcodeFormatError}, either},
		{"D21 65,000 bytes behind the query", append(pack(plain()), junk(65000)...), []int{dns.RcodeSuccess, dns.RcodeFormatError}, either},
	}
	for i := range all {
		if len(all[i].query) > 1 {
			binary.BigEndian.PutUint16(all[i].query, uint16(i))
		}
	}
	return all
}

// header is that of a query, with a number of questions.
func header(questions byte) []byte { return []byte{0, 0, 1, 0, 0, questions, 0, 0, 0, 0, 0, 0} }

// edit returns b with another byte.
func edit(b []byte, at int, to byte) []byte {
	b[at] = to
	return b
}

// TestServerHostile: what hostile clients send is answered by a whole server as the table says, the same with the fast path and without; nothing of
// it changes the state, leaves the server, or makes a long line of the log.
func TestServerHostile(t *testing.T) {
	table := hostiles(t)
	answers := map[string][]byte{} // of the fast path
	for _, mode := range []struct{ name, properties, lines, reason string }{
		{"fast path", "miss nxdomain", "errors", ""},
		{"plugins", "miss nxdomain\nfastpath off", "errors\nlog . \"{name} {type} {rcode}\"", "off"},
	} {
		t.Run(mode.name, func(t *testing.T) {
			var log bytes.Buffer // nobody writes after the end of the server
			clog.SetOutput(&log)
			defer clog.SetOutput(os.Stdout)
			up := startPublic(t)
			port := freeport.Get(t)
			at := fmt.Sprintf("127.0.0.1:%d", port)
			instance := startInstance(t, bigCorefile(port, mode.properties, mode.lines+"\nforward . "+up.addr))
			ended := false
			defer func() {
				if !ended {
					end(t, instance)
				}
			}()
			eventually(t, fmt.Sprintf("reason %q", mode.reason), func() bool { return fastGauge(t, "dns://"+at) == mode.reason })
			before := revision(t)
			for _, network := range []string{"udp", "tcp"} {
				for _, tt := range table {
					t.Run(network+" "+tt.name, func(t *testing.T) {
						got := answerOrSilence(t, network, at, tt)
						key, same := network+tt.name, unturned(got)
						if mode.reason == "" {
							answers[key] = same
						} else if !bytes.Equal(same, answers[key]) {
							t.Errorf("by the plugins\n%.600x\nby the fast path\n%.600x", same, answers[key])
						}
						if len(tt.codes) == 0 {
							if got != nil {
								t.Errorf("answer %x", got)
							}
							return
						}
						m := new(dns.Msg)
						if err := m.Unpack(got); err != nil || !m.Response || m.Id != binary.BigEndian.Uint16(tt.query) || !slices.Contains(tt.codes, m.Rcode) {
							t.Fatalf("%.600x: %v, want one of %v", got, err, tt.codes)
						}
						if tt.check != nil {
							tt.check(t, network, m, len(got))
						}
					})
				}
			}
			if got := lastA(dial(t, "127.1.0.9", at).ask(privateName, dns.TypeA)); got != "10.200.0.5" {
				t.Errorf("in the end it is %s", got)
			}
			if after := revision(t); after != before || before == 0 {
				t.Errorf("revision %v, and %v in the end", before, after)
			}
			if n := up.asked.Load(); n != 0 {
				t.Errorf("the upstream was asked %d times", n)
			}
			end(t, instance)
			ended = true
			for line := range strings.Lines(log.String()) {
				if len(line) >= 1<<10 {
					t.Errorf("%d bytes in a line of the log: %.200s", len(line), line)
				}
			}
			if logs := strings.Contains(mode.lines, "log"); logs && strings.Count(log.String(), privateName+" A NOERROR") < len(table) {
				t.Errorf("queries aren't logged: %s", log.String())
			}
		})
	}
}

// bigCorefile is fastCorefile, and a name with many addresses.
func bigCorefile(port uint16, properties, lines string) caddy.Input {
	in := fastCorefile(port, properties, lines).(caddy.CaddyfileInput)
	more := "\tlinkservice big {\n\t\tnames " + strings.TrimSuffix(bigName, ".") + "\n\t\ttarget 10.20.0.4:1434\n\t\tapprove corp\n\t}\n"
	for i := range bigAddresses {
		more += fmt.Sprintf("\tlinkendpoint big-%d {\n\t\tservice big\n\t\tnetwork corp\n\t\taddress 10.200.0.%d\n\t}\n", i, 100+i)
	}
	in.Contents = bytes.Replace(in.Contents, []byte("\tprivatelink {"), []byte(more+"\tprivatelink {"), 1)
	return in
}

// answerOrSilence sends a message, and good queries behind it by the same socket: their answers are the next to come, where nothing answers the
// message. Plugins answer queries side by side, so one answer alone could come before one that there must not be.
func answerOrSilence(t *testing.T, network, at string, tt hostile) (answer []byte) {
	t.Helper()
	conn := dialBy(t, network, "127.1.0.9", at).conn
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	send, receive := conn.Conn.Write, conn.Conn.Read
	if network == "tcp" { // with the length in front
		send = func(b []byte) (int, error) {
			return conn.Conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
		}
		receive = func(b []byte) (int, error) { return receiveTCP(conn.Conn, b) }
	}
	if _, err := send(tt.query); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, dns.MaxMsgSize)
	if len(tt.codes) > 0 {
		n, err := receive(buf)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		answer = bytes.Clone(buf[:n])
	}
	for i := range 5 {
		good := new(dns.Msg).SetQuestion(privateName, dns.TypeA)
		good.Id = uint16(1000 + i)
		b, err := good.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := send(b); err != nil {
			t.Fatal(err)
		}
		n, err := receive(buf)
		if err != nil {
			t.Fatalf("no answer to a good query: %v", err)
		}
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil || m.Id != good.Id || lastA(m) != "10.200.0.5" {
			t.Fatalf("for a good query %x: %v", buf[:n], err)
		}
	}
	return answer
}

// receiveTCP reads a message (RFC 1035 section 4.2.2) of a connection.
func receiveTCP(conn net.Conn, b []byte) (int, error) {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return 0, err
	}
	return io.ReadFull(conn, b[:binary.BigEndian.Uint16(size[:])])
}

// revision returns how many commits led to the state in force.
func revision(t *testing.T) float64 {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "postern_state_revision" {
			return f.Metric[0].Gauge.GetValue()
		}
	}
	return 0
}
