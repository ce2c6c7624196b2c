package privatelink

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

func sites(t testing.TB, list ...string) (all link.Sites) {
	t.Helper()
	for _, s := range list {
		p, err := link.ParseSitePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// The clients of these tests, at the sites of corp.
const (
	inParis  = "10.1.1.9"
	inLyon   = "10.1.2.9"
	inBrest  = "10.1.3.9" // where sql has no endpoint
	nowhere  = "10.1.9.9"
	theirs   = "10.2.0.9" // of another network, whose Lyon has the same name
	withSite = "contoso.database.windows.net"
)

// spread is a world with endpoints of one service at two sites, and at none.
func spread(t testing.TB) *link.Snapshot {
	t.Helper()
	zone := link.PrivateZone{ID: "g/z/privatelink.vaultcore.azure.net", Name: "privatelink.vaultcore.azure.net",
		Links: []link.ZoneLink{{Name: "a", Network: "corp"}, {Name: "b", Network: "lab"}}}
	group := &link.ZoneGroup{Name: "default", Configs: []link.ZoneConfig{{Name: "c", Zone: zone.ID}}}
	grouped := func(address string) link.PutEndpoint {
		e := to("vault", "corp", address)
		e.Endpoint.Zones = group
		return e
	}
	return apply(t, link.Empty(),
		link.PutNetwork{Network: link.Network{ID: "corp", Prefixes: prefixes("10.1.0.0/16"), Pools: prefixes("10.200.0.0/24", "fd00:200::/64"),
			Sites: sites(t, "paris=10.1.1.0/24", "paris=10.200.0.0/26", "lyon=10.1.2.0/24", "lyon=10.200.0.64/26", "lyon=fd00:200::/65", "brest=fd00:200:0:0:8000::/65", "brest=10.1.3.0/24")}},
		link.PutNetwork{Network: link.Network{ID: "lab", Prefixes: prefixes("10.2.0.0/16"), Pools: prefixes("10.201.0.0/24"), Sites: sites(t, "lyon=10.2.0.0/16")}},
		link.PutZone{Zone: zone},
		link.PutService{Service: service("sql", withSite)},
		to("sql", "corp", "10.200.0.5"), to("sql", "corp", "10.200.0.6"), to("sql", "corp", "10.200.0.70"), to("sql", "corp", "10.200.0.200"), to("sql", "corp", "fd00:200::70"),
		link.PutService{Service: service("vault", "kv.vault.azure.net")}, grouped("10.200.0.7"), grouped("10.200.0.77"), grouped("fd00:200::7"),
		link.PutService{Service: service("six", "six.database.windows.net")},
		to("six", "corp", "10.200.0.9"), to("six", "corp", "10.200.0.71"), to("six", "corp", "fd00:200::9"), to("six", "corp", "fd00:200:0:0:8000::9"),
		link.PutService{Service: service("one", "one.database.windows.net")}, to("one", "corp", "10.200.0.8"),
	)
}

// Which endpoints answer follows from the client's site and from what is healthy there, and the last one is never withdrawn.
func TestSites(t *testing.T) {
	t.Parallel()
	paris, lyon, none := []string{"10.200.0.5", "10.200.0.6"}, []string{"10.200.0.70"}, []string{"10.200.0.200"}
	tests := []struct {
		name, client, ask string
		down              string // services, or services at sites
		want              []string
	}{
		{name: "Paris", client: inParis, want: paris},
		{name: "Lyon", client: inLyon, want: lyon},
		{name: "a site without an endpoint has all", client: inBrest, want: slices.Concat(paris, lyon, none)},
		{name: "no site has all", client: nowhere, want: slices.Concat(paris, lyon, none)},
		{name: "Paris is down: Paris has the others", client: inParis, down: "sql@paris", want: slices.Concat(lyon, none)},
		{name: "Paris is down: Lyon doesn't notice", client: inLyon, down: "sql@paris", want: lyon},
		{name: "Paris is down: elsewhere it is withdrawn", client: nowhere, down: "sql@paris", want: slices.Concat(lyon, none)},
		{name: "D23: all are down: Paris keeps its own", client: inParis, down: "sql", want: paris},
		{name: "D23: all are down: elsewhere has all", client: nowhere, down: "sql", want: slices.Concat(paris, lyon, none)},
		{name: "another family is only in Lyon", client: inParis, ask: withSite + " AAAA", want: []string{"fd00:200::70"}},
		{name: "another family is only in Lyon, which is down", client: inParis, ask: withSite + " AAAA", down: "sql@lyon", want: []string{"fd00:200::70"}},
		{name: "Brest has another family alone", client: inBrest, ask: "six.database.windows.net A", want: []string{"10.200.0.9", "10.200.0.71"}},
		{name: "Brest has another family alone: it", client: inBrest, ask: "six.database.windows.net AAAA", want: []string{"fd00:200::8000:0:0:9"}},
		{name: "Brest has another family alone, Paris down", client: inBrest, ask: "six.database.windows.net A", down: "six@paris", want: []string{"10.200.0.71"}},
		{name: "Brest has another family alone, and is down", client: inBrest, ask: "six.database.windows.net AAAA", down: "six@brest", want: []string{"fd00:200::9"}},
		{name: "a linked zone: another family is only in Lyon", client: inParis, ask: "kv.vault.azure.net AAAA", want: []string{"fd00:200::7"}},
		{name: "another family, Paris down", client: inParis, ask: withSite + " AAAA", down: "sql@paris", want: []string{"fd00:200::70"}},
		{name: "D23: the only endpoint stays", client: inLyon, ask: "one.database.windows.net A", down: "one@paris", want: []string{"10.200.0.8"}},
		{name: "a linked zone: Paris", client: inParis, ask: "kv.vault.azure.net A", want: []string{"10.200.0.7"}},
		{name: "a linked zone: Lyon of another network", client: theirs, ask: "kv.vault.azure.net A", want: []string{"10.200.0.77"}},
		{name: "a linked zone: Lyon is down", client: theirs, ask: "kv.privatelink.vaultcore.azure.net A", down: "vault@lyon", want: []string{"10.200.0.7"}},
	}
	s := spread(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t, s)
			srv.down = map[link.ID]bool{link.ID(tt.down): true}
			ask := tt.ask
			if ask == "" {
				ask = withSite + " A"
			}
			m, _ := srv.ask(t, tt.client, question(ask))
			if got := addressList(m.Answer); !slices.Equal(got, slices.Sorted(slices.Values(tt.want))) || m.Rcode != dns.RcodeSuccess || len(srv.up.asked) > 0 {
				t.Errorf("got %v, want %v\n%v", got, tt.want, m)
			}
		})
	}
}

