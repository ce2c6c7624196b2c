package proxy

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// follow puts a policy in force.
func (w *world) follow(sets ...policy.Set) {
	w.rules.Store(&policy.Policy{Sets: sets})
	w.proxy.Review()
}

// limited is a world with a service and two endpoints of it, e and e2, under limits.
func limited(t *testing.T, limits ...policy.FlowLimit) *world {
	w := newWorld(t, Settings{}, service("s", 7001, echo(t)), endpoint("e", "s", nextAddr(t)), endpoint("e2", "s", nextAddr(t)))
	w.follow(policy.Set{Name: "p", Limits: limits})
	return w
}

// second returns the address and port of endpoint e2.
func (w *world) second() string { return w.now.Load().Endpoint("e2").Address.String() + ":7001" }

// open opens a flow that must be carried.
func (w *world) open(addr string) *net.TCPConn {
	w.t.Helper()
	c := dial(w.t, addr)
	if err := ping(c); err != nil {
		w.t.Fatalf("%s isn't carried: %v", addr, err)
	}
	return c
}

// refuses opens a flow from an address that a limit must refuse, with one more count and a line that has the rule.
func (w *world) refuses(from, addr, rule string) {
	w.t.Helper()
	denied := w.proxy.rules.deniedBy.WithLabelValues("p", policy.LimitRule)
	before := testutil.ToFloat64(denied)
	lines := len(w.log.lines("flow refused", "reason=limit", rule))
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	if c, err := d.Dial("tcp", addr); err == nil { // else reset before connect returned
		defer c.Close()
		if ping(c) == nil {
			w.t.Errorf("%s to %s is carried, in spite of %s", from, addr, rule)
			return
		}
	}
	eventually(w.t, "a count of the refusal by "+rule, func() bool { return testutil.ToFloat64(denied) == before+1 })
	eventually(w.t, "a line", func() bool { return len(w.log.lines("flow refused", "reason=limit", rule)) == lines+1 })
}

// X26, P09: what is over a limit is refused, of whom it is counted for and of nobody else; what ends gives its place back.
func TestFlowLimits(t *testing.T) {
	t.Run("flows of a source", func(t *testing.T) {
		w := limited(t, policy.FlowLimit{PerSource: true, Flows: 2})
		first, _ := w.open(w.first()), w.open(w.second())
		w.refuses("127.0.0.1", w.first(), "policy p: limit source flows 2")
		other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		c, err := other.Dial("tcp", w.first())
		if err != nil || ping(c) != nil {
			t.Fatal("another source is refused")
		}
		defer c.Close()
		first.Close()
		eventually(t, "the place of a flow that has ended", w.carried)
	})
	t.Run("flows of an endpoint", func(t *testing.T) {
		w := limited(t, policy.FlowLimit{Flows: 1})
		first := w.open(w.first())
		w.refuses("127.0.0.2", w.first(), "policy p: limit endpoint flows 1")
		w.open(w.second())
		first.Close()
		eventually(t, "the place of a flow that has ended", w.carried)
	})
	t.Run("rate", func(t *testing.T) {
		w := limited(t, policy.FlowLimit{PerSource: true, Rate: 2, Every: time.Hour})
		w.open(w.first()).Close()
		w.open(w.first()).Close()
		w.refuses("127.0.0.1", w.first(), "policy p: limit source rate 2/m")
	})
	t.Run("a flow that never reaches its target gives its place back", func(t *testing.T) {
		w := newWorld(t, Settings{}, service("s", 7001, netip.MustParseAddrPort("127.0.0.1:1")), endpoint("e", "s", nextAddr(t)))
		w.follow(policy.Set{Name: "p", Limits: []policy.FlowLimit{{Flows: 1}}})
		for range 5 {
			w.carried()
			eventually(t, "the end of the flow", func() bool { return w.proxy.Flows() == 0 })
		}
		if lines := w.log.lines("reason=limit"); len(lines) > 0 {
			t.Errorf("refused by a limit: %s", lines)
		}
	})
}

