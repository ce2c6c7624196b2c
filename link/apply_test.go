package link

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestRefused: each rule between objects, and that the error says what stands against it.
func TestRefused(t *testing.T) {
	netWith := func(id ID, f func(*Network)) Change {
		n := network(id, "10.7.0.0/16", "10.207.0.0/24")
		f(&n)
		return PutNetwork{n}
	}
	svcWith := func(f func(*Service)) Change {
		v := service("other", "fabrikam")
		f(&v)
		return PutService{Service: v}
	}
	two := service("two", "contoso", Anyone)
	for name, tt := range map[string]struct {
		changes []Change
		err     error
		text    string
	}{
		"C06 host bits":                  {[]Change{netWith("x", func(n *Network) { n.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.7.0.7/16")} })}, ErrInvalid, "did you mean 10.7.0.0/16"},
		"no prefix":                      {[]Change{netWith("x", func(n *Network) { n.Prefixes = nil })}, ErrInvalid, "at least one prefix"},
		"mapped prefix":                  {[]Change{netWith("x", func(n *Network) { n.Prefixes = prefixes("::ffff:10.0.0.0/104") })}, ErrInvalid, "IPv4-mapped"},
		"prefix twice":                   {[]Change{netWith("x", func(n *Network) { n.Prefixes = prefixes("10.7.0.0/16", "10.7.0.0/16") })}, ErrInvalid, "twice"},
		"prefix of another network":      {[]Change{netWith("x", func(n *Network) { n.Prefixes = prefixes("10.1.0.0/16") })}, ErrConflict, "network corp"},
		"C07 pool within another's":      {[]Change{netWith("x", func(n *Network) { n.Pools = prefixes("10.200.0.64/26") })}, ErrConflict, "overlaps pool 10.200.0.0/24 of network corp"},
		"C07 pool around another's":      {[]Change{netWith("x", func(n *Network) { n.Pools = prefixes("10.200.0.0/16") })}, ErrConflict, "overlaps pool 10.200.0.0/24 of network corp"},
		"C07 own pools overlap":          {[]Change{netWith("x", func(n *Network) { n.Pools = prefixes("10.207.0.0/24", "10.207.0.0/25") })}, ErrInvalid, "overlap"},
		"C08 multicast pool":             {[]Change{netWith("x", func(n *Network) { n.Pools = prefixes("224.0.0.0/24") })}, ErrInvalid, "224.0.0.0/24"},
		"pool taken from under":          {[]Change{PutNetwork{network("corp", "10.1.0.0/16", "10.207.0.0/24")}}, ErrConflict, "endpoint sql-corp"},
		"network in use deleted":         {[]Change{DeleteNetwork{"corp"}}, ErrConflict, "endpoint sql-corp"},
		"unknown network deleted":        {[]Change{DeleteNetwork{"x"}}, ErrNotFound, "network x"},
		"network named like a tenant":    {[]Change{netWith("tenant/x", func(*Network) {})}, ErrInvalid, "tenant/x"},
		"name in capitals":               {[]Change{netWith("X", func(*Network) {})}, ErrInvalid, "canonical"},
		"no target":                      {[]Change{svcWith(func(v *Service) { v.Targets = nil })}, ErrInvalid, "at least one target"},
		"A22 target port 0":              {[]Change{svcWith(func(v *Service) { v.Targets[0].Addr = netip.MustParseAddrPort("10.0.0.1:0") })}, ErrInvalid, "10.0.0.1:0"},
		"A21 target 0.0.0.0":             {[]Change{svcWith(func(v *Service) { v.Targets[0].Addr = netip.MustParseAddrPort("0.0.0.0:1") })}, ErrInvalid, "0.0.0.0:1"},
		"A21 target that is link-local":  {[]Change{svcWith(func(v *Service) { v.Targets[0].Addr = netip.MustParseAddrPort("169.254.169.254:80") })}, ErrInvalid, "169.254.169.254"},
		"A21 broadcast target":           {[]Change{svcWith(func(v *Service) { v.Targets[0].Addr = netip.MustParseAddrPort("255.255.255.255:80") })}, ErrInvalid, "255.255.255.255"},
		"A21 target in a pool":           {[]Change{svcWith(func(v *Service) { v.Targets[0].Addr = netip.MustParseAddrPort("10.200.0.9:80") })}, ErrInvalid, "pool 10.200.0.0/24 of network corp"},
		"A21 pool around a target":       {[]Change{netWith("x", func(n *Network) { n.Pools = prefixes("10.20.0.0/24") })}, ErrInvalid, "service sql"},
		"C08 pool around link-local":     {[]Change{netWith("x", func(n *Network) { n.Pools = prefixes("128.0.0.0/1") })}, ErrInvalid, "169.254.0.0/16"},
		"pool split at an endpoint":      {[]Change{at("x", "corp", "sql", "10.200.0.128"), PutNetwork{Network{ID: "corp", Prefixes: prefixes("10.1.0.0/16"), Pools: prefixes("10.200.0.0/25", "10.200.0.128/25")}}}, ErrConflict, "first or last"},
		"target twice":                   {[]Change{svcWith(func(v *Service) { v.Targets = append(v.Targets, v.Targets[0]) })}, ErrInvalid, "twice"},
		"pin tls without names":          {[]Change{svcWith(func(v *Service) { v.Names, v.Pin = nil, PinTLS })}, ErrInvalid, "needs names"},
		"pin mysql without names":        {[]Change{svcWith(func(v *Service) { v.Names, v.Pin = nil, PinMySQL })}, ErrInvalid, "pin mysql needs names"},
		"X20 pin tls on a STARTTLS port": {[]Change{svcWith(func(v *Service) { v.Pin, v.Port = PinTLS, 143 })}, ErrInvalid, "begins with TLS: 993"},
		"unknown pin":                    {[]Change{svcWith(func(v *Service) { v.Pin = "http" })}, ErrInvalid, `"http"`},
		"unknown PROXY header":           {[]Change{svcWith(func(v *Service) { v.ProxyProtocol = "v3" })}, ErrInvalid, `"v3"`},
		"nine NAT addresses":             {[]Change{svcWith(func(v *Service) { v.NAT = make([]netip.Addr, 9) })}, ErrInvalid, "8 are allowed"},
		"idle timeout of a second":       {[]Change{svcWith(func(v *Service) { v.IdleTimeout = 1e9 })}, ErrInvalid, "1m0s to 1h40m0s"},
		"no alias":                       {[]Change{svcWith(func(v *Service) { v.Alias = "" })}, ErrInvalid, "alias"},
		"private name outside its zone":  {[]Change{svcWith(func(v *Service) { v.Names[0].Zone = "example.com" })}, ErrInvalid, "example.com"},
		"name twice":                     {[]Change{svcWith(func(v *Service) { v.Names = append(v.Names, v.Names[0]) })}, ErrInvalid, "twice"},
		"declared for unknown network":   {[]Change{svcWith(func(v *Service) { v.Origin.Declaration, v.AutoApprove = "host", []Party{"nobody"} })}, ErrNotFound, "network nobody"},
		"service with endpoints deleted": {[]Change{DeleteService{ID: "sql"}}, ErrConflict, "[sql-corp]"},
		"C17 unknown network":            {[]Change{endpoint("x", "nobody", "sql")}, ErrNotFound, "network nobody"},
		"network without a pool":         {[]Change{PutNetwork{network("x", "10.7.0.0/16", "")}, endpoint("y", "x", "sql")}, ErrExhausted, "it has none"},
		"C17 unknown service":            {[]Change{endpoint("x", "corp", "nothing")}, ErrNotFound, "service nothing"},
		"C17 address outside the pool":   {[]Change{at("x", "corp", "sql", "10.201.0.7")}, ErrInvalid, "10.200.0.0/24"},
		"C17 address given twice":        {[]Change{at("x", "corp", "sql", "10.200.0.5")}, ErrConflict, "endpoint sql-corp"},
		"C08 broadcast address":          {[]Change{at("x", "corp", "sql", "10.200.0.255")}, ErrInvalid, "first or last"},
		"C08 network address":            {[]Change{at("x", "corp", "sql", "10.200.0.0")}, ErrInvalid, "first or last"},
		"two owners of one name":         {[]Change{PutService{Service: two}, endpoint("x", "corp", "two")}, ErrConflict, "belongs to endpoint sql-corp"},
		"endpoint moves":                 {[]Change{endpoint("sql-corp", "lab", "sql")}, ErrConflict, "never change"},
		"allow-list with host bits":      {[]Change{PutEndpoint{Endpoint: Endpoint{ID: "x", Network: "corp", Service: "sql", Allow: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/16")}}}}, ErrInvalid, "10.1.0.0/16"},
		"unknown endpoint deleted":       {[]Change{DeleteEndpoint{"x"}}, ErrNotFound, "endpoint x"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := world(t).Apply(noon, tt.changes...)
			if !errors.Is(err, tt.err) || !strings.Contains(fmt.Sprint(err), tt.text) {
				t.Fatalf("error %q, want one that wraps %q and says %q", err, tt.err, tt.text)
			}
			var about *ObjectError
			if !errors.As(err, &about) {
				t.Errorf("error %v doesn't say which object it is about", err)
			}
		})
	}
}

func TestOneNameInTwoNetworks(t *testing.T) {
	s := must(t, world(t), PutService{Service: service("two", "contoso", Anyone)}, endpoint("two-lab", "lab", "two"))
	for network, want := range map[ID]ID{"corp": "sql", "lab": "two"} {
		if o, _, _ := s.Owner(network, []byte("contoso.database.windows.net")); o.Service != want {
			t.Errorf("in %s the name belongs to %+v, want %s", network, o, want)
		}
	}
}

func TestOwnerOfPattern(t *testing.T) {
	v := service("web", "", Anyone)
	v.Names = []ResourceName{{Public: "*.apps.example.com"}, {Public: "www.apps.example.com"}}
	s := must(t, world(t), PutService{Service: v}, endpoint("web-corp", "corp", "web"))
	for name, want := range map[string]Name{
		"x.apps.example.com":   "*.apps.example.com",
		"www.apps.example.com": "www.apps.example.com",
		"a.b.apps.example.com": "",
		"apps.example.com":     "",
		".apps.example.com":    "",
		"":                     "",
	} {
		o, private, ok := s.Owner("corp", []byte(name))
		if o.Name.Public != want || ok != (want != "") || private {
			t.Errorf("%q belongs to %q (%v, private %v), want %q", name, o.Name.Public, ok, private, want)
		}
	}
	long := []byte(strings.Repeat("a", 300))
	if _, _, ok := s.Owner("corp", long); ok || s.OwnsBelow("corp", long) {
		t.Error("a name that is too long has an owner")
	}
}

func TestNetworkOf(t *testing.T) {
	wide := network("wide", "10.0.0.0/8", "")
	v6 := network("v6", "fd00:1::/64", "")
	hidden := network("hidden", "10.1.0.0/16", "")
	hidden.ByListener = true
	s := must(t, world(t), PutNetwork{wide}, PutNetwork{v6}, PutNetwork{hidden})
	for client, want := range map[string]ID{
		"10.1.2.3":        "corp",
		"::ffff:10.1.2.3": "corp",
		"10.9.9.9":        "wide",
		"fd00:1::9":       "v6",
		"fd00:1::9%eth0":  "v6",
		"192.0.2.1":       "",
		"fd00:2::1":       "",
	} {
		n := s.NetworkOf(netip.MustParseAddr(client))
		if got := func() ID {
			if n == nil {
				return ""
			}
			return n.ID
		}(); got != want {
			t.Errorf("%s is of network %q, want %q", client, got, want)
		}
	}
	if s.NetworkOf(netip.Addr{}) != nil || s.EndpointAt(netip.Addr{}) != nil {
		t.Error("no address has a network or an endpoint")
	}
}

func TestAllocation(t *testing.T) {
	s := must(t, Empty(), PutNetwork{network("corp", "10.1.0.0/16", "10.200.0.0/29")}, PutService{Service: service("sql", "")})
	s = must(t, s, at("fixed", "corp", "sql", "10.200.0.2"))
	ask := func(id ID) string {
		t.Helper()
		s = must(t, s, endpoint(id, "corp", "sql"))
		return s.Endpoint(id).Address.String()
	}
	var got []string
	for i := range 5 {
		got = append(got, ask(ID(fmt.Sprint("e", i))))
	}
	if want := []string{"10.200.0.1", "10.200.0.3", "10.200.0.4", "10.200.0.5", "10.200.0.6"}; !slices.Equal(got, want) {
		t.Fatalf("addresses %v, want %v: in order, neither the first nor the last of the pool", got, want)
	}
	if _, _, err := s.Apply(noon, endpoint("more", "corp", "sql")); !errors.Is(err, ErrExhausted) {
		t.Errorf("A11 pool full: %v, want %v", err, ErrExhausted)
	}
	s = must(t, s, DeleteEndpoint{"e1"})
	if a := ask("again"); a != "10.200.0.3" {
		t.Errorf("A11 after a delete: %s, want 10.200.0.3", a)
	}
	n := network("corp", "10.1.0.0/16", "10.200.0.0/29")
	n.Pools = append(n.Pools, prefixes("fd00:9::/126")...)
	s = must(t, s, PutNetwork{n})
	if a := ask("six"); a != "fd00:9::1" {
		t.Errorf("from the second pool: %s, want fd00:9::1", a)
	}
}

// TestAddressRestsLongest: addresses go round, so that one that was given back comes again last.
func TestAddressRestsLongest(t *testing.T) {
	n := network("corp", "10.1.0.0/16", "10.200.0.0/30")
	n.Pools = append(n.Pools, prefixes("10.200.1.0/30")...)
	s := must(t, Empty(), PutNetwork{n}, PutService{Service: service("sql", "")})
	var got []string
	for range 9 {
		s = must(t, s, endpoint("a", "corp", "sql"))
		got = append(got, s.Endpoint("a").Address.String())
		s = must(t, s, DeleteEndpoint{"a"})
	}
	round := []string{"10.200.0.1", "10.200.0.2", "10.200.1.1", "10.200.1.2"}
	if want := slices.Concat(round, round, round[:1]); !slices.Equal(got, want) {
		t.Errorf("addresses %v, want %v", got, want)
	}
}

func TestAliasStays(t *testing.T) {
	s := world(t)
	v := service("sql", "contoso")
	v.Alias = "another"
	s = must(t, s, PutService{Service: v})
	if a := s.Service("sql").Alias; a != "sql.alias" {
		t.Errorf("alias %q, want the first one", a)
	}
	alias, err := NewAlias("sub/group/sql", bytes.NewReader(make([]byte, 16)))
	if want := "sql.00000000000000000000000000000000.postern.azure.privatelinkservice"; err != nil || alias != want {
		t.Errorf("alias %q, %v, want %q", alias, err, want)
	}
	if _, err := NewAlias("sql", bytes.NewReader(nil)); err == nil {
		t.Error("an alias without random")
	}
}

func TestDeltas(t *testing.T) {
	s := world(t)
	_, deltas, err := s.Apply(noon, PutNetwork{network("corp", "10.1.0.0/16", "10.200.0.0/24")}, DeleteEndpoint{"sql-corp"}, PutNetwork{network("new", "10.9.0.0/16", "")})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range deltas {
		key := d.Key
		if d.Kind == KindRetired {
			key = "id"
		}
		got = append(got, fmt.Sprintf("%s %s %s", d.Kind, key, d.Verb()))
	}
	if want := []string{"endpoint sql-corp deleted", "network new created", "retired id created"}; !slices.Equal(got, want) {
		t.Errorf("deltas %v, want %v", got, want)
	}
}
