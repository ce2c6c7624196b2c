package policy

import "slices"

// And returns the policy that allows what both p and next allow, p asked first: for the time in which the objects
// of one configuration stand under the policy of the next. What both would count or ask, it counts and asks once,
// and what is on trial is noted for next alone. Either may be nil.
func (p *Policy) And(next *Policy) *Policy {
	switch {
	case p == nil:
		return next
	case next == nil:
		return p
	}
	both := &Policy{}
	for _, s := range p.Sets {
		both.Sets = append(both.Sets, s.beside(next))
	}
	both.Sets = append(both.Sets, next.Sets...)
	return both
}

// beside is the set without what next says too, and without what decides nothing.
func (s Set) beside(next *Policy) Set {
	if s.Default == Unset && s.enforced() {
		s.Default = DefaultDeny // also where no rule is left
	}
	if s.Default == DefaultObserve {
		s.Default = DefaultAllow
	}
	s.Rules = slices.DeleteFunc(slices.Clone(s.Rules), func(r Rule) bool { return r.Observe })
	s.Limits = slices.Clone(s.Limits)
	for _, n := range next.Sets {
		if n.Name == s.Name { // a limit's count is the set's
			s.Limits = slices.DeleteFunc(s.Limits, func(l FlowLimit) bool { return slices.Contains(n.Limits, l) })
		}
		if n.Program == s.Program {
			s.Program = nil
		}
	}
	return s
}
