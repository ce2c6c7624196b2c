package privatelink

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-link/postern/link"
)

const (
	sqlZone = "privatelink.database.windows.net."
	soaTail = " nobody.invalid. 128 10 10 86400 10" // the world has the revision 2
	sqlSOA  = sqlZone + " 10 IN SOA " + sqlZone + soaTail
)

// answerCase is what is answered to a question of a client. Passed means that the next plugin was asked, once, and answered.
type answerCase struct {
	name, from, ask string
	set             func(*settings)
	rcode           int
	answer, ns      []string
	passed          bool
}

// answerCases are those of the world.
func answerCases() []answerCase {
	sqlAlias := "contoso.database.windows.net. 10 IN CNAME contoso." + sqlZone
	kvAlias := "kv.vault.azure.net. 10 IN CNAME kv.privatelink.vaultcore.azure.net."
	kvSOA := "privatelink.vaultcore.azure.net. 10 IN SOA privatelink.vaultcore.azure.net." + soaTail
	plainSOA := "db.example.com. 10 IN SOA db.example.com." + soaTail
	return []answerCase{
		{name: "public name", from: corp, ask: "contoso.database.windows.net A",
			answer: []string{sqlAlias, "contoso." + sqlZone + " 10 IN A 10.200.0.5"}},
		{name: "public name, client by IPv6", from: corp6, ask: "contoso.database.windows.net A",
			answer: []string{sqlAlias, "contoso." + sqlZone + " 10 IN A 10.200.0.5"}},
		{name: "public name, client by IPv4 in IPv6", from: "::ffff:10.1.0.9", ask: "contoso.database.windows.net A",
			answer: []string{sqlAlias, "contoso." + sqlZone + " 10 IN A 10.200.0.5"}},
		{name: "privatelink name", from: corp, ask: "contoso." + sqlZone + " A",
			answer: []string{"contoso." + sqlZone + " 10 IN A 10.200.0.5"}},
		{name: "D13 other network, other address", from: lab, ask: "contoso." + sqlZone + " A",
			answer: []string{"contoso." + sqlZone + " 10 IN A 10.201.0.5"}},
		{name: "longest prefix decides", from: "10.1.99.9", ask: "contoso." + sqlZone + " A",
			answer: []string{"contoso." + sqlZone + " 10 IN A 10.201.0.5"}},
		{name: "network without the endpoint", from: bare, ask: "contoso.database.windows.net A", passed: true},
		{name: "network without the endpoint, privatelink name", from: bare, ask: "contoso." + sqlZone + " A", passed: true},
		{name: "no network", from: stranger, ask: "contoso.database.windows.net A", passed: true},
		{name: "no network, privatelink name", from: stranger, ask: "contoso." + sqlZone + " A", passed: true},
		{name: "no network, miss policy doesn't matter", from: stranger, ask: "nobody." + sqlZone + " A", passed: true,
			set: func(s *settings) { s.miss = missNXDomain }},
		{name: "network of the server block", from: stranger, ask: "contoso." + sqlZone + " A",
			set:    func(s *settings) { s.network = "hidden" },
			answer: []string{"contoso." + sqlZone + " 10 IN A 10.202.0.5"}},
		{name: "ttl", from: corp, ask: "contoso.database.windows.net A", set: func(s *settings) { s.ttl = 77 },
			answer: []string{strings.Replace(sqlAlias, "10 IN", "77 IN", 1), "contoso." + sqlZone + " 77 IN A 10.200.0.5"}},

		{name: "several endpoints", from: corp, ask: "kv.vault.azure.net A",
			answer: []string{kvAlias, "kv.privatelink.vaultcore.azure.net. 10 IN A 10.200.0.6", "kv.privatelink.vaultcore.azure.net. 10 IN A 10.200.0.66"}},
		{name: "both families", from: corp, ask: "kv.vault.azure.net AAAA",
			answer: []string{kvAlias, "kv.privatelink.vaultcore.azure.net. 10 IN AAAA fd00:200::6"}},
		{name: "no private name", from: corp, ask: "db.example.com A", answer: []string{"db.example.com. 10 IN A 10.200.0.7"}},
		{name: "pattern", from: corp, ask: "shop.azurewebsites.net A", answer: []string{
			"shop.azurewebsites.net. 10 IN CNAME shop.privatelink.azurewebsites.net.", "shop.privatelink.azurewebsites.net. 10 IN A 10.200.0.8"}},
		{name: "pattern, privatelink name", from: corp, ask: "shop.privatelink.azurewebsites.net A",
			answer: []string{"shop.privatelink.azurewebsites.net. 10 IN A 10.200.0.8"}},
		{name: "pattern without zone", from: corp, ask: "x.apps.example.com A", answer: []string{"x.apps.example.com. 10 IN A 10.200.0.8"}},
		{name: "D15 pattern, escaped dot", from: corp, ask: `a\.b.azurewebsites.net A`, passed: true},
		{name: "D15 pattern, NUL", from: corp, ask: `a\000.apps.example.com A`, passed: true},
		{name: "D15 pattern, high byte in the privatelink name", from: corp, ask: `\255x.privatelink.azurewebsites.net A`,
			set: func(s *settings) { s.miss = missNXDomain }, rcode: dns.RcodeNameError,
			ns: []string{"privatelink.azurewebsites.net. 10 IN SOA privatelink.azurewebsites.net." + soaTail}},
		{name: "pattern doesn't stand for the apex of its zone", from: corp, ask: "privatelink.azurewebsites.net SOA",
			answer: []string{"privatelink.azurewebsites.net. 10 IN SOA privatelink.azurewebsites.net." + soaTail}},
		{name: "pattern doesn't stand for the apex of its zone, DS", from: corp, ask: "privatelink.azurewebsites.net DS", passed: true},
		{name: "pattern stands for one label", from: corp, ask: "a.shop.azurewebsites.net A", passed: true},

		{name: "qtype CNAME", from: corp, ask: "contoso.database.windows.net CNAME", answer: []string{sqlAlias}},
		{name: "qtype CNAME of the privatelink name", from: corp, ask: "contoso." + sqlZone + " CNAME", ns: []string{sqlSOA}},
		{name: "D08 ANY of the public name", from: corp, ask: "contoso.database.windows.net ANY", answer: []string{sqlAlias}},
		{name: "D08 ANY of the privatelink name", from: corp, ask: "acct.privatelink.blob.core.windows.net ANY",
			answer: []string{"acct.privatelink.blob.core.windows.net. 10 IN AAAA fd00:200::9"}},
		{name: "D14 AAAA where only A exists", from: corp, ask: "contoso.database.windows.net AAAA", answer: []string{sqlAlias}, ns: []string{sqlSOA}},
		{name: "D14 A where only AAAA exists", from: corp, ask: "acct.privatelink.blob.core.windows.net A",
			ns: []string{"privatelink.blob.core.windows.net. 10 IN SOA privatelink.blob.core.windows.net." + soaTail}},
		{name: "D14 HTTPS", from: corp, ask: "contoso.database.windows.net HTTPS", answer: []string{sqlAlias}, ns: []string{sqlSOA}},
		{name: "D14 SVCB", from: corp, ask: "contoso." + sqlZone + " SVCB", ns: []string{sqlSOA}},
		{name: "D14 TXT", from: corp, ask: "contoso." + sqlZone + " TXT", ns: []string{sqlSOA}},
		{name: "MX", from: corp, ask: "kv.vault.azure.net MX", answer: []string{kvAlias}, ns: []string{kvSOA}},
		{name: "NS", from: corp, ask: "contoso." + sqlZone + " NS", ns: []string{sqlSOA}},
		{name: "SOA below the apex", from: corp, ask: "contoso." + sqlZone + " SOA", ns: []string{sqlSOA}},
		{name: "DS of a name", from: corp, ask: "contoso." + sqlZone + " DS", ns: []string{sqlSOA}},
		{name: "AAAA in no zone", from: corp, ask: "db.example.com AAAA", ns: []string{plainSOA}},
		{name: "SOA in no zone", from: corp, ask: "db.example.com SOA", answer: []string{plainSOA}},

		{name: "apex SOA", from: corp, ask: sqlZone + " SOA", answer: []string{sqlSOA}},
		{name: "apex NS", from: corp, ask: sqlZone + " NS", answer: []string{sqlZone + " 10 IN NS " + sqlZone}},
		{name: "apex A", from: corp, ask: sqlZone + " A", ns: []string{sqlSOA}},
		{name: "apex ANY", from: corp, ask: sqlZone + " ANY", answer: []string{sqlSOA}},
		{name: "apex DS is the parent's", from: corp, ask: sqlZone + " DS", passed: true},
		{name: "apex without an endpoint", from: bare, ask: sqlZone + " SOA", passed: true},
		{name: "apex without an endpoint but a policy", from: bare, ask: sqlZone + " SOA", answer: []string{sqlSOA},
			set: func(s *settings) { s.missIn["privatelink.database.windows.net"] = missNXDomain }},
		{name: "empty non-terminal", from: corp, ask: "b.privatelink.servicebus.windows.net A",
			ns: []string{"privatelink.servicebus.windows.net. 10 IN SOA privatelink.servicebus.windows.net." + soaTail}},

		{name: "miss pass", from: corp, ask: "nobody." + sqlZone + " A", passed: true},
		{name: "miss nxdomain", from: corp, ask: "nobody." + sqlZone + " A", set: func(s *settings) { s.miss = missNXDomain },
			rcode: dns.RcodeNameError, ns: []string{sqlSOA}},
		{name: "miss refuse", from: corp, ask: "nobody." + sqlZone + " A", set: func(s *settings) { s.miss = missRefuse }, rcode: dns.RcodeRefused},
		{name: "miss without an endpoint in the zone", from: bare, ask: "nobody." + sqlZone + " A", set: func(s *settings) { s.miss = missNXDomain }, passed: true},
		{name: "miss by zone, without an endpoint", from: bare, ask: "nobody." + sqlZone + " A", rcode: dns.RcodeNameError, ns: []string{sqlSOA},
			set: func(s *settings) { s.missIn["privatelink.database.windows.net"] = missNXDomain }},
		{name: "miss by zone stands before the general one", from: corp, ask: "nobody." + sqlZone + " A", passed: true,
			set: func(s *settings) { s.miss = missRefuse; s.missIn["privatelink.database.windows.net"] = missPass }},
		{name: "D15 below an endpoint name", from: corp, ask: "x.contoso." + sqlZone + " A", passed: true},
		{name: "D15 below an endpoint name, nxdomain", from: corp, ask: "x.contoso." + sqlZone + " A",
			set: func(s *settings) { s.miss = missNXDomain }, rcode: dns.RcodeNameError, ns: []string{sqlSOA}},
		{name: "D15 beside an endpoint name", from: corp, ask: "contosox." + sqlZone + " A", passed: true},
		{name: "D15 above: the public suffix", from: corp, ask: "database.windows.net A", passed: true},
		{name: "D15 below the public name", from: corp, ask: "x.contoso.database.windows.net A", passed: true},
		{name: "D15 the wildcard of the zone", from: corp, ask: "*." + sqlZone + " A", passed: true},
		{name: "D15 escaped dot is no label", from: corp, ask: `x\.contoso.` + sqlZone + " A", passed: true},
		{name: "escaped dot next to the zone", from: corp, ask: `x\.` + sqlZone + " A", set: func(s *settings) { s.miss = missNXDomain }, passed: true},
		{name: "foreign name", from: corp, ask: "www.example.org A", passed: true},
		{name: "root", from: corp, ask: ". NS", passed: true},

		{name: "D16 pending", from: corp, ask: "pending.database.windows.net A", passed: true},
		{name: "D16 rejected", from: corp, ask: "rejected.database.windows.net A", passed: true},
		{name: "D16 suspended", from: corp, ask: "suspended.database.windows.net A", passed: true},
		{name: "D16 removed", from: corp, ask: "removed.database.windows.net A", passed: true},
		{name: "D16 rejected follows the miss policy", from: corp, ask: "rejected." + sqlZone + " A",
			set: func(s *settings) { s.miss = missNXDomain }, rcode: dns.RcodeNameError, ns: []string{sqlSOA}},
		{name: "D22 target never answered", from: corp, ask: "unproven.database.windows.net A", passed: true},
		{name: "D22 target never answered, privatelink name", from: corp, ask: "unproven." + sqlZone + " A", passed: true},
		{name: "D22 follows the miss policy", from: corp, ask: "unproven." + sqlZone + " A",
			set: func(s *settings) { s.miss = missNXDomain }, rcode: dns.RcodeNameError, ns: []string{sqlSOA}},
		{name: "D23 targets down", from: corp, ask: "down." + sqlZone + " A", answer: []string{"down." + sqlZone + " 10 IN A 10.200.0.16"}},
		{name: "D23 fallback public", from: corp, ask: "fallback.database.windows.net A", passed: true},
		{name: "D23 fallback public, privatelink name, before the miss policy", from: corp, ask: "fallback." + sqlZone + " A", passed: true,
			set: func(s *settings) { s.miss = missNXDomain }},

		{name: "PTR", from: corp, ask: "5.0.200.10.in-addr.arpa PTR", answer: []string{"5.0.200.10.in-addr.arpa. 10 IN PTR contoso." + sqlZone}},
		{name: "PTR by IPv6", from: corp, ask: reverseName("fd00:200::6") + " PTR",
			answer: []string{reverseName("fd00:200::6") + " 10 IN PTR kv.privatelink.vaultcore.azure.net."}},
		{name: "PTR without private name", from: corp, ask: "7.0.200.10.in-addr.arpa PTR", answer: []string{"7.0.200.10.in-addr.arpa. 10 IN PTR db.example.com."}},
		{name: "PTR of patterns alone", from: corp, ask: "8.0.200.10.in-addr.arpa PTR", passed: true},
		{name: "PTR of another network", from: lab, ask: "5.0.200.10.in-addr.arpa PTR", passed: true},
		{name: "PTR of a rejected endpoint", from: corp, ask: "12.0.200.10.in-addr.arpa PTR", passed: true},
		{name: "PTR of a free address", from: corp, ask: "99.0.200.10.in-addr.arpa PTR", passed: true},
		{name: "PTR of part of an address", from: corp, ask: "0.200.10.in-addr.arpa PTR", passed: true},
		{name: "PTR with a leading zero", from: corp, ask: "05.0.200.10.in-addr.arpa PTR", passed: true},
		{name: "PTR off", from: corp, ask: "5.0.200.10.in-addr.arpa PTR", set: func(s *settings) { s.ptr = false }, passed: true},
		{name: "other type of a reverse name", from: corp, ask: "5.0.200.10.in-addr.arpa TXT",
			ns: []string{"5.0.200.10.in-addr.arpa. 10 IN SOA 5.0.200.10.in-addr.arpa." + soaTail}},

		{name: "D10 AXFR", from: corp, ask: sqlZone + " AXFR", rcode: dns.RcodeRefused},
		{name: "D10 IXFR", from: corp, ask: sqlZone + " IXFR", rcode: dns.RcodeRefused},
		{name: "D10 AXFR without an endpoint", from: bare, ask: sqlZone + " AXFR", rcode: dns.RcodeRefused},
		{name: "D10 AXFR of a name", from: corp, ask: "contoso.database.windows.net AXFR", rcode: dns.RcodeRefused},
	}
}