// A limit that comes, or becomes narrower, cuts nobody, and counts those who are there.
func TestLimitCutsNobody(t *testing.T) {
	w := limited(t)
	var all []*net.TCPConn
	for range 3 {
		all = append(all, w.open(w.first()))
	}
	for _, most := range []int{3, 1} {
		w.follow(policy.Set{Name: "p", Limits: []policy.FlowLimit{{PerSource: true, Flows: most}, {Flows: most}, {Rate: 1, Every: time.Hour, PerSource: true}}})
		w.refuses("127.0.0.1", w.first(), "limit source flows")
		for i, c := range all {
			if err := ping(c); err != nil {
				t.Errorf("flow %d, most %d: %v", i, most, err)
			}
		}
	}
}

// A rule on trial is counted once for each flow, whatever reviews come, and its flow is carried.
func TestObservedOnce(t *testing.T) {
	w := limited(t)
	rules := policy.Set{Name: "p", Default: policy.DefaultAllow, Rules: []policy.Rule{{Name: "trial", Observe: true}}}
	w.follow(rules)
	c := w.open(w.first())
	for range 5 {
		w.follow(rules)
		if err := ping(c); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	eventually(t, "a line with the rule", func() bool { return len(w.log.lines("flow ended", "verdict=allow", "observed=p/trial")) == 1 })
	if n := testutil.ToFloat64(w.proxy.rules.trial.WithLabelValues("p", "trial")); n != 1 {
		t.Errorf("counted %v times", n)
	}
	if n := testutil.ToFloat64(w.proxy.rules.deniedBy.WithLabelValues("p", "trial")); n != 0 {
		t.Errorf("%v denied", n)
	}
}

// A rule's labels go with it, also where a flow that it had decided ends later.
func TestRuleLabels(t *testing.T) {
	w := limited(t)
	w.follow(policy.Set{Name: "p", Default: policy.DefaultAllow, Rules: []policy.Rule{{Name: "a", Observe: true}, {Name: "b", Observe: true}}})
	c := w.open(w.first())
	labels := func(want int) {
		t.Helper()
		if d, o := testutil.CollectAndCount(w.proxy.rules.deniedBy), testutil.CollectAndCount(w.proxy.rules.trial); d != want || o != want {
			t.Errorf("%d and %d labels, want %d", d, o, want)
		}
	}
	labels(2)
	w.follow(policy.Set{Name: "p", Default: policy.DefaultAllow, Rules: []policy.Rule{{Name: "b", Observe: true}}})
	labels(1)
	if n := testutil.ToFloat64(w.proxy.rules.trial.WithLabelValues("p", "b")); n != 1 {
		t.Errorf("the count of the rule that stays is %v", n)
	}
	c.Close()
	eventually(t, "the end of the flow", func() bool { return len(w.log.lines("flow ended")) == 1 })
	labels(1)
	w.rules.Store(nil)
	w.proxy.Review()
	labels(0)
}

// clockwork is an expression of the time that is switched by hand.
type clockwork struct{ over *atomic.Bool }

func (c clockwork) Holds(policy.Facts) (bool, error) { return c.over.Load(), nil }
func (clockwork) Uses() policy.Uses                  { return policy.UsesTime }
func (clockwork) String() string                     { return "clockwork" }

// X31: the end of an hour ends the flows that it let in, by itself, and no others.
func TestTimedRuleCuts(t *testing.T) {
	t.Parallel()
	w := limited(t)
	var over atomic.Bool
	w.follow(policy.Set{Name: "p", Default: policy.DefaultAllow, Rules: []policy.Rule{{
		Name: "hours", Conditions: policy.Conditions{Endpoints: []link.ID{"e"}, When: []policy.Expression{clockwork{&over}}},
	}}})
	ends, stays := w.open(w.first()), w.open(w.second())
	over.Store(true)
	if !isReset(ends) {
		t.Error("the flow wasn't reset")
	}
	eventually(t, "a line that says why", func() bool { return len(w.log.lines("reason=revoked", `rule="policy p/hours"`)) == 1 })
	if err := ping(stays); err != nil {
		t.Errorf("the other flow: %v", err)
	}
	if n := testutil.ToFloat64(w.proxy.rules.deniedBy.WithLabelValues("p", "hours")); n != 0 {
		t.Errorf("a flow that was let in is counted as denied: %v", n)
	}
}