func addressList(rrs []dns.RR) (all []string) {
	for _, rr := range rrs {
		switch rr := rr.(type) {
		case *dns.A:
			all = append(all, rr.A.String())
		case *dns.AAAA:
			all = append(all, rr.AAAA.String())
		}
	}
	slices.Sort(all)
	return all
}

// A resolver that sends subnets has the endpoints of the subnet's site, and a server block that names its network those of the
// client's.
func TestSitesOfSubnets(t *testing.T) {
	t.Parallel()
	srv := newServer(t, spread(t))
	srv.ecsFrom = prefixes("192.0.2.53/32")
	for subnet, want := range map[string]int{"10.1.1.0/24": 2, "10.1.2.0/25": 1, "10.1.0.0/20": 4, "10.1.1.9/32": 2} {
		p := netip.MustParsePrefix(subnet)
		scope := max(p.Bits(), map[int]int{4: 24}[want]) // of several sites: as long as theirs
		q := question(withSite + " A")
		q.SetEdns0(1232, false)
		q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()}}
		if m, _ := srv.ask(t, "192.0.2.53", q); len(addressList(m.Answer)) != want || int(subnetOf(m).SourceScope) != scope {
			t.Errorf("%s: %v with scope %d, want %d addresses and %d", subnet, addressList(m.Answer), subnetOf(m).SourceScope, want, scope)
		}
	}
	srv.ecsFrom, srv.network = nil, "corp"
	if m, _ := srv.ask(t, inLyon, question(withSite+" A")); !slices.Equal(addressList(m.Answer), []string{"10.200.0.70"}) {
		t.Errorf("a server block of the network: %v", m)
	}
}

