package privatelink

import (
	"iter"
	"net"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// view is the network that a query comes from.
type view struct {
	network link.ID
	site    string // of the network that the client is at, "" for none
	found   bool
	// absent: the server block names a network that the state doesn't have, so that nobody knows what
	// is private here. During a reload that declares the network, new servers begin before the state
	// follows.
	absent bool
	// ecs is the client subnet that a trusted resolver sent, with the scope of the answer (RFC 7871
	// section 7.2.1); nil where there is none.
	ecs   *dns.EDNS0_SUBNET
	parts bool // of the client subnet have other views
}

// viewOf finds the view: the one of the server block, else by the client subnet of a trusted
// resolver, else by the client's address. A zone transfer has no view by the subnet: who may have one is named by its
// own address, and gets the zone of its own network.
func (p *Privatelink) viewOf(g *generation, w dns.ResponseWriter, r *dns.Msg) view {
	client := clientOf(w)
	if p.network != "" {
		if n := g.snapshot.Network(p.network); n != nil {
			return viewIn(n, client)
		}
		return view{network: p.network, absent: true}
	}
	qtype := r.Question[0].Qtype
	if len(p.ecsFrom) > 0 && !isTransfer(qtype) && slices.ContainsFunc(p.ecsFrom, func(t netip.Prefix) bool { return t.Contains(client) }) {
		if ecs := subnetOf(r); ecs != nil {
			return g.viewOfSubnet(ecs)
		}
	}
	if n := g.snapshot.NetworkOf(client); n != nil {
		return viewIn(n, client)
	}
	return view{}
}

// viewIn returns the view of a client of a network.
func viewIn(n *link.Network, client netip.Addr) view {
	return view{network: n.ID, site: n.Sites.Of(client), found: true}
}

// clientOf returns the address that the query came from, the zero Addr where there is none.
func clientOf(w dns.ResponseWriter) netip.Addr {
	remote := w.RemoteAddr()
	if u, ok := remote.(interface{ Unwrap() net.Addr }); ok { // the proxyproto plugin's
		if inner := u.Unwrap(); inner != nil {
			remote = inner
		}
	}
	var ip net.IP
	switch a := remote.(type) {
	case *net.UDPAddr:
		ip = a.IP
	case *net.TCPAddr:
		ip = a.IP
	default:
		if remote == nil {
			return netip.Addr{}
		}
		ap, _ := netip.ParseAddrPort(remote.String())
		return ap.Addr().WithZone("").Unmap()
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

// subnetOf returns the client subnet option of a query, nil where there is none.
func subnetOf(r *dns.Msg) *dns.EDNS0_SUBNET {
	if o := r.IsEdns0(); o != nil {
		for _, option := range o.Option {
			if ecs, ok := option.(*dns.EDNS0_SUBNET); ok {
				return ecs
			}
		}
	}
	return nil
}

// viewOfSubnet returns the view of a client subnet. The scope of the answer is the whole subnet, also
// where no network has it: the resolver must not give its clients of a network what it was told for
// others. Where a part of the subnet has another view, the scope is as long as it takes to tell that. A subnet of length 0 says nothing, and has the scope 0.
func (g *generation) viewOfSubnet(asked *dns.EDNS0_SUBNET) view {
	ecs := *asked
	ecs.SourceScope = ecs.SourceNetmask
	v := view{ecs: &ecs}
	addr, ok := netip.AddrFromSlice(ecs.Address)
	if ecs.Family == 1 {
		addr = addr.Unmap()
	}
	subnet, err := addr.Prefix(int(ecs.SourceNetmask))
	if !ok || err != nil || ecs.SourceNetmask == 0 || addr.Is4In6() {
		return v
	}
	longest := 0
	if n := g.networkOf(subnet); n == nil {
		longest = g.longest(subnet)
	} else if v.network, v.site, v.found = n.ID, n.Sites.OfAll(subnet), true; v.site == "" {
		longest = n.Sites.Longest(subnet)
	}
	if longest > int(ecs.SourceScope) {
		ecs.SourceScope, v.parts = uint8(longest), true
	}
	return v
}

// networkOf returns the network that all addresses of a subnet belong to, nil where there is none.
func (g *generation) networkOf(subnet netip.Prefix) *link.Network {
	n := g.snapshot.NetworkOf(subnet.Addr())
	if n == nil || !slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool {
		return p.Bits() <= subnet.Bits() && p.Contains(subnet.Addr())
	}) {
		return nil
	}
	for p := range g.within(subnet) {
		if !slices.Contains(n.Prefixes, p) { // a narrower one, which may be another network's
			return nil
		}
	}
	return n
}

// within yields the client prefixes of networks in a subnet.
func (g *generation) within(subnet netip.Prefix) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		all := g.prefixes()
		i, _ := slices.BinarySearchFunc(all, subnet, netip.Prefix.Compare)
		for ; i < len(all) && subnet.Contains(all[i].Addr()); i++ {
			if !yield(all[i]) {
				return
			}
		}
	}
}

// maxWithin is how many client prefixes of a subnet are looked at.
const maxWithin = 1024

// longest returns how many bits the longest client prefix in a subnet has, 0 where there is none; those of a whole address where there are too many to look at.
func (g *generation) longest(subnet netip.Prefix) (bits int) {
	seen := 0
	for p := range g.within(subnet) {
		if seen++; seen > maxWithin {
			return p.Addr().BitLen()
		}
		bits = max(bits, p.Bits())
	}
	return bits
}