// What is answered to whom.
func TestAnswer(t *testing.T) {
	s := world(t)
	for _, tt := range answerCases() {
		t.Run(tt.name, func(t *testing.T) {
			srv := newServer(t, s)
			if tt.set != nil {
				tt.set(&srv.settings)
			}
			m, _ := srv.ask(t, tt.from, question(tt.ask))
			if m == nil {
				t.Fatal("no answer")
			}
			if m.Id != 4711 || !m.Response || !m.RecursionDesired || m.AuthenticatedData || len(m.Question) != 1 {
				t.Errorf("header: %+v", m.MsgHdr)
			}
			if tt.passed {
				if len(srv.up.asked) != 1 || m.Authoritative || text(m.Answer) == "" {
					t.Errorf("asked of the next plugin: %q; answer:\n%s", srv.up.asked, m)
				}
				return
			}
			if len(srv.up.asked) > 0 {
				t.Errorf("the next plugin was asked %q", srv.up.asked)
			}
			if m.Rcode != tt.rcode || m.Authoritative != (m.Rcode != dns.RcodeRefused) || !m.RecursionAvailable {
				t.Errorf("header: %+v", m.MsgHdr)
			}
			check(t, "answer", m.Answer, tt.answer...)
			check(t, "authority", m.Ns, tt.ns...)
			if text(m.Extra) != "" || m.IsEdns0() != nil {
				t.Errorf("additional: %v", m.Extra)
			}
		})
	}
}

