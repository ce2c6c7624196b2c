package privatelink

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/plugin/transfer"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// peers returns CoreDNS's transfer plugin with a block of its own.
func peers(t *testing.T, block string) *transfer.Transfer {
	t.Helper()
	c := caddy.NewTestController("dns", block)
	c.ServerBlockKeys = []string{"."}
	setup, err := caddy.DirectiveAction("dns", "transfer")
	if err != nil {
		t.Fatal(err)
	}
	if err := setup(c); err != nil {
		t.Fatal(err)
	}
	h := dnsserver.GetConfig(c).Plugin[0](nil)
	return h.(*transfer.Transfer)
}

// stream takes the messages to one client that asked by TCP.
type stream struct {
	test.ResponseWriter
	got []*dns.Msg
}

func (w *stream) WriteMsg(m *dns.Msg) error {
	w.got = append(w.got, m)
	return nil
}

func (w *stream) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(w.RemoteIP), Port: 40000} }
func (w *stream) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53} }

// transferTo asks as a peer does and returns the code and the records that it gets.
func (s *server) transferTo(t *testing.T, ctx context.Context, client string, r *dns.Msg) (int, []dns.RR) {
	t.Helper()
	w := &stream{ResponseWriter: test.ResponseWriter{RemoteIP: client}}
	code, err := s.ServeDNS(ctx, w, r)
	if err != nil {
		t.Fatal(err)
	}
	var rrs []dns.RR
	for _, m := range w.got {
		code = m.Rcode
		rrs = append(rrs, m.Answer...)
	}
	return code, rrs
}

