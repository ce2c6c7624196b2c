package privatelink

import (
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

const (
	corpZone link.ID = "sub/rg/corp.example"
	hubZone  link.ID = "sub/rg/privatelink.database.windows.net"
)

// zone is a private zone that is linked to the networks.
func zone(id link.ID, networks ...link.ID) link.PutZone {
	z := link.PrivateZone{ID: id, Name: link.Name(id.Last())}
	for _, n := range networks {
		z.Links = append(z.Links, link.ZoneLink{Name: string(n), Network: n})
	}
	return link.PutZone{Zone: z}
}

func record(zone link.ID, rtype, name string, data ...string) link.PutRecordSet {
	return link.PutRecordSet{RecordSet: link.RecordSet{Zone: zone, Type: rtype, Name: name, TTL: 300, Data: data}}
}

// grouped is an endpoint with a zone group.
func grouped(service, network link.ID, address string, zone link.ID) link.PutEndpoint {
	c := to(service, network, address)
	c.Endpoint.Zones = &link.ZoneGroup{Name: "default", Configs: []link.ZoneConfig{{Name: "c", Zone: zone}}}
	return c
}

// zoneWorld is world with private zones: corp.example with records of all types, linked to corp and lab,
// pass.example, which redirects, and the privatelink zone of SQL, linked to bare alone and with endpoints of the
// network lab in their groups.
func zoneWorld(t testing.TB) *link.Snapshot {
	t.Helper()
	redirect := zone("sub/rg/pass.example", "corp")
	redirect.Zone.Links[0].Redirect = true
	hidden := service("webs", "*.azurewebsites.net")
	return apply(t, world(t),
		zone(corpZone, "corp", "lab"), zone(hubZone, "bare"), redirect, zone("sub/rg/contoso.internal", "bare"),
		zone("sub/rg/privatelink.azurewebsites.net", "bare"), zone("sub/rg/10.in-addr.arpa", "corp"),
		record(corpZone, "A", "www", "10.20.0.7", "10.20.0.8"), record(corpZone, "AAAA", "www", "fd00::7"),
		record(corpZone, "TXT", "www", `"a \"b\" \195\164" "c"`), record(corpZone, "MX", "@", "10 www.corp.example."),
		record(corpZone, "SRV", "_sql._tcp", "0 0 1433 www.corp.example."), record(corpZone, "PTR", "ptr", "www.corp.example."),
		record(corpZone, "A", "a.b.c", "10.20.0.9"), record(corpZone, "A", "*", "10.20.0.10"), record(corpZone, "TXT", "*.wild", `"w"`),
		record(corpZone, "CNAME", "alias", "www.corp.example."), record(corpZone, "CNAME", "alias2", "alias.corp.example."),
		record(corpZone, "CNAME", "gone", "nobody.x.b.c.corp.example."), record(corpZone, "CNAME", "loop", "loop2.corp.example."), record(corpZone, "CNAME", "loop2", "loop.corp.example."),
		record(corpZone, "CNAME", "db", "contoso.database.windows.net."), record(corpZone, "CNAME", "out", "www.example.org."),
		record(corpZone, "CNAME", "*.cname", "www.corp.example."), record(corpZone, "A", "empty"),
		record("sub/rg/pass.example", "A", "a.b", "10.20.0.11"), record("sub/rg/pass.example", "CNAME", "back", "www.corp.example."),
		record("sub/rg/10.in-addr.arpa", "PTR", "9.0.20", "www.corp.example."),
		grouped("sql", "lab", "10.201.0.55", hubZone),
		link.PutService{Service: service("hub-down", "hubdown.database.windows.net")}, grouped("hub-down", "lab", "10.201.0.56", hubZone),
		link.PutService{Service: hidden}, grouped("webs", "lab", "10.201.0.57", "sub/rg/privatelink.azurewebsites.net"),
		link.PutService{Service: service("plain2", "db.contoso.internal")}, grouped("plain2", "lab", "10.201.0.58", "sub/rg/contoso.internal"),
		grouped("unproven", "lab", "10.201.0.59", hubZone), grouped("fallback", "lab", "10.201.0.60", hubZone),
		record("sub/rg/contoso.internal", "TXT", "db", `"beside"`),
	)
}

func TestLinkedZones(t *testing.T) {
	const soaOf = " 10 IN SOA "
	tail := strings.Replace(soaTail, " 128 ", " 192 ", 1)
	corpSOA := "corp.example." + soaOf + "corp.example." + tail
	sqlSOA := sqlZone + soaOf + sqlZone + tail
	www := []string{"www.corp.example. 300 IN A 10.20.0.7", "www.corp.example. 300 IN A 10.20.0.8"}
	tests := []struct {
		name, from, ask string
		set             func(*settings)
		rcode           int
		answer, ns      []string
		passed          bool
	}{
		{name: "A", ask: "www.corp.example A", answer: www},
		{name: "D13 another linked network", from: lab, ask: "www.corp.example A", answer: www},
		{name: "D13 network without the link", from: bare, ask: "www.corp.example A", passed: true},
		{name: "no network", from: stranger, ask: "www.corp.example A", passed: true},
		{name: "D07 spelling", ask: "WWW.Corp.Example AAAA", answer: []string{"WWW.Corp.Example. 300 IN AAAA fd00::7"}},
		{name: "TXT", ask: "www.corp.example TXT", answer: []string{`www.corp.example. 300 IN TXT "a \"b\" \195\164" "c"`}},
		{name: "MX at the apex", ask: "corp.example MX", answer: []string{"corp.example. 300 IN MX 10 www.corp.example."}},
		{name: "SRV", ask: "_sql._tcp.corp.example SRV", answer: []string{"_sql._tcp.corp.example. 300 IN SRV 0 0 1433 www.corp.example."}},
		{name: "PTR", ask: "ptr.corp.example PTR", answer: []string{"ptr.corp.example. 300 IN PTR www.corp.example."}},
		{name: "PTR in a reverse zone", ask: "9.0.20.10.in-addr.arpa PTR", answer: []string{"9.0.20.10.in-addr.arpa. 300 IN PTR www.corp.example."}},
		{name: "D14 HTTPS", ask: "www.corp.example HTTPS", ns: []string{corpSOA}},
		{name: "D14 MX below the apex", ask: "www.corp.example MX", ns: []string{corpSOA}},
		{name: "D08 ANY", ask: "www.corp.example ANY", answer: www},
		{name: "D08 ANY of a TXT", ask: "x.wild.corp.example ANY", answer: []string{`x.wild.corp.example. 300 IN TXT "w"`}},
		{name: "D10 AXFR", ask: "corp.example AXFR", rcode: dns.RcodeRefused},
		{name: "D10 IXFR", ask: "corp.example IXFR", rcode: dns.RcodeRefused},
		{name: "apex SOA", ask: "corp.example SOA", answer: []string{corpSOA}},
		{name: "apex NS", ask: "corp.example NS", answer: []string{"corp.example. 10 IN NS corp.example."}},
		{name: "apex A", ask: "corp.example A", ns: []string{corpSOA}},
		{name: "apex DS is the parent's", ask: "corp.example DS", passed: true},
		{name: "set without records", ask: "empty.corp.example A", ns: []string{corpSOA}},

		{name: "empty non-terminal", ask: "b.c.corp.example A", ns: []string{corpSOA}},
		{name: "wildcard", ask: "anything.corp.example A", answer: []string{"anything.corp.example. 300 IN A 10.20.0.10"}},
		{name: "wildcard, several labels", ask: "any.thing.corp.example A", answer: []string{"any.thing.corp.example. 300 IN A 10.20.0.10"}},
		{name: "wildcard, other type", ask: "anything.corp.example TXT", ns: []string{corpSOA}},
		{name: "D15 no wildcard below a name that exists", ask: "x.www.corp.example A", rcode: dns.RcodeNameError, ns: []string{corpSOA}},
		{name: "D15 no wildcard below an empty name", ask: "x.b.c.corp.example A", rcode: dns.RcodeNameError, ns: []string{corpSOA}},
		{name: "nearer wildcard hides the other", ask: "x.wild.corp.example A", ns: []string{corpSOA}},
		{name: "the wildcard itself", ask: "*.corp.example A", answer: []string{"*.corp.example. 300 IN A 10.20.0.10"}},
		{name: "wildcard, escaped dot", ask: `x\.y.corp.example A`, rcode: dns.RcodeNameError, ns: []string{corpSOA}},

		{name: "CNAME", ask: "alias.corp.example A", answer: append([]string{"alias.corp.example. 300 IN CNAME www.corp.example."}, www...)},
		{name: "CNAME, other type", ask: "alias.corp.example MX", answer: []string{"alias.corp.example. 300 IN CNAME www.corp.example."}, ns: []string{corpSOA}},
		{name: "CNAME asked for", ask: "alias2.corp.example CNAME", answer: []string{"alias2.corp.example. 300 IN CNAME alias.corp.example."}},
		{name: "CNAME and ANY", ask: "alias.corp.example ANY", answer: []string{"alias.corp.example. 300 IN CNAME www.corp.example."}},
		{name: "two CNAMEs", ask: "Alias2.corp.example A", answer: append([]string{"Alias2.corp.example. 300 IN CNAME alias.corp.example.", "alias.corp.example. 300 IN CNAME www.corp.example."}, www...)},
		{name: "CNAME to nothing", ask: "gone.corp.example A", rcode: dns.RcodeNameError, answer: []string{"gone.corp.example. 300 IN CNAME nobody.x.b.c.corp.example."}, ns: []string{corpSOA}},
		{name: "CNAME by wildcard", ask: "x.cname.corp.example A", answer: append([]string{"x.cname.corp.example. 300 IN CNAME www.corp.example."}, www...)},
		{name: "CNAME into an endpoint's name", ask: "db.corp.example A", answer: []string{
			"db.corp.example. 300 IN CNAME contoso.database.windows.net.", "contoso.database.windows.net. 10 IN CNAME contoso." + sqlZone, "contoso." + sqlZone + " 10 IN A 10.200.0.5"}},
		{name: "CNAME into another zone", ask: "back.pass.example A", answer: append([]string{"back.pass.example. 300 IN CNAME www.corp.example."}, www...)},

		{name: "redirect, a name that exists", ask: "a.b.pass.example A", answer: []string{"a.b.pass.example. 300 IN A 10.20.0.11"}},
		{name: "redirect, other type", ask: "a.b.pass.example TXT", ns: []string{"pass.example." + soaOf + "pass.example." + tail}},
		{name: "redirect, empty non-terminal", ask: "b.pass.example A", ns: []string{"pass.example." + soaOf + "pass.example." + tail}},
		{name: "redirect, miss", ask: "nobody.pass.example A", passed: true},

		{name: "group, private name", from: bare, ask: "contoso." + sqlZone + " A", answer: []string{"contoso." + sqlZone + " 10 IN A 10.201.0.55"}},
		{name: "group, public name", from: bare, ask: "contoso.database.windows.net A",
			answer: []string{"contoso.database.windows.net. 10 IN CNAME contoso." + sqlZone, "contoso." + sqlZone + " 10 IN A 10.201.0.55"}},
		{name: "D14 group, HTTPS of the public name", from: bare, ask: "contoso.database.windows.net HTTPS",
			answer: []string{"contoso.database.windows.net. 10 IN CNAME contoso." + sqlZone}, ns: []string{sqlSOA}},
		{name: "group, own network's endpoints win", ask: "contoso." + sqlZone + " A", answer: []string{"contoso." + sqlZone + " 10 IN A 10.200.0.5"}},
		{name: "D15 group, beside the name", from: bare, ask: "nobody." + sqlZone + " A", rcode: dns.RcodeNameError, ns: []string{sqlSOA}},
		{name: "D15 group, below the name", from: bare, ask: "x.contoso." + sqlZone + " A", rcode: dns.RcodeNameError, ns: []string{sqlSOA}},
		{name: "group, the public name of another", from: bare, ask: "nobody.database.windows.net A", passed: true},
		{name: "D22 group, not published", from: bare, ask: "unproven." + sqlZone + " A", ns: []string{sqlSOA}},
		{name: "D22 group, not published, public name", from: bare, ask: "unproven.database.windows.net A", passed: true},
		{name: "D23 group, fallback public", from: bare, ask: "fallback.database.windows.net A", passed: true},
		{name: "group, targets down", from: bare, ask: "hubdown." + sqlZone + " A", answer: []string{"hubdown." + sqlZone + " 10 IN A 10.201.0.56"}},
		{name: "group, pattern", from: bare, ask: "shop.privatelink.azurewebsites.net A", answer: []string{"shop.privatelink.azurewebsites.net. 10 IN A 10.201.0.57"}},
		{name: "group, pattern, public name", from: bare, ask: "shop.azurewebsites.net A", answer: []string{
			"shop.azurewebsites.net. 10 IN CNAME shop.privatelink.azurewebsites.net.", "shop.privatelink.azurewebsites.net. 10 IN A 10.201.0.57"}},
		{name: "group, pattern stands for one label", from: bare, ask: "a.shop.privatelink.azurewebsites.net A", rcode: dns.RcodeNameError,
			ns: []string{"privatelink.azurewebsites.net." + soaOf + "privatelink.azurewebsites.net." + tail}},
		{name: "group, public name in the zone", from: bare, ask: "db.contoso.internal A", answer: []string{"db.contoso.internal. 10 IN A 10.201.0.58"}},
		{name: "group, a record set beside", from: bare, ask: "db.contoso.internal TXT", answer: []string{`db.contoso.internal. 300 IN TXT "beside"`}},
		{name: "ttl", from: bare, ask: "db.contoso.internal A", set: func(s *settings) { s.ttl = 77 }, answer: []string{"db.contoso.internal. 77 IN A 10.201.0.58"}},
	}
	srv := newServer(t, zoneWorld(t))
	for range 2 { // the second time from what is remembered
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				srv.settings, srv.up.asked = defaults(), nil
				if tt.set != nil {
					tt.set(&srv.settings)
					srv.current.Store(nil)
					defer srv.current.Store(nil)
				}
				from := tt.from
				if from == "" {
					from = corp
				}
				m, _ := srv.ask(t, from, question(tt.ask))
				if passed := len(srv.up.asked) > 0; passed != tt.passed {
					t.Fatalf("next plugin was asked %q", srv.up.asked)
				}
				if tt.passed {
					return
				}
				if m.Rcode != tt.rcode || m.Authoritative == (tt.rcode == dns.RcodeRefused) {
					t.Errorf("header %+v", m.MsgHdr)
				}
				check(t, "answer", m.Answer, tt.answer...)
				check(t, "authority", m.Ns, tt.ns...)
			})
		}
	}
}