// reverseName returns the reverse name of an address.
func reverseName(addr string) string {
	s, err := dns.ReverseAddr(addr)
	if err != nil {
		panic(err)
	}
	return s
}

func TestHeader(t *testing.T) {
	s := world(t)
	t.Run("recursion available without a forwarder", func(t *testing.T) {
		srv := newServer(t, s)
		srv.Forwards = false
		if m, _ := srv.ask(t, corp, question("contoso.database.windows.net A")); m.RecursionAvailable {
			t.Error("RA is set")
		}
	})
	t.Run("recursion available but not desired", func(t *testing.T) {
		r := question("contoso.database.windows.net A")
		r.RecursionDesired = false
		if m, _ := newServer(t, s).ask(t, corp, r); m.RecursionAvailable || m.RecursionDesired {
			t.Error("RA or RD is set")
		}
	})
	t.Run("CD is cleared, AD never set", func(t *testing.T) {
		r := question("contoso.database.windows.net A")
		r.CheckingDisabled, r.AuthenticatedData = true, true
		if m, _ := newServer(t, s).ask(t, corp, r); m.CheckingDisabled || m.AuthenticatedData {
			t.Errorf("%+v", m.MsgHdr)
		}
	})
	t.Run("D07 spelling is kept", func(t *testing.T) {
		const spelled = "CoNtOsO.DataBase.windows.NET."
		srv := newServer(t, s)
		m, _ := srv.ask(t, corp, question(spelled+" A"))
		if m.Question[0].Name != spelled {
			t.Errorf("question %q", m.Question[0].Name)
		}
		check(t, "answer", m.Answer, spelled+" 10 IN CNAME contoso."+sqlZone, "contoso."+sqlZone+" 10 IN A 10.200.0.5")
		// The records are shared: the next client gets its own spelling.
		m, _ = srv.ask(t, corp, question("contoso.database.windows.net A"))
		check(t, "answer", m.Answer, "contoso.database.windows.net. 10 IN CNAME contoso."+sqlZone, "contoso."+sqlZone+" 10 IN A 10.200.0.5")
		m, _ = srv.ask(t, corp, question("KV.privatelink.vaultcore.azure.net A"))
		check(t, "answer", m.Answer, "KV.privatelink.vaultcore.azure.net. 10 IN A 10.200.0.6", "KV.privatelink.vaultcore.azure.net. 10 IN A 10.200.0.66")
	})
	t.Run("two questions", func(t *testing.T) {
		r := question("contoso.database.windows.net A")
		r.Question = append(r.Question, r.Question[0])
		if m, code := newServer(t, s).ask(t, corp, r); m != nil || code != dns.RcodeFormatError {
			t.Errorf("%v, code %d", m, code)
		}
	})
	t.Run("D05 another opcode", func(t *testing.T) {
		srv := newServer(t, s)
		r := question(sqlZone + " SOA")
		r.Opcode = dns.OpcodeNotify
		if m, _ := srv.ask(t, corp, r); m.Rcode != dns.RcodeNotImplemented || len(m.Answer) > 0 || len(srv.up.asked) > 0 {
			t.Errorf("%v, asked %q", m, srv.up.asked)
		}
	})
	t.Run("another class", func(t *testing.T) {
		srv := newServer(t, s)
		r := question("contoso.database.windows.net A")
		r.Question[0].Qclass = dns.ClassANY
		if m, _ := srv.ask(t, corp, r); m.Rcode != dns.RcodeRefused || len(srv.up.asked) > 0 {
			t.Errorf("%v, asked %q", m, srv.up.asked)
		}
		r = question("version.bind TXT")
		r.Question[0].Qclass = dns.ClassCHAOS
		if srv.ask(t, corp, r); len(srv.up.asked) != 1 {
			t.Errorf("asked %q", srv.up.asked)
		}
	})
	t.Run("serial follows the revision", func(t *testing.T) {
		srv := newServer(t, s)
		srv.ask(t, corp, question(sqlZone+" SOA"))
		srv.snapshot = apply(t, s, link.DeleteEndpoint{ID: "plain-10.200.0.7"})
		m, _ := srv.ask(t, corp, question(sqlZone+" SOA"))
		if soa := m.Answer[0].(*dns.SOA); soa.Serial != 3*perRevision || soa.Ns != sqlZone || soa.Mbox != "nobody.invalid." {
			t.Errorf("%v", soa)
		}
	})
}

