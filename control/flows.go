package control

import (
	"context"
	"iter"
	"net/netip"

	"github.com/postern-link/postern/link"
)

// Flows yields the live flows of this node whose endpoint or service is in the subscription. The provider
// isn't told the endpoint's address, nor the consumer the target's or, without a role there, the service's ID; a
// service whose targets get no PROXY header doesn't learn the client's address here either.
func (c *Control) Flows(ctx context.Context, caller Caller, subscription string) (iter.Seq[Flow], error) {
	sees, err := c.scopeOf(caller, subscription)
	if err != nil {
		return nil, err
	}
	return func(yield func(Flow) bool) {
		s := c.config.Snapshot()
		if c.config.Flows == nil || s == nil {
			return
		}
		for f := range c.config.Flows {
			if ctx.Err() != nil || (sees.holds(f.Endpoint) || sees.holds(f.Service)) && !yield(sees.flow(s, f)) {
				return
			}
		}
	}, nil
}

// flow returns what the scope may know of a flow that concerns it.
func (s scope) flow(snap *link.Snapshot, f Flow) Flow {
	service := f.Service
	if f.Service = s.service(snap, service); !s.holds(service) {
		f.Target = netip.AddrPort{}
	}
	if !s.holds(f.Endpoint) {
		f.Local = netip.AddrPort{}
		if v := snap.Service(service); v == nil || v.ProxyProtocol == link.ProxyOff {
			f.Source = netip.AddrPort{}
		}
	}
	return f
}