// An alias of a linked zone that leads to names of others is completed by the next plugin, and so is one
// that an answer of the next plugin has led to.
func TestAliasLeadsOut(t *testing.T) {
	for _, tt := range []struct {
		name, ask string
		up        map[string][]string // the answer of the next plugin by name
		rcode     int
		answer    []string
		aa        bool
	}{
		{name: "out", ask: "Out.corp.example A", aa: true, up: map[string][]string{"www.example.org.": {"www.example.org. 60 IN A 203.0.113.1"}},
			answer: []string{"Out.corp.example. 300 IN CNAME www.example.org.", "www.example.org. 60 IN A 203.0.113.1"}},
		{name: "out and back to an endpoint", ask: "out.corp.example A", aa: true,
			up: map[string][]string{"www.example.org.": {"www.example.org. 60 IN CNAME contoso.database.windows.net.", "contoso.database.windows.net. 60 IN A 203.0.113.1"}},
			answer: []string{"out.corp.example. 300 IN CNAME www.example.org.", "www.example.org. 60 IN CNAME contoso.database.windows.net.",
				"contoso.database.windows.net. 10 IN CNAME contoso." + sqlZone, "contoso." + sqlZone + " 10 IN A 10.200.0.5"}},
		{name: "in from others", ask: "shop.example.net A",
			up:     map[string][]string{"shop.example.net.": {"shop.example.net. 60 IN CNAME alias.corp.example.", "alias.corp.example. 60 IN A 203.0.113.9"}},
			answer: []string{"shop.example.net. 60 IN CNAME alias.corp.example.", "alias.corp.example. 300 IN CNAME www.corp.example.", "www.corp.example. 300 IN A 10.20.0.7", "www.corp.example. 300 IN A 10.20.0.8"}},
		{name: "in from others, to a name that the zone denies", ask: "shop.example.net A", rcode: dns.RcodeNameError,
			up:     map[string][]string{"shop.example.net.": {"shop.example.net. 60 IN CNAME x.www.corp.example.", "x.www.corp.example. 60 IN A 203.0.113.9"}},
			answer: []string{"shop.example.net. 60 IN CNAME x.www.corp.example."}},
		{name: "in and out again", ask: "shop.example.net A", aa: true,
			up: map[string][]string{"shop.example.net.": {"shop.example.net. 60 IN CNAME out.corp.example.", "out.corp.example. 60 IN A 203.0.113.9"},
				"www.example.org.": {"www.example.org. 60 IN A 203.0.113.1"}},
			answer: []string{"shop.example.net. 60 IN CNAME out.corp.example.", "out.corp.example. 300 IN CNAME www.example.org.", "www.example.org. 60 IN A 203.0.113.1"}},
		{name: "in and out for ever", ask: "out.corp.example A", rcode: dns.RcodeServerFailure, aa: true,
			up: map[string][]string{"www.example.org.": {"www.example.org. 60 IN CNAME out.corp.example."}}},
		{name: "nowhere", ask: "out.corp.example A", rcode: dns.RcodeNameError, aa: true, up: map[string][]string{"www.example.org.": nil},
			answer: []string{"out.corp.example. 300 IN CNAME www.example.org."}},
		{name: "in a circle", ask: "loop.corp.example A", rcode: dns.RcodeServerFailure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := newServer(t, zoneWorld(t))
			srv.up.reply = func(r *dns.Msg) *dns.Msg {
				m := new(dns.Msg).SetReply(r)
				m.RecursionAvailable, m.AuthenticatedData = true, true
				m.Answer = records(tt.up[r.Question[0].Name]...)
				if len(m.Answer) == 0 {
					m.Rcode = dns.RcodeNameError
				}
				return m
			}
			m, _ := srv.ask(t, corp, question(tt.ask))
			if m.Rcode != tt.rcode || m.Authoritative != tt.aa || m.AuthenticatedData || m.Id != 4711 || m.Question[0].Name != dns.Fqdn(strings.Fields(tt.ask)[0]) {
				t.Errorf("%+v %v", m.MsgHdr, m.Question)
			}
			if tt.rcode != dns.RcodeServerFailure {
				check(t, "answer", m.Answer, tt.answer...)
			}
			if len(srv.up.asked) > 2*maxHops {
				t.Errorf("the next plugin was asked %d times", len(srv.up.asked))
			}
		})
	}
}