// D25: nothing is passed on before there is a snapshot.
func TestNotReady(t *testing.T) {
	srv := newServer(t, nil)
	if srv.Ready() {
		t.Error("ready without a snapshot")
	}
	for _, ask := range []string{"contoso.database.windows.net A", "www.example.org A"} {
		r := question(ask).SetEdns0(1232, false)
		m, code := srv.ask(t, corp, r)
		if m == nil || m.Rcode != dns.RcodeServerFailure || code != dns.RcodeSuccess || len(srv.up.asked) > 0 {
			t.Fatalf("%v, code %d, asked %q", m, code, srv.up.asked)
		}
		if got := edeOf(m); got != int(dns.ExtendedErrorCodeNotReady) {
			t.Errorf("extended error %d", got)
		}
	}
	srv.snapshot = world(t)
	if !srv.Ready() {
		t.Error("not ready with a snapshot")
	}
}

// D25: nothing is passed on where the network of the server block isn't in the state, as while a reload
// renames it: neither names of ours nor others, which may lead to ours.
func TestNetworkNotInState(t *testing.T) {
	srv := newServer(t, world(t))
	srv.network = "gone"
	if srv.Ready() {
		t.Error("ready without the network")
	}
	asks := []string{"contoso.database.windows.net A", "contoso." + sqlZone + " HTTPS", sqlZone + " DS", "5.0.200.10.in-addr.arpa PTR", "www.example.org A", ". NS"}
	for _, ask := range asks {
		m, code := srv.ask(t, corp, question(ask).SetEdns0(1232, false))
		if m == nil || m.Rcode != dns.RcodeServerFailure || m.Authoritative || code != dns.RcodeSuccess || len(srv.up.asked) > 0 {
			t.Fatalf("%s: %v, code %d, asked %q", ask, m, code, srv.up.asked)
		}
		if ede, ok := m.IsEdns0().Option[0].(*dns.EDNS0_EDE); !ok || ede.InfoCode != dns.ExtendedErrorCodeNotReady || ede.ExtraText != "network gone of this server is not in the state" {
			t.Errorf("%s: extended error %v", ask, m.IsEdns0())
		}
	}
	if n := testutil.ToFloat64(srv.stats.answers.WithLabelValues("", "gone", "servfail")); n != float64(len(asks)) {
		t.Errorf("%v queries are counted, not %d", n, len(asks))
	}
	srv.snapshot = apply(t, srv.snapshot, link.PutNetwork{Network: link.Network{ID: "gone", Prefixes: prefixes("10.9.0.0/16")}})
	if m, _ := srv.ask(t, corp, question("www.example.org A")); m.Rcode != dns.RcodeSuccess || !srv.Ready() {
		t.Errorf("with the network: %v", m)
	}
}

