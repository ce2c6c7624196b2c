package privatelink

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// aliases is a chain of n aliases, from a0.example to another name.
func aliases(n int, to string) (rrs []string) {
	for i := range n {
		target := fmt.Sprintf("a%d.example.", i+1)
		if i == n-1 {
			target = to
		}
		rrs = append(rrs, fmt.Sprintf("a%d.example. 300 IN CNAME %s", i, target))
	}
	return rrs
}

// Answers of the next plugin that lead to a name of ours.
func TestChain(t *testing.T) {
	const (
		custom = "www.contoso.example. 300 IN CNAME contoso.database.windows.net."
		public = "contoso.database.windows.net. 300 IN CNAME gw.region.example."
		alias  = "contoso.database.windows.net. 10 IN CNAME contoso." + sqlZone
		ours   = "contoso." + sqlZone + " 10 IN A 10.200.0.5"
		leak   = "gw.region.example. 300 IN A 203.0.113.1"
	)
	sig := func(owner, covered string, labels int) string {
		return fmt.Sprintf("%s 300 IN RRSIG %s 13 %d 300 20300101000000 20200101000000 1 contoso.example. AAAA", owner, covered, labels)
	}
	tests := []struct {
		name, from, ask string
		set             func(*settings)
		upRcode, rcode  int
		up, upNs        []string
		upExtra         []string
		answer, ns      []string
		extra           []string
	}{
		{name: "custom domain", ask: "www.contoso.example A", up: []string{custom, public, leak}, answer: []string{custom, alias, ours}},
		{name: "custom domain, upstream spells it differently", ask: "www.contoso.example A",
			up:     []string{"WWW.contoso.EXAMPLE. 300 IN CNAME Contoso.Database.Windows.NET.", public, leak},
			answer: []string{"WWW.contoso.EXAMPLE. 300 IN CNAME Contoso.Database.Windows.NET.", alias, ours}},
		{name: "records out of order", ask: "www.contoso.example A", up: []string{leak, public, custom}, answer: []string{custom, alias, ours}},
		{name: "two aliases", ask: "a.example A", up: []string{"a.example. 300 IN CNAME www.contoso.example.", custom, public, leak},
			answer: []string{"a.example. 300 IN CNAME www.contoso.example.", custom, alias, ours}},
		{name: "to the privatelink name", ask: "a.example A", up: []string{"a.example. 300 IN CNAME contoso." + sqlZone, "contoso." + sqlZone + " 300 IN A 203.0.113.1"},
			answer: []string{"a.example. 300 IN CNAME contoso." + sqlZone, ours}},
		{name: "public name doesn't exist upstream", ask: "www.contoso.example A", upRcode: dns.RcodeNameError, up: []string{custom}, answer: []string{custom, alias, ours}},
		{name: "signed custom domain", ask: "www.contoso.example A", up: []string{custom, sig("www.contoso.example.", "CNAME", 3), public, sig("contoso.database.windows.net.", "CNAME", 4), leak},
			upNs: []string{"w.contoso.example. 300 IN NSEC x.contoso.example. A"}, answer: []string{custom, sig("www.contoso.example.", "CNAME", 3), alias, ours}},
		{name: "signed wildcard of a custom domain", ask: "www.contoso.example A", up: []string{custom, sig("www.contoso.example.", "CNAME", 2), public, leak},
			upNs:   []string{"w.contoso.example. 300 IN NSEC x.contoso.example. A", sig("w.contoso.example.", "NSEC", 3), "contoso.example. 300 IN NS ns.contoso.example.", "a.windows.net. 300 IN NSEC b.windows.net. A"},
			answer: []string{custom, sig("www.contoso.example.", "CNAME", 2), alias, ours},
			ns:     []string{"w.contoso.example. 300 IN NSEC x.contoso.example. A", sig("w.contoso.example.", "NSEC", 3)}},
		{name: "other type", ask: "www.contoso.example HTTPS",
			up:     []string{custom, public, "gw.region.example. 300 IN HTTPS 1 . ipv4hint=203.0.113.1"},
			answer: []string{custom, alias}, ns: []string{sqlSOA}},
		{name: "qtype CNAME", ask: "www.contoso.example CNAME", up: []string{custom}, answer: []string{custom}},
		{name: "ANY", ask: "www.contoso.example ANY", up: []string{custom, public, leak}, answer: []string{custom}},
		{name: "additional records go with the rest", ask: "www.contoso.example A", up: []string{custom, public, leak},
			upExtra: []string{"gw.region.example. 300 IN AAAA 2001:db8::1"}, answer: []string{custom, alias, ours}},
		{name: "other network", from: bare, ask: "www.contoso.example A", up: []string{custom, public, leak}, answer: soon(custom, public, leak)},
		{name: "no network", from: stranger, ask: "www.contoso.example A", up: []string{custom, public, leak}, answer: []string{custom, public, leak}},
		{name: "D22 not published", ask: "a.example A",
			up:     []string{"a.example. 300 IN CNAME unproven.database.windows.net.", "unproven.database.windows.net. 300 IN A 203.0.113.1"},
			answer: soon("a.example. 300 IN CNAME unproven.database.windows.net.", "unproven.database.windows.net. 300 IN A 203.0.113.1")},
		{name: "D23 fallback public, by way of its privatelink name", ask: "fallback.database.windows.net A",
			up:     []string{"fallback.database.windows.net. 300 IN CNAME fallback." + sqlZone, "fallback." + sqlZone + " 300 IN A 203.0.113.1"},
			answer: soon("fallback.database.windows.net. 300 IN CNAME fallback."+sqlZone, "fallback."+sqlZone+" 300 IN A 203.0.113.1")},
		{name: "another tenant's resource, pass", ask: "other.database.windows.net A",
			up:     []string{"other.database.windows.net. 300 IN CNAME other." + sqlZone, "other." + sqlZone + " 300 IN A 203.0.113.1"},
			answer: []string{"other.database.windows.net. 300 IN CNAME other." + sqlZone, "other." + sqlZone + " 300 IN A 203.0.113.1"}},
		{name: "another tenant's resource, nxdomain", ask: "other.database.windows.net A", set: func(s *settings) { s.miss = missNXDomain },
			up:    []string{"other.database.windows.net. 300 IN CNAME other." + sqlZone, "other." + sqlZone + " 300 IN A 203.0.113.1"},
			rcode: dns.RcodeNameError, answer: []string{"other.database.windows.net. 300 IN CNAME other." + sqlZone}, ns: []string{sqlSOA}},
		{name: "another tenant's resource, refuse", ask: "other.database.windows.net A", set: func(s *settings) { s.miss = missRefuse },
			up:    []string{"other.database.windows.net. 300 IN CNAME other." + sqlZone, "other." + sqlZone + " 300 IN A 203.0.113.1"},
			rcode: dns.RcodeRefused},
		{name: "alias to itself", ask: "a.example A", up: []string{"a.example. 300 IN CNAME a.example."}, rcode: dns.RcodeServerFailure},
		{name: "as many aliases as are followed", ask: "a0.example A", up: aliases(link.MaxAliases-1, "db.example.com."),
			answer: append(aliases(link.MaxAliases-1, "db.example.com."), "db.example.com. 10 IN A 10.200.0.7")},
		{name: "more aliases than are followed", ask: "a0.example A", up: append(aliases(link.MaxAliases+1, "db.example.com."), "db.example.com. 300 IN A 203.0.113.1"),
			rcode: dns.RcodeServerFailure},
		{name: "DNAME with its CNAME", ask: "contoso.old.example A",
			up:     []string{"old.example. 300 IN DNAME database.windows.net.", "contoso.old.example. 300 IN CNAME contoso.database.windows.net.", public, leak},
			answer: []string{"old.example. 300 IN DNAME database.windows.net.", "contoso.old.example. 300 IN CNAME contoso.database.windows.net.", alias, ours}},
		{name: "DNAME alone", ask: "contoso.old.example A", up: []string{"OLD.example. 300 IN DNAME database.windows.net.", public, leak},
			answer: []string{"OLD.example. 300 IN DNAME database.windows.net.", "contoso.old.example. 300 IN CNAME contoso.database.windows.net.", alias, ours}},
		{name: "DNAME that makes the name too long", ask: strings.Repeat("a.", 100) + "old.example A",
			up:     []string{"old.example. 300 IN DNAME " + strings.Repeat("b.", 60), leak},
			answer: []string{"old.example. 300 IN DNAME " + strings.Repeat("b.", 60), leak}},
		{name: "DNAME of the name itself", ask: "old.example A", up: []string{"old.example. 300 IN DNAME com.", leak}, answer: []string{"old.example. 300 IN DNAME com.", leak}},
		{name: "DNAME of the root", ask: "com.example.db A", up: []string{". 300 IN DNAME x.", leak}, rcode: dns.RcodeServerFailure},
		{name: "no alias", ask: "www.example.org A", up: []string{"www.example.org. 300 IN A 203.0.113.1"}, answer: []string{"www.example.org. 300 IN A 203.0.113.1"}},
		{name: "hints of a service that points at ours", ask: "_https.example.org HTTPS",
			up:     []string{"_https.example.org. 300 IN HTTPS 1 db.example.com. alpn=h2 ipv4hint=203.0.113.1 ipv6hint=2001:db8::1"},
			answer: []string{"_https.example.org. 300 IN HTTPS 1 db.example.com. alpn=h2"}},
		{name: "hints of others stay", ask: "_x.example.org SVCB",
			up:     []string{"_x.example.org. 300 IN SVCB 1 x.example.org. ipv4hint=203.0.113.1"},
			answer: []string{"_x.example.org. 300 IN SVCB 1 x.example.org. ipv4hint=203.0.113.1"}},
		{name: "additional address of a name of ours", ask: "_sql._tcp.example.org SRV",
			up:      []string{"_sql._tcp.example.org. 300 IN SRV 0 0 443 db.example.com."},
			upExtra: []string{"other.example.org. 300 IN A 203.0.113.2", "db.example.com. 300 IN A 203.0.113.1"},
			answer:  []string{"_sql._tcp.example.org. 300 IN SRV 0 0 443 db.example.com."},
			extra:   []string{"other.example.org. 300 IN A 203.0.113.2"}},
	}
	s := world(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := newServer(t, s)
			if tt.set != nil {
				tt.set(&srv.settings)
			}
			var said *dns.Msg
			srv.up.reply = func(r *dns.Msg) *dns.Msg {
				m := new(dns.Msg).SetReply(r)
				m.AuthenticatedData, m.RecursionAvailable, m.Rcode = true, true, tt.upRcode
				m.Answer, m.Ns, m.Extra = records(tt.up...), records(tt.upNs...), records(tt.upExtra...)
				said = m.Copy()
				return m
			}
			from := tt.from
			if from == "" {
				from = corp
			}
			m, _ := srv.ask(t, from, question(tt.ask))
			if m.Rcode != tt.rcode || m.Authoritative || !m.RecursionAvailable {
				t.Errorf("header %+v", m.MsgHdr)
			}
			check(t, "answer", m.Answer, tt.answer...)
			check(t, "authority", m.Ns, tt.ns...)
			check(t, "additional", m.Extra, tt.extra...)
			if same := text(m.Answer) == text(said.Answer) || text(m.Answer) == text(keptFor(said, negativeTTL).Answer); m.AuthenticatedData && !same {
				t.Error("AD is set on what the upstream didn't say")
			}
		})
	}
}