// What the API says of a zone's SOA before somebody has written it is what is answered, but for the serial.
func TestSOA(t *testing.T) {
	s := zoneWorld(t)
	zone, _, _ := s.LinkedZone("corp", []byte("corp.example"))
	want := recordsOf("corp.example.", zone.SOA())[0].(*dns.SOA)
	want.Serial = serialOf(s)
	m, _ := newServer(t, s).ask(t, corp, question("corp.example SOA"))
	check(t, "answer", m.Answer, strings.Join(strings.Fields(want.String()), " "))
}

// TestOwnSOA: the fields of a zone's own SOA are answered, the serial is that of the state, and a denial
// is never kept longer than an approval may stay unseen.
func TestOwnSOA(t *testing.T) {
	set := record(corpZone, "SOA", "@", "azureprivatedns.net. azureprivatedns-host.microsoft.com. 1 3600 300 2419200 60")
	set.RecordSet.TTL = 3600
	srv := newServer(t, apply(t, zoneWorld(t), set))
	m, _ := srv.ask(t, corp, question("corp.example SOA"))
	check(t, "answer", m.Answer, "corp.example. 3600 IN SOA azureprivatedns.net. azureprivatedns-host.microsoft.com. 256 3600 300 2419200 60")
	m, _ = srv.ask(t, corp, question("x.www.corp.example A"))
	check(t, "authority", m.Ns, "corp.example. 10 IN SOA azureprivatedns.net. azureprivatedns-host.microsoft.com. 256 3600 300 2419200 60")
	set.RecordSet.TTL = 5
	srv.snapshot = apply(t, srv.snapshot, set)
	m, _ = srv.ask(t, corp, question("x.www.corp.example A"))
	if ttl := m.Ns[0].Header().Ttl; ttl != 5 {
		t.Errorf("a denial is kept for %d s, the record itself for 5", ttl)
	}
}