// D16, D22, D23: an answer is there from the decision on, and gone with it.
func TestFollowsState(t *testing.T) {
	const ask = "contoso.database.windows.net A"
	srv := newServer(t, world(t))
	id := link.ID("sql-10.200.0.5")
	ours := func(want bool, when string) {
		t.Helper()
		srv.up.asked = nil
		m, _ := srv.ask(t, corp, question(ask))
		if got := m.Authoritative && len(srv.up.asked) == 0; got != want {
			t.Errorf("%s: our answer is %v, want %v", when, got, want)
		}
	}
	change := func(c link.Change) { srv.snapshot = apply(t, srv.snapshot, c) }
	ours(true, "approved")
	change(link.Decide{Endpoint: id, LinkID: linkID(srv.snapshot, id), State: link.Rejected})
	ours(false, "rejected")
	change(link.Decide{Endpoint: id, LinkID: linkID(srv.snapshot, id), State: link.Approved})
	ours(true, "approved again")
	change(link.Suspend{Endpoint: id, LinkID: linkID(srv.snapshot, id)})
	ours(false, "suspended")
	change(link.Resume{Endpoint: id, LinkID: linkID(srv.snapshot, id)})
	ours(true, "resumed")
	srv.unproven["sql"] = true
	ours(false, "no target has answered")
	srv.unproven["sql"] = false
	srv.down["sql"] = true
	ours(true, "targets down")
	v := *srv.snapshot.Service("sql")
	v.FallbackPublic = true
	change(link.PutService{Service: v})
	ours(false, "targets down, fallback public")
	srv.down["sql"] = false
	ours(true, "targets up")
	change(link.Disconnect{Endpoint: id, LinkID: linkID(srv.snapshot, id)})
	ours(false, "removed")
	change(link.DeleteEndpoint{ID: id})
	ours(false, "deleted")
}

