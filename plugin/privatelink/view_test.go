package privatelink

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// withSubnet adds a client subnet option.
func withSubnet(r *dns.Msg, subnet string) *dns.Msg {
	r.SetEdns0(1232, false)
	e := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET}
	if subnet != "" {
		p := netip.MustParsePrefix(subnet)
		e.Address, e.SourceNetmask, e.Family = p.Addr().AsSlice(), uint8(p.Bits()), 1
		if p.Addr().Is6() {
			e.Family = 2
		}
	}
	r.IsEdns0().Option = []dns.EDNS0{e}
	return r
}

// D24: the client subnet of a resolver that is named as trusted, and of others.
func TestClientSubnet(t *testing.T) {
	const resolver = "192.0.2.53"
	tests := []struct {
		name, from, subnet string
		want               string // the address answered
		scope              int    // -1: no option in the answer
	}{
		{"exact", resolver, "10.1.5.0/24", "10.200.0.5", 24},
		{"the network's prefix", resolver, "10.2.0.0/16", "10.201.0.5", 16},
		{"one address", resolver, "10.1.99.7/32", "10.201.0.5", 32},
		{"by IPv6", resolver, "fd00:1::/64", "10.200.0.5", 64},
		{"unknown", resolver, "198.51.100.0/24", "203.0.113.1", 24},
		{"wider than the network", resolver, "10.0.0.0/8", "203.0.113.1", 24}, // the longest prefix in it
		{"holds another network's prefix", resolver, "10.1.0.0/16", "203.0.113.1", 24},
		{"wider than one network", resolver, "10.3.0.0/15", "203.0.113.1", 16},
		{"wider than the network by IPv6", resolver, "fd00::/16", "203.0.113.1", 64},
		{"length 0", resolver, "0.0.0.0/0", "203.0.113.1", 0},
		{"length 0 by IPv6", resolver, "::/0", "203.0.113.1", 0},
		{"no family", resolver, "", "203.0.113.1", 0},
		{"IPv4 in IPv6", resolver, "::ffff:10.1.5.0/120", "203.0.113.1", 120},
		{"trusted resolver in a network, unknown subnet", "10.2.0.53", "198.51.100.0/24", "203.0.113.1", 24},
		{"not trusted", "10.2.0.9", "10.1.5.0/24", "10.201.0.5", -1},
		{"not trusted, no network", stranger, "10.1.5.0/24", "203.0.113.1", -1},
	}
	s := world(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := newServer(t, s)
			srv.ecsFrom = prefixes("192.0.2.53/32", "10.2.0.53/32")
			m, _ := srv.ask(t, tt.from, withSubnet(question("contoso."+sqlZone+" A"), tt.subnet))
			if got := m.Answer[0].(*dns.A).A.String(); got != tt.want {
				t.Errorf("answer %s, want %s", got, tt.want)
			}
			scope := -1
			if ecs := subnetOf(m); ecs != nil {
				scope = int(ecs.SourceScope)
				if asked := subnetOf(withSubnet(question(". A"), tt.subnet)); ecs.SourceNetmask != asked.SourceNetmask || ecs.Family != asked.Family {
					t.Errorf("echoed %v, asked %v", ecs, asked)
				}
			}
			if scope != tt.scope {
				t.Errorf("scope %d, want %d", scope, tt.scope)
			}
		})
	}
	t.Run("wider than many networks", func(t *testing.T) {
		var more []link.Change
		for i := range maxWithin + 1 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100 + byte(i>>8), byte(i), 0}), 24)
			more = append(more, link.PutNetwork{Network: link.Network{ID: link.ID(fmt.Sprint("more", i)), Prefixes: []netip.Prefix{p}}})
		}
		srv := newServer(t, apply(t, s, more...))
		srv.ecsFrom = prefixes("192.0.2.53/32")
		for subnet, want := range map[string]uint8{"10.0.0.0/8": 32, "10.100.0.0/16": 24} {
			m, _ := srv.ask(t, resolver, withSubnet(question("contoso."+sqlZone+" A"), subnet))
			if ecs := subnetOf(m); ecs == nil || ecs.SourceScope != want {
				t.Errorf("%s: %v, want the scope %d", subnet, ecs, want)
			}
		}
	})
	t.Run("trusted without the option", func(t *testing.T) {
		srv := newServer(t, s)
		srv.ecsFrom = prefixes("10.2.0.53/32")
		m, _ := srv.ask(t, "10.2.0.53", question("contoso."+sqlZone+" A").SetEdns0(1232, false))
		check(t, "answer", m.Answer, "contoso."+sqlZone+" 10 IN A 10.201.0.5")
	})
	t.Run("upstream's own scope is replaced, its other options stay", func(t *testing.T) {
		srv := newServer(t, s)
		srv.ecsFrom = prefixes("192.0.2.53/32")
		srv.up.reply = func(r *dns.Msg) *dns.Msg {
			m := new(dns.Msg).SetReply(r)
			m.Answer = records("www.example.org. 300 IN A 203.0.113.1")
			withSubnet(m, "198.51.100.0/24")
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeStaleAnswer})
			return m
		}
		m, _ := srv.ask(t, resolver, withSubnet(question("www.example.org A"), "198.51.100.0/24"))
		if ecs := subnetOf(m); ecs == nil || ecs.SourceScope != 24 || edeOf(m) != int(dns.ExtendedErrorCodeStaleAnswer) || len(m.Extra) != 1 {
			t.Errorf("%v", m)
		}
	})
	t.Run("network of the server block stands before the option", func(t *testing.T) {
		srv := newServer(t, s)
		srv.network, srv.ecsFrom = "hidden", prefixes("192.0.2.53/32")
		m, _ := srv.ask(t, resolver, withSubnet(question("contoso."+sqlZone+" A"), "10.2.0.0/16"))
		check(t, "answer", m.Answer, "contoso."+sqlZone+" 10 IN A 10.202.0.5")
	})
}

