package node

import (
	"context"
	"errors"
	"slices"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/external"
)

// Policy is one linkpolicy: rules, and the program that is asked after them.
type Policy struct {
	Set     policy.Set       // without its Program
	Program *external.Config // nil: none
}

// Policy returns what narrows the state now; nil where nothing does.
func (n *Node) Policy() *policy.Policy { return n.policy.Load() }

// PolicyError is a policy of a configuration that can't be had.
type PolicyError struct {
	Name string
	Err  error
}

// Error says why.
func (e *PolicyError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PolicyError) Unwrap() error { return e.Err }

// policies are those of one configuration, with programs that run.
type policies struct {
	policy   *policy.Policy      // nil: none
	programs []*external.Program // one is not in two configurations but to go on
}

// and are the policies under which both must allow, p first.
func (p *policies) and(next *policies) policies {
	both := policies{p.policy.And(next.policy), slices.Clone(p.programs)}
	for _, program := range next.programs {
		if !slices.Contains(both.programs, program) {
			both.programs = append(both.programs, program)
		}
	}
	return both
}

// preparePolicies starts the programs of a configuration that don't run yet. One whose configuration is the same
// goes on.
func (n *Node) preparePolicies(ctx context.Context, wanted []Policy) (*policies, error) {
	next := &policies{}
	if len(wanted) == 0 {
		return next, nil
	}
	next.policy = &policy.Policy{}
	for _, w := range wanted {
		set := w.Set
		if w.Program != nil {
			p, err := n.program(ctx, *w.Program)
			if err != nil {
				return nil, errors.Join(&PolicyError{set.Name, err}, n.abandonPolicies(next))
			}
			next.programs, set.Program = append(next.programs, p), p
		}
		next.policy.Sets = append(next.policy.Sets, set)
	}
	return next, nil
}

// program returns the one that runs with this configuration, or starts it.
func (n *Node) program(ctx context.Context, c external.Config) (*external.Program, error) {
	for _, p := range n.policies.programs {
		if p.Config().Same(c) {
			return p, nil
		}
	}
	if n.programMetrics == nil {
		m, err := external.NewMetrics(n.register)
		if err != nil {
			return nil, err
		}
		n.programMetrics = m
	}
	return external.Start(ctx, c, n.log, n.programMetrics)
}

// abandonPolicies ends the programs of a configuration that doesn't come into force.
func (n *Node) abandonPolicies(next *policies) error { return next.closeBut(n.policies) }

// commitPolicies puts policies in force, for new flows and live ones. Until the objects of their configuration are
// in force too, those of the objects that are must allow as well: the new ones may allow what only the new objects
// deny. The caller holds change.
func (n *Node) commitPolicies(next *policies) {
	n.coming = *next
	n.enforce(n.settled.and(next))
}

// settlePolicies ends what commitPolicies began: the objects are in force. The caller holds change.
func (n *Node) settlePolicies() {
	n.settled = n.coming
	n.enforce(n.coming)
}

// enforce makes policies those that decide. Programs that the data plane hasn't asked before are asked about the
// live flows in the background; those that are no longer needed end.
func (n *Node) enforce(next policies) {
	old := n.policies
	n.policies = next
	if n.policy.Swap(next.policy) == next.policy {
		return
	}
	n.hushElders()
	if s := n.Snapshot(); s != nil {
		n.tellPolicies(s)
	}
	if p := n.proxy.Load(); p != nil {
		p.Review()
		if next.others(old) {
			n.reauthorize(p.Reauthorize)
		}
	}
	if err := old.closeBut(next); err != nil {
		n.log.Error("close policy programs", "error", err)
	}
}

// reauthorize runs what asks the programs of now about live flows. What asks those of before ends.
func (n *Node) reauthorize(ask func(context.Context)) {
	if n.stopAsking != nil {
		n.stopAsking()
	}
	ctx, cancel := context.WithCancel(n.life)
	n.stopAsking = cancel
	n.asking.Go(func() {
		defer cancel()
		ask(ctx)
	})
}

// tellPolicies tells the programs in force of a snapshot. It doesn't wait.
func (n *Node) tellPolicies(s *link.Snapshot) {
	p := n.policy.Load()
	if p == nil {
		return
	}
	for i := range p.Sets {
		if program := p.Sets[i].Program; program != nil {
			program.Changed(s)
		}
	}
}

// closePolicies ends all programs. Nobody asks them any more.
func (n *Node) closePolicies() error {
	n.asking.Wait()
	err := n.policies.closeBut(policies{})
	n.policies, n.settled, n.coming = policies{}, policies{}, policies{}
	n.programMetrics.Unregister()
	return err
}

// others reports whether p has programs that old doesn't have.
func (p *policies) others(old policies) bool {
	return slices.ContainsFunc(p.programs, func(x *external.Program) bool { return !slices.Contains(old.programs, x) })
}

// closeBut ends the programs that keep doesn't have.
func (p *policies) closeBut(keep policies) error {
	var errs []error
	for _, program := range p.programs {
		if !slices.Contains(keep.programs, program) {
			errs = append(errs, program.Close())
		}
	}
	return errors.Join(errs...)
}