// A plugin that packs its answer itself is watched as well.
func TestChainRaw(t *testing.T) {
	srv := newServer(t, world(t))
	srv.Next = plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		m := new(dns.Msg).SetReply(r)
		m.Answer = records("www.contoso.example. 300 IN CNAME db.example.com.", "db.example.com. 300 IN A 203.0.113.1")
		packed, err := m.Pack()
		if err != nil {
			return dns.RcodeServerFailure, err
		}
		_, err = w.Write(packed)
		return dns.RcodeSuccess, err
	})
	m, _ := srv.ask(t, corp, question("www.contoso.example A"))
	check(t, "answer", m.Answer, "www.contoso.example. 300 IN CNAME db.example.com.", "db.example.com. 10 IN A 10.200.0.7")
}

// A shared message of the next plugin, such as one of a cache, isn't modified.
func TestChainLeavesMessage(t *testing.T) {
	srv := newServer(t, world(t))
	shared := new(dns.Msg)
	shared.Answer = records("www.contoso.example. 300 IN CNAME db.example.com.", "db.example.com. 300 IN A 203.0.113.1")
	shared.Extra = records("db.example.com. 300 IN A 203.0.113.1", "x.example. 300 IN SVCB 1 db.example.com. ipv4hint=203.0.113.1")
	before := shared.String()
	d := &downstream{ResponseWriter: &test.ResponseWriter{}, p: srv.Privatelink, q: &query{
		r: question("www.contoso.example A"), gen: srv.generation(srv.snapshot), view: view{network: "corp", found: true},
	}}
	for range 2 {
		if err := d.WriteMsg(shared); err != nil {
			t.Fatal(err)
		}
	}
	if after := shared.String(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// The answer for DS of a public name or an apex keeps the proof of the public side, but nothing that a resolver would have the name lead to, or not exist by, for
// other types too.
func TestChainDS(t *testing.T) {
	const (
		proof = "public.example. 300 IN SOA a. b. 1 1 1 1 1"
		to    = " 300 IN CNAME "
		sig   = " 300 IN RRSIG CNAME 8 4 300 20300101000000 20200101000000 1 windows.net. AAAA"
		soaIs = sqlZone + " 10 IN SOA " + sqlZone + soaTail
	)
	sql := "contoso.database.windows.net."
	for _, tt := range []struct {
		name, ask  string
		rcode      int
		up         []string
		answer, ns []string
		want       int
	}{
		{"same alias", sql, 0, []string{sql + to + "contoso." + sqlZone, sql + sig, "contoso." + sqlZone + to + "gw.public.example.", "gw.public.example. 300 IN A 203.0.113.1"},
			[]string{sql + to + "contoso." + sqlZone, sql + sig}, []string{soaIs}, 0},
		{"another alias", sql, 0, []string{sql + to + "gw.public.example."}, []string{sql + " 10 IN CNAME contoso." + sqlZone}, []string{soaIs}, 0},
		{"another alias, spelled differently", "Contoso.database.windows.net.", 0, []string{sql + to + "gw.public.example."}, []string{"C" + sql[1:] + " 10 IN CNAME contoso." + sqlZone}, []string{soaIs}, 0},
		{"DNAME above", sql, 0, []string{"windows.net. 300 IN DNAME public.example."}, []string{sql + " 10 IN CNAME contoso." + sqlZone}, []string{soaIs}, 0},
		{"alias of a name without a private one", "db.example.com.", 0, []string{"db.example.com." + to + "gw.public.example."}, nil, []string{"db.example.com. 10 IN SOA db.example.com." + soaTail}, 0},
		{"leads to ours", "www.example.org.", 0, []string{"www.example.org." + to + sql, sql + to + "gw.public.example."},
			[]string{"www.example.org." + to + sql, sql + " 10 IN CNAME contoso." + sqlZone}, []string{soaIs}, 0},
		{"no data", sql, 0, nil, nil, []string{proof}, 0},
		{"signed delegation", sql, 0, []string{sql + " 300 IN DS 1 8 2 AAAA"}, []string{sql + " 300 IN DS 1 8 2 AAAA"}, []string{proof}, 0},
		{"not in public", sql, dns.RcodeNameError, nil, []string{sql + " 10 IN CNAME contoso." + sqlZone}, []string{soaIs}, 0},
		{"not in public, without a private name", "db.example.com.", dns.RcodeNameError, nil, nil, []string{"db.example.com. 10 IN SOA db.example.com." + soaTail}, 0},
		{"apex not in public", sqlZone, dns.RcodeNameError, nil, nil, []string{proof}, 0},
		{"of others", "www.example.org.", dns.RcodeNameError, nil, nil, []string{proof}, dns.RcodeNameError},
		{"alias of others", "www.example.org.", 0, []string{"www.example.org." + to + "gw.public.example."}, []string{"www.example.org." + to + "gw.public.example."}, []string{proof}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := newServer(t, world(t))
			srv.up.reply = func(r *dns.Msg) *dns.Msg {
				m := new(dns.Msg).SetReply(r)
				m.Answer, m.Ns, m.Rcode = records(tt.up...), records(proof), tt.rcode
				return m
			}
			m, _ := srv.ask(t, corp, question(tt.ask+" DS").SetEdns0(1232, true))
			check(t, "answer", m.Answer, tt.answer...)
			check(t, "authority", m.Ns, tt.ns...)
			if m.Rcode != tt.want {
				t.Errorf("code %d, want %d", m.Rcode, tt.want)
			}
		})
	}
}

// D22, D23: a name becomes ours while the next plugin is asked for it. Its public address would be left out of what that answers, and the
// answer be empty: it is ours.
func TestChainBecomesOurs(t *testing.T) {
	published := func(srv *server) { delete(srv.unproven, "unproven") }
	const (
		alias     = "unproven.database.windows.net. 10 IN CNAME unproven." + sqlZone
		address   = "unproven." + sqlZone + " 10 IN A 10.200.0.15"
		elsewhere = "unproven.database.windows.net. 300 IN CNAME gw.example."
	)
	for _, tt := range []struct {
		name, ask      string
		becomes        func(srv *server)
		upstream, want []string
		ours           bool
	}{
		{"published", "unproven.database.windows.net. A", published,
			[]string{"unproven.database.windows.net. 300 IN A 203.0.113.1"}, []string{alias, address}, true},
		{"published, in another spelling", "Unproven.database.windows.net. A", published,
			[]string{"Unproven.database.windows.net. 300 IN A 203.0.113.1"}, []string{"U" + alias[1:], address}, true},
		{"published, private name", "unproven." + sqlZone + " A", published,
			[]string{"unproven." + sqlZone + " 300 IN A 203.0.113.1"}, []string{address}, true},
		{"published, asked for the alias", "unproven.database.windows.net. CNAME", published, []string{elsewhere}, []string{alias}, true},
		{"published, the public one is an alias", "unproven.database.windows.net. A", published,
			[]string{elsewhere, "gw.example. 300 IN A 203.0.113.1"}, []string{alias, address}, true},
		{"up again", "fallback.database.windows.net. A", func(srv *server) { delete(srv.down, "fallback") },
			[]string{"fallback.database.windows.net. 300 IN A 203.0.113.1"},
			[]string{"fallback.database.windows.net. 10 IN CNAME fallback." + sqlZone, "fallback." + sqlZone + " 10 IN A 10.200.0.17"}, true},
		{"another one is published", "other.database.windows.net. A", published,
			[]string{"other.database.windows.net. 300 IN A 203.0.113.1"}, []string{"other.database.windows.net. 300 IN A 203.0.113.1"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := newServer(t, world(t))
			srv.up.reply = func(r *dns.Msg) *dns.Msg {
				tt.becomes(srv)
				m := new(dns.Msg).SetReply(r)
				m.RecursionAvailable = true
				m.Answer = records(tt.upstream...)
				return m
			}
			m, _ := srv.ask(t, corp, question(tt.ask))
			check(t, "answer", m.Answer, tt.want...)
			if m.Rcode != dns.RcodeSuccess || m.Authoritative != tt.ours || !m.RecursionAvailable || len(m.Ns) > 0 {
				t.Errorf("%v", m)
			}
		})
	}
}

// D22: a name becomes ours between two looks at one answer of others: it is answered whole, as it was at the first one.
func TestChainBecomesOursMeanwhile(t *testing.T) {
	srv := newServer(t, world(t))
	looks := 0
	srv.Published = func(link.ID) bool { looks++; return looks > 2 } // the query's, and the first one at the answer
	for _, ask := range []string{"Unproven.database.windows.net. A", "contoso.database.windows.net. A"} {
		looks = 0
		m, _ := srv.ask(t, corp, question(ask))
		check(t, ask, m.Answer, strings.TrimSuffix(ask, " A")+" 10 IN A 203.0.113.1")
	}
}

// D16: what others say of a name that may be ours the next moment, or of one that leads there, is kept for as short a time as a denial; what they say of others as
// they want, and what they say to a subnet of which a part has another view not at all.
func TestPassedFor(t *testing.T) {
	srv := newServer(t, world(t))
	srv.ecsFrom = prefixes("192.0.2.53/32")
	var said *dns.Msg
	for _, tt := range []struct {
		name, from, ask, subnet, alias string
		want                           uint32
	}{
		{"pending", corp, "pending.database.windows.net", "", "", 10},
		{"pending, private name", corp, "pending." + sqlZone, "", "", 10},
		{"leads to a pending one", corp, "www.example.org", "", "pending.database.windows.net.", 10},
		{"no endpoint in this network", bare, "contoso.database.windows.net", "", "", 10},
		{"no endpoint in this network, private name", bare, "contoso." + sqlZone, "", "", 10},
		{"leads to a private name", bare, "www.example.org", "", "contoso." + sqlZone, 10},
		{"of others", corp, "www.example.org", "", "", 300},
		{"of others in a zone of ours", corp, "other.database.windows.net", "", "", 300},
		{"a pattern's", bare, "shop.azurewebsites.net", "", "", 10},
		{"a pattern's, private name", bare, "shop.privatelink.azurewebsites.net", "", "", 10},
		{"below what a pattern stands for", bare, "x.shop.azurewebsites.net", "", "", 300},
		{"of others in a private zone", corp, "other." + sqlZone, "", "", 300},
		{"no network", stranger, "contoso.database.windows.net", "", "", 300},
		{"subnet of several networks", "192.0.2.53", "contoso.database.windows.net", "10.0.0.0/8", "", 0},
		{"subnet of none", "192.0.2.53", "contoso.database.windows.net", "198.51.100.0/24", "", 300},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv.up.reply = func(r *dns.Msg) *dns.Msg {
				said = new(dns.Msg).SetReply(r)
				owner := r.Question[0].Name
				if tt.alias != "" {
					said.Answer, owner = records(owner+" 300 IN CNAME "+tt.alias), tt.alias
				}
				said.Answer = append(said.Answer, records(owner+" 300 IN A 203.0.113.1")...)
				said.Ns = records("example. 300 IN NS ns.example.")
				return said
			}
			r := question(tt.ask + " A")
			if tt.subnet != "" {
				withSubnet(r, tt.subnet)
			}
			m, _ := srv.ask(t, tt.from, r)
			for _, rr := range append(m.Answer, m.Ns...) {
				if got := rr.Header().Ttl; got != tt.want {
					t.Errorf("%v, want %d", rr, tt.want)
				}
			}
			if len(m.Answer) == 0 || said.Answer[0].Header().Ttl != 300 {
				t.Errorf("%v of %v", m, said)
			}
		})
	}
}