// D10: a zone is transferred to the peers that are named, each in its own view, and to nobody else.
func TestTransfer(t *testing.T) {
	s := zoneWorld(t)
	const tail = " nobody.invalid. 192 10 10 86400 10"
	sqlApex := []string{sqlZone + " 10 IN SOA " + sqlZone + tail, sqlZone + " 10 IN NS " + sqlZone}
	waits := slices.Clone(sqlApex) // for one service
	waits[0] = strings.Replace(waits[0], " 192 ", " 191 ", 1)
	whole := func(apex []string, rrs ...string) []string {
		return append(append(append([]string(nil), apex...), rrs...), apex[0])
	}
	http := context.WithValue(context.Background(), dnsserver.HTTPRequestKey{}, "a request")
	tests := []struct {
		name, from, zone string
		to               string // default *
		ctx              context.Context
		set              func(*settings)
		want             []string // none: refused
	}{
		{name: "own view", from: lab, zone: sqlZone, want: whole(waits, "contoso."+sqlZone+" 10 IN A 10.201.0.5", "contoso."+sqlZone+" 10 IN A 10.201.0.55",
			"fallback."+sqlZone+" 10 IN A 10.201.0.60", "hubdown."+sqlZone+" 10 IN A 10.201.0.56")},
		{name: "another view", from: corp, zone: sqlZone, want: whole(waits, "contoso."+sqlZone+" 10 IN A 10.200.0.5", "down."+sqlZone+" 10 IN A 10.200.0.16",
			"fallback."+sqlZone+" 10 IN A 10.200.0.17")},
		{name: "spelled differently, and without a name", from: lab, zone: "PrivateLink.Vaultcore.AZURE.net.", want: whole(
			[]string{"privatelink.vaultcore.azure.net. 10 IN SOA privatelink.vaultcore.azure.net." + tail, "privatelink.vaultcore.azure.net. 10 IN NS privatelink.vaultcore.azure.net."})},
		{name: "view of the server block", from: stranger, zone: sqlZone, set: func(s *settings) { s.network = "hidden" },
			want: whole(sqlApex, "contoso."+sqlZone+" 10 IN A 10.202.0.5")},
		{name: "pattern", from: corp, zone: "privatelink.azurewebsites.net.", want: whole(
			[]string{"privatelink.azurewebsites.net. 10 IN SOA privatelink.azurewebsites.net." + tail, "privatelink.azurewebsites.net. 10 IN NS privatelink.azurewebsites.net."},
			"*.privatelink.azurewebsites.net. 10 IN A 10.200.0.8", `scm.privatelink.azurewebsites.net. 10 IN TXT "nothing is known of this name"`)},
		{name: "both families", from: corp, zone: "privatelink.vaultcore.azure.net.", want: whole(
			[]string{"privatelink.vaultcore.azure.net. 10 IN SOA privatelink.vaultcore.azure.net." + tail, "privatelink.vaultcore.azure.net. 10 IN NS privatelink.vaultcore.azure.net."},
			"kv.privatelink.vaultcore.azure.net. 10 IN A 10.200.0.6", "kv.privatelink.vaultcore.azure.net. 10 IN A 10.200.0.66", "kv.privatelink.vaultcore.azure.net. 10 IN AAAA fd00:200::6")},
		{name: "linked zone with groups", from: bare, zone: "contoso.internal.", want: whole(
			[]string{"contoso.internal. 10 IN SOA contoso.internal." + tail, "contoso.internal. 10 IN NS contoso.internal."},
			"db.contoso.internal. 10 IN A 10.201.0.58", `db.contoso.internal. 300 IN TXT "beside"`)},
		{name: "linked zone of another network", from: lab, zone: "contoso.internal."},
		{name: "a name that is no apex", from: corp, zone: "contoso." + sqlZone},
		{name: "an apex of its own", from: corp, zone: "db.example.com."},
		{name: "peer that isn't named", from: lab, zone: sqlZone, to: "10.2.0.10"},
		{name: "peer of no network", from: stranger, zone: sqlZone},
		{name: "DNS over HTTPS", from: lab, zone: sqlZone, ctx: http},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := newServer(t, s)
			to := tt.to
			if to == "" {
				to = "*"
			}
			srv.Transfers = peers(t, "transfer {\n to "+to+"\n}")
			srv.Next = plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
				return dns.RcodeRefused, nil // as the next plugins do with a transfer
			})
			if tt.set != nil {
				tt.set(&srv.settings)
			}
			ctx := tt.ctx
			if ctx == nil {
				ctx = context.Background()
			}
			code, rrs := srv.transferTo(t, ctx, tt.from, new(dns.Msg).SetAxfr(tt.zone))
			if tt.want == nil {
				if code != dns.RcodeRefused || len(rrs) > 0 {
					t.Errorf("code %d, %v", code, rrs)
				}
				return
			}
			check(t, "zone", rrs, tt.want...)
		})
	}
	t.Run("by UDP", func(t *testing.T) {
		srv := newServer(t, s)
		srv.Transfers = peers(t, "transfer {\n to *\n}")
		for _, rrtype := range []uint16{dns.TypeAXFR, dns.TypeIXFR} {
			if m, _ := srv.ask(t, lab, new(dns.Msg).SetQuestion(sqlZone, rrtype)); m.Rcode != dns.RcodeRefused || len(m.Answer) > 0 {
				t.Errorf("%v", m)
			}
		}
	})
}

