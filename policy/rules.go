package policy

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-link/postern/link"
)

// Policy is what an operator adds to the state: it can only narrow what the state allows. It is
// immutable. A nil *Policy adds nothing.
type Policy struct {
	Sets []Set // every one must allow
}

// Set is one named set of rules, limits and a program: what one linkpolicy of a Corefile says.
type Set struct {
	Name  string
	Rules []Rule // the first that matches decides
	// Default is what becomes of a flow that no rule matches.
	Default Default
	Limits  []FlowLimit // see [Meter]
	// Program is asked about what the rules allow; nil: none.
	Program Program
}

// Default is what a set says of a flow that none of its rules matches.
type Default uint8

// The defaults.
const (
	// Unset denies where a rule of the set is enforced. Where none is it leaves all to limits and program: what is
	// on trial cuts nobody.
	Unset          Default = iota
	DefaultAllow           // allow
	DefaultDeny            // deny
	DefaultObserve         // allow, and note that it would have been denied
)

var defaults = [...]string{"", "default allow", "default deny", "default deny observe"}

// String returns the default as a Corefile says it; "" where it says nothing.
func (d Default) String() string { return defaults[d] }

// DefaultRule is the name under which what no rule matches is reported.
const DefaultRule = "default"

// Rule allows or denies the flows that all its conditions hold for.
type Rule struct {
	Name  string
	Allow bool
	// Observe: the rule decides nothing. What it would have denied is noted in [Verdict.Observed].
	Observe bool
	Conditions
}

// Conditions must all hold; the values of one are alternatives, and one without values always holds. Zero
// Conditions hold for every flow.
type Conditions struct {
	Endpoints []link.ID
	Services  []link.ID
	Tenants   []string // of the consumer
	Networks  []link.ID
	Sources   []netip.Prefix
	// Names are patterns of the judged name. On a service that isn't pinned to names no pattern matches.
	Names []link.Name
	Ports []PortRange // that the client connected to
	Times []Window
	When  []Expression // all of them
}

// PortRange is the ports from the first to the last, both included.
type PortRange struct{ First, Last uint16 }

// Expression is a condition in a language of its own. It is asked last, about flows for which all other
// conditions hold.
type Expression interface {
	// Holds is safe for concurrent use and bounded in time. An error is no answer.
	Holds(Facts) (bool, error)
	Uses() Uses
	String() string // as it was written
}

// Uses says what an answer depends on beyond the connection.
type Uses uint8

// What an answer can depend on.
const (
	UsesName Uses = 1 << iota // the name in the first bytes
	UsesTime                  // the time of day
	UsesPort                  // the client's port
)

// Facts are what conditions are asked about.
type Facts struct {
	Endpoint *link.Endpoint
	Service  *link.Service
	Source   netip.AddrPort // port 0: not known, and what depends on it is an error, [ErrNoPort]
	Port     uint16         // that the client connected to
	Name     link.Name      // "" where the first bytes weren't judged
	At       time.Time
}

// Decide judges a request: first by the state, as the function does, then by the rules. What programs say
// comes after, from who can wait for them.
//
// While the name isn't judged yet the rules are asked as far as their answer doesn't depend on it. What is
// denied then would be denied whatever the name.
func (p *Policy) Decide(s *link.Snapshot, r Request) Verdict {
	v := Decide(s, r)
	if p == nil {
		return v
	}
	for i := range p.Sets {
		if !v.Allow {
			break
		}
		v = v.after(p.Sets[i].find(v, r))
	}
	return v
}

// Finding is what the rules of one set say of a request.
type Finding struct {
	Policy string // the set
	Rule   string // that decided, such as "policy office/hours" or "policy office default"; "" where none did
	Allow  bool
	// Unjudged: what the set says depends on a name that isn't read yet.
	Unjudged bool
	Reason   Reason   // empty when allowed
	Observed []string // "POLICY/RULE" of those that would have denied
	// Untried are those on trial whose answer depends on a client's port that isn't known.
	Untried []string
	Err     error  // of PolicyError: what has failed
	refused string // "POLICY/RULE" of the one that denied
}

// Find returns what each set says of a request that the state allows, up to the first that denies.
func (p *Policy) Find(s *link.Snapshot, r Request) []Finding {
	v := Decide(s, r)
	if p == nil || !v.Allow {
		return nil
	}
	var all []Finding
	for i := range p.Sets {
		f := p.Sets[i].find(v, r)
		if all = append(all, f); !f.Allow {
			break
		}
	}
	return all
}

// after is the verdict with what a set has found.
func (v Verdict) after(f Finding) Verdict {
	if len(f.Observed) > 0 {
		v.Observed = append(slices.Clip(v.Observed), f.Observed...)
	}
	if !f.Allow {
		v = v.deny(f.Reason, f.Rule)
		v.Refused = f.refused
	}
	return v
}

// Timed reports whether an answer may change by itself as time goes by.
func (p *Policy) Timed() bool {
	return p != nil && slices.ContainsFunc(p.Sets, func(s Set) bool {
		return slices.ContainsFunc(s.Rules, func(r Rule) bool { return r.uses()&UsesTime != 0 })
	})
}

// quickRules is how many rules are asked in no more time than a few system calls take.
const quickRules = 200

// Slow reports whether asking may take long: there is a program, an expression, or very many rules.
func (p *Policy) Slow() bool {
	rules := 0
	for _, s := range p.sets() {
		rules += len(s.Rules)
		if s.Program != nil || rules > quickRules || slices.ContainsFunc(s.Rules, func(r Rule) bool { return len(r.When) > 0 }) {
			return true
		}
	}
	return false
}

