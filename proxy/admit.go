package proxy

import (
	"strings"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/prometheus/client_golang/prometheus"
)

// admission is what the rules of policy have noted of a flow.
type admission struct {
	counted  link.ID  // the endpoint that the flow is counted for; "": it isn't counted. Owned by run, then by finish
	noted    bool     // observed is final, and counted. Under mu, as what follows
	observed []string // "POLICY/RULE" that would have refused it
	answered string   // "policy NAME: ..." of the program that refused it
}

// admit counts the flow against the limits of policy, until discharge. It refuses a flow beyond one.
func (f *flow) admit() *refusal {
	f.mu.Lock()
	defer f.mu.Unlock()
	endpoint, source := f.verdict.Endpoint.ID, sourceOf(f.request.Source.Addr())
	set, rule, ok := f.proxy.meter.Enter(f.proxy.policy(), endpoint, source, time.Now())
	if ok {
		f.counted = endpoint
		return nil
	}
	if f.endLocked(policy.Limit) { // first, so that a review doesn't take the refusal for a revocation
		f.verdict.Allow, f.verdict.Reason, f.verdict.Rule = false, policy.Limit, rule
		f.verdict.Refused = set + "/" + policy.LimitRule
	}
	return &refusal{reason: policy.Limit}
}

// discharge gives back what admit took. It may be called without.
func (f *flow) discharge() {
	if f.counted != "" {
		f.proxy.meter.Leave(f.counted, sourceOf(f.request.Source.Addr()))
		f.counted = ""
	}
}

// note counts what the rules observed of the flow, once: when they have had their say, which is before the
// programs are asked, or at the end of a flow that never came so far. Reviews don't count again.
func (f *flow) note() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noteLocked()
}

func (f *flow) noteLocked() {
	if f.noted {
		return
	}
	f.noted, f.observed = true, f.verdict.Observed
	for _, rule := range f.verdict.Observed {
		f.proxy.rules.observed(rule)
	}
}

// noteEnd counts the rule that refused a flow, which is not one that revoked it. The caller holds mu.
func (f *flow) noteEnd() {
	f.noteLocked()
	if !f.established && f.verdict.Refused != "" && f.reason == f.verdict.Reason {
		f.proxy.rules.denied(f.verdict.Refused)
	}
}

// ruleCounters count what each rule denied, or would have. They are there for the rules of the policy in force,
// and go with them.
type ruleCounters struct {
	mu              sync.Mutex
	of              *policy.Policy
	deniedBy, trial *prometheus.CounterVec
	known           map[string]bool // "POLICY/RULE"
}

func newRuleCounters() *ruleCounters {
	vec := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "postern", Subsystem: "policy", Name: name, Help: help},
			[]string{"policy", "rule"})
	}
	return &ruleCounters{
		deniedBy: vec("denied_total", "Flows that a rule of a policy refused, by policy and rule."),
		trial:    vec("observed_total", "Flows that a rule on trial would have refused, by policy and rule."),
	}
}

func (c *ruleCounters) denied(rule string)   { c.inc(c.deniedBy, rule) }
func (c *ruleCounters) observed(rule string) { c.inc(c.trial, rule) }

// inc counts for a rule that is in force: a flow that was decided by one that is gone must not bring its label back.
func (c *ruleCounters) inc(v *prometheus.CounterVec, rule string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[rule] {
		set, name, _ := strings.Cut(rule, "/")
		v.WithLabelValues(set, name).Inc()
	}
}

// follow makes the rules those of p, and removes the labels of the others.
func (c *ruleCounters) follow(p *policy.Policy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == p {
		return
	}
	c.of = p
	now := map[string]bool{}
	for _, rule := range p.RuleNames() {
		now[rule] = true
		set, name, _ := strings.Cut(rule, "/")
		c.deniedBy.WithLabelValues(set, name)
		c.trial.WithLabelValues(set, name)
	}
	for rule := range c.known {
		if !now[rule] {
			set, name, _ := strings.Cut(rule, "/")
			c.deniedBy.DeleteLabelValues(set, name)
			c.trial.DeleteLabelValues(set, name)
		}
	}
	c.known = now
}