// TestZoneFollowsState: D16 what is decided on is answered with the next snapshot.
func TestZoneFollowsState(t *testing.T) {
	s := zoneWorld(t)
	srv := newServer(t, s)
	ask := func() int {
		m, _ := srv.ask(t, bare, question("contoso."+sqlZone+" A"))
		return m.Rcode
	}
	if ask() != dns.RcodeSuccess {
		t.Fatal("no answer to begin with")
	}
	e := s.Endpoint("sql-10.201.0.55")
	for name, change := range map[string]link.Change{
		"rejected":  link.Decide{Endpoint: e.ID, LinkID: e.Connection.LinkID, State: link.Rejected},
		"suspended": link.Suspend{Endpoint: e.ID, LinkID: e.Connection.LinkID},
		"removed":   link.Disconnect{Endpoint: e.ID, LinkID: e.Connection.LinkID},
		"deleted":   link.DeleteEndpoint{ID: e.ID},
		"unlinked":  zone(hubZone),
	} {
		srv.snapshot = apply(t, s, change)
		srv.up.asked = nil
		if code := ask(); code == dns.RcodeSuccess && len(srv.up.asked) == 0 {
			t.Errorf("%s: the name is still answered", name)
		}
		srv.snapshot = s
		srv.current.Store(nil)
	}
}

