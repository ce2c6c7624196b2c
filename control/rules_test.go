package control

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
)

// TestTargets is A21 and A22: what a service of a tenant may send to.
func TestTargets(t *testing.T) {
	own := func() []netip.AddrPort {
		return []netip.AddrPort{netip.MustParseAddrPort("203.0.113.53:53"), netip.MustParseAddrPort("[::]:8443")}
	}
	local := func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.50")} }
	tests := []struct {
		target string
		err    error  // for contoso
		op     error  // for the operator
		why    string // in the error
	}{
		{"203.0.113.9:443", nil, nil, ""},
		{"[2001:db8::9]:443", nil, nil, ""},
		{"192.168.1.1:443", nil, nil, ""},
		{"127.0.0.1:443", ErrAddress, nil, "loopback"},
		{"[::1]:443", ErrAddress, nil, "loopback"},
		{"127.7.1.1:443", nil, nil, ""}, // granted
		{"127.7.1.1:2379", nil, nil, ""},
		{"[::ffff:127.0.0.1]:443", ErrAddress, link.ErrInvalid, "loopback"},
		{"[::7f00:1]:443", ErrAddress, nil, "loopback"},
		{"0.0.0.0:443", ErrAddress, link.ErrInvalid, "this host"},
		{"[::]:443", ErrAddress, link.ErrInvalid, "this host"},
		{"169.254.169.254:80", ErrAddress, link.ErrInvalid, "metadata"},
		{"[fe80::1]:443", ErrAddress, link.ErrInvalid, "link-local"},
		{"[fd00:ec2::254]:80", ErrAddress, nil, "metadata"},
		{"168.63.129.16:80", ErrAddress, nil, "Azure"},
		{"100.100.100.200:80", ErrAddress, nil, "Alibaba"},
		{"224.0.0.1:443", ErrAddress, link.ErrInvalid, "multicast"},
		{"[ff02::1]:443", ErrAddress, link.ErrInvalid, "multicast"},
		{"255.255.255.255:443", ErrAddress, link.ErrInvalid, "broadcast"},
		{"[64:ff9b::7f00:1]:443", ErrAddress, nil, "loopback"},               // NAT64
		{"[64:ff9b::a9fe:a9fe]:80", ErrAddress, nil, "metadata"},             //
		{"[64:ff9b:1::a9fe:a9fe]:80", ErrAddress, nil, "metadata"},           // NAT64 of a site
		{"[64:ff9b::cb00:7109]:443", nil, nil, ""},                           // of an address that is allowed
		{"[2002:7f00:1::1]:443", ErrAddress, nil, "loopback"},                // 6to4
		{"[2001:0:a9fe:a9fe::1]:443", ErrAddress, nil, "metadata"},           // Teredo, its server
		{"[2001:0:cb00:7109::80ff:fffe]:443", ErrAddress, nil, "loopback"},   // Teredo, its client
		{"[2001:db8::5efe:127.0.0.1]:443", ErrAddress, nil, "loopback"},      // ISATAP
		{"[2001:db8::200:5efe:169.254.1.1]:443", ErrAddress, nil, "link-lo"}, //
		{"203.0.113.9:2379", ErrAddress, nil, "port 2379"},
		{"203.0.113.9:2380", ErrAddress, nil, "port 2380"},
		{"203.0.113.9:0", ErrAddress, link.ErrInvalid, "port 0"},
		{"203.0.113.53:53", ErrAddress, ErrAddress, "listens"},
		{"203.0.113.53:443", nil, nil, ""},
		{"[64:ff9b::cb00:7135]:53", ErrAddress, ErrAddress, "listens"},
		{"192.0.2.50:8443", ErrAddress, ErrAddress, "this node"},     // where a wildcard listens
		{"192.0.2.50:2222", ErrAddress, nil, "address of this node"}, // where somebody else does
		{"[64:ff9b::c000:232]:2222", ErrAddress, nil, "address of this node"},
		{"10.1.9.9:443", ErrAddress, nil, "outside of what the tenant may"}, // fabrikam's network
		{"[64:ff9b::a01:909]:443", ErrAddress, nil, "outside of what the tenant may"},
		{"10.1.1.4:443", ErrAddress, ErrAddress, "it is "}, // an endpoint's
		{"[64:ff9b::a01:104]:443", ErrAddress, ErrAddress, "it is "},
		{"10.200.0.9:443", ErrAddress, ErrAddress, "it is "}, // a pool's
	}
	for _, tt := range tests {
		t.Run(tt.target, func(t *testing.T) {
			w := connected(t, func(c *Config) { c.Own, c.Local = own, local })
			pool := link.Network{ID: subOp + "/rg/pool", Prefixes: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/16")}, Pools: []netip.Prefix{netip.MustParsePrefix("10.200.0.0/24")}}
			w.ok(w.putNetworkAs(op(Owner, subOp), pool))
			for _, who := range []struct {
				sub string
				err error
			}{{subC, tt.err}, {subOp, tt.op}} {
				v := service(link.ID(who.sub + "/rg/t"))
				v.Targets = []link.Target{{Addr: netip.MustParseAddrPort(tt.target)}}
				before := w.state()
				_, err := w.putServiceAs(op(Owner, who.sub), v)
				if who.err == nil {
					if err != nil {
						t.Errorf("%s: %v", who.sub, err)
					}
					continue
				}
				w.refused(before, err, who.err)
				if !errors.Is(err, link.ErrInvalid) || who.err == ErrAddress && !strings.Contains(err.Error(), tt.why) {
					t.Errorf("%s: %v, want %q", who.sub, err, tt.why)
				}
			}
		})
	}
}

// TestPorts is A22: a tenant's service takes no port that this machine needs for something else, and what
// the data plane listens on for endpoints is shared.
func TestPorts(t *testing.T) {
	listens := func(all ...string) func() (found []netip.AddrPort) {
		return func() (found []netip.AddrPort) {
			for _, a := range all {
				found = append(found, netip.MustParseAddrPort(a))
			}
			return found
		}
	}
	type spot struct {
		protocol link.Protocol
		port     uint16
	}
	tests := map[spot]string{
		{"", 443}: "", {"", 8443}: "", {"", 22}: "SSH", {"", 53}: "DNS", {"", 2379}: "the state", {"", 2380}: "the state",
		{"", 18443}: "this node listens", {"", 9153}: "this node listens", {"", 6053}: "this node listens", {"", 7001}: "", {"", 853}: "", {"", 68}: "",
		{"udp", 443}: "", {"udp", 22}: "", {"udp", 18443}: "", {"udp", 53}: "DNS", {"udp", 68}: "DHCP", {"udp", 853}: "this node listens",
	}
	for at, why := range tests {
		port := at.port
		t.Run(at.protocol.String()+" "+strconv.Itoa(int(port)), func(t *testing.T) {
			w := furnished(t, func(c *Config) {
				c.Own = listens("10.50.0.1:18443", "127.0.0.1:9153", "[::]:6053", "0.0.0.0:7001", "10.1.1.4:7001")
				c.Plane = listens("0.0.0.0:7001", "10.1.1.4:7001")
				c.OwnUDP = listens("[::]:853")()
			})
			v := service(subC + "/rg/port")
			v.Port, v.Protocol = port, at.protocol
			before := w.state()
			if _, err := w.putServiceAs(op(Owner, subC), v); why == "" {
				if err != nil {
					t.Error(err)
				}
			} else {
				w.refused(before, err, ErrAddress)
				if !errors.Is(err, link.ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprintf("port %d: ", port)) || !strings.Contains(err.Error(), why) {
					t.Errorf("got %v, want %q", err, why)
				}
			}
			v.ID = subOp + "/rg/port"
			if _, err := w.putServiceAs(op(Owner, subOp), v); err != nil {
				t.Errorf("the operator: %v", err)
			}
		})
	}
}

// A service goes on with the port that it has, whatever has come to listen on it.
func TestPortStays(t *testing.T) {
	var own []netip.AddrPort
	w := furnished(t, func(c *Config) { c.Own = func() []netip.AddrPort { return own } })
	w.clock.advance(ownEvery)
	v := *w.state().Service(svcC)
	own = []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("10.50.0.1"), v.Port), netip.MustParseAddrPort("10.50.0.1:9443")}
	v.Strict = !v.Strict
	w.ok(w.putServiceAs(op(Owner, subC), v))
	before := w.state()
	v.Port = 9443
	_, err := w.putServiceAs(op(Owner, subC), v)
	w.refused(before, err, ErrAddress)
}

