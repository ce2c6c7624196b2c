package proxy

import (
	"context"
	"sync"

	"github.com/postern-link/postern/policy"
)

// authorize asks the policy programs about a flow that state and rules allow, and whose name is judged
// where the service is pinned to names. The first that refuses decides.
func (f *flow) authorize(ctx context.Context) *refusal {
	f.note()
	p := f.proxy.policy()
	if !hasPrograms(p) {
		return nil
	}
	f.mu.Lock()
	q := f.questionLocked()
	f.mu.Unlock()
	a := consult(ctx, p, q)
	if a.Allow {
		return nil
	}
	f.mu.Lock()
	f.answered = a.Rule // the rule of the line
	f.mu.Unlock()
	return &refusal{reason: a.Reason}
}

// hasPrograms reports whether there is anybody to ask. p may be nil.
func hasPrograms(p *policy.Policy) bool {
	if p == nil {
		return false
	}
	for i := range p.Sets {
		if p.Sets[i].Program != nil {
			return true
		}
	}
	return false
}

// consult asks one program after the other, until one refuses.
func consult(ctx context.Context, p *policy.Policy, q policy.Question) policy.Answer {
	for i := range p.Sets {
		if program := p.Sets[i].Program; program != nil {
			if a := program.Authorize(ctx, q); !a.Allow {
				return a
			}
		}
	}
	return policy.Answer{Allow: true}
}

// denies asks one program after the other until one denies. What isn't a verdict is none of the others either.
func denies(ctx context.Context, p *policy.Policy, q policy.Question) (policy.Answer, bool) {
	if p == nil {
		return policy.Answer{}, false
	}
	for i := range p.Sets {
		if program := p.Sets[i].Program; program != nil {
			if a := program.Authorize(ctx, q); !a.Allow && a.Reason == policy.PolicyDenied {
				return a, true
			}
		}
	}
	return policy.Answer{}, false
}

// questionLocked is what programs are asked about the flow. The caller holds mu.
func (f *flow) questionLocked() policy.Question {
	return policy.Question{Flow: f.id.String(), Request: f.request, Verdict: f.verdict}
}

// maxAgain is how many live flows programs are asked about at once: flows that begin have to be answered too.
const maxAgain = 16

// Reauthorize asks the programs about every live flow again, and ends those that one of them denies: to be called
// after Config.Policy has changed to other programs. What isn't a verdict, such as no answer in time, ends no flow:
// who was let in isn't cut because a program hangs. It returns when all are asked, or ctx is done.
func (p *Proxy) Reauthorize(ctx context.Context) {
	if !hasPrograms(p.policy()) {
		return
	}
	var guests sync.WaitGroup
	defer guests.Wait()
	guests.Go(func() { p.reauthorizeGuests(ctx) })
	reauthorize(ctx, p.live.all())
}

// reauthorize asks the programs about flows, a few at once. It returns when all are asked, or ctx is done.
func reauthorize(ctx context.Context, flows []*flow) {
	turns := make(chan struct{}, maxAgain)
	var asking sync.WaitGroup
	defer asking.Wait()
	for _, f := range flows {
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
			return
		}
		asking.Go(func() {
			defer func() { <-turns }()
			f.reauthorize(ctx)
		})
	}
}

// reauthorize asks again about a flow that programs were asked about, or are being asked: those of before, perhaps.
// A flow that isn't as far will ask those of today by itself.
func (f *flow) reauthorize(ctx context.Context) {
	f.mu.Lock()
	q := f.questionLocked()
	ready := f.routed && f.reason == "" && f.verdict.Allow && !f.verdict.Unjudged
	f.mu.Unlock()
	if !ready {
		return
	}
	a, denied := denies(ctx, f.proxy.policy(), q)
	if !denied {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reason == "" && f.verdict.Endpoint.Connection.LinkID == q.Verdict.Endpoint.Connection.LinkID {
		f.verdict.Allow, f.verdict.Reason, f.verdict.Rule = false, a.Reason, a.Rule // for the line: why it was revoked
		f.endLocked(policy.Revoked)
	}
}
