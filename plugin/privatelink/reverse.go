package privatelink

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// reverse returns the records of the reverse name of an endpoint's address, nil where it is none of
// the network: its reverse zone belongs to others.
func (p *Privatelink) reverse(g *generation, network link.ID, asked []byte) *set {
	addr, ok := reverseAddr(asked)
	if !ok {
		return nil
	}
	e := g.snapshot.EndpointAt(addr)
	if e == nil || e.Network != network || !e.Connection.Live() || !p.Published(e.Service) {
		return nil
	}
	v := g.snapshot.Service(e.Service)
	if v == nil {
		return nil
	}
	for _, n := range v.Names {
		target := n.Private
		if target == "" {
			target = n.Public
		}
		if strings.HasPrefix(string(target), "*") {
			continue
		}
		ptr := &dns.PTR{Hdr: header(string(asked)+".", dns.TypePTR, g.ttl), Ptr: string(target) + "."}
		own := []dns.RR{soa(link.Name(asked), g.serial)}
		return &set{soa: own, other: map[uint16][]dns.RR{dns.TypePTR: {ptr}, dns.TypeSOA: own}}
	}
	return nil
}

// reverseAddr returns the address of a whole reverse name in canonical form (RFC 1035 section 3.5,
// RFC 3596 section 2.5).
func reverseAddr(asked []byte) (netip.Addr, bool) {
	if rest, ok := bytes.CutSuffix(asked, []byte(".in-addr.arpa")); ok {
		var b [4]byte
		labels := strings.Split(string(rest), ".")
		if len(labels) != len(b) {
			return netip.Addr{}, false
		}
		for i, l := range labels {
			n, err := strconv.ParseUint(l, 10, 8)
			if err != nil || strconv.FormatUint(n, 10) != l {
				return netip.Addr{}, false
			}
			b[3-i] = byte(n)
		}
		return netip.AddrFrom4(b), true
	}
	rest, ok := bytes.CutSuffix(asked, []byte(".ip6.arpa"))
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		n, err := strconv.ParseUint(string(rest[2*i:2*i+1]), 16, 4)
		if err != nil || i < 31 && rest[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}
