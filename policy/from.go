package policy

import (
	"net/netip"
	"slices"

	"github.com/postern-link/postern/link"
)

// from reports whether a client is in one of the prefixes, or there are none. An IPv6 address that a gateway may
// have made of an IPv4 one ([link.Forms]) is nobody's IPv4 address where something is allowed by it; where
// something is denied, forms is set and it is both.
func from(sources []netip.Prefix, client netip.Addr, forms bool) bool {
	in := func(a netip.Addr) bool {
		return has1(sources, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return in(client) || forms && client.Is6() && slices.ContainsFunc(link.Forms(client), in)
}
