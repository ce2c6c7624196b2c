package link

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// manySubnets returns n subnets of one address each, with per prefixes.
func manySubnets(n, per int) (subnets []Subnet) {
	a := netip.MustParseAddr("10.64.0.0")
	for i := range n {
		s := Subnet{Name: fmt.Sprintf("s%d", i)}
		for range per {
			s.Prefixes = append(s.Prefixes, netip.PrefixFrom(a, 32))
			a = a.Next()
		}
		subnets = append(subnets, s)
	}
	return subnets
}

// TestNetworkBounds: what a network lists is bounded when it is written, by whomever, and never when it is read.
func TestNetworkBounds(t *testing.T) {
	hosts := func(n int) (all []netip.Prefix) { return manySubnets(1, n)[0].Prefixes }
	for name, c := range map[string]struct {
		edit func(n *Network, more int)
		want string
	}{
		"prefixes":             {func(n *Network, more int) { n.Prefixes = hosts(MaxPrefixes + more) }, "65 prefixes of a network, 64"},
		"pools":                {func(n *Network, more int) { n.Pools = hosts(MaxPrefixes + more) }, "65 pools of a network, 64"},
		"subnets":              {func(n *Network, more int) { n.Subnets = manySubnets(MaxSubnets+more, 1) }, "3001 subnets of a network, 3000"},
		"prefixes of a subnet": {func(n *Network, more int) { n.Subnets = manySubnets(1, MaxSubnetPrefixes+more) }, "subnet s0: 17 prefixes, 16"},
		"egress":               {func(n *Network, more int) { n.Egress = slices.Repeat([]string{"*"}, MaxEgress+more) }, "257 entries of the egress list of a network, 256"},
	} {
		t.Run(name, func(t *testing.T) {
			made := func(more int) Network {
				n := Network{ID: "s/g/n", Prefixes: prefixes("10.64.0.0/10")}
				c.edit(&n, more)
				return n
			}
			if _, _, err := Empty().Apply(time.Unix(1, 0), PutNetwork{made(0)}); err != nil {
				t.Fatalf("the most: %v", err)
			}
			_, _, err := Empty().Apply(time.Unix(1, 0), PutNetwork{made(1)})
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("one more: %v, want %q", err, c.want)
			}
			declared := made(1)
			declared.ID, declared.Origin = "n", Origin{Declaration: "d", File: "Corefile", Line: 1}
			_, _, err = Empty().Apply(time.Unix(1, 0), Declare{Declaration: "d", Networks: []Network{declared}})
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("one more, declared: %v, want %q", err, c.want)
			}
			stored := made(1)
			if _, err := Load(1, slices.Values([]Object{&stored})); err != nil {
				t.Errorf("one more that is stored: %v", err)
			}
		})
	}
	_, _, err := Empty().Apply(time.Unix(1, 0), PutDocument{Document{Type: "balancer", ID: "s/g/lb", Facet: Facet{API: bytes.Repeat([]byte("1"), MaxDocument+1)}}})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "65537 bytes, 65536 are allowed") {
		t.Errorf("a long document: %v", err)
	}
}

// TestSubnetOverlap: whatever lies between two subnets that share addresses, they are found.
func TestSubnetOverlap(t *testing.T) {
	network := func(pools, a, b, c string) *Network {
		n := &Network{ID: "n", Prefixes: prefixes("10.0.0.0/8", "2001:db8::/32"), Subnets: []Subnet{
			{Name: "a", Prefixes: prefixes(a)}, {Name: "b", Prefixes: prefixes(b)}, {Name: "c", Prefixes: prefixes(c)},
		}}
		if pools != "" {
			n.Pools = prefixes(pools)
		}
		return n
	}
	for name, c := range map[string]struct{ pools, a, b, c, want string }{
		"apart":                 {"10.9.0.0/24", "10.1.0.0/24", "2001:db8::/64", "10.1.1.0/24", ""},
		"the same":              {"", "10.1.0.0/24", "10.2.0.0/24", "10.1.0.0/24", "subnet c: 10.1.0.0/24 overlaps 10.1.0.0/24"},
		"the earlier is within": {"", "10.1.0.0/24", "10.2.0.0/24", "10.1.0.0/16", "subnet c: 10.1.0.0/16 overlaps 10.1.0.0/24"},
		"the later is within":   {"", "10.1.0.0/16", "10.2.0.0/24", "10.1.9.0/24", "subnet c: 10.1.9.0/24 overlaps 10.1.0.0/16"},
		"another within both":   {"", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "overlaps"},
		"a pool":                {"10.1.2.0/24", "10.3.0.0/16", "10.2.0.0/24", "10.1.0.0/16", "subnet c: 10.1.0.0/16 overlaps 10.1.2.0/24"},
		"of IPv6":               {"", "2001:db8::/64", "10.2.0.0/24", "2001:db8::1/128", "subnet c: 2001:db8::1/128 overlaps 2001:db8::/64"},
	} {
		t.Run(name, func(t *testing.T) {
			err := network(c.pools, c.a, c.b, c.c).check()
			if c.want == "" && err == nil {
				return
			}
			if c.want == "" || !errors.Is(err, ErrOverlap) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestResting counts the link IDs of a tenant that rest, through whatever leads to a snapshot.
func TestResting(t *testing.T) {
	at := time.Unix(1000, 0)
	s, _, err := Empty().Apply(at, PutNetwork{Network{ID: "s/g/n", Tenant: "t", Prefixes: prefixes("10.1.0.0/16"), Pools: prefixes("10.2.0.0/24")}},
		PutService{Service: Service{ID: "s/g/v", Tenant: "t", Alias: "v.x", Port: 443, Visible: []Party{Anyone}, Pin: PinAddress, ProxyProtocol: ProxyOff}})
	if err != nil {
		t.Fatal(err)
	}
	rest := func(s *Snapshot, want int) {
		t.Helper()
		again, err := Load(s.Revision(), s.Objects())
		if err != nil {
			t.Fatal(err)
		}
		if s.Resting("t") != want || again.Resting("t") != want || s.Resting("") != 0 {
			t.Errorf("%d at rest, %d when read again, %d of others; want %d", s.Resting("t"), again.Resting("t"), s.Resting(""), want)
		}
	}
	cycle := func(at time.Time) {
		t.Helper()
		before := s
		var deltas []Delta
		s, _, err = s.Apply(at, PutEndpoint{Endpoint: Endpoint{ID: "s/g/e", Tenant: "t", Network: "s/g/n", Service: "s/g/v"}})
		if err == nil {
			before = s
			s, deltas, err = s.Apply(at, DeleteEndpoint{ID: "s/g/e"})
		}
		if err != nil {
			t.Fatal(err)
		}
		var put []Object
		var gone []Ref
		for _, d := range deltas {
			if d.New == nil {
				gone = append(gone, Ref{d.Kind, d.Key})
			} else {
				put = append(put, d.New)
			}
		}
		followed, err := before.Follow(s.Revision(), put, gone)
		if err != nil || followed.Resting("t") != s.Resting("t") {
			t.Errorf("followed: %v, %d at rest, want %d", err, followed.Resting("t"), s.Resting("t"))
		}
	}
	for i := range 3 {
		cycle(at)
		rest(s, i+1)
	}
	cycle(at.Add(LinkIDRest))
	rest(s, 1) // the first is given out again and comes to rest anew, the other two go
}
