package link

import (
	"errors"
	"net/netip"
	"testing"
)

// TestSources: an address that a service connects from is no endpoint's, and the other way round, or what
// comes back to it would reach the endpoint's proxy (S14).
func TestSources(t *testing.T) {
	from := func(id ID, addresses ...string) PutService {
		v := service(id, "", Anyone)
		for _, a := range addresses {
			v.NAT = append(v.NAT, netip.MustParseAddr(a))
		}
		return PutService{Service: v}
	}
	// Of a pool of /29 the first and the last address are for nobody.
	s := must(t, Empty(), PutNetwork{network("corp", "10.1.0.0/16", "10.200.0.0/29")}, from("sql", "10.200.0.1", "10.200.0.3"), endpoint("a", "corp", "sql"))
	if a := s.Endpoint("a").Address.String(); a != "10.200.0.2" {
		t.Errorf("the first endpoint got %s", a)
	}
	s = must(t, s, endpoint("b", "corp", "sql"))
	if a := s.Endpoint("b").Address.String(); a != "10.200.0.4" {
		t.Errorf("the second endpoint got %s", a)
	}
	for _, c := range []struct {
		name   string
		change Change
	}{
		{"an endpoint asks for a NAT address", at("c", "corp", "sql", "10.200.0.3")},
		{"a new service takes an endpoint's", from("web", "10.200.0.2")},
		{"a service takes an endpoint's", from("sql", "10.200.0.1", "10.200.0.4")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, err := s.Apply(noon, c.change); !errors.Is(err, ErrTaken) {
				t.Errorf("error %v", err)
			}
		})
	}
	// Given back, they are addresses as others.
	s = must(t, s, from("sql"), at("c", "corp", "sql", "10.200.0.3"))
	must(t, must(t, s, DeleteEndpoint{"c"}), from("web", "10.200.0.3"))
}

func TestCheckAddress(t *testing.T) {
	n := network("corp", "10.1.0.0/16", "10.200.0.0/24")
	n.Subnets = []Subnet{{Name: "nat", Prefixes: prefixes("10.1.1.0/24")}}
	for _, c := range []struct {
		name, subnet, addr string
		want               error
	}{
		{"in the subnet", "nat", "10.1.1.4", nil},
		{"the fourth of it", "nat", "10.1.1.3", ErrReserved},
		{"the last of it", "nat", "10.1.1.255", ErrReserved},
		{"outside of it", "nat", "10.1.2.4", ErrOutside},
		{"in the pool", "", "10.200.0.1", nil},
		{"no such subnet", "other", "10.1.1.4", ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := n.CheckAddress(c.subnet, netip.MustParseAddr(c.addr)); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}