// So do answers that aliases of linked zones lead to.
func TestPassedForAliases(t *testing.T) {
	const corpZone = "sub/rg/corp.example"
	srv := newServer(t, apply(t, zoneWorld(t), record(corpZone, "CNAME", "late", "pending.database.windows.net."), record(corpZone, "CNAME", "others", "www.example.org.")))
	srv.up.reply = func(r *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(r)
		m.Answer = records(r.Question[0].Name + " 300 IN A 203.0.113.1")
		return m
	}
	for name, want := range map[string]uint32{"late.corp.example": 10, "others.corp.example": 300} {
		m, _ := srv.ask(t, corp, question(name+" A"))
		if n := len(m.Answer); n != 2 || m.Answer[1].Header().Ttl != want {
			t.Errorf("%s: %v, want %d", name, m.Answer, want)
		}
	}
}

// What is asked of others is asked with recursion, whatever the client desires: cache, which asks them, would give what it gets to everybody.
func TestPassedWithRecursion(t *testing.T) {
	srv := newServer(t, world(t))
	srv.Forwards = true
	var asked bool
	srv.up.reply = func(r *dns.Msg) *dns.Msg {
		asked = r.RecursionDesired
		return new(dns.Msg).SetReply(r)
	}
	for _, from := range []string{corp, stranger} {
		for _, desired := range []bool{false, true} {
			r := question("www.example.org A")
			r.RecursionDesired = desired
			m, _ := srv.ask(t, from, r)
			if !asked || m.RecursionDesired != desired || r.RecursionDesired != desired {
				t.Errorf("desired %v, asked with %v, answered with %v", desired, asked, m.RecursionDesired)
			}
		}
	}
	srv.Forwards = false
	r := question("www.example.org A")
	r.RecursionDesired = false
	if srv.ask(t, corp, r); asked {
		t.Error("who asks nobody is asked for recursion")
	}
}

// soon returns records with the TTL of a denial.
func soon(records ...string) (all []string) {
	for _, r := range records {
		all = append(all, strings.Replace(r, " 300 IN ", " 10 IN ", 1))
	}
	return all
}
