package proxy

import (
	"context"

	"github.com/postern-link/postern/policy"
)

// authorize asks the policy programs about a flow that state and rules allow, and whose name is judged
// where the service is pinned to names. The first that refuses decides.
func (f *flow) authorize(ctx context.Context) *refusal {
	p := f.proxy.policy()
	if p == nil {
		return nil
	}
	f.mu.Lock()
	q := policy.Question{Flow: f.id.String(), Request: f.request, Verdict: f.verdict}
	f.mu.Unlock()
	for _, set := range p.Sets {
		if set.Program == nil {
			continue
		}
		if a := set.Program.Authorize(ctx, q); !a.Allow {
			return &refusal{a.Reason, a.Rule}
		}
	}
	return nil
}