// FuzzRecord: what package link takes as a record, DNS can say.
func FuzzRecord(f *testing.F) {
	for _, seed := range []string{"10.0.0.1", "fd00::1", "host.example.com.", "10 mail.example.com.", "0 .", "1 2 443 host.", "a. b. 1 2 3 4 5", `"a\"b" c\032\255 "" "; ("`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data string) {
		for _, rtype := range link.RecordTypes() {
			canonical, err := link.ParseRecord(rtype, data)
			if err != nil {
				continue
			}
			rrs := recordsOf("x.example.", &link.RecordSet{Type: rtype, TTL: 10, Data: []string{canonical}})
			if len(rrs) != 1 {
				t.Fatalf("%s %q can't be said", rtype, canonical)
			}
			m := &dns.Msg{Answer: rrs}
			packed, err := m.Pack()
			if err == nil {
				err = m.Unpack(packed)
			}
			if err != nil || m.Answer[0].String() != rrs[0].String() {
				t.Errorf("%s %q: %v, %v", rtype, canonical, err, m.Answer)
			}
			if txt, ok := m.Answer[0].(*dns.TXT); ok {
				if again, err := link.ParseRecord("TXT", strings.TrimPrefix(txt.String(), txt.Hdr.String())); err != nil || again != canonical {
					t.Errorf("TXT %s is %s on the wire", canonical, again)
				}
			}
		}
	})
}

