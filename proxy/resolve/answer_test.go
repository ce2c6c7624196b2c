package resolve

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// question is the one that the tests ask.
func question(qtype uint16) dns.Question {
	return dns.Question{Name: "db.example.", Qtype: qtype, Qclass: dns.ClassINET}
}

// reply is an answer with records in the form of zone files.
func reply(t testing.TB, q dns.Question, rcode int, records ...string) *dns.Msg {
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: 7, Response: true, Rcode: rcode}, Question: []dns.Question{q}}
	for _, s := range records {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	return m
}

func TestRead(t *testing.T) {
	var loop []string
	for i := range maxChain + 1 {
		loop = append(loop, fmt.Sprintf("%s CNAME a%d.example.", map[bool]string{true: "db.example.", false: fmt.Sprintf("a%d.example.", i-1)}[i == 0], i))
	}
	for name, tt := range map[string]struct {
		qtype   uint16
		rcode   int
		records []string
		edit    func(*dns.Msg)
		want    string
		ttl     time.Duration
		err     error
		bad     string
	}{
		"addresses":            {records: []string{"db.example. 60 A 10.0.0.1", "DB.example. 30 A 10.0.0.2"}, want: "10.0.0.1 10.0.0.2", ttl: 30 * time.Second},
		"IPv6":                 {qtype: dns.TypeAAAA, records: []string{"db.example. 60 AAAA 2001:db8::1"}, want: "2001:db8::1", ttl: time.Minute},
		"IPv4-mapped":          {qtype: dns.TypeAAAA, records: []string{"db.example. 60 AAAA ::ffff:127.0.0.1"}, want: "127.0.0.1", ttl: time.Minute},
		"aliases":              {records: []string{"b.example. 20 CNAME c.example.", "c.example. 60 A 10.0.0.1", "db.example. 40 CNAME B.example."}, want: "10.0.0.1", ttl: 20 * time.Second},
		"an alias to nothing":  {records: []string{"db.example. 40 CNAME b.example."}},
		"aliases in a circle":  {records: []string{"db.example. CNAME b.example.", "b.example. CNAME db.example."}, err: errChain},
		"aliases without end":  {records: loop, err: errChain},
		"nothing":              {},
		"no such name":         {rcode: dns.RcodeNameError},
		"the other family":     {records: []string{"db.example. 60 AAAA 2001:db8::1"}},
		"of another name":      {records: []string{"evil.example. 60 A 10.0.0.66", "db.example. 60 A 10.0.0.1"}, want: "10.0.0.1", ttl: time.Minute},
		"of another class":     {records: []string{"db.example. 60 A 10.0.0.66"}, edit: func(m *dns.Msg) { m.Answer[0].Header().Class = dns.ClassCHAOS }},
		"a time of weeks":      {records: []string{"db.example. 2000000 A 10.0.0.1"}, want: "10.0.0.1", ttl: MostTTL},
		"a time of a high bit": {records: []string{"db.example. 4294967295 A 10.0.0.1"}, want: "10.0.0.1"},
		"it can't say":         {rcode: dns.RcodeServerFailure, bad: "SERVFAIL"},
		"it may not say":       {rcode: dns.RcodeRefused, bad: "REFUSED"},
		"a code of its own":    {rcode: 3000, bad: "RCODE 3000"},
		"cut short":            {edit: func(m *dns.Msg) { m.Truncated = true }, err: errTruncated},
		"a question":           {edit: func(m *dns.Msg) { m.Response = false }, err: errForeign},
		"no question":          {edit: func(m *dns.Msg) { m.Question = nil }, err: errForeign},
		"another question":     {edit: func(m *dns.Msg) { m.Question[0].Name = "evil.example." }, err: errForeign},
		"another type":         {edit: func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }, err: errForeign},
		"a notify":             {edit: func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, err: errForeign},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.qtype == 0 {
				tt.qtype = dns.TypeA
			}
			q := question(tt.qtype)
			m := reply(t, q, tt.rcode, tt.records...)
			if tt.edit != nil {
				tt.edit(m)
			}
			got, ttl, err := read(m, q)
			if tt.err != nil || tt.bad != "" {
				if err == nil || tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.bad) {
					t.Fatalf("error %v", err)
				}
				return
			}
			if want := addrs(strings.Fields(tt.want)...); err != nil || !slices.Equal(got, want) || len(want) > 0 && ttl != tt.ttl {
				t.Fatalf("%v for %v, %v", got, ttl, err)
			}
		})
	}
}

// FuzzRead: whatever bytes come, what is read is addresses of the family, not IPv4-mapped, for a bounded time.
func FuzzRead(f *testing.F) {
	for _, records := range [][]string{
		nil, {"db.example. 60 A 10.0.0.1"}, {"db.example. 60 CNAME b.example.", "b.example. 9 A 10.0.0.1"},
		{"db.example. CNAME db.example."}, {"db.example. 1 AAAA ::ffff:10.0.0.1"},
	} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			b, err := reply(f, question(qtype), 0, records...).Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, qtype == dns.TypeA)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, four bool) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		q := question(dns.TypeAAAA)
		if four {
			q.Qtype = dns.TypeA
		}
		got, ttl, err := read(m, q)
		if err != nil && len(got) > 0 || ttl < 0 || ttl > MostTTL {
			t.Fatalf("%v for %v, %v", got, ttl, err)
		}
		for _, a := range got {
			if !a.IsValid() || a.Is4In6() || four && !a.Is4() || a.Zone() != "" {
				t.Fatalf("%v isn't an address to look for", a)
			}
		}
	})
}
