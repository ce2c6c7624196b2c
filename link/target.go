package link

import (
	"fmt"
	"net/netip"
	"slices"
)

// Ground is what a node knows of itself, for the rules about targets. The zero Ground knows nothing: then
// no address is the node's own.
type Ground struct {
	// Listeners are those of this process that no flow may end at: DNS, API, metrics.
	Listeners []netip.AddrPort
	// Local reports whether an address is one of this machine's; nil: none is known to be. Loopback
	// needs no telling.
	Local func(netip.Addr) bool
}

// Why a target is refused, where others than the operator must not learn which of them it is.
const (
	TargetIsEndpoint  = "it is an endpoint's address"
	TargetIsPool      = "it is in a pool of endpoint addresses"
	TargetIsForeign   = "it is in the network of another tenant"
	TargetIsLocal     = "it is an address of this node"
	TargetIsListening = "this node listens there itself"
	TargetIsAnothers  = "it is the backend of another tenant"
	TargetIsOutside   = "it is outside of what the names of targets may lead to"
)

// special are addresses that tenants have no backends at, with the word for each. What is in notForHosts
// nobody has.
var special = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this host"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local, with the metadata service of clouds"},
	{netip.MustParsePrefix("168.63.129.16/32"), "the platform address of Azure"},
	{netip.MustParsePrefix("100.100.100.200/32"), "the metadata service of Alibaba Cloud"},
	{netip.MustParsePrefix("192.0.0.192/32"), "the metadata service of Oracle Cloud"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved, with broadcast"},
	{netip.MustParsePrefix("::/128"), "this host"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fd00:ec2::254/128"), "the metadata service of AWS"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// statePorts are those of the store of several nodes.
var statePorts = [...]uint16{2379, 2380}

// Refuses returns the rule by which the bytes of a service may not go to a target, "" where they may
// (A21, A22). It is asked when a service is written, when a target is chosen, and with the very address that
// the kernel is about to connect to. Each form that an address may be taken for counts ([Forms]), but in the
// row of 0/8 for who may have the address.
//
//	the target is                                         of the operator   of a tenant   granted to it
//	no address, with a zone, port 0                       refused           refused       refused
//	an endpoint's address, in a pool of them              refused           refused       refused
//	where this process listens: DNS, API, metrics         refused           refused       refused
//	0/8 ::, link-local, multicast, reserved, broadcast    refused           refused       refused
//	loopback, a metadata or platform address              allowed           refused       allowed
//	in the network of another tenant                      allowed           refused       allowed
//	an address of this machine, a port of etcd            allowed           refused       allowed
//	anything else                                         allowed           allowed       allowed
//
// A service is the operator's where it has no tenant; Reach is what its tenant was granted. That a backend
// is another tenant's is said once, when it is written: [Snapshot.BackendOfAnother].
//
// What the service has names for and doesn't list was found by a name, and who holds the name says where it leads. It is
// judged as a tenant's even where the service is the operator's, unless it lies in [Service.Within], outside of which nothing
// may lie where that is set; and that a backend is another tenant's is said each time.
func (s *Snapshot) Refuses(v *Service, target netip.AddrPort, g Ground) string {
	found := len(v.TargetNames) > 0 && !v.Lists(target)
	if why := s.refusesAddress(v, target.Addr(), found); why != "" {
		return why
	}
	if target.Port() == 0 {
		return "port 0 is none"
	}
	forms := Forms(target.Addr())
	free := v.freeTo(forms[0], found)
	if found {
		if why := s.refusesFound(v, forms, free); why != "" {
			return why
		}
	}
	if !free && slices.Contains(statePorts[:], target.Port()) {
		return fmt.Sprintf("port %d is that of the state", target.Port())
	}
	if !free && g.Local != nil && slices.ContainsFunc(forms, g.Local) {
		return TargetIsLocal
	}
	for _, a := range forms {
		if g.Listens(netip.AddrPortFrom(a, target.Port())) {
			return TargetIsListening
		}
	}
	return ""
}

// Listens reports whether a connection to an address, which isn't IPv4-mapped, ends at one of the listeners.
func (g Ground) Listens(to netip.AddrPort) bool {
	return slices.ContainsFunc(g.Listeners, func(l netip.AddrPort) bool { return g.ends(l, to) })
}

// refusesFound is Refuses for what it says of addresses that a name leads to alone.
func (s *Snapshot) refusesFound(v *Service, forms []netip.Addr, free bool) string {
	if len(v.Within) > 0 && !v.within(forms[0]) {
		return TargetIsOutside
	}
	if !free && slices.ContainsFunc(forms, func(a netip.Addr) bool { return s.BackendOfAnother(v.Tenant, a) }) {
		return TargetIsAnothers
	}
	return ""
}

// RefusesAddress is Refuses for what it says of an address alone that is written down, which holds for NAT addresses too.
func (s *Snapshot) RefusesAddress(v *Service, a netip.Addr) string {
	return s.refusesAddress(v, a, false)
}

func (s *Snapshot) refusesAddress(v *Service, a netip.Addr, found bool) string {
	if !a.IsValid() || a.Zone() != "" {
		return "not an address"
	}
	free := v.freeTo(a.Unmap(), found)
	for i, a := range Forms(a) {
		if s.EndpointAt(a) != nil {
			return TargetIsEndpoint
		}
		if s.pooled(a) {
			return TargetIsPool
		}
		if free && (i > 0 || forHosts(a)) {
			continue // who maps other forms of it is for who may have it to know
		}
		for _, f := range special {
			if f.prefix.Contains(a) {
				return f.what
			}
		}
		if tenant, ok := s.clientOf(a); ok && tenant != v.Tenant && !free {
			return TargetIsForeign
		}
	}
	return ""
}

// ends reports whether a connection to t ends at the listener l.
func (g Ground) ends(l, t netip.AddrPort) bool {
	if l.Port() != t.Port() {
		return false
	}
	a := l.Addr().Unmap()
	if !a.IsUnspecified() {
		return a == t.Addr()
	}
	return t.Addr().IsLoopback() || g.Local != nil && g.Local(t.Addr())
}
