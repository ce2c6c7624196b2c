package privatelink

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// TestNoHints is D14 for answers of others: neither addresses nor ech of a name of ours come to the client, in
// whatever section and by whatever way.
func TestNoHints(t *testing.T) {
	const ech = " ech=AEX+DQBBpQAgACBcJPkSFTDQgdBTcJVvTQe5gAUeSLTwOTFkKzAhXlVbLwAEAAEAAQASY2xvdWRmbGFyZS1lY2guY29tAAA="
	for _, tt := range []struct {
		name, ask  string
		up, extra  []string
		want, more []string
	}{
		{"target of ours", "www.example.org HTTPS",
			[]string{"www.example.org. 300 IN HTTPS 1 db.example.com. alpn=h2 ipv4hint=203.0.113.1" + ech + " ipv6hint=2001:db8::1"}, nil,
			[]string{"www.example.org. 300 IN HTTPS 1 db.example.com. alpn=h2"}, nil},
		{"ech alone", "www.example.org SVCB", []string{"www.example.org. 300 IN SVCB 1 DB.example.com." + ech}, nil,
			[]string{"www.example.org. 300 IN SVCB 1 DB.example.com."}, nil},
		{"alias mode keeps its target", "www.example.org HTTPS", []string{"www.example.org. 300 IN HTTPS 0 db.example.com."}, []string{
			"db.example.com. 300 IN HTTPS 1 . ipv4hint=203.0.113.1" + ech, "db.example.com. 300 IN A 203.0.113.1", "db.example.com. 300 IN AAAA 2001:db8::1",
		}, []string{"www.example.org. 300 IN HTTPS 0 db.example.com."}, nil},
		{"additional record in service mode, target elsewhere", "www.example.org HTTPS", []string{"www.example.org. 300 IN HTTPS 0 db.example.com."}, []string{
			"db.example.com. 300 IN HTTPS 1 gw.example.net. ipv4hint=203.0.113.1" + ech, "gw.example.net. 300 IN A 203.0.113.1",
		}, []string{"www.example.org. 300 IN HTTPS 0 db.example.com."}, []string{"gw.example.net. 300 IN A 203.0.113.1"}},
		{"target that is an alias of ours", "www.example.org HTTPS",
			[]string{"www.example.org. 300 IN HTTPS 1 b.example.org. ipv4hint=203.0.113.1"}, []string{"b.example.org. 300 IN CNAME db.example.com."},
			[]string{"www.example.org. 300 IN HTTPS 1 b.example.org."}, []string{"b.example.org. 300 IN CNAME db.example.com."}},
		{"hints are mandatory", "www.example.org HTTPS",
			[]string{"www.example.org. 300 IN HTTPS 1 db.example.com. mandatory=ipv4hint ipv4hint=203.0.113.1", "www.example.org. 300 IN HTTPS 2 x.example.org."}, nil,
			[]string{"www.example.org. 300 IN HTTPS 2 x.example.org."}, nil},
		{"another port of ours", "_8443._https.db.example.com HTTPS", []string{"_8443._https.db.example.com. 300 IN HTTPS 1 gw.example.net. ipv4hint=203.0.113.1" + ech}, nil, nil, nil},
		{"ANY", "www.example.org ANY", []string{"www.example.org. 300 IN HTTPS 1 db.example.com. ipv4hint=203.0.113.1", "db.example.com. 300 IN A 203.0.113.1"}, nil,
			[]string{"www.example.org. 300 IN HTTPS 1 db.example.com."}, nil},
		{"chain to ours", "www.contoso.example HTTPS", []string{"www.contoso.example. 300 IN CNAME db.example.com.", "db.example.com. 300 IN HTTPS 1 ." + ech}, nil,
			[]string{"www.contoso.example. 300 IN CNAME db.example.com."}, nil},
		{"others keep theirs", "www.example.org HTTPS", []string{"www.example.org. 300 IN HTTPS 1 . ipv4hint=203.0.113.1" + ech}, []string{"www.example.org. 300 IN A 203.0.113.1"},
			[]string{"www.example.org. 300 IN HTTPS 1 . ipv4hint=203.0.113.1" + ech}, []string{"www.example.org. 300 IN A 203.0.113.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := newServer(t, world(t))
			srv.up.reply = func(r *dns.Msg) *dns.Msg {
				m := new(dns.Msg).SetReply(r)
				m.AuthenticatedData = true
				m.Answer, m.Extra = records(tt.up...), records(tt.extra...)
				return m
			}
			m, _ := srv.ask(t, corp, question(tt.ask))
			check(t, "answer", m.Answer, tt.want...)
			check(t, "additional", m.Extra, tt.more...)
			if same := text(m.Answer) == text(records(tt.up...)) && text(m.Extra) == text(records(tt.extra...)); m.AuthenticatedData != same {
				t.Errorf("AD %v", m.AuthenticatedData)
			}
		})
	}
}