// D23: two services have the same name in a zone. One whose targets are down makes way for the other, and answers
// where that is down too.
func TestGroupsByHealth(t *testing.T) {
	srv := newServer(t, apply(t, zoneWorld(t),
		link.PutNetwork{Network: link.Network{ID: "second", Prefixes: prefixes("10.4.0.0/16"), Pools: prefixes("10.204.0.0/24")}},
		link.PutService{Service: service("a-sql", "contoso.database.windows.net")}, grouped("a-sql", "second", "10.204.0.5", hubZone),
	))
	const first, other = "10.204.0.5", "10.201.0.55" // of a-sql and of sql
	for _, tt := range []struct {
		name           string
		down, unproven []link.ID
		want           string
	}{
		{name: "both healthy", want: first},
		{name: "the first down", down: []link.ID{"a-sql"}, want: other},
		{name: "the other down", down: []link.ID{"sql"}, want: first},
		{name: "both down", down: []link.ID{"a-sql", "sql"}, want: first},
		{name: "the first not published, the other down", unproven: []link.ID{"a-sql"}, down: []link.ID{"sql"}, want: other},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv.down, srv.unproven = map[link.ID]bool{}, map[link.ID]bool{}
			for _, id := range tt.down {
				srv.down[id] = true
			}
			for _, id := range tt.unproven {
				srv.unproven[id] = true
			}
			for _, name := range []string{"contoso.database.windows.net", "contoso." + sqlZone} {
				m, _ := srv.ask(t, bare, question(name+" A"))
				check(t, name, m.Answer[len(m.Answer)-1:], "contoso."+sqlZone+" 10 IN A "+tt.want)
			}
		})
	}
}