// TestNATAddresses: those of others are no source address.
func TestNATAddresses(t *testing.T) {
	for addr, want := range map[string]error{
		"203.0.113.7": nil, "127.7.0.1": nil, "127.0.0.1": ErrAddress, "10.1.1.4": ErrAddress, "10.1.50.1": ErrAddress, "169.254.1.1": ErrAddress,
	} {
		t.Run(addr, func(t *testing.T) {
			w := connected(t)
			v := service(svcC)
			v.NAT = []netip.Addr{netip.MustParseAddr(addr)}
			if _, err := w.putServiceAs(op(Owner, subC), v); !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("got %v, want %v", err, want)
			}
		})
	}
}

// TestNetworks: which prefixes a tenant's network may have.
func TestNetworks(t *testing.T) {
	tests := map[string]struct {
		sub, prefix string
		err         error
	}{
		"within what was given":           {subF, "10.9.0.0/16", nil},
		"outside of what was given":       {subF, "192.168.0.0/16", ErrAddress},
		"more than what was given":        {subF, "0.0.0.0/0", ErrAddress},
		"nothing was given":               {subC, "192.168.0.0/16", nil},
		"loopback":                        {subC, "127.0.0.0/8", ErrAddress},
		"around loopback":                 {subC, "0.0.0.0/0", ErrAddress},
		"loopback of the operator":        {subOp, "127.0.0.0/8", nil},
		"link-local":                      {subC, "169.254.0.0/16", ErrAddress},
		"multicast":                       {subC, "ff00::/8", ErrAddress},
		"IPv4 through NAT64":              {subC, "64:ff9b::/96", ErrAddress},
		"another tenant's":                {subC, "10.1.0.0/16", link.ErrConflict},
		"part of another tenant's":        {subC, "10.1.2.0/24", link.ErrConflict},
		"around another tenant's":         {subOp, "10.0.0.0/8", link.ErrConflict},
		"another tenant's, the operator":  {subOp, "10.1.0.0/16", link.ErrConflict},
		"in the resource group of a file": {"", "10.8.0.0/16", link.ErrConflict},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := furnished(t)
			before := w.state()
			id, who := link.ID(tt.sub+"/rg/new"), op(Owner, tt.sub)
			if tt.sub == "" {
				id, who = "new", op(Owner, subOp)
			}
			_, err := w.putNetworkAs(who, link.Network{ID: id, Prefixes: []netip.Prefix{netip.MustParsePrefix(tt.prefix)}})
			if tt.err == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			w.refused(before, err, tt.err)
			if strings.Contains(err.Error(), "fabrikam") || strings.Contains(err.Error(), string(netF)) {
				t.Errorf("it says whose it is: %v", err)
			}
		})
	}
}

