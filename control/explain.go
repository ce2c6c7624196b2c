package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// Explanation says what would happen to a client that resolves a name and connects to what it is given.
type Explanation struct {
	Revision  uint64     `json:"revision"`          // of the state that was looked at
	Network   link.ID    `json:"network,omitempty"` // "" where the client is in none
	Answer    string     `json:"answer"`            // what DNS does: endpoint, zone, pass, nodata, nxdomain, servfail
	Addresses []string   `json:"addresses,omitempty"`
	Endpoint  link.ID    `json:"endpoint,omitempty"`
	Service   link.ID    `json:"service,omitempty"` // its alias where the caller has no role in its subscription
	State     link.State `json:"state,omitempty"`
	// Allowed: a connection to the endpoint would reach a target. What is no endpoint's isn't allowed, and
	// isn't stopped here either.
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason,omitempty"` // of a refusal, from the closed list of package policy
	// Depends: whether it is allowed depends on this, which the question doesn't say: source port. Allowed is
	// false then, and there is no reason.
	Depends string `json:"depends,omitempty"`
	Steps   []Step `json:"steps"`
	// Targets are those of the service as this node observes them, for its provider; none where it wasn't come so far.
	Targets []ExplainedTarget `json:"targets,omitempty"`
}

// Step is one thing that was looked at, in order.
type Step struct {
	What   string `json:"what"`           // view, name, exit, endpoint, connection, source, pin, policy, target
	Result string `json:"result"`         // what was found
	Rule   string `json:"rule,omitempty"` // what decided
}

// dependsOnPort is said of what a rule makes of the client's port, which no question has.
const dependsOnPort = "source port"

func (x *Explanation) step(what, result, rule string) {
	x.Steps = append(x.Steps, Step{What: what, Result: result, Rule: rule})
}

// Explain says what happens to a client that resolves a name and connects to it, and why. A port of 0 is
// that of the service. It speaks of clients in the networks of the subscription; to a caller of another one
// such a client is in no network at all. Names are judged as the directive privatelink does by default.
func (c *Control) Explain(ctx context.Context, caller Caller, subscription string, client netip.Addr, name link.Name, port uint16) (Explanation, error) {
	sees, err := c.scopeOf(caller, subscription)
	if err != nil {
		return Explanation{}, err
	}
	client = client.Unmap()
	switch {
	case !client.IsValid() || client.Zone() != "":
		return Explanation{}, fmt.Errorf("%w: client address", link.ErrInvalid)
	case name == "":
		return Explanation{}, fmt.Errorf("%w: no name", link.ErrInvalid)
	}
	s, err := c.view()
	if err != nil {
		x := Explanation{Answer: AnswerFail, Reason: string(policy.PolicyError)}
		x.step("view", "none", "no state was loaded yet")
		return x, nil
	}
	x := c.explain(s, c.observed(), sees, client, name, port)
	x.Service = sees.service(s, x.Service)
	return x, nil
}

func (c *Control) explain(s *link.Snapshot, o observed, sees scope, client netip.Addr, name link.Name, port uint16) Explanation {
	x := Explanation{Revision: s.Revision(), Answer: AnswerPass, Steps: []Step{}}
	n := s.NetworkOf(client)
	if n == nil || !sees.holds(n.ID) {
		x.step("view", "none", "no network has the client's address")
		return x
	}
	x.Network = n.ID
	x.step("view", "network "+string(n.ID), prefixRule(n, client))
	way := o.follow(s, n, n.Sites.Of(client), name, c.config.Zones)
	for _, on := range way[:len(way)-1] {
		x.step("name", "alias of "+string(on.alias), on.rule)
	}
	r := way[len(way)-1]
	x.Answer, x.Addresses, x.Service = r.answer, r.addresses, r.service
	result := r.answer
	if len(r.addresses) > 0 {
		result += " " + commas(r.addresses)
	}
	x.step("name", result, r.rule)
	if r.answer == AnswerPass {
		for _, exit := range c.config.Exits {
			result, rule := exit(n.ID, r.name)
			x.step("exit", result, rule)
		}
	}
	if len(r.endpoints) == 0 {
		return x
	}
	e := r.endpoints[0]
	if !sees.holds(e.ID) && !sees.holds(e.Network) && !sees.holds(e.Service) {
		x.Service = "" // by the zone of another, which the network is linked to
		x.step("endpoint", "of another subscription", "")
		return x
	}
	c.explainFlow(s, o, sees, &x, e, netip.AddrPortFrom(client, 0), name, port)
	return x
}