// D22: an approved endpoint whose targets never answered, the only one in its zone, hides no name of others
// by default; with a strict policy its zone is one already, and nothing falls back to the public address.
func TestZoneOfUnpublished(t *testing.T) {
	for miss, rcode := range map[policy]int{missPass: dns.RcodeSuccess, missNXDomain: dns.RcodeNameError, missRefuse: dns.RcodeRefused} {
		srv := newServer(t, world(t))
		srv.unproven["bus"], srv.miss = true, miss
		for _, name := range []string{"a.b.privatelink.servicebus.windows.net", "nobody.privatelink.servicebus.windows.net"} {
			srv.up.asked = nil
			m, _ := srv.ask(t, corp, question(name+" A"))
			if passed := len(srv.up.asked) == 1; passed != (miss == missPass) || m.Rcode != rcode {
				t.Errorf("miss %s: %s: passed %v, %v", miss, name, passed, m)
			}
		}
	}
}

func TestEDNS(t *testing.T) {
	s := world(t)
	t.Run("none asked, none answered", func(t *testing.T) {
		srv := newServer(t, s)
		srv.miss = missRefuse
		if m, _ := srv.ask(t, corp, question("nobody."+sqlZone+" A")); m.IsEdns0() != nil {
			t.Errorf("%v", m)
		}
	})
	t.Run("why refused", func(t *testing.T) {
		srv := newServer(t, s)
		srv.miss = missRefuse
		m, _ := srv.ask(t, corp, question("nobody."+sqlZone+" A").SetEdns0(1232, true))
		if edeOf(m) != int(dns.ExtendedErrorCodeBlocked) || !m.IsEdns0().Do() || m.IsEdns0().UDPSize() != 1232 {
			t.Errorf("%v", m)
		}
	})
	t.Run("unknown options are not echoed", func(t *testing.T) {
		r := question("contoso.database.windows.net A").SetEdns0(1232, false)
		r.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"},
			&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: netip.MustParseAddr("10.2.0.0").AsSlice()}}
		m, _ := newServer(t, s).ask(t, corp, r)
		if opt := m.IsEdns0(); opt == nil || len(opt.Option) != 0 {
			t.Errorf("%v", m)
		}
		check(t, "last record", m.Answer[1:], "contoso."+sqlZone+" 10 IN A 10.200.0.5") // the subnet isn't believed
	})
	t.Run("D08 never over 1232 bytes by UDP", func(t *testing.T) {
		s, changes := s, []link.Change(nil)
		for i := range 100 {
			changes = append(changes, to("sql", "corp", netip.AddrFrom4([4]byte{10, 200, 0, byte(100 + i)}).String()))
		}
		srv := newServer(t, apply(t, s, changes...))
		m, _ := srv.ask(t, corp, question("contoso.database.windows.net A").SetEdns0(4096, false))
		if !m.Truncated || m.IsEdns0().UDPSize() != 1232 || len(m.Answer) < 10 {
			t.Errorf("TC %v, size %d, %d records", m.Truncated, m.IsEdns0().UDPSize(), len(m.Answer))
		}
		m.Compress = true
		if packed, _ := m.Pack(); len(packed) > 1232 {
			t.Errorf("%d bytes", len(packed))
		}
		m, _ = srv.ask(t, corp, question("contoso.database.windows.net A"))
		m.Compress = true
		if packed, _ := m.Pack(); !m.Truncated || len(packed) > 512 {
			t.Errorf("without EDNS: TC %v, %d bytes", m.Truncated, len(packed))
		}
	})
}