// TestOwnAddressesAreNoEndpoints: an endpoint's address isn't one that the node listens on.
func TestOwnAddressesAreNoEndpoints(t *testing.T) {
	w := furnished(t, func(c *Config) {
		c.Own = func() []netip.AddrPort {
			return []netip.AddrPort{netip.MustParseAddrPort("10.1.1.4:53"), netip.MustParseAddrPort("10.1.1.5:8443")}
		}
	})
	w.ok(w.ask(op(Owner, subF), endF, manual()))
	if a := w.state().Endpoint(endF).Address; a != netip.MustParseAddr("10.1.1.6") {
		t.Errorf("it got %s", a)
	}
	a := manual()
	a.Endpoint.Address = netip.MustParseAddr("10.1.1.5")
	before := w.state()
	_, err := w.ask(op(Owner, subF), subF+"/rg/static", a)
	w.refused(before, err, ErrAddress)
}

// TestEgress is A08: what the consumer's network may not reach isn't shown to the provider.
func TestEgress(t *testing.T) {
	tests := map[string]struct {
		egress  func(v *link.Service) []string
		visible bool
		err     error
	}{
		"none: own tenant only":            {func(*link.Service) []string { return nil }, true, ErrEgress},
		"anything":                         {func(*link.Service) []string { return []string{"*"} }, true, nil},
		"the tenant":                       {func(*link.Service) []string { return []string{"tenant/contoso"} }, true, nil},
		"another tenant":                   {func(*link.Service) []string { return []string{"tenant/fabrikam"} }, true, ErrEgress},
		"the service":                      {func(*link.Service) []string { return []string{string(svcC)} }, true, nil},
		"the alias":                        {func(v *link.Service) []string { return []string{v.Alias} }, true, nil},
		"another service":                  {func(*link.Service) []string { return []string{string(other)} }, true, ErrEgress},
		"not listed, and invisible anyway": {func(*link.Service) []string { return nil }, false, ErrNoService},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := furnished(t)
			n := network(netF, "1")
			n.Egress = tt.egress(w.state().Service(svcC))
			w.ok(w.putNetworkAs(op(Owner, subF), n))
			if !tt.visible {
				v := service(svcC)
				v.Visible = nil
				w.ok(w.putServiceAs(op(Owner, subC), v))
			}
			before := w.state()
			_, err := w.ask(op(Owner, subF), endF, manual())
			if tt.err == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			w.refused(before, err, tt.err)
			for _, e := range w.audit(before.Revision() + 1) {
				if len(e.Scopes) != 1 || e.Scopes[0] != subF {
					t.Errorf("the provider can read %+v", e)
				}
			}
		})
	}
}

