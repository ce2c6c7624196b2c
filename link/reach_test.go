package link

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// backend returns a service of a tenant that sends to an address, from others.
func backend(tenant, id, target string, nat ...string) Service {
	v := published(tenant, id)
	v.Targets = []Target{{Addr: netip.MustParseAddrPort(target)}}
	for _, a := range nat {
		v.NAT = append(v.NAT, netip.MustParseAddr(a))
	}
	return v
}

// TestBackends is A21: what a service of one tenant sends to or from is nothing that another's may.
func TestBackends(t *testing.T) {
	secret := backend("a", "s1/g/secret", "192.168.50.10:443", "192.168.60.1")
	granted := func(v Service, prefix string) Service {
		v.Reach = prefixes(prefix)
		return v
	}
	for _, tc := range []struct {
		name string
		want Service
		ok   bool
	}{
		{"its target", backend("b", "s2/g/p", "192.168.50.10:443"), false},
		{"its target on another port", backend("b", "s2/g/p", "192.168.50.10:22"), false},
		{"its target through NAT64", backend("b", "s2/g/p", "[64:ff9b::c0a8:320a]:443"), false},
		{"its target as NAT address", backend("b", "s2/g/p", "192.168.50.11:443", "192.168.50.10"), false},
		{"its NAT address", backend("b", "s2/g/p", "192.168.50.11:443", "192.168.60.1"), false},
		{"its NAT address as target", backend("b", "s2/g/p", "192.168.60.1:443"), false},
		{"beside it", backend("b", "s2/g/p", "192.168.50.11:443", "192.168.60.2"), true},
		{"the same tenant", backend("a", "s3/g/p", "192.168.50.10:443", "192.168.60.1"), true},
		{"who was granted it", granted(backend("b", "s2/g/p", "192.168.50.10:443", "192.168.60.1"), "192.168.0.0/16"), true},
		{"who was granted another", granted(backend("b", "s2/g/p", "192.168.50.10:443"), "192.168.50.11/32"), false},
		{"the operator", backend("", "s0/g/p", "192.168.50.10:443"), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := must(t, Empty(), PutService{Service: secret})
			next, _, err := s.Apply(noon, PutService{Service: tc.want})
			switch {
			case tc.ok && err != nil, !tc.ok && !errors.Is(err, ErrConflict):
				t.Errorf("error %v", err)
			case err != nil && strings.Contains(err.Error(), "secret"):
				t.Errorf("it says whose it is: %v", err)
			case err == nil:
				verifyCounters(t, next) // a state that holds both can be read again
			}
		})
	}
	// What it had before stays, when it was granted then and is no longer; given back, it is free.
	mine := granted(backend("b", "s2/g/p", "192.168.50.10:443"), "192.168.0.0/16")
	s := must(t, Empty(), PutService{Service: secret}, PutService{Service: mine})
	mine.Reach, mine.Strict = nil, true
	s = must(t, s, PutService{Service: mine}, DeleteService{ID: "s2/g/p"}, DeleteService{ID: "s1/g/secret"})
	must(t, s, PutService{Service: mine})
}

// TestRefusesForeign: a network takes its addresses away from the services of other tenants.
func TestRefusesForeign(t *testing.T) {
	v := backend("b", "s2/g/p", "10.7.0.5:443")
	free := must(t, Empty(), PutService{Service: v})
	claimed := must(t, free, PutNetwork{vnet("c", "s4/g/v", "10.7.0.0/16", "10.7.1.0/24")})
	for _, tc := range []struct {
		name   string
		s      *Snapshot
		tenant string
		addr   string
		reach  []netip.Prefix
		want   bool
	}{
		{"no network", free, "b", "10.7.0.5", nil, true},
		{"another tenant's", claimed, "b", "10.7.0.5", nil, false},
		{"another tenant's through NAT64", claimed, "b", "64:ff9b::a07:5", nil, false},
		{"its own", claimed, "c", "10.7.0.5", nil, true},
		{"beside it", claimed, "b", "10.8.0.5", nil, true},
		{"granted", claimed, "b", "10.7.0.5", prefixes("10.7.0.0/24"), true},
		{"the operator's", claimed, "", "10.7.0.5", nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := v
			v.Tenant, v.Reach = tc.tenant, tc.reach
			if got := tc.s.RefusesAddress(&v, netip.MustParseAddr(tc.addr)) == ""; got != tc.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