// The order of several addresses turns, in our own answers and in those that are continued, and what is shared stays as it is.
func TestTurned(t *testing.T) {
	t.Parallel()
	srv := newServer(t, spread(t))
	turn := uint64(0)
	srv.Turn = func() uint64 { return turn }
	srv.up.reply = func(r *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(r)
		m.Answer = records("www.example.net. 60 IN CNAME " + withSite + ".")
		return m
	}
	for _, ask := range []string{withSite + " A", "contoso.privatelink.database.windows.net A", "www.example.net A"} {
		first := map[string]int{}
		for turn = range 40 {
			m, _ := srv.ask(t, nowhere, question(ask))
			if got := addressList(m.Answer); strings.Join(got, " ") != "10.200.0.200 10.200.0.5 10.200.0.6 10.200.0.70" {
				t.Fatalf("%s: turn %d: %v", ask, turn, got)
			}
			if m.Answer[0].Header().Rrtype == dns.TypeCNAME && ask == "contoso.privatelink.database.windows.net A" || m.Answer[len(m.Answer)-1].Header().Rrtype != dns.TypeA {
				t.Fatalf("%s: turn %d: %v", ask, turn, m.Answer)
			}
			first[addressList(m.Answer[len(m.Answer)-4:][:1])[0]]++
		}
		for addr, n := range first {
			if n != 10 {
				t.Errorf("%s: %s comes first %d times of 40", ask, addr, n)
			}
		}
	}
	m, _ := srv.ask(t, inLyon, question(withSite+" A"))
	check(t, "one address", m.Answer, withSite+". 10 IN CNAME contoso.privatelink.database.windows.net.", "contoso.privatelink.database.windows.net. 10 IN A 10.200.0.70")
}

// Turns follow each other so that who asks in a rhythm meets all orders.
func TestTurnAt(t *testing.T) {
	t.Parallel()
	for _, rhythm := range []time.Duration{turnTime, time.Second, 10 * time.Second, time.Minute} {
		for n := uint64(2); n <= 4; n++ {
			count := make([]int, n)
			for i := range 4000 {
				count[turnAt(noon.Add(time.Duration(i)*rhythm))%n]++
			}
			for order, c := range count {
				if c < 4000/int(n)*8/10 || c > 4000/int(n)*12/10 {
					t.Errorf("every %s, %d addresses: order %d comes %d times of 4000", rhythm, n, order, c)
				}
			}
		}
	}
	if a, b := turnAt(noon), turnAt(noon.Add(turnTime-1)); a != b {
		t.Errorf("%d, and %d in the same turn", a, b)
	}
}

// A note holds no longer than the turn and what was observed at the sites.
func TestSitesAreNoted(t *testing.T) {
	t.Parallel()
	srv := newServer(t, spread(t))
	turn := uint64(1)
	srv.Turn = func() uint64 { return turn }
	tests := []struct {
		name   string
		client string
		change func()
		holds  bool
	}{
		{"nothing has changed", inParis, func() {}, true},
		{"its own site is down", inParis, func() { srv.down["sql@paris"] = true }, false},
		{"another site is down", inParis, func() { srv.down["sql@lyon"] = true }, true},
		{"another site is down for a client at none", nowhere, func() { srv.down["sql@lyon"] = true }, false},
		{"another turn", inParis, func() { turn++ }, false},
		{"another turn, one address", inLyon, func() { turn++ }, true},
	}
	for _, tt := range tests {
		srv.down = map[link.ID]bool{}
		n := new(note)
		w := &writer{}
		w.RemoteIP = tt.client
		if _, err := srv.ServeDNS(context.WithValue(t.Context(), noteKey{}, n), w, question(withSite+" A")); err != nil {
			t.Fatal(err)
		}
		holds := n.holds(srv.Privatelink)
		if n.msg == nil || !holds() {
			t.Fatalf("%s: %+v", tt.name, n)
		}
		if tt.change(); holds() != tt.holds {
			t.Errorf("%s: it holds: %v", tt.name, !tt.holds)
		}
	}
}

// Two views have two names, whatever networks and sites are called.
func TestViewKeys(t *testing.T) {
	t.Parallel()
	srv := newServer(t, spread(t))
	g := srv.generation(srv.snapshot)
	seen := map[string]string{}
	for _, network := range []link.ID{"corp", "lab"} {
		for _, site := range []string{"", "paris", "lyon", "brest"} {
			if network == "lab" && (site == "paris" || site == "brest") {
				continue // it has none
			}
			key, what := g.viewKey(network, site), fmt.Sprintf("%s at %q", network, site)
			if other := seen[key]; other != "" || key == "" {
				t.Errorf("%s has the name %q of %s", what, key, other)
			}
			seen[key] = what
		}
	}
}