// RuleNames returns "POLICY/RULE" of all that can refuse: rules, defaults and limits.
func (p *Policy) RuleNames() (all []string) {
	for _, s := range p.sets() {
		for _, r := range s.Rules {
			all = append(all, s.Name+"/"+r.Name) // one that allows too: it refuses where it fails
		}
		if s.Default != DefaultAllow && (s.Default != Unset || s.enforced()) {
			all = append(all, s.Name+"/"+DefaultRule)
		}
		if len(s.Limits) > 0 {
			all = append(all, s.Name+"/"+LimitRule)
		}
	}
	return all
}

// find goes through the rules in order, until one decides or depends on what isn't known yet.
func (s *Set) find(v Verdict, r Request) Finding {
	facts := Facts{Endpoint: v.Endpoint, Service: v.Service, Source: r.Source, Port: r.Local.Port(), At: r.At}
	if r.Judged {
		facts.Name = r.Name
	}
	f := Finding{Policy: s.Name}
	for i := range s.Rules {
		rule := &s.Rules[i]
		answer, err := rule.ask(facts, v.Unjudged, !rule.Allow)
		switch {
		case answer == no, answer == open && rule.Observe:
		case answer == open:
			f.Allow, f.Unjudged = true, true
			return f
		case rule.Observe && errors.Is(err, ErrNoPort):
			f.Untried = append(f.Untried, s.Name+"/"+rule.Name)
		case rule.Observe:
			if err != nil || !rule.Allow {
				f.Observed = append(f.Observed, s.Name+"/"+rule.Name)
			}
		case err != nil:
			f.Err = err
			return f.deny(PolicyError, rule.Name, "policy "+s.Name+"/"+rule.Name+": "+err.Error())
		case !rule.Allow:
			return f.deny(PolicyDenied, rule.Name, "policy "+s.Name+"/"+rule.Name)
		default:
			f.Allow, f.Rule = true, "policy "+s.Name+"/"+rule.Name
			return f
		}
	}
	return s.otherwise(f)
}

// enforced reports whether the set has a rule that isn't on trial.
func (s *Set) enforced() bool {
	return slices.ContainsFunc(s.Rules, func(r Rule) bool { return !r.Observe })
}

// otherwise is what a set says where no rule has decided.
func (s *Set) otherwise(f Finding) Finding {
	switch {
	case s.Default == Unset && !s.enforced():
		f.Allow = true
		return f
	case s.Default == DefaultObserve:
		f.Observed = append(f.Observed, s.Name+"/"+DefaultRule)
		f.Allow = true
	case s.Default == DefaultAllow:
		f.Allow = true
	default:
		return f.deny(PolicyDenied, DefaultRule, "policy "+s.Name+" "+DefaultRule)
	}
	f.Rule = "policy " + s.Name + " " + DefaultRule
	return f
}

func (f Finding) deny(reason Reason, rule, words string) Finding {
	f.Allow, f.Reason, f.Rule, f.refused = false, reason, words, f.Policy+"/"+rule
	return f
}

// answer is what a rule says of a flow.
type answer uint8

const (
	no     answer = iota // it doesn't match
	yes                  // it matches
	open                 // it depends on a name that isn't read yet
	failed               // an error
)

var errNoTime = errors.New("the time isn't known")

// ErrNoPort is what fails where an answer depends on the client's port and that isn't known, as when
// somebody asks what would become of a client. Flows have one.
var ErrNoPort = errors.New("the client's port isn't known")

// ask returns whether the conditions hold. What is cheap is looked at first, and what doesn't depend on
// the name before what does: so what is answered without the name is the answer for every name. denies: the
// source counts in every form, as in [from].
func (c *Conditions) ask(f Facts, unjudged, denies bool) (answer, error) {
	switch {
	case !has(c.Endpoints, f.Endpoint.ID),
		!has(c.Services, f.Service.ID),
		!has(c.Tenants, f.Endpoint.Tenant),
		!has(c.Networks, f.Endpoint.Network),
		!from(c.Sources, f.Source.Addr(), denies),
		!has1(c.Ports, func(r PortRange) bool { return r.First <= f.Port && f.Port <= r.Last }):
		return no, nil
	}
	uses := c.uses()
	if uses&UsesTime != 0 && f.At.IsZero() {
		return failed, errNoTime
	}
	if !has1(c.Times, func(w Window) bool { return w.Holds(f.At) }) {
		return no, nil
	}
	if unjudged && uses&UsesName != 0 {
		return open, nil
	}
	if !has1(c.Names, func(n link.Name) bool { return n.Matches(f.Name) }) {
		return no, nil
	}
	if uses&UsesPort != 0 && f.Source.Port() == 0 {
		return failed, ErrNoPort
	}
	for _, e := range c.When {
		if holds, err := e.Holds(f); err != nil {
			return failed, err
		} else if !holds {
			return no, nil
		}
	}
	return yes, nil
}

// has reports whether a list without or with the value has nothing against it.
func has[T comparable](list []T, v T) bool { return len(list) == 0 || slices.Contains(list, v) }

func has1[T any](list []T, holds func(T) bool) bool {
	return len(list) == 0 || slices.ContainsFunc(list, holds)
}

// uses returns what the conditions depend on.
func (c *Conditions) uses() Uses {
	var u Uses
	if len(c.Names) > 0 {
		u |= UsesName
	}
	if len(c.Times) > 0 {
		u |= UsesTime
	}
	for _, e := range c.When {
		u |= e.Uses()
	}
	return u
}

// String returns the rule as a Corefile says it.
func (r Rule) String() string {
	words := []string{"rule", r.Name}
	if r.Observe {
		words = append(words, "observe")
	}
	if r.Allow {
		words = append(words, "allow")
	} else {
		words = append(words, "deny")
	}
	return strings.Join(append(words, r.words()...), " ")
}
