package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-link/postern/link"
)

// EditEndpoint asks for an endpoint, changes one, or deletes it. What stands, its state and address among
// it, is never changed by asking again.
func (c *Control) EditEndpoint(ctx context.Context, op Op, id link.ID, edit func(s *link.Snapshot, old *link.Endpoint) (*Ask, error)) (Result, error) {
	r, err := c.change(ctx, op, write{
		action: "endpoint.write", object: object(link.KindEndpoint, id),
		subscription: c.SubscriptionOf(id), right: Connect,
		decide: func(s *link.Snapshot, at time.Time) (verdict, error) {
			ask, err := edit(s, s.Endpoint(id))
			switch {
			case err != nil:
				return verdict{}, err
			case ask == nil:
				return c.deleteEndpoint(s, id)
			}
			return c.putEndpoint(s, at, op.Caller, id, *ask)
		},
	})
	c.sought(op.Caller, err)
	return r, err
}

func (c *Control) deleteEndpoint(s *link.Snapshot, id link.ID) (verdict, error) {
	v := verdict{action: "endpoint.delete"}
	old := s.Endpoint(id)
	if old == nil {
		return v, nil
	}
	v.scopes = []string{c.SubscriptionOf(old.Service)}
	v.changes = []link.Change{link.DeleteEndpoint{ID: id}}
	return v, nil
}

// putEndpoint decides on an endpoint as it is asked for.
func (c *Control) putEndpoint(s *link.Snapshot, at time.Time, caller Caller, id link.ID, ask Ask) (verdict, error) {
	v := verdict{action: "endpoint.put"}
	if err := checkText("request message", ask.Message, maxMessage); err != nil {
		return v, err
	}
	e, old := ask.Endpoint, s.Endpoint(id)
	e.ID, e.Tenant, e.Origin, e.Connection = id, c.owner(c.SubscriptionOf(id)).Name, link.Origin{}, link.Connection{}
	if err := c.mayUseZones(s, caller, old, &e); err != nil {
		return v, err
	}
	if old != nil {
		return c.alterEndpoint(s, caller, v, old, e, ask)
	}
	if err := ofAPI(link.KindEndpoint, id); err != nil {
		return v, err
	}
	v.created, e.UID = true, newUID(e.UID)
	n, err := c.networkFor(s, caller, &e)
	if err != nil {
		return v, err
	}
	service, err := c.serviceFor(s, caller, n, e.Service, ask.Alias)
	if err != nil {
		return v, err
	}
	e.Service = service.ID
	v.scopes = []string{c.SubscriptionOf(service.ID)}
	in := s.CountIn(n.ID)
	if err := v.near.take(fill{"endpoints_per_network", "endpoints of a network", n.ID, in, in + 1, c.config.Limits.EndpointsPerNetwork}); err != nil {
		return v, err
	}
	return c.request(s, at, caller, v, e, service, ask)
}

// alterEndpoint decides on an endpoint that is there. The service may be named in either way, and need
// not be there any more.
func (c *Control) alterEndpoint(s *link.Snapshot, caller Caller, v verdict, old *link.Endpoint, e link.Endpoint, ask Ask) (verdict, error) {
	if ask.Alias != "" {
		e.Service = old.Service
		if now := s.Service(old.Service); now != nil && s.ServiceByAlias(ask.Alias) != now {
			other, err := c.serviceFor(s, caller, s.Network(old.Network), "", ask.Alias)
			if err != nil {
				return v, err
			}
			e.Service = other.ID // refused there: it never changes
		}
	}
	v.scopes = []string{c.SubscriptionOf(old.Service)}
	v.changes = []link.Change{link.PutEndpoint{Endpoint: e}}
	return v, nil
}

// networkFor returns the network that an endpoint shall be in, if the caller may have endpoints there.
func (c *Control) networkFor(s *link.Snapshot, caller Caller, e *link.Endpoint) (*link.Network, error) {
	if err := c.MayRefer(caller, link.KindNetwork, e.Network, Connect); err != nil {
		return nil, err
	}
	n := s.Network(e.Network)
	if n == nil {
		return nil, fmt.Errorf("%w: network %s", ErrReference, e.Network)
	}
	if e.Subnet != "" && !slices.ContainsFunc(n.Subnets, func(sub link.Subnet) bool { return sub.Name == e.Subnet }) {
		return nil, fmt.Errorf("%w: subnet %s of network %s", ErrReference, e.Subnet, e.Network)
	}
	return n, nil
}

// mayUseZones returns nil where the caller may have an endpoint's names in the private zones of its group
// that weren't in it before.
func (c *Control) mayUseZones(s *link.Snapshot, caller Caller, old, e *link.Endpoint) error {
	if e.Zones == nil {
		return nil
	}
	for _, z := range e.Zones.Configs {
		had := func(o link.ZoneConfig) bool { return o.Zone == z.Zone }
		if old != nil && old.Zones != nil && slices.ContainsFunc(old.Zones.Configs, had) {
			continue
		}
		if err := c.MayRefer(caller, link.KindZone, z.Zone, Connect); err != nil {
			return err
		}
		if s.Zone(z.Zone) == nil {
			return fmt.Errorf("%w: zone %s", ErrReference, z.Zone)
		}
	}
	return nil
}