// explainFlow adds what becomes of a connection to an endpoint. Both questions are put to [policy.Decide],
// before and after the first bytes, so that source and pin each have the rule that decided.
func (c *Control) explainFlow(s *link.Snapshot, o observed, sees scope, x *Explanation, e *link.Endpoint, source netip.AddrPort, name link.Name, port uint16) {
	v := s.Service(e.Service)
	if port == 0 && v != nil {
		port = v.Port
	}
	x.Endpoint, x.State = e.ID, e.Connection.State
	x.step("endpoint", fmt.Sprintf("%s %s", e.ID, netip.AddrPortFrom(e.Address, port)), "")
	x.connectionStep(e, sees.holds(e.Service))
	ask := policy.Request{Source: source, Local: netip.AddrPortFrom(e.Address, port), View: o.view, At: c.config.Now()}
	if v != nil {
		ask.Protocol = v.Protocol // there is one way to ask it
	}
	before := policy.Decide(s, ask)
	ask.Judged, ask.Name = true, name
	after := policy.Decide(s, ask)
	x.Allowed, x.Reason = after.Allow, string(after.Reason)
	switch {
	case before.Reason == policy.NotApproved, before.Reason == policy.Suspended:
		return // the connection step has said it
	case before.Reason == policy.SourceDenied:
		x.step("source", "denied", before.Rule)
		return
	case !before.Allow:
		x.step("flow", "denied: "+string(before.Reason), before.Rule)
		return
	}
	x.step("source", "allowed", before.Rule)
	by := c.policy()
	unread := ask
	unread.Judged, unread.Name = false, ""
	if f := by.Decide(s, unread); !f.Allow { // before the name is looked at
		x.policySteps(by, by.Find(s, unread))
		return
	}
	switch {
	case !before.Unjudged:
		x.step("pin", "address", "any first bytes are let through")
	case !after.Allow:
		x.step("pin", "denied: "+string(after.Reason), after.Rule)
		return
	default:
		x.step("pin", string(after.Service.Pin), after.Rule)
	}
	if !before.Unjudged {
		ask = unread
	}
	if x.policySteps(by, by.Find(s, ask)); !x.Allowed {
		return
	}
	c.targetStep(x, s, v, e, o, sees)
}

// policySteps says what each set of rules finds, and what explain can't know: how much of a limit is used, and
// what a program answers.
func (x *Explanation) policySteps(by *policy.Policy, found []policy.Finding) {
	for i, f := range found {
		for _, o := range f.Observed {
			x.step("policy", "would be denied, on trial", "policy "+o)
		}
		for _, o := range f.Untried {
			x.step("policy", "on trial, depends on the client's port", "policy "+o)
		}
		if errors.Is(f.Err, policy.ErrNoPort) {
			x.step("policy", "depends on the client's port", strings.TrimSuffix(f.Rule, ": "+f.Err.Error()))
			x.Allowed, x.Reason, x.Depends = false, "", dependsOnPort
			return
		}
		if !f.Allow {
			x.step("policy", "denied: "+string(f.Reason), f.Rule)
			x.Allowed, x.Reason = false, string(f.Reason)
			return
		}
		if f.Rule != "" {
			x.step("policy", "allowed", f.Rule)
		}
		for _, l := range by.Sets[i].Limits {
			x.step("policy", "limited", "policy "+f.Policy+": "+l.String())
		}
	}
	for i, f := range found {
		if policy.AsksFlows(by.Sets[i].Program) {
			x.step("policy", "its program would be asked", "policy "+f.Policy)
		}
	}
}

// policy returns what narrows the state now; nil where nothing does.
func (c *Control) policy() *policy.Policy {
	if c.config.Policy == nil {
		return nil
	}
	return c.config.Policy()
}

// connectionStep says the state of a connection, and to its provider which rule or person decided.
func (x *Explanation) connectionStep(e *link.Endpoint, provider bool) {
	k := e.Connection
	result, d := string(k.State), k.Decision
	if k.Suspended != nil {
		result, d = result+", suspended", *k.Suspended
	}
	rule := d.Reason
	if provider {
		switch {
		case d.Rule != "" && rule != "":
			rule = d.Rule + ": " + rule
		case d.Rule != "":
			rule = d.Rule
		case d.Actor != "" && rule != "":
			rule = d.Actor + ": " + rule
		case d.Actor != "":
			rule = d.Actor
		}
	}
	x.step("connection", result, rule)
}

// targetStep says what the data plane observes of the targets, and which rule keeps it from them. Their addresses
// are for the provider.
func (c *Control) targetStep(x *Explanation, s *link.Snapshot, v *link.Service, e *link.Endpoint, o observed, sees scope) {
	rule, site := "", ""
	if n := s.Network(e.Network); n != nil && len(v.Sites) > 0 {
		site = n.Sites.Of(e.Address)
	}
	states := c.targetStates(v.ID)
	c.weigh(states, s, v, site, sees)
	list, none := c.aims(s, v, c.ground(), sees, states)
	if sees.holds(v.ID) {
		rule, x.Targets = "targets "+commas(list), states
		if site != "" && slices.ContainsFunc(states, func(t ExplainedTarget) bool { return t.First && t.Site == site }) {
			rule += "; first those at site " + site
		}
	}
	switch {
	case len(v.Targets)+len(v.TargetNames) == 0:
		x.step("target", "none", "the service has no target yet")
	case none != "":
		x.step("target", none, rule)
	case drained(states) && sees.holds(v.ID): // whether they are is for the provider
		x.step("target", "all are drained", rule)
	case !drained(states) && o.healthy(v.ID):
		x.step("target", "answers", rule)
		return
	default:
		x.step("target", "none answers", rule)
	}
	x.Allowed, x.Reason = false, string(policy.NoTarget)
}

// refusal is why the bytes of a service may not go to a target, as far as the scope may know: of what others have
// nothing, and of the provider's backend only the provider.
func (s scope) refusal(service link.ID, why string) string {
	foreign := why == link.TargetIsEndpoint || why == link.TargetIsPool || why == link.TargetIsForeign || why == link.TargetIsAnothers
	if s.all || s.holds(service) && !foreign {
		return why
	}
	return notYours
}

// prefixRule names the prefix by which a network has a client's address.
func prefixRule(n *link.Network, client netip.Addr) string {
	best := netip.Prefix{}
	for _, p := range n.Prefixes {
		if p.Contains(client) && (!best.IsValid() || p.Bits() > best.Bits()) {
			best = p
		}
	}
	return "prefix " + best.String()
}