// TestContinuedWithoutErrors: an extended error about what the upstream would have led to isn't one of the answer
// that stands instead.
func TestContinuedWithoutErrors(t *testing.T) {
	srv := newServer(t, world(t))
	srv.up.reply = func(r *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(r)
		m.Answer = records("www.contoso.example. 300 IN CNAME db.example.com.")
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeFiltered}}
		return m
	}
	r := question("www.contoso.example A")
	r.SetEdns0(1232, false)
	m, _ := srv.ask(t, corp, r)
	check(t, "answer", m.Answer, "www.contoso.example. 300 IN CNAME db.example.com.", "db.example.com. 10 IN A 10.200.0.7")
	if edeOf(m) != -1 {
		t.Errorf("extended error %d", edeOf(m))
	}
}

// manyHints is an answer of n HTTPS records and the longest chain of aliases that is followed, from the target of all.
func manyHints(n int) []dns.RR {
	rrs := records(aliases(link.MaxAliases, "end.example.")...)
	for range n {
		rrs = append(rrs, records("w.example. 300 IN HTTPS 1 a0.example. ipv4hint=203.0.113.1")...)
	}
	return rrs
}

// TestManyHints: the work for an answer grows with its length and not with the square of it, which is 64 times for 8
// times the records.
func TestManyHints(t *testing.T) {
	srv := newServer(t, world(t))
	d := &downstream{p: srv.Privatelink, q: &query{gen: srv.generation(srv.snapshot), view: view{network: "corp", found: true}}}
	least := func(n int) time.Duration {
		m, took := &dns.Msg{Answer: manyHints(n)}, time.Hour
		for range 10 {
			start := time.Now()
			if d.withoutHints(m) == nil {
				t.Fatal("no message")
			}
			took = min(took, time.Since(start))
		}
		return took
	}
	if few, many := least(250), least(2000); many > 30*few {
		t.Errorf("%v for 250 records, %v for 2,000", few, many)
	}
}

func BenchmarkManyHints(b *testing.B) {
	srv := newServer(b, world(b))
	d := &downstream{p: srv.Privatelink, q: &query{gen: srv.generation(srv.snapshot), view: view{network: "corp", found: true}}}
	m := &dns.Msg{Answer: manyHints(2000)}
	for b.Loop() {
		d.withoutHints(m)
	}
}

// TestAliases: aliasTable tells what aliasOf does.
func TestAliases(t *testing.T) {
	rrs := records("A.example. 300 IN CNAME b.example.", "a.example. 300 IN CNAME second.example.", "old.example. 300 IN DNAME new.example.",
		"deep.old2.example. 300 IN DNAME x.", "old2.example. 300 IN DNAME y.", "c.old.example. 300 IN CNAME d.example.",
		"long.example. 300 IN DNAME "+strings.Repeat("b.", 60))
	for _, all := range [][]dns.RR{nil, rrs, append(records(". 300 IN DNAME root.example."), rrs...)} {
		a := aliasesOf(all)
		for _, name := range []string{"a.EXAMPLE.", "b.example.", "old.example.", "w.Old.example.", "c.old.example.", "p.q.deep.old2.example.", "p.old2.example.", "deep.old2.example.",
			"xold.example.", `x\.old.example.`, ".", "com.", strings.Repeat("a.", 100) + "long.example."} {
			want := ""
			if _, alias := aliasOf(all, name); alias != nil {
				want = alias.Target
			}
			if got, ok := a.of(name); got != want || ok != (want != "") {
				t.Errorf("%s: %q, %v, want %q", name, got, ok, want)
			}
		}
	}
}
