package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// listRule is how the rule of a decision begins that the auto-approval list of a service has taken.
const listRule = "auto-approve: "

// reviews are what the policy programs have said of requests, by what they were shown of each. They were
// asked before the decision, on the state of then: what isn't here was not shown to them.
type reviews map[string]policy.Decision

// reviewers returns the programs to show requests to.
func (c *Control) reviewers() []policy.Program {
	if c.config.Policy == nil {
		return nil
	}
	p := c.config.Policy()
	if p == nil {
		return nil
	}
	var all []policy.Program
	for i := range p.Sets {
		if p.Sets[i].Program != nil {
			all = append(all, p.Sets[i].Program)
		}
	}
	return all
}

// review shows the programs what a list would approve if w were decided now. Nothing is held meanwhile. nil:
// there are no programs.
func (c *Control) review(ctx context.Context, op Op, w write) reviews {
	programs := c.reviewers()
	if len(programs) == 0 {
		return nil
	}
	said := reviews{}
	s := c.config.Snapshot()
	if s == nil {
		return said
	}
	t, err := try(w, s, c.config.Now())
	if err != nil {
		return said // and the decision says so
	}
	for e := range listed(t) {
		r := requestOf(t, e, op)
		said[shown(r)] = reviewedBy(ctx, programs, r)
	}
	return said
}

// reviewedBy asks one program after the other until one doesn't approve.
func reviewedBy(ctx context.Context, programs []policy.Program, r policy.Review) policy.Decision {
	for _, p := range programs {
		if d := p.Review(ctx, r); d.State != link.Approved {
			return d
		}
	}
	return policy.Decision{State: link.Approved}
}

// listed yields the endpoints that a trial has the list of their service approve.
func listed(t trial) func(yield func(*link.Endpoint) bool) {
	return func(yield func(*link.Endpoint) bool) {
		for _, change := range t.changes {
			var e *link.Endpoint
			switch change := change.(type) {
			case link.PutEndpoint:
				e = t.after.Endpoint(change.Endpoint.ID)
			case link.AskAgain:
				e = t.after.Endpoint(change.Endpoint)
			}
			if e == nil || e.Connection.State != link.Approved || !strings.HasPrefix(e.Connection.Decision.Rule, listRule) {
				continue
			}
			if old := t.before.Endpoint(e.ID); old != nil && old.Connection.Asked == e.Connection.Asked && old.UID == e.UID {
				continue // it was before
			}
			if !yield(e) {
				return
			}
		}
	}
}

func requestOf(t trial, e *link.Endpoint, op Op) policy.Review {
	return policy.Review{
		Network: t.after.Network(e.Network), Service: t.after.Service(e.Service), Endpoint: e,
		Message: e.Connection.Message, Caller: op.Caller.Name,
	}
}

// shown is what a program has seen of a request, but for its link ID.
func shown(r policy.Review) string {
	names := make([]link.Name, 0, len(r.Service.Names))
	for _, n := range r.Service.Names {
		names = append(names, n.Public)
	}
	return fmt.Sprintf("%q", []any{
		r.Network.ID, r.Network.Tenant, r.Network.Prefixes, r.Service.ID, r.Service.Tenant, names, r.Service.Port,
		r.Endpoint.ID, r.Endpoint.Tenant, r.Endpoint.Address, r.Message, r.Caller,
	})
}

// narrow returns w with what the programs have said: a request that a list approves now, and that they have
// rejected, left Pending or not seen as it is, becomes that; what is Pending then counts as such. Where no list
// approves it their word is unused.
func (c *Control) narrow(said reviews, op Op, w write) write {
	if said == nil {
		return w
	}
	plain := w
	w.decide = func(s *link.Snapshot, at time.Time) (verdict, error) {
		t, err := try(plain, s, at)
		if err != nil {
			return t.verdict, err
		}
		v := t.verdict
		for e := range listed(t) {
			d, ok := said[shown(requestOf(t, e, op))]
			switch {
			case !ok:
				d = policy.Decision{Reason: "the state has changed while policy programs looked at the request", Rule: "policy"}
			case d.State == link.Approved:
				continue
			}
			v.changes = slices.Clone(v.changes)
			if decided(v.changes, e.ID, d); s.Endpoint(e.ID) == nil && d.State != link.Rejected { // one that asks again is counted
				v.near = slices.Clip(v.near)
				if err := c.pendingLimit(s, &v.near, e.Tenant, e.Service); err != nil {
					return v, err
				}
			}
			if v.reason == "" {
				v.reason = strings.TrimSuffix(d.Rule+": "+d.Reason, ": ")
			}
		}
		return v, nil
	}
	return w
}

// decided gives the request for an endpoint among changes the decision of a program.
func decided(changes []link.Change, id link.ID, d policy.Decision) {
	r := &link.Reviewed{State: link.Pending, Decision: link.Decision{Rule: d.Rule, Reason: d.Reason}}
	if d.State == link.Rejected {
		r.State = link.Rejected
	}
	for i, change := range changes {
		switch change := change.(type) {
		case link.PutEndpoint:
			if change.Endpoint.ID == id {
				change.Reviewed = r
				changes[i] = change
			}
		case link.AskAgain:
			if change.Endpoint == id {
				change.Reviewed = r
				changes[i] = change
			}
		}
	}
}