// The parent speaks for DS of a public name, which is in a zone of others, as for that of a zone.
func TestParentOfPlainName(t *testing.T) {
	srv := newServer(t, world(t))
	for _, name := range []string{"db.example.com", "contoso.database.windows.net", "5.0.200.10.in-addr.arpa"} {
		srv.up.asked = nil
		srv.ask(t, corp, question(name+" DS"))
		if len(srv.up.asked) != 1 {
			t.Errorf("%s: the next plugin was asked %v", name, srv.up.asked)
		}
	}
}

// D08: what is passed on comes back in no more than 1,232 bytes by UDP either.
func TestPassedIsTruncated(t *testing.T) {
	srv := newServer(t, world(t))
	srv.up.reply = func(r *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(r)
		for range 40 {
			m.Answer = append(m.Answer, records(`www.example.org. 300 IN TXT "`+strings.Repeat("x", 100)+`"`)...)
		}
		return m
	}
	for _, from := range []string{corp, stranger} {
		m, _ := srv.ask(t, from, question("www.example.org TXT").SetEdns0(4096, false))
		m.Compress = true
		if packed, _ := m.Pack(); !m.Truncated || len(packed) > maxUDP || m.IsEdns0().UDPSize() != maxUDP {
			t.Errorf("%s: %d bytes: %v", from, len(packed), m)
		}
	}
}
