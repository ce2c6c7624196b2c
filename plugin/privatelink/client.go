package privatelink

import (
	"context"
	"net/netip"

	"github.com/coredns/caddy"

	"github.com/postern-link/postern/link"
)

// Client is who a query is from that is passed on.
type Client struct {
	Network link.ID    // "" where it belongs to none
	Addr    netip.Addr // or the first address of the subnet that a trusted resolver sent
	// Snapshot is the one from which the query was found to be nobody's here.
	Snapshot *link.Snapshot
}

// clientKey is where the context of a query that is passed on has the query.
type clientKey struct{}

// telling returns the context for the next plugin.
func (p *Privatelink) telling(ctx context.Context, q *query) context.Context {
	if !p.Tells {
		return ctx
	}
	return context.WithValue(ctx, clientKey{}, q)
}

// ClientOf returns who a query is from. Ok is false where privatelink hasn't passed it on.
func ClientOf(ctx context.Context) (_ Client, ok bool) {
	q, ok := ctx.Value(clientKey{}).(*query)
	if !ok {
		return Client{}, false
	}
	c := Client{Network: q.view.network, Addr: clientOf(q.w), Snapshot: q.gen.snapshot}
	if ecs := q.view.ecs; ecs != nil && ecs.SourceNetmask > 0 {
		if a, ok := netip.AddrFromSlice(ecs.Address); ok {
			c.Addr = a.Unmap()
		}
	}
	return c, true
}

// inBlock is where a Caddy instance notes that a server block has the directive.
type inBlock int

// In reports whether the server block that c reads has the directive: for plugins whose setup runs after this one's.
func In(c *caddy.Controller) bool {
	in, _ := c.Get(inBlock(c.ServerBlockIndex)).(bool)
	return in
}
