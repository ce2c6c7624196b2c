package link

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// vnet returns a network of the API with one subnet.
func vnet(tenant, id, prefix, subnet string) Network {
	return Network{
		ID: ID(id), Tenant: tenant, Prefixes: []netip.Prefix{netip.MustParsePrefix(prefix)},
		Subnets: []Subnet{{Name: "pe", Prefixes: []netip.Prefix{netip.MustParsePrefix(subnet)}}}, Egress: []string{"*"},
	}
}

func published(tenant, id string, names ...Name) Service {
	v := service(ID(id), "x", Anyone)
	v.Tenant, v.Visible, v.AutoApprove, v.Names, v.Pin = tenant, []Party{Anyone}, nil, nil, PinAddress
	v.Alias = id + ".alias"
	if tenant == "b" { // a backend is one tenant's
		v.Targets = []Target{{Addr: netip.MustParseAddrPort("10.30.0.4:443")}}
	}
	for _, n := range names {
		v.Names = append(v.Names, ResourceName{Public: n})
	}
	return v
}

func asked(tenant, id, network, service string) PutEndpoint {
	return PutEndpoint{Endpoint: Endpoint{ID: ID(id), Tenant: tenant, Network: ID(network), Subnet: "pe", Service: ID(service)}}
}

// The first four and the last address of a subnet are never given out; then it is full.
func TestSubnetAddresses(t *testing.T) {
	s := must(t, Empty(), PutNetwork{vnet("a", "s1/g/v", "10.0.0.0/16", "10.0.1.0/29")}, PutService{Service: published("a", "s1/g/p")})
	for _, want := range []string{"10.0.1.4", "10.0.1.5", "10.0.1.6"} {
		id := "s1/g/e" + want[7:]
		s = must(t, s, asked("a", id, "s1/g/v", "s1/g/p"))
		if got := s.Endpoint(ID(id)).Address.String(); got != want {
			t.Errorf("endpoint %s has %s, want %s", id, got, want)
		}
	}
	if _, _, err := s.Apply(noon, asked("a", "s1/g/e9", "s1/g/v", "s1/g/p")); !errors.Is(err, ErrExhausted) {
		t.Errorf("a full subnet: %v", err)
	}
	for addr, want := range map[string]error{"10.0.1.3": ErrReserved, "10.0.1.7": ErrReserved, "10.0.2.4": ErrOutside, "10.0.1.4": ErrTaken} {
		e := asked("a", "s1/g/e9", "s1/g/v", "s1/g/p")
		e.Endpoint.Address = netip.MustParseAddr(addr)
		if _, _, err := s.Apply(noon, e); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", addr, err, want)
		}
	}
	if n := s.CountIn("s1/g/v"); n != 3 {
		t.Errorf("%d endpoints in the network", n)
	}
	shrunk := vnet("a", "s1/g/v", "10.0.0.0/16", "10.0.2.0/29")
	if _, _, err := s.Apply(noon, PutNetwork{shrunk}); !errors.Is(err, ErrConflict) {
		t.Errorf("a subnet taken from under its endpoints: %v", err)
	}
}

// An address that a service has as a target is not given to an endpoint, nor the other way around.
func TestTargetsAreNoEndpoints(t *testing.T) {
	v := published("a", "s1/g/p")
	v.Targets = []Target{{netip.MustParseAddrPort("10.0.1.4:443")}}
	s := must(t, Empty(), PutNetwork{vnet("a", "s1/g/v", "10.0.0.0/16", "10.0.1.0/29")}, PutService{Service: v}, asked("a", "s1/g/e", "s1/g/v", "s1/g/p"))
	if got := s.Endpoint("s1/g/e").Address.String(); got != "10.0.1.5" {
		t.Errorf("the endpoint has %s", got)
	}
	v.Targets = []Target{{netip.MustParseAddrPort("10.0.1.5:443")}}
	if _, _, err := s.Apply(noon, PutService{Service: v}); !errors.Is(err, ErrInvalid) {
		t.Errorf("A21 an endpoint as target: %v", err)
	}
}

// One tenant's clients must not be taken by a longer prefix of another, and the refusal names nobody.
func TestPrefixesOfTenants(t *testing.T) {
	s := must(t, Empty(), PutNetwork{vnet("a", "s1/g/secret", "10.0.0.0/16", "10.0.1.0/24")})
	for _, prefix := range []string{"10.0.0.0/16", "10.0.5.0/24", "10.0.0.0/8"} {
		n := vnet("b", "s2/g/v", prefix, strings.Split(prefix, "/")[0]+"/26")
		_, _, err := s.Apply(noon, PutNetwork{n})
		if !errors.Is(err, ErrConflict) || strings.Contains(err.Error(), "secret") {
			t.Errorf("A22 %s: %v", prefix, err)
		}
	}
	must(t, s, PutNetwork{vnet("a", "s1/g/v2", "10.0.5.0/24", "10.0.5.0/26")})
	must(t, s, PutNetwork{vnet("b", "s2/g/v", "10.1.0.0/16", "10.1.5.0/26")})
}