// D22: a name that isn't published isn't in the zone either. When it is, the serial is a newer one, at the apex too, and stays what it is after a
// restart; a change of the state makes it newer again, whatever waits then.
func TestTransferPublished(t *testing.T) {
	var waiting []link.Change
	for i := range perRevision {
		id := link.ID(fmt.Sprintf("late%d", i))
		waiting = append(waiting, link.PutService{Service: service(id, link.Name(id+".database.windows.net"))}, to(id, "corp", fmt.Sprintf("10.200.0.%d", 100+i)))
	}
	s := apply(t, world(t), to("unproven", "lab", "10.201.0.9"))
	srv := newServer(t, s)
	srv.Transfers = peers(t, "transfer {\n to *\n}")
	zone := func(srv *server) (serial uint32, names int) {
		t.Helper()
		m, _ := srv.ask(t, lab, new(dns.Msg).SetQuestion(sqlZone, dns.TypeSOA))
		_, rrs := srv.transferTo(t, context.Background(), lab, new(dns.Msg).SetAxfr(sqlZone))
		first, last := rrs[0].(*dns.SOA).Serial, rrs[len(rrs)-1].(*dns.SOA).Serial
		if at := m.Answer[0].(*dns.SOA).Serial; first != last || first != at {
			t.Errorf("serials: %d at the apex, %d and %d in the transfer", at, first, last)
		}
		m, _ = srv.ask(t, lab, new(dns.Msg).SetQuestion(sqlZone, dns.TypeMX))
		if at := m.Ns[0].(*dns.SOA).Serial; at != first {
			t.Errorf("serial of an answer without data: %d, want %d", at, first)
		}
		return first, len(rrs) - 3 // SOA twice, NS
	}
	before, names := zone(srv)
	if names != 1 {
		t.Errorf("%d names before the first answer of a target", names)
	}
	delete(srv.unproven, "unproven")
	after, names := zone(srv)
	if names != 2 || int32(after-before) <= 0 {
		t.Errorf("%d names, serial %d after %d", names, after, before)
	}
	if _, rrs := srv.transferTo(t, context.Background(), lab, new(dns.Msg).SetIxfr(sqlZone, before, "ns.invalid.", "nobody.invalid.")); len(rrs) != 5 {
		t.Errorf("who has the zone without the name gets %v", rrs)
	}
	again := newServer(t, s)
	again.Transfers, again.unproven = srv.Transfers, nil
	if serial, _ := zone(again); serial != after {
		t.Errorf("serial %d at another node, want %d", serial, after)
	}
	// More wait than a revision has serials.
	srv.snapshot = apply(t, s, waiting...)
	for i := range perRevision {
		srv.unproven[link.ID(fmt.Sprintf("late%d", i))] = true
	}
	corpZone := func() uint32 {
		_, rrs := srv.transferTo(t, context.Background(), corp, new(dns.Msg).SetAxfr(sqlZone))
		return rrs[0].(*dns.SOA).Serial
	}
	last := corpZone()
	if int32(last-after) <= 0 {
		t.Errorf("serial %d after %d and a change of the state", last, after)
	}
	for i := range perRevision {
		delete(srv.unproven, link.ID(fmt.Sprintf("late%d", i)))
		serial := corpZone()
		if i > 0 && int32(serial-last) <= 0 { // the first one is beyond what is told
			t.Errorf("serial %d after %d", serial, last)
		}
		last = serial
	}
	if want := serialOf(srv.snapshot); last != want {
		t.Errorf("serial %d with all published, want %d", last, want)
	}
}

// A reverse zone waits for services whose endpoints have a name in it.
func TestTransferPublishedReverse(t *testing.T) {
	srv := newServer(t, zoneWorld(t))
	srv.Transfers = peers(t, "transfer {\n to *\n}")
	zone := func() (names int, serial uint32) {
		t.Helper()
		_, rrs := srv.transferTo(t, context.Background(), corp, new(dns.Msg).SetAxfr("10.in-addr.arpa."))
		return len(rrs), rrs[0].(*dns.SOA).Serial
	}
	few, before := zone()
	delete(srv.unproven, "unproven")
	if more, after := zone(); more != few+1 || after != before+1 {
		t.Errorf("%d records, serial %d after %d, serial %d", more, after, few, before)
	}
}

// A private zone waits for the services of its groups, too.
func TestTransferPublishedGroup(t *testing.T) {
	srv := newServer(t, zoneWorld(t)) // of revision 3
	srv.Transfers = peers(t, "transfer {\n to *\n}")
	srv.unproven["plain2"] = true
	zone := func(serial, types string) {
		t.Helper()
		_, rrs := srv.transferTo(t, context.Background(), bare, new(dns.Msg).SetAxfr("contoso.internal."))
		var got []string
		for _, rr := range rrs {
			got = append(got, dns.TypeToString[rr.Header().Rrtype])
		}
		if have := fmt.Sprint(rrs[0].(*dns.SOA).Serial); strings.Join(got, " ") != types || have != serial {
			t.Errorf("%v, serial %s, want %s and %s", got, have, types, serial)
		}
	}
	zone("191", "SOA NS TXT SOA")
	delete(srv.unproven, "plain2")
	zone("192", "SOA NS A TXT SOA")
}