// TestEgressAfterwards: a list that became shorter stands against asking again.
func TestEgressAfterwards(t *testing.T) {
	w := connected(t)
	w.ok(w.Disconnect(t.Context(), op(Approver, subC), decision("")))
	n := network(netF, "1")
	n.Egress = nil
	w.ok(w.putNetworkAs(op(Owner, subF), n))
	before := w.state()
	_, err := w.AskAgain(t.Context(), op(Owner, subF), endF, "")
	w.refused(before, err, ErrEgress)
}

// TestWidening is A19: what was approved was approved as it was.
func TestWidening(t *testing.T) {
	wider := func(v *link.Service) { v.Targets[0].Addr = netip.MustParseAddrPort("203.0.113.10:443") }
	tests := map[string]struct {
		role    Role
		lasting bool
		change  func(*link.Service)
		state   link.State
	}{
		"another target":                          {Provider, false, wider, link.Pending},
		"another target, by one who may approve":  {Owner, false, wider, link.Approved},
		"another target, allowed by the approver": {Provider, true, wider, link.Approved},
		"another port":                            {Provider, false, func(v *link.Service) { v.Port = 8443 }, link.Pending},
		"another name": {Provider, false, func(v *link.Service) {
			v.Names = []link.ResourceName{{Public: "db.contoso.example"}}
		}, link.Pending},
		"nothing that matters": {Provider, false, func(v *link.Service) { v.MaxConnections = 7 }, link.Approved},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := connected(t)
			d := decision(link.Approved)
			d.Lasting = tt.lasting
			w.ok(w.Decide(t.Context(), op(Approver, subC), d))
			v := service(svcC)
			tt.change(&v)
			w.ok(w.putServiceAs(op(tt.role, subC), v))
			if k := w.connection(endF); k.State != tt.state {
				t.Errorf("%+v, want %s", k, tt.state)
			}
		})
	}
}