// requestLimits returns a [*LimitError] where a request is more than a service or consumer may have.
// waits says that it will be Pending.
func (c *Control) requestLimits(s *link.Snapshot, near *fills, tenant string, service link.ID, waits bool) error {
	of, resting := s.CountOf(service), s.Resting(tenant)
	// Each request takes a link ID, which rests when it ends: one that is asked for and deleted over and over.
	if err := near.take(fill{"resting_link_ids", "link IDs of a tenant at rest", link.ID(tenant), resting, resting + 1, c.config.Limits.RestingLinkIDs}); err != nil {
		return err
	}
	if err := near.take(fill{"endpoints_per_service", "endpoints of a service", service, of, of + 1, c.config.Limits.EndpointsPerService}); err != nil || !waits {
		return err
	}
	return c.pendingLimit(s, near, tenant, service)
}

// pendingLimit returns a [*LimitError] where one more request that waits is more than a consumer may have.
func (c *Control) pendingLimit(s *link.Snapshot, near *fills, tenant string, service link.ID) error {
	waiting := s.PendingOf(service, tenant)
	return near.take(fill{"pending", "pending requests of a consumer", service, waiting, waiting + 1, c.config.Limits.PendingPerConsumer})
}

// request decides on the state of a new endpoint. Without a word about the decision, whoever asks must be
// one who may decide, or the lists of the service must: nothing is left for the provider to see then.
func (c *Control) request(s *link.Snapshot, at time.Time, caller Caller, v verdict, e link.Endpoint, service *link.Service, ask Ask) (verdict, error) {
	put := link.PutEndpoint{Endpoint: e, Message: ask.Message, Sees: c.sees(caller, service.ID)}
	if !ask.Manual {
		put.Approver = c.approver(caller, service.ID)
	}
	after, err := c.tryRequest(s, at, &put)
	if err != nil {
		return v, err
	}
	k := after.Endpoint(e.ID).Connection
	if !ask.Manual && put.Approver == "" && k.Decision.Rule == "" {
		return v, fmt.Errorf("%w: %s may not approve connections of service %s: ask for a decision (a manual connection)",
			ErrLinkedForbidden, caller.Name, service.ID)
	}
	if err := c.requestLimits(s, &v.near, e.Tenant, service.ID, k.State == link.Pending); err != nil {
		return v, err
	}
	v.changes = []link.Change{put}
	return v, nil
}

// tryRequest applies a request. An address that is given out must not be one that this node listens on
// itself: then the next one is taken.
func (c *Control) tryRequest(s *link.Snapshot, at time.Time, put *link.PutEndpoint) (*link.Snapshot, error) {
	given := put.Endpoint.Address.IsValid()
	for range 64 {
		after, _, err := s.Apply(at, *put)
		if err != nil {
			return nil, mapped(err)
		}
		a := after.Endpoint(put.Endpoint.ID).Address
		if !c.listens(a) {
			return after, nil
		}
		if given {
			return nil, fmt.Errorf("%w: %w: address %s: this node listens there itself", link.ErrTaken, ErrAddress, a)
		}
		if put.Endpoint.Address, err = c.nextAddress(s, at, *put, a); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: every address that is free is one that this node listens on", link.ErrExhausted)
}

// nextAddress returns a free address behind a.
func (c *Control) nextAddress(s *link.Snapshot, at time.Time, put link.PutEndpoint, a netip.Addr) (netip.Addr, error) {
	for range 1024 {
		a = a.Next()
		put.Endpoint.Address = a
		if _, _, err := s.Apply(at, put); err == nil {
			return a, nil
		} else if !errors.Is(err, link.ErrTaken) && !errors.Is(err, link.ErrReserved) {
			return a, mapped(err)
		}
	}
	return a, fmt.Errorf("%w: no address is free behind those that this node listens on", link.ErrExhausted)
}

// AskAgain makes the Disconnected connection of an endpoint a new request.
func (c *Control) AskAgain(ctx context.Context, op Op, endpoint link.ID, message string) (Result, error) {
	r, err := c.change(ctx, op, write{
		action: "endpoint.ask-again", object: object(link.KindEndpoint, endpoint),
		subscription: c.SubscriptionOf(endpoint), right: Connect,
		decide: func(s *link.Snapshot, _ time.Time) (verdict, error) {
			if err := checkText("request message", message, maxMessage); err != nil {
				return verdict{}, err
			}
			e := s.Endpoint(endpoint)
			if e == nil || e.Connection.State != link.Disconnected {
				return verdict{changes: []link.Change{link.AskAgain{Endpoint: endpoint, Message: message}}}, nil // refused there
			}
			n := s.Network(e.Network)
			service, err := c.serviceFor(s, op.Caller, n, e.Service, "")
			if err != nil {
				return verdict{}, err
			}
			var near fills
			if err := c.requestLimits(s, &near, e.Tenant, service.ID, true); err != nil {
				return verdict{}, err
			}
			return verdict{
				changes: []link.Change{link.AskAgain{Endpoint: endpoint, Message: message, Sees: c.sees(op.Caller, service.ID)}},
				scopes:  []string{c.SubscriptionOf(service.ID)},
				near:    near,
			}, nil
		},
	})
	c.sought(op.Caller, err)
	return r, err
}