// Who has the newest zone gets its SOA alone; a change makes the serial a newer one, by RFC 1982 too.
func TestTransferIncremental(t *testing.T) {
	srv := newServer(t, world(t)) // of revision 2
	srv.Transfers = peers(t, "transfer {\n to *\n}")
	ixfr := func(serial uint32) int {
		_, rrs := srv.transferTo(t, context.Background(), lab, new(dns.Msg).SetIxfr(sqlZone, serial, "ns.invalid.", "nobody.invalid."))
		return len(rrs)
	}
	const newest = 2 * perRevision
	for serial, want := range map[uint32]int{newest: 1, newest + 1: 1, newest - 1: 4, 1: 4, 1<<32 - 5: 4, 0: 4} {
		if got := ixfr(serial); got != want {
			t.Errorf("serial %d: %d records, want %d", serial, got, want)
		}
	}
	srv.snapshot = apply(t, srv.snapshot, link.DeleteEndpoint{ID: "sql-10.201.0.5"})
	if got := ixfr(newest); got != 3 { // SOA twice, NS: a secondary that got nothing would keep what it has
		t.Errorf("after the last endpoint is gone: %d records", got)
	}
	srv.snapshot = apply(t, srv.snapshot, to("vault", "lab", "10.201.0.6"), to("sql", "lab", "10.201.0.7"))
	if got := ixfr(newest); got != 4 {
		t.Errorf("after a change: %d records", got)
	}
	if got := ixfr(4 * perRevision); got != 1 {
		t.Errorf("with the newest: %d records", got)
	}
}