// A09: who may claim which name beside another tenant's.
func TestClaims(t *testing.T) {
	for _, tc := range []struct {
		have, want Name
		ok         bool
	}{
		{"db.contoso.example", "db.contoso.example", false},
		{"db.contoso.example", "contoso.example", false},
		{"db.contoso.example", "*.contoso.example", false},
		{"*.contoso.example", "db.contoso.example", false},
		{"*.contoso.example", "*.contoso.example", false},
		{"db.contoso.example", "web.contoso.example", true},
		{"db.contoso.example", "b.contoso.example", true},
		{"db.contoso.example", "x.db.contoso.example", true},
		{"*.contoso.example", "a.b.contoso.example", true},
		{"contoso.example", "*.contoso.example", true},
	} {
		s := must(t, Empty(), PutService{Service: published("a", "s1/g/secret", tc.have)})
		_, _, err := s.Apply(noon, PutService{Service: published("b", "s2/g/p", tc.want)})
		if tc.ok != (err == nil) || err != nil && (!errors.Is(err, ErrConflict) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s beside %s: %v", tc.want, tc.have, err)
		}
		same := published("a", "s1/g/p2", tc.want)
		s = must(t, s, PutService{Service: same}, DeleteService{ID: "s1/g/secret"}, DeleteService{ID: "s1/g/p2"})
		must(t, s, PutService{Service: published("b", "s2/g/p", tc.want)})
	}
}

func TestEgress(t *testing.T) {
	v := published("a", "s1/g/p")
	for egress, ok := range map[string]bool{"": false, "*": true, "tenant/a": true, "tenant/b": false, "s1/g/p": true, "S1/G/P.ALIAS": true, "s1/g/p.alia": false} {
		n := vnet("b", "s2/g/v", "10.1.0.0/16", "10.1.5.0/26")
		n.Egress = nil
		if egress != "" {
			n.Egress = []string{egress}
		}
		_, _, err := Empty().Apply(noon, PutService{Service: v}, PutNetwork{n}, asked("b", "s2/g/e", "s2/g/v", "s1/g/p"))
		if ok != (err == nil) || err != nil && !errors.Is(err, ErrEgress) {
			t.Errorf("A08 egress %q: %v", egress, err)
		}
	}
	v.Visible = nil
	n := vnet("b", "s2/g/v", "10.1.0.0/16", "10.1.5.0/26")
	n.Egress = nil
	if _, _, err := Empty().Apply(noon, PutService{Service: v}, PutNetwork{n}, asked("b", "s2/g/e", "s2/g/v", "s1/g/p")); !errors.Is(err, ErrNotFound) {
		t.Errorf("A03 what isn't visible isn't there, whatever the egress list says: %v", err)
	}
}

// A19: what widens a service takes back approvals, unless whoever approved or changes it says otherwise.
func TestWidening(t *testing.T) {
	more := func(v *Service) {
		v.Targets = append(v.Targets, Target{netip.MustParseAddrPort("10.99.0.9:443")})
	}
	for name, tc := range map[string]struct {
		edit     func(*Service)
		lasting  bool
		approver string
		want     State
	}{
		"target":       {more, false, "", Pending},
		"lasting":      {more, true, "", Approved},
		"by approver":  {more, false, "eve", Approved},
		"name":         {func(v *Service) { v.Names = append(v.Names, ResourceName{Public: "b.example"}) }, false, "", Pending},
		"port":         {func(v *Service) { v.Port++ }, false, "", Pending},
		"less targets": {func(v *Service) { v.Targets = v.Targets[:1] }, false, "", Approved},
		"less names":   {func(v *Service) { v.Names = nil }, false, "", Approved},
		"pin":          {func(v *Service) { v.Pin = PinTLS }, false, "", Approved},
		"listed":       {func(v *Service) { more(v); v.AutoApprove = []Party{"subscription/s1"} }, false, "", Approved},
		"alias":        {func(v *Service) { v.Alias = "another" }, false, "", Approved},
	} {
		v := published("a", "s1/g/p", "a.example")
		v.Targets = []Target{{netip.MustParseAddrPort("10.99.0.1:443")}, {netip.MustParseAddrPort("10.99.0.2:443")}}
		s := must(t, Empty(), PutService{Service: v}, PutNetwork{vnet("a", "s1/g/v", "10.1.0.0/16", "10.1.5.0/26")}, asked("a", "s1/g/e", "s1/g/v", "s1/g/p"))
		link := s.Endpoint("s1/g/e").Connection.LinkID
		s = must(t, s, Decide{Endpoint: "s1/g/e", LinkID: link, State: Approved, Lasting: tc.lasting, Decision: Decision{Actor: "bob"}})
		tc.edit(&v)
		s = must(t, s, PutService{Service: v, Approver: tc.approver})
		if c := s.Endpoint("s1/g/e").Connection; c.State != tc.want || c.LinkID != link {
			t.Errorf("%s: %+v, want %s", name, c, tc.want)
		}
	}
}