// TestBalancerRetargets: a load balancer takes its services along, under the rules of both.
func TestBalancerRetargets(t *testing.T) {
	edit := func(target string, ids ...link.ID) func(*link.Snapshot, *link.Document) (*link.Document, []link.Service, error) {
		return func(s *link.Snapshot, _ *link.Document) (*link.Document, []link.Service, error) {
			var all []link.Service
			for _, id := range ids {
				v := *s.Service(id)
				v.Targets = []link.Target{{Addr: netip.MustParseAddrPort(target)}}
				all = append(all, v)
			}
			return &link.Document{Facet: link.Facet{API: []byte(`{"n":1}`)}}, all, nil
		}
	}
	w := furnished(t)
	w.ok(w.putServiceAs(op(Owner, subC2), service(subC2+"/rg/theirs")))
	const lb = subC + "/rg/lb"
	before := w.state()
	_, err := w.EditBalancer(t.Context(), op(Provider, subC), lb, edit("127.0.0.1:443", svcC))
	w.refused(before, err, ErrAddress)
	_, err = w.EditBalancer(t.Context(), op(Provider, subC), lb, edit("203.0.113.20:443", svcC, subC2+"/rg/theirs"))
	w.refused(before, err, ErrReference)
	w.ok(w.EditBalancer(t.Context(), op(Provider, subC), lb, edit("203.0.113.20:443", svcC)))
	s := w.state()
	if s.Service(svcC).Targets[0].Addr.Addr() != netip.MustParseAddr("203.0.113.20") || s.Document(Balancer, lb) == nil {
		t.Errorf("%+v", s.Service(svcC).Targets)
	}
	w.ok(w.EditBalancer(t.Context(), op(Provider, subC), lb, func(*link.Snapshot, *link.Document) (*link.Document, []link.Service, error) { return nil, nil, nil }))
	if w.state().Document(Balancer, lb) != nil {
		t.Error("it is there still")
	}
}

// TestDeletingServices is A18: blockers are listed, force makes them Disconnected.
func TestDeletingServices(t *testing.T) {
	w := connected(t)
	before := w.state()
	_, err := w.EditService(t.Context(), op(Provider, subC), svcC, func(*link.Snapshot, *link.Service) (*link.Service, error) { return nil, nil })
	w.refused(before, err, ErrInUse)
	var used *InUseError
	if !errors.As(err, &used) || used.N != 1 || used.By[0] != "endpoint "+string(endF) {
		t.Errorf("%+v", used)
	}
	w.ok(w.ForceDeleteService(t.Context(), op(Provider, subC), svcC, func(*link.Snapshot, *link.Service) error { return nil }))
	if k := w.connection(endF); k.State != link.Disconnected || w.state().Service(svcC) != nil {
		t.Errorf("%+v", k)
	}
	if n := len(w.audit(before.Revision() + 1)); n != 1 {
		t.Errorf("%d entries", n)
	}
	// What it left behind can be written and deleted.
	a := manual()
	w.ok(w.ask(op(Owner, subF), endF, a))
	_, err = w.EditNetwork(t.Context(), op(Owner, subF), netF, func(*link.Snapshot, *link.Network) (*link.Network, error) { return nil, nil })
	if !errors.Is(err, ErrInUse) {
		t.Errorf("network with an endpoint: %v", err)
	}
	w.ok(w.EditEndpoint(t.Context(), op(Owner, subF), endF, func(*link.Snapshot, *link.Endpoint) (*Ask, error) { return nil, nil }))
	w.ok(w.EditNetwork(t.Context(), op(Owner, subF), netF, func(*link.Snapshot, *link.Network) (*link.Network, error) { return nil, nil }))
}
