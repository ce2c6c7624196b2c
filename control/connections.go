package control

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/postern-link/postern/link"
)

// Decide approves or rejects a connection. Who sends the same decision again, because the first answer
// was lost, is told that it is so, whatever If says (RFC 9110 section 13.1.1).
func (c *Control) Decide(ctx context.Context, op Op, d Decision) (Result, error) {
	action := "connection.approve"
	if d.State == link.Rejected {
		action = "connection.reject"
	}
	return c.decide(ctx, op, d, action, func(e *link.Endpoint, by link.Decision) (link.Change, bool) {
		k := &e.Connection
		same := k.State == d.State && k.Decision.Actor == by.Actor && k.Decision.Reason == by.Reason && (k.Lasting || !d.Lasting || d.State == link.Rejected)
		return link.Decide{Endpoint: d.Endpoint, LinkID: k.LinkID, State: d.State, Lasting: d.Lasting, Decision: by}, same
	})
}

// Disconnect removes a connection for its provider. One that is removed already is no error.
func (c *Control) Disconnect(ctx context.Context, op Op, d Decision) (Result, error) {
	return c.decide(ctx, op, d, "connection.remove", func(e *link.Endpoint, by link.Decision) (link.Change, bool) {
		return link.Disconnect{Endpoint: d.Endpoint, LinkID: e.Connection.LinkID, Decision: by}, e.Connection.State == link.Disconnected
	})
}

// Suspend stops an Approved connection until [Control.Resume].
func (c *Control) Suspend(ctx context.Context, op Op, d Decision) (Result, error) {
	return c.decide(ctx, op, d, "connection.suspend", func(e *link.Endpoint, by link.Decision) (link.Change, bool) {
		return link.Suspend{Endpoint: d.Endpoint, LinkID: e.Connection.LinkID, Decision: by}, e.Connection.Suspended != nil
	})
}

// Resume undoes Suspend.
func (c *Control) Resume(ctx context.Context, op Op, d Decision) (Result, error) {
	return c.decide(ctx, op, d, "connection.resume", func(e *link.Endpoint, by link.Decision) (link.Change, bool) {
		return link.Resume{Endpoint: d.Endpoint, LinkID: e.Connection.LinkID, Decision: by}, false
	})
}

// decide is one decision on the connection between an endpoint and a service of the caller's. made says
// what to change of the connection as it is, and whether that is so already.
func (c *Control) decide(ctx context.Context, op Op, d Decision, action string, made func(*link.Endpoint, link.Decision) (link.Change, bool)) (Result, error) {
	// The right is asked in the subscription of the service: it is the provider's decision.
	sub := c.SubscriptionOf(d.Service)
	return c.change(ctx, op, write{
		action: action, object: object(link.KindEndpoint, d.Endpoint), subscription: sub, right: Approve,
		decide: func(s *link.Snapshot, _ time.Time) (verdict, error) {
			if err := checkText("reason", d.Reason, maxReason); err != nil {
				return verdict{}, err
			}
			e, err := c.connection(s, d)
			if err != nil || e == nil {
				return verdict{}, err
			}
			change, same := made(e, link.Decision{Actor: cmp.Or(op.Caller.Name, "unnamed"), Reason: d.Reason})
			if same {
				return verdict{}, nil
			}
			if e.Connection.State == link.Disconnected {
				return verdict{}, &link.ObjectError{Kind: link.KindEndpoint, ID: e.ID, Err: fmt.Errorf("%w: the connection is %s", link.ErrNotFound, link.Disconnected)}
			}
			if d.If != nil {
				if err := d.If(s, e); err != nil {
					return verdict{}, err
				}
			}
			return verdict{
				changes: []link.Change{change}, reason: d.Reason,
				scopes: []string{c.SubscriptionOf(e.ID), c.SubscriptionOf(e.Service)},
			}, nil
		},
	})
}

// connection returns the endpoint that a decision is about. What the caller's service isn't connected to
// isn't there; another link ID than the one that was looked at is [link.ErrStale].
func (c *Control) connection(s *link.Snapshot, d Decision) (*link.Endpoint, error) {
	e := s.Endpoint(d.Endpoint)
	if e == nil || e.Service != d.Service || s.Service(d.Service) == nil {
		return nil, &link.ObjectError{Kind: link.KindEndpoint, ID: d.Endpoint, Err: fmt.Errorf("%w: no connection to service %s", link.ErrNotFound, d.Service)}
	}
	if k := &e.Connection; d.LinkID != 0 && k.LinkID != d.LinkID {
		return nil, &link.ObjectError{Kind: link.KindEndpoint, ID: d.Endpoint, Err: fmt.Errorf("%w: the connection isn't the one with link ID %s any more", link.ErrStale, d.LinkID)}
	}
	return e, nil
}