// networkOf against a walk over every address of the subnet.
func TestNetworkOfSubnet(t *testing.T) {
	s := apply(t, link.Empty(),
		link.PutNetwork{Network: link.Network{ID: "a", Prefixes: prefixes("10.0.0.0/24", "10.0.0.128/27")}},
		link.PutNetwork{Network: link.Network{ID: "b", Prefixes: prefixes("10.0.0.64/26", "10.0.1.0/25")}},
		link.PutNetwork{Network: link.Network{ID: "c", Prefixes: prefixes("10.0.0.72/29")}},
		link.PutNetwork{Network: link.Network{ID: "d", Prefixes: prefixes("10.0.0.0/30"), ByListener: true}},
	)
	g := newServer(t, s).generation(s)
	for bits := 22; bits <= 32; bits++ {
		step := 1 << (32 - bits)
		for at := 0; at < 1024; at += step {
			subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(at >> 8), byte(at)}), bits)
			want, uniform := s.NetworkOf(subnet.Addr()), true
			for i := at; i < at+step; i++ {
				uniform = uniform && s.NetworkOf(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})) == want
			}
			got := g.networkOf(subnet)
			if got != nil && (!uniform || got != want) {
				t.Errorf("%s: %s, but it isn't all of that network", subnet, got.ID)
			}
			if got == nil && uniform && want != nil && !splitCover(want, subnet) {
				t.Errorf("%s: none, want %s", subnet, want.ID)
			}
		}
	}
}

// splitCover reports whether no one prefix of the network covers the subnet.
func splitCover(n *link.Network, subnet netip.Prefix) bool {
	for _, p := range n.Prefixes {
		if p.Bits() <= subnet.Bits() && p.Contains(subnet.Addr()) {
			return false
		}
	}
	return true
}

// remote is a writer with a given client address.
type remote struct {
	writer
	addr net.Addr
}

func (r *remote) RemoteAddr() net.Addr { return r.addr }

type wrapped struct{ net.Addr }

func (w wrapped) Unwrap() net.Addr { return w.Addr }

type named string

func (named) Network() string  { return "quic" }
func (n named) String() string { return string(n) }

func TestClient(t *testing.T) {
	udp := &net.UDPAddr{IP: net.ParseIP("10.1.0.9"), Port: 5}
	tests := []struct {
		name string
		addr net.Addr
		want string
	}{
		{"udp", udp, "10.1.0.9"},
		{"tcp", &net.TCPAddr{IP: net.ParseIP("fd00:1::9")}, "fd00:1::9"},
		{"zone is dropped", &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, "fe80::1"},
		{"wrapped by a PROXY header", wrapped{udp}, "10.1.0.9"},
		{"as text", named("[::ffff:10.1.0.9]:853"), "10.1.0.9"},
		{"as text with a zone", named("[fe80::1%eth0]:853"), "fe80::1"},
		{"no address", named("@"), "invalid IP"},
		{"none", nil, "invalid IP"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := clientOf(&remote{addr: tt.addr}).String(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
