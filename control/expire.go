package control

import (
	"context"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

const (
	expiryEvery  = time.Minute // how often Run looks
	expiryAtOnce = 1000        // requests that one look ends at most, each with an entry of its own
	expiredRule  = "expired"
)

// Run ends requests that have waited longer than Expiry, and sums up refusals that have no audit entry,
// until ctx is done. Any number of nodes may run it.
func (c *Control) Run(ctx context.Context) {
	tick := time.NewTicker(expiryEvery)
	defer tick.Stop()
	for {
		c.flushRefusals(ctx)
		c.expire(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// expire ends the requests that have waited too long by now.
func (c *Control) expire(ctx context.Context) {
	s := c.config.Snapshot()
	if c.config.Expiry <= 0 || s == nil {
		return
	}
	n := 0
	for e := range s.Endpoints() {
		if ctx.Err() != nil || n == expiryAtOnce {
			return
		}
		if !c.expired(e) {
			continue
		}
		n++
		if err := c.expireOne(ctx, e); err != nil {
			c.config.Log.Warn("a request that has waited too long can't be ended", "endpoint", e.ID, "err", err)
			return // the store's fault: the next look tries again
		}
	}
}

func (c *Control) expired(e *link.Endpoint) bool {
	k := &e.Connection
	return k.State == link.Pending && e.Origin.Declaration == "" && c.config.Now().Sub(k.RequestedAt) >= c.config.Expiry
}

// expireOne ends one request, unless it is another by now or somebody has decided on it.
func (c *Control) expireOne(ctx context.Context, seen *link.Endpoint) error {
	const action = "connection.expire"
	changed := false
	s, err := store.Update(ctx, c.config.Store, func(s *link.Snapshot) (store.Entry, []link.Change, error) {
		e := s.Endpoint(seen.ID)
		if changed = e != nil && e.Connection.LinkID == seen.Connection.LinkID && c.expired(e); !changed {
			return store.Entry{}, nil, nil
		}
		return store.Entry{
				At: c.config.Now(), Actor: "node " + c.config.Node, Action: action, Object: object(link.KindEndpoint, e.ID),
				Reason: "nobody has decided on the request for " + c.config.Expiry.String(),
				Scopes: scopes(c.SubscriptionOf(e.ID), []string{c.SubscriptionOf(e.Service)}),
			}, []link.Change{link.Disconnect{
				Endpoint: e.ID, LinkID: e.Connection.LinkID,
				Decision: link.Decision{Rule: expiredRule, Reason: "nobody has decided on it in time"},
			}}, nil
	})
	if err != nil {
		c.metrics.count(action, outcome(Op{}, Result{}, ErrUnavailable))
		return err
	}
	c.saw(s)
	c.metrics.count(action, outcome(Op{}, Result{Changed: changed}, nil))
	return nil
}
