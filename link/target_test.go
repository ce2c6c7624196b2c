package link

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestRefuses is A21 and A22 where a target slipped into the state, in every form of an address: what the
// dialer asks.
func TestRefuses(t *testing.T) {
	s := must(t, Empty(),
		PutNetwork{vnet("c", "s4/g/v", "10.7.0.0/16", "10.7.1.0/24")},
		PutNetwork{Network{ID: "mine", Prefixes: prefixes("10.8.0.0/16"), Pools: prefixes("10.200.0.0/24", "fd00:200::/120")}},
		PutService{Service: published("", "svc")},
		PutEndpoint{Endpoint: Endpoint{ID: "e", Network: "mine", Service: "svc", Address: netip.MustParseAddr("10.200.0.5")}})
	ground := Ground{
		Listeners: []netip.AddrPort{netip.MustParseAddrPort("[::]:53"), netip.MustParseAddrPort("127.0.0.1:9153"), netip.MustParseAddrPort("192.0.2.50:8443")},
		Local:     func(a netip.Addr) bool { return a == netip.MustParseAddr("192.0.2.50") },
	}
	const all, tenant = "operator tenant granted", "tenant"
	for _, tt := range []struct {
		target string
		rule   string // part of it
		who    string // is refused
	}{
		{"203.0.113.9:443", "", ""},
		{"[2001:db8::9]:443", "", ""},
		{"[64:ff9b::cb00:7109]:443", "", ""},
		{"203.0.113.9:0", "port 0", all},
		{"203.0.113.9:2379", "port 2379", tenant},
		{"[fe80::1%eth0]:443", "not an address", all},
		{"10.200.0.5:443", TargetIsEndpoint, all},
		{"[::ffff:10.200.0.5]:443", TargetIsEndpoint, all},
		{"[::10.200.0.5]:443", TargetIsEndpoint, all},
		{"[64:ff9b::10.200.0.5]:443", TargetIsEndpoint, all},
		{"[64:ff9b:1::10.200.0.5]:443", TargetIsEndpoint, all},
		{"[2002:ac8:5::1]:443", TargetIsEndpoint, all},
		{"[2001:0:ac8:5::1]:443", TargetIsEndpoint, all},
		{"[2001:0:cb00:7109::f537:fffa]:443", TargetIsEndpoint, all},
		{"[2001:db8::5efe:10.200.0.5]:443", TargetIsEndpoint, all},
		{"10.200.0.77:443", TargetIsPool, all},
		{"[fd00:200::7]:443", TargetIsPool, all},
		{"[64:ff9b::10.200.0.77]:443", TargetIsPool, all},
		{"192.0.2.50:53", "this node", all},
		{"[::ffff:192.0.2.50]:8443", "this node", all},
		{"[64:ff9b::192.0.2.50]:8443", "this node", all},
		{"127.0.0.1:53", "", all},
		{"[::1]:53", "", all},
		{"127.0.0.1:9153", "", all},
		{"[::ffff:127.0.0.1]:9153", "", all},
		{"127.0.0.2:9153", "loopback", tenant},
		{"192.0.2.50:22", TargetIsLocal, tenant},
		{"[64:ff9b::192.0.2.50]:22", TargetIsLocal, tenant},
		{"127.0.0.1:443", "loopback", tenant},
		{"[::1]:443", "loopback", tenant},
		{"[::ffff:127.0.0.1]:443", "loopback", tenant},
		{"[::127.0.0.1]:443", "loopback", tenant},
		{"[64:ff9b::127.0.0.1]:443", "loopback", tenant},
		{"[2002:7f00:1::1]:443", "loopback", tenant},
		{"[2001:0:cb00:7109::80ff:fffe]:443", "loopback", tenant},
		{"0.0.0.0:443", "this host", all},
		{"[::]:443", "this host", all},
		{"169.254.169.254:80", "metadata", all},
		{"[::ffff:169.254.169.254]:80", "metadata", all},
		{"[64:ff9b::169.254.169.254]:80", "metadata", tenant},
		{"[64:ff9b:1::169.254.169.254]:80", "metadata", tenant},
		{"[fd00:ec2::254]:80", "metadata", tenant},
		{"168.63.129.16:80", "Azure", tenant},
		{"[fe80::1]:443", "link-local", all},
		{"224.0.0.1:443", "multicast", all},
		{"[ff02::1]:443", "multicast", all},
		{"255.255.255.255:443", "broadcast", all},
		{"240.0.0.1:443", "reserved", all},
		{"10.7.0.9:443", TargetIsForeign, tenant},
		{"[64:ff9b::10.7.0.9]:443", TargetIsForeign, tenant},
		{"10.8.0.9:443", TargetIsForeign, tenant}, // the operator's network
	} {
		target := netip.MustParseAddrPort(tt.target)
		for _, who := range strings.Fields(all) {
			v := &Service{}
			switch who {
			case "tenant":
				v.Tenant = "b"
			case "granted":
				v.Tenant, v.Reach = "b", []netip.Prefix{netip.PrefixFrom(target.Addr().Unmap().WithZone(""), target.Addr().Unmap().BitLen())}
			}
			why := s.Refuses(v, target, ground)
			if want := slices.Contains(strings.Fields(tt.who), who); want != (why != "") || want && !strings.Contains(why, tt.rule) {
				t.Errorf("%s of %s: %q, want refused %v by %q", tt.target, who, why, want, tt.rule)
			}
		}
	}
	if why := s.Refuses(&Service{Tenant: "b"}, netip.MustParseAddrPort("203.0.113.9:443"), Ground{}); why != "" {
		t.Errorf("a node that knows nothing of itself refuses: %s", why)
	}
}

// A21: an endpoint's address can't be declared as a target in another form either.
func TestTargetForms(t *testing.T) {
	v := published("", "svc")
	s := must(t, Empty(),
		PutNetwork{Network{ID: "mine", Prefixes: prefixes("10.8.0.0/16"), Pools: prefixes("10.200.0.0/24")}}, PutService{Service: v})
	for _, target := range []string{"10.200.0.5:443", "[64:ff9b::10.200.0.5]:443", "[2002:ac8:5::1]:443"} {
		v.Targets = []Target{{Addr: netip.MustParseAddrPort(target)}}
		if _, _, err := s.Apply(noon, PutService{Service: v}); err == nil {
			t.Errorf("target %s is taken", target)
		}
	}
}
