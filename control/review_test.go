package control

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// reviewer is a program that says all alike, and does something meanwhile.
type reviewer struct {
	policy.Decision
	seen  atomic.Pointer[policy.Review]
	asked atomic.Int32
	doing func()
}

func (r *reviewer) Authorize(context.Context, policy.Question) policy.Answer { return policy.Answer{} }
func (r *reviewer) Changed(*link.Snapshot)                                   {}

func (r *reviewer) Review(_ context.Context, q policy.Review) policy.Decision {
	r.asked.Add(1)
	r.seen.Store(&q)
	if r.doing != nil {
		r.doing()
	}
	return r.Decision
}

func reviewedWorld(t *testing.T, programs ...*reviewer) *world {
	p := &policy.Policy{}
	for _, one := range programs {
		p.Sets = append(p.Sets, policy.Set{Name: "tickets", Program: one})
	}
	w := furnished(t, func(c *Config) { c.Policy = func() *policy.Policy { return p } })
	w.approves("*")
	return w
}

// approves has the service approve requests of whom its list names.
func (w *world) approves(parties ...link.Party) {
	w.t.Helper()
	w.ok(w.EditService(w.t.Context(), op(Provider, subC), svcC, func(_ *link.Snapshot, old *link.Service) (*link.Service, error) {
		v := *old
		v.Visible, v.AutoApprove = []link.Party{"*"}, parties
		return &v, nil
	}))
}

// TestReview: what a list approves a program can keep from it, and the audit says who did.
func TestReview(t *testing.T) {
	approve := policy.Decision{State: link.Approved, Rule: "policy tickets"}
	for _, tc := range []struct {
		name string
		say  []policy.Decision
		want link.State
		rule string
	}{
		{"no program", nil, link.Approved, "auto-approve: *"},
		{"lets it be", []policy.Decision{approve, approve}, link.Approved, "auto-approve: *"},
		{"rejects", []policy.Decision{{State: link.Rejected, Reason: "no ticket", Rule: "policy tickets"}}, link.Rejected, "policy tickets"},
		{"waits", []policy.Decision{approve, {State: link.Pending, Reason: "not open", Rule: "policy tickets"}}, link.Pending, "policy tickets"},
		{"says nothing", []policy.Decision{{Rule: "policy tickets"}}, link.Pending, "policy tickets"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var all []*reviewer
			for _, d := range tc.say {
				all = append(all, &reviewer{Decision: d})
			}
			w := reviewedWorld(t, all...)
			from := w.state().Revision()
			ask := manual()
			ask.Message = "CHG1"
			w.ok(w.ask(op(Consumer, subF), endF, ask))
			k := w.connection(endF)
			if k.State != tc.want || k.Decision.Rule != tc.rule {
				t.Errorf("%s: %+v", k.State, k.Decision)
			}
			for _, r := range all {
				if q := r.seen.Load(); q == nil || r.asked.Load() != 1 || q.Message != "CHG1" || q.Service.ID != svcC || q.Endpoint.ID != endF || q.Network.ID != netF {
					t.Errorf("the program was shown %+v, %d times", q, r.asked.Load())
				}
			}
			if tc.want == link.Approved {
				return
			}
			audit := w.audit(from)
			if last := audit[len(audit)-1]; !strings.HasPrefix(last.Reason, "policy tickets") {
				t.Errorf("the audit says %q", last.Reason)
			}
			// A person decides as ever.
			w.ok(w.Decide(t.Context(), op(Approver, subC), decision(link.Approved)))
		})
	}
}

// TestReviewNarrows: G09. A program isn't shown what needs a person, and its word is not kept for what it has
// not seen.
func TestReviewNarrows(t *testing.T) {
	r := &reviewer{Decision: policy.Decision{State: link.Approved}}
	w := reviewedWorld(t, r)
	w.approves()
	w.ok(w.ask(op(Consumer, subF), endF, manual()))
	if k := w.connection(endF); k.State != link.Pending || r.asked.Load() != 0 {
		t.Errorf("%s, asked %d times", k.State, r.asked.Load())
	}
}

// TestReviewOfAnother: what changes while a program looks isn't what it has approved.
func TestReviewOfAnother(t *testing.T) {
	r := &reviewer{Decision: policy.Decision{State: link.Approved}}
	w := reviewedWorld(t, r)
	r.doing = func() {
		w.ok(w.EditService(t.Context(), op(Provider, subC), svcC, func(_ *link.Snapshot, old *link.Service) (*link.Service, error) {
			v := *old
			v.Port++
			return &v, nil
		}))
	}
	w.ok(w.ask(op(Consumer, subF), endF, manual()))
	if k := w.connection(endF); k.State != link.Pending || !strings.Contains(k.Decision.Reason, "changed") {
		t.Errorf("%s: %+v", k.State, k.Decision)
	}

	// And where the list no longer approves, its word is unused.
	w = reviewedWorld(t, r)
	r.doing = func() { w.approves() }
	w.ok(w.ask(op(Consumer, subF), endF, manual()))
	if k := w.connection(endF); k.State != link.Pending || k.Decision.Rule != "" {
		t.Errorf("%s: %+v", k.State, k.Decision)
	}
}

// TestReviewPends: what a program leaves Pending counts against the requests that a consumer may have waiting.
func TestReviewPends(t *testing.T) {
	r := &reviewer{Decision: policy.Decision{State: link.Pending}}
	w := reviewedWorld(t, r)
	w.config.Limits.PendingPerConsumer = 2
	w.Control = New(w.config)
	for i := range 2 {
		w.ok(w.ask(op(Consumer, subF), subF+"/rg/p"+link.ID(rune('0'+i)), manual()))
	}
	_, err := w.ask(op(Consumer, subF), subF+"/rg/p2", manual())
	if over, ok := errors.AsType[*LimitError](err); !ok || over.Limit != 2 {
		t.Errorf("one more that waits: %v", err)
	}
	r.State = link.Rejected // which waits for nobody
	w.ok(w.ask(op(Consumer, subF), subF+"/rg/p3", manual()))
	r.State = link.Approved
	w.ok(w.ask(op(Consumer, subF), subF+"/rg/p4", manual()))
}
