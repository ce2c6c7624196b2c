package control

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
)

// TestBackendsOfOthers is A21: what another tenant's service sends to, an endpoint's address and another
// tenant's network are refused in the same words.
func TestBackendsOfOthers(t *testing.T) {
	for _, target := range []string{"203.0.113.9:443", "203.0.113.9:22", "10.1.1.4:443", "10.1.77.7:443"} {
		t.Run(target, func(t *testing.T) {
			w := connected(t)
			sub := subC // whose own backend 203.0.113.9 is
			if strings.HasPrefix(target, "203.") {
				sub = subF
			}
			v := service(link.ID(sub + "/rg/steal"))
			v.Targets = []link.Target{{Addr: netip.MustParseAddrPort(target)}}
			before := w.state()
			_, err := w.putServiceAs(op(Owner, sub), v)
			w.refused(before, err, ErrAddress)
			if !strings.HasSuffix(err.Error(), notYours) {
				t.Errorf("it says more: %v", err)
			}
		})
	}
}

// TestNetworkAroundTarget: a service can be edited after another tenant has claimed the space around its
// target, and doesn't get a second one there.
func TestNetworkAroundTarget(t *testing.T) {
	w := newWorld(t)
	v := service(svcC)
	v.Targets = []link.Target{{Addr: netip.MustParseAddrPort("10.7.0.5:443")}}
	w.ok(w.putServiceAs(op(Owner, subC), v))
	w.ok(w.putNetworkAs(op(Owner, subF), network(netF, "7")))
	v.MaxConnections = 7
	w.ok(w.putServiceAs(op(Owner, subC), v))
	stored := w.state().Service(svcC)
	if w.state().Refuses(stored, stored.Targets[0].Addr, link.Ground{}) != link.TargetIsForeign {
		t.Error("it may still send there")
	}
	if len(stored.Reach) != 1 || stored.Reach[0] != netip.MustParsePrefix("127.7.0.0/16") {
		t.Errorf("what the tenant is granted: %v", stored.Reach)
	}
	v.Targets = append(v.Targets, link.Target{Addr: netip.MustParseAddrPort("10.7.0.6:443")})
	if _, err := w.putServiceAs(op(Owner, subC), v); !errors.Is(err, ErrAddress) {
		t.Errorf("a new target there: %v", err)
	}
}

// TestNetworksWithoutGrant is A24: what a tenant may have that the operator has given nothing.
func TestNetworksWithoutGrant(t *testing.T) {
	for prefix, ok := range map[string]bool{
		"10.60.0.0/16": true, "10.60.0.0/15": false, "172.16.0.0/12": false, "172.20.0.0/16": true, "192.168.0.0/16": true,
		"100.64.0.0/16": true, "100.64.0.0/10": false, "64.0.0.0/2": false, "203.0.113.0/24": false, "fd00:1::/48": true, "fd00::/32": false,
		"2001:db8::/48": false, "10.50.0.0/16": false, "10.53.0.0/16": false, "10.50.1.0/24": true,
	} {
		t.Run(prefix, func(t *testing.T) {
			w := newWorld(t, func(c *Config) {
				c.Local = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("10.50.0.1")} }
				c.Reserved = []netip.Addr{netip.MustParseAddr("10.53.0.53")}
			})
			_, err := w.putNetworkAs(op(Owner, subC), link.Network{ID: subC + "/rg/n", Prefixes: []netip.Prefix{netip.MustParsePrefix(prefix)}})
			if ok != (err == nil) || err != nil && !errors.Is(err, ErrAddress) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestNetworkOverForeignTarget: without a grant nobody takes the backend of another by a network around it.
func TestNetworkOverForeignTarget(t *testing.T) {
	w := newWorld(t)
	v := service(link.ID(subF + "/rg/backed"))
	v.Targets = []link.Target{{Addr: netip.MustParseAddrPort("10.9.0.5:443")}}
	w.ok(w.putServiceAs(op(Owner, subF), v))
	before := w.state()
	_, err := w.putNetworkAs(op(Owner, subC), network(link.ID(subC+"/rg/around"), "9"))
	w.refused(before, err, link.ErrConflict)
	w.ok(w.putNetworkAs(op(Owner, subC), network(link.ID(subC+"/rg/beside"), "8")))
}
