package privatelink_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/plugin/privatelink"
)

// rowQuery is a question about a name of a row, in one of the ways to ask it.
type rowQuery struct {
	ask   string
	wire  []byte
	known bool // the table has it, once it was asked
}

// rowQueries returns the questions about a name that nobody has beside those of each row, in odd ways about those too, and then in usual
// ways: the table may have no place for the former when it has the others.
func rowQueries(t *testing.T, cases []rowCase) (all [][]rowQuery) {
	var last [][]rowQuery
	turn := 0
	for _, c := range cases {
		var first, second []rowQuery
		// ask asks in some of the usual ways, others than the last time.
		ask := func(to *[]rowQuery, known bool, some int, ask string) {
			usual, odd := privatelink.Shaped(t, ask)
			for range min(some, len(usual)) {
				*to = append(*to, rowQuery{ask, usual[turn%len(usual)], known})
				turn++
			}
			if some > 1 {
				first = append(first, rowQuery{ask, odd[0], known})
			}
		}
		name := func(name string, some int) {
			ask(&second, true, some, name+" A")
			for _, rrtype := range []string{"AAAA", "HTTPS", "SOA", "TXT"} {
				ask(&second, true, 1, name+" "+rrtype)
			}
		}
		name(c.public, 100)
		beside, known := c.private, true
		if beside == "" {
			beside, known = c.public, false // in no zone of ours: passed on, and there is nobody
		} else {
			name(c.private, 4)
		}
		_, suffix, _ := strings.Cut(beside, ".")
		ask(&first, known, 3, "nobody."+suffix+" A")
		for _, rrtype := range []string{"AAAA", "HTTPS", "SOA", "TXT"} {
			ask(&first, known, 1, "nobody."+suffix+" "+rrtype)
		}
		all, last = append(all, first), append(last, second)
	}
	return append(all, last...)
}

// respelt returns the queries with upper case, each with the case of all letters changed.
func respelt(row []rowQuery) (other []rowQuery) {
	for _, q := range row {
		wire := bytes.Clone(q.wire)
		mixed := false
		for i := 12; wire[i] != 0; i += 1 + int(wire[i]) { // the name
			for j := i + 1; j <= i+int(wire[i]); j++ {
				if c := wire[j] | 0x20; c >= 'a' && c <= 'z' {
					mixed = mixed || wire[j] < 'a'
					wire[j] ^= 0x20
				}
			}
		}
		if mixed {
			other = append(other, rowQuery{q.ask, wire, q.known})
		}
	}
	return other
}

// askAll sends queries at once and returns the answers to them.
func (c *client) askAll(queries []rowQuery) [][]byte {
	c.t.Helper()
	for i, q := range queries {
		binary.BigEndian.PutUint16(q.wire, uint16(i))
		if _, err := c.conn.Conn.Write(q.wire); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	answers := make([][]byte, len(queries))
	buf := make([]byte, 4096)
	for n := range queries {
		size, err := c.conn.Conn.Read(buf)
		if err != nil {
			c.t.Fatalf("%d of %d answers: %v", n, len(queries), err)
		}
		i := int(binary.BigEndian.Uint16(buf))
		if i >= len(answers) || answers[i] != nil {
			c.t.Fatalf("an answer to nothing, or a second one: %x", buf[:size])
		}
		answers[i] = bytes.Clone(buf[:size])
	}
	return answers
}

// TestEveryRowIsAnsweredAgain: whatever is asked about a name made from each row of the table, and about a name beside it, the fast path
// answers byte for byte as a node without it, the first time and again, also in another spelling; the second answer comes from its table.
func TestEveryRowIsAnsweredAgain(t *testing.T) {
	cases, objects, lines := rowCases(t)
	asked := rowQueries(t, cases)
	at := fmt.Sprintf("127.0.0.1:%d", freeport.Get(t))
	// serve is a node that holds all rows: what stands in no row doesn't exist in a private zone, and is refused in one.
	serve := func(t *testing.T, fastpath string) *client {
		start(t, strings.NewReplacer("PORT", at[len("127.0.0.1:"):], "OBJECTS", objects, "LINES", lines, "FASTPATH", fastpath).Replace(`.:PORT {
 bind 127.0.0.1
 linknetwork corp 127.0.0.0/8 {
  endpoints 10.200.0.0/16
 }
OBJECTS privatelink {
LINES  miss nxdomain
  miss refuse privatelink.vaultcore.azure.net
  fastpath FASTPATH
 }
}
`))
		return dial(t, "127.0.0.1", at)
	}
	var want, wantRespelt [][][]byte
	rcodes := make(map[int]int)
	t.Run("off", func(t *testing.T) {
		c := serve(t, "off")
		for _, row := range asked {
			answers := c.askAll(row)
			for _, a := range answers {
				rcodes[int(a[3]&0xf)]++
			}
			want, wantRespelt = append(want, answers), append(wantRespelt, c.askAll(respelt(row)))
		}
		for _, rcode := range []int{dns.RcodeSuccess, dns.RcodeNameError, dns.RcodeRefused, dns.RcodeServerFailure} {
			if rcodes[rcode] == 0 {
				t.Errorf("no answer is %s", dns.RcodeToString[rcode])
			}
		}
	})
	t.Run("on", func(t *testing.T) {
		c := serve(t, "on")
		server := "dns://" + at
		eventually(t, "a fast path", func() bool { return fastGauge(t, server) == "" })
		compare := func(row []rowQuery, want [][]byte) {
			t.Helper()
			for i, got := range c.askAll(row) {
				if !bytes.Equal(got[2:], want[i][2:]) {
					t.Errorf("%s, asked\n%x:\ngot\n%x\nwant\n%x", row[i].ask, row[i].wire, got, want[i])
				}
			}
		}
		// fromTable asks again, and reports whether the table has answered all that it may have.
		fromTable := func(row []rowQuery, want [][]byte) bool {
			n := 0.
			for _, q := range row {
				if q.known {
					n++
				}
			}
			before := privatelink.FastAnswered(t, server)
			compare(row, want)
			for range 5 { // they are counted when they are sent
				if privatelink.FastAnswered(t, server) == before+n {
					return true
				}
				time.Sleep(100 * time.Microsecond)
			}
			return false
		}
		// again asks again, until the table has answered all. An answer is kept after it is sent, and one of the others may have got its
		// place. By itself each question is answered from the table.
		again := func(row []rowQuery, want [][]byte) {
			t.Helper()
			if fromTable(row, want) || fromTable(row, want) {
				return
			}
			for i := range row {
				tries := 0
				for !fromTable(row[i:i+1], want[i:i+1]) {
					if tries++; tries == 100 {
						t.Fatalf("%s: never from the table, or against expectation, asked\n%x", row[i].ask, row[i].wire)
					}
				}
			}
		}
		for i, row := range asked {
			compare(row, want[i])
			again(row, want[i])
			again(respelt(row), wantRespelt[i])
			if t.Failed() {
				break
			}
		}
	})
}
