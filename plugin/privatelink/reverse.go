package privatelink

import (
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// reverse returns the records of the reverse name of an endpoint's address, nil where it is none of
// the network: its reverse zone belongs to others.
func (p *Privatelink) reverse(g *generation, network link.ID, asked []byte) *set {
	addr, ok := link.ParseReverse(asked)
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
	target := v.HostName()
	if target == "" {
		return nil
	}
	ptr := &dns.PTR{Hdr: header(string(asked)+".", dns.TypePTR, g.ttl), Ptr: string(target) + "."}
	own := []dns.RR{soa(link.Name(asked), g.serial)}
	return &set{soa: own, other: map[uint16][]dns.RR{dns.TypePTR: {ptr}, dns.TypeSOA: own}}
}