func TestLimitPerConsumer(t *testing.T) {
	v := published("a", "s1/g/p")
	v.MaxPerConsumer, v.AutoApprove = 1, []Party{Anyone}
	s := must(t, Empty(), PutService{Service: v},
		PutNetwork{vnet("b", "s2/g/v", "10.1.0.0/16", "10.1.5.0/26")}, PutNetwork{vnet("c", "s3/g/v", "10.2.0.0/16", "10.2.5.0/26")},
		asked("b", "s2/g/e1", "s2/g/v", "s1/g/p"), asked("b", "s2/g/e2", "s2/g/v", "s1/g/p"), asked("c", "s3/g/e1", "s3/g/v", "s1/g/p"))
	if a, b, c := s.Endpoint("s2/g/e1").Connection, s.Endpoint("s2/g/e2").Connection, s.Endpoint("s3/g/e1").Connection; a.State != Approved || b.State != Pending || !strings.Contains(b.Decision.Reason, "limit of 1") || c.State != Approved {
		t.Errorf("%+v, %+v, %+v", a, b, c)
	}
	if s.ApprovedOf("s1/g/p", "b") != 1 || s.PendingOf("s1/g/p", "b") != 1 || s.CountOf("s1/g/p") != 3 || s.Owned(KindEndpoint, "s2") != 2 || s.Owned(KindService, "s1") != 1 {
		t.Error("the tallies are wrong")
	}
}

// A20: what takes the place of a deleted object of the same ID isn't it.
func TestUID(t *testing.T) {
	n := vnet("a", "s1/g/v", "10.1.0.0/16", "10.1.5.0/26")
	n.UID = "first"
	s := must(t, Empty(), PutNetwork{n})
	n.UID = "second"
	if s = must(t, s, PutNetwork{n}); s.Network(n.ID).UID != "first" {
		t.Errorf("a change of the network changed its UID to %s", s.Network(n.ID).UID)
	}
	if s = must(t, s, DeleteNetwork{n.ID}, PutNetwork{n}); s.Network(n.ID).UID != "second" {
		t.Errorf("a new network has UID %s", s.Network(n.ID).UID)
	}
}

func TestServiceByAlias(t *testing.T) {
	s := must(t, Empty(), PutService{Service: published("a", "s1/g/p")})
	if v := s.ServiceByAlias("S1/g/P.Alias"); v == nil || v.ID != "s1/g/p" {
		t.Errorf("by alias: %v", v)
	}
	if s.ServiceByAlias("s1/g/p.alia") != nil || must(t, s, DeleteService{ID: "s1/g/p"}).ServiceByAlias("s1/g/p.alias") != nil {
		t.Error("a service by the alias of none")
	}
	other := published("b", "s2/g/p")
	other.Alias = "S1/G/p.alias"
	if _, _, err := s.Apply(noon, PutService{Service: other}); !errors.Is(err, ErrConflict) {
		t.Errorf("an alias of two services: %v", err)
	}
}

// A23: the reject list of a service of the API wins over a decision that was taken before, and lets go what it held.
func TestRejectListLater(t *testing.T) {
	v := published("a", "s1/g/p")
	s := must(t, Empty(), PutService{Service: v}, PutNetwork{vnet("b", "s2/g/v", "10.1.0.0/16", "10.1.5.0/26")}, asked("b", "s2/g/e", "s2/g/v", "s1/g/p"))
	link := s.Endpoint("s2/g/e").Connection.LinkID
	s = must(t, s, Decide{Endpoint: "s2/g/e", LinkID: link, State: Approved, Decision: Decision{Actor: "bob"}})
	v.Reject = []Party{"tenant/b"}
	s = must(t, s, PutService{Service: v})
	if c := s.Endpoint("s2/g/e").Connection; c.State != Rejected || c.Decision.Rule != "reject: tenant/b" || c.LinkID != link {
		t.Errorf("on the reject list: %+v", c)
	}
	v.Reject = nil
	if c := must(t, s, PutService{Service: v}).Endpoint("s2/g/e").Connection; c.State != Pending {
		t.Errorf("no longer on it: %+v", c)
	}
}
