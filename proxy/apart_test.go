package proxy

import (
	"io"
	"net"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// TestRulesApart (X32): while the rules are asked about a flow, whoever wants the flow has it: a revocation ends it at once, before they have
// answered. Whatever they say then of what was, no flow is let in by it, and none goes on.
func TestRulesApart(t *testing.T) {
	for _, live := range []bool{false, true} {
		t.Run(map[bool]string{false: "it is decided", true: "it is reviewed"}[live], func(t *testing.T) {
			g := newTarget(t)
			w := newWorld(t, Settings{}, service("slow", 7001, g.addr()), endpoint("e", "slow", nextAddr(t)))
			var client *net.TCPConn
			if live {
				client = dial(t, w.first())
				io.WriteString(client, "x")
				g.next()
			}
			asked := &blocks{make(chan struct{}, 9), make(chan struct{})}
			w.rules.Store(&policy.Policy{Sets: []policy.Set{{Name: "p", Rules: []policy.Rule{
				{Name: "all", Allow: true, Conditions: policy.Conditions{When: []policy.Expression{asked}}}}}}})
			if live {
				w.proxy.Review()
			} else {
				client = dial(t, w.first())
			}
			<-asked.asked
			f := w.proxy.live.all()[0]
			if !f.mu.TryLock() {
				t.Fatal("the rules are asked under the flow's mutex")
			}
			f.mu.Unlock()
			w.apply(link.Suspend{Endpoint: "e", LinkID: w.connection("e").LinkID})
			if live && !isReset(client) {
				t.Error("it goes on until the rules have answered")
			}
			close(asked.release)
			if !live && !isReset(client) {
				t.Error("let in on a state that is gone")
			}
			eventually(t, "it is gone", func() bool { return w.proxy.Flows() == 0 })
			reason, message := policy.Suspended, "flow refused"
			if live {
				reason, message = policy.Revoked, "flow ended"
			}
			if n := len(w.log.lines(message, "reason="+string(reason))); n != 1 {
				t.Errorf("%d lines\n%s", n, w.log.lines(`msg="flow `))
			}
		})
	}
}

// TestRulesApartChange: a flow that is decided while the rules change has what the new ones say.
func TestRulesApartChange(t *testing.T) {
	w := newWorld(t, Settings{}, service("slow", 7001, echo(t)), endpoint("e", "slow", nextAddr(t)))
	asked := &blocks{make(chan struct{}, 9), make(chan struct{})}
	rules := func(allow bool) {
		w.rules.Store(&policy.Policy{Sets: []policy.Set{{Name: "p", Default: policy.DefaultDeny, Rules: []policy.Rule{
			{Name: "all", Allow: allow, Conditions: policy.Conditions{When: []policy.Expression{asked}}}}}}})
	}
	rules(true)
	c := dial(t, w.first())
	<-asked.asked
	rules(false)
	w.proxy.Review()
	close(asked.release)
	if !isReset(c) {
		t.Error("let in by rules that are gone")
	}
	eventually(t, "its line", func() bool { return len(w.log.lines("flow refused", "reason=policy_denied")) == 1 })
}