// A zone without a name is answered to who asks for it as a secondary does, and to others as if it were none.
func TestTransferEmpty(t *testing.T) {
	srv := newServer(t, world(t))
	ask := func(text, want string) {
		t.Helper()
		m, _ := srv.ask(t, lab, question(text))
		got := dns.RcodeToString[m.Rcode]
		if len(srv.up.taken()) > 0 {
			got = "passed"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	ask("privatelink.vaultcore.azure.net SOA", "passed")
	srv.Transfers = peers(t, "transfer {\n to *\n}")
	ask("privatelink.vaultcore.azure.net SOA", "NOERROR")
	ask("privatelink.vaultcore.azure.net AXFR", "REFUSED") // by UDP
	ask("privatelink.vaultcore.azure.net NS", "passed")
	ask("privatelink.vaultcore.azure.net DS", "passed")
	ask("x.privatelink.vaultcore.azure.net SOA", "passed")
	ask("vaultcore.azure.net SOA", "passed")
	ask(". SOA", "passed")
	srv.stale[0], srv.stale[1] = "old", "old"
	ask("privatelink.vaultcore.azure.net SOA", "SERVFAIL")
}

// What a wildcard would stand for in a secondary, and doesn't here, is in the zone: names whose connections aren't in force, names without
// records, and zones below by their delegation.
func TestTransferWildcards(t *testing.T) {
	s := apply(t, zoneWorld(t), zone("sub/rg/b.corp.example", "corp"), zone("sub/rg/x.b.corp.example", "corp"), zone("sub/rg/c.corp.example", "lab"),
		record("sub/rg/b.corp.example", "A", "*", "10.20.0.40"),
		byHand("web-pending", "waits.azurewebsites.net"), to("web-pending", "corp", "10.200.0.40"),
		link.PutService{Service: service("web-unproven", "unproven.azurewebsites.net")}, to("web-unproven", "corp", "10.200.0.41"),
		link.PutService{Service: service("kudu", "x.scm.azurewebsites.net")}, to("kudu", "corp", "10.200.0.42"))
	srv := newServer(t, s)
	srv.Transfers = peers(t, "transfer {\n to *\n}")
	srv.unproven["web-unproven"] = true
	for zone, want := range map[string]string{
		"privatelink.azurewebsites.net.": "* A; scm NS; unproven TXT; waits TXT",
		"corp.example.": "* A; _sql._tcp SRV; alias CNAME; alias2 CNAME; b NS; a.b.c A; *.cname CNAME; db CNAME; empty TXT; gone CNAME; loop CNAME; loop2 CNAME; out CNAME; ptr PTR; " +
			"*.wild TXT; www A; www A; www AAAA; www TXT",
		"b.corp.example.":  "* A; x NS",
		"10.in-addr.arpa.": "9.0.20 PTR; 10.0.200 PTR; 16.0.200 PTR; 17.0.200 PTR; 42.0.200 PTR; 5.0.200 PTR; 6.0.200 PTR; 66.0.200 PTR; 7.0.200 PTR",
	} {
		_, rrs := srv.transferTo(t, context.Background(), corp, new(dns.Msg).SetAxfr(zone))
		var got []string
		for _, rr := range rrs {
			if name, below := strings.CutSuffix(rr.Header().Name, "."+zone); below {
				got = append(got, name+" "+dns.TypeToString[rr.Header().Rrtype])
			}
		}
		if have := strings.Join(got, "; "); have != want {
			t.Errorf("%s has\n%s\nwant\n%s", zone, have, want)
		}
	}
}

// X35: a zone with a name of a service that demands strict freshness isn't transferred from a state that is too old for
// it, as the name itself isn't answered; other zones are.
func TestTransferStale(t *testing.T) {
	demanding := service("demanding", "strict.database.windows.net")
	demanding.Strict = true
	srv := newServer(t, apply(t, world(t), link.PutService{Service: demanding}, to("demanding", "corp", "10.200.0.30")))
	srv.Transfers = peers(t, "transfer {\n to *\n}")
	for _, tt := range []struct {
		name, zone string
		stale      string
		code       int
	}{
		{"fresh", sqlZone, "", dns.RcodeSuccess},
		{"old", sqlZone, "old", dns.RcodeServerFailure},
		{"old, zone of others", "privatelink.vaultcore.azure.net.", "old", dns.RcodeSuccess},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv.stale[1] = tt.stale
			code, rrs := srv.transferTo(t, context.Background(), corp, new(dns.Msg).SetAxfr(tt.zone))
			if code != tt.code || (len(rrs) > 0) != (tt.code == dns.RcodeSuccess) {
				t.Errorf("code %d, %v", code, rrs)
			}
		})
	}
}

// A peer whose client subnets are believed gets the zone of its own network, whatever subnet it names.
func TestTransferSubnet(t *testing.T) {
	srv := newServer(t, world(t))
	srv.Transfers, srv.ecsFrom = peers(t, "transfer {\n to *\n}"), prefixes(lab+"/32")
	for _, r := range []*dns.Msg{new(dns.Msg).SetAxfr(sqlZone), new(dns.Msg).SetIxfr(sqlZone, 1, "ns.invalid.", "nobody.invalid.")} {
		_, rrs := srv.transferTo(t, context.Background(), lab, withSubnet(r, "10.1.5.0/24"))
		if len(rrs) != 4 || rrs[2].(*dns.A).A.String() != "10.201.0.5" {
			t.Errorf("%v", rrs)
		}
	}
}

// A panic while a zone is read ends the transfer, without the SOA that would make it whole, and not the process.
func TestTransferPanic(t *testing.T) {
	srv := newServer(t, world(t))
	ch, err := (&zoneView{p: srv.Privatelink, q: new(query), gen: new(generation), network: "corp", zone: "privatelink.database.windows.net"}).Transfer(sqlZone, 0)
	if err != nil {
		t.Fatal(err)
	}
	for set := range ch {
		t.Errorf("got %v", set)
	}
}
