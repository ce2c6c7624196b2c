package proxy

import (
	"reflect"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// Rules in CEL take up to ten milliseconds together (cel.MaxTotal; 9.5 ms is the most that the dearest ones of package cel's benchmark took, on two
// processors that others used as well). So long nothing holds a flow's mu: a revocation, who looks after idle flows
// and the loop that carries the flow may want it. What was found holds where nothing of it has changed meanwhile, and is found anew otherwise.

// grounds are what a decision is taken on.
type grounds struct {
	snapshot *link.Snapshot
	policy   *policy.Policy
	settings *Settings
}

// now returns the newest.
func (p *Proxy) now() grounds { return grounds{p.snapshot(), p.policy(), p.settings.Load()} }

// judge asks policy about a flow. An address that this process listens on itself is no endpoint's, whatever the state says: another node,
// which doesn't know, may have given it out (C10).
func (g grounds) judge(r policy.Request) policy.Verdict {
	return g.policy.Admit(g.snapshot, r, link.Ground{Listeners: g.settings.Own})
}

// triesApart is how often a flow is decided without mu before it is with it: where changes come faster than rules are asked, one of them waits.
const triesApart = 3

// decideApart is decide without mu, where the rules may take long. It reports false where they don't, or where it has come to nothing.
func (f *flow) decideApart(r policy.Request) (v policy.Verdict, done bool) {
	for range triesApart {
		on := f.proxy.now()
		if !on.policy.Slow() {
			return v, false
		}
		r.View, r.At = f.proxy.fresh(), time.Now()
		v = on.judge(r)
		f.mu.Lock()
		if done = on == f.proxy.now(); done {
			f.request, f.routed, f.verdict = r, true, v
		}
		f.mu.Unlock()
		if done {
			return v, true
		}
	}
	return v, false
}

// reviewApart is review without mu, where the rules may take long. It reports false where they don't, or where it has come to nothing.
func (f *flow) reviewApart(by *policy.Policy) (done bool) {
	if !by.Slow() {
		return false
	}
	on := f.proxy.now()
	f.mu.Lock()
	was, ended := f.standingLocked(), f.reason != ""
	f.mu.Unlock()
	if ended {
		return true
	}
	is := was
	is.View, is.At = f.proxy.fresh(), time.Now()
	v, goesOn := by.Stands(on.snapshot, is, f.proxy.Ground())
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.reason != "":
		return true
	case on != f.proxy.now() || !reflect.DeepEqual(was, f.standingLocked()):
		return false
	}
	f.reviewedLocked(by, v, goesOn)
	return true
}
