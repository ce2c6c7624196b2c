package node

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/external"
	"github.com/postern-link/postern/store/storetest"
)

// TestOwedPolicies: while the objects of a configuration are owed, the policies of those that are in force stand
// beside its own. They go when the debt is paid, not when another configuration can't be stored either.
func TestOwedPolicies(t *testing.T) {
	path, port, target := filepath.Join(t.TempDir(), "state.db"), freeport.Get(t), backend(t, "one")
	closed := policy.Policy{Sets: []policy.Set{{Name: "door", Rules: []policy.Rule{{Name: "shut", Conditions: policy.Conditions{Ports: []policy.PortRange{{First: port, Last: port}}}}}}}}
	strict := config(t, path, port, target, "127.77.0.5")
	strict.Policies = []Policy{{Set: closed.Sets[0]}}
	loose := config(t, path, port, target, "127.77.0.5", "127.77.0.6")
	looser := config(t, path, port, target, "127.77.0.5", "127.77.0.7")
	looser.Policies = []Policy{{Set: policy.Set{Name: "door", Default: policy.DefaultAllow}}}
	n := open(t, strict)
	defer closeNode(t, n)
	fault := &storetest.Fault{Store: n.store}
	n.store = fault
	never := slices.Repeat([]storetest.Outcome{storetest.Refuse}, 10000)
	reload := func(c Config, outcomes ...storetest.Outcome) {
		t.Helper()
		fault.Plan(outcomes...)
		p, err := n.Prepare(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(t.Context()); (err != nil) != (len(outcomes) > 0) {
			t.Fatalf("Commit: %v", err)
		}
	}
	sets := func() int { return len(n.Policy().Sets) }

	wantRefused(t, "127.77.0.5", port)
	reload(loose, never...)
	wantRefused(t, "127.77.0.5", port)
	reload(looser, never...)
	if sets() != 2 {
		t.Errorf("%d sets, want those of the objects and of the newest configuration", sets())
	}
	wantRefused(t, "127.77.0.5", port)
	fault.Plan()
	waitFor(t, "the objects", func() bool { return sets() == 1 })
	wantAnswer(t, "127.77.0.7", port, "one")

	// The other way round the new policy counts at once.
	reload(strict, never...)
	if sets() != 2 {
		t.Errorf("%d sets, want both", sets())
	}
	wantRefused(t, "127.77.0.7", port)
	// Another configuration that can be stored ends both.
	reload(loose)
	if n.Policy() != nil {
		t.Errorf("a policy is left: %+v", n.Policy())
	}
	wantAnswer(t, "127.77.0.6", port, "one")
}

// TestOwedPrograms: programs live as long as the policies that ask them.
func TestOwedPrograms(t *testing.T) {
	path, port, target := filepath.Join(t.TempDir(), "state.db"), freeport.Get(t), backend(t, "one")
	old := with(t, config(t, path, port, target, "127.77.0.5"), "allow")
	n := open(t, old)
	defer closeNode(t, n)
	fault := &storetest.Fault{Store: n.store}
	n.store = fault
	never := slices.Repeat([]storetest.Outcome{storetest.Refuse}, 10000)
	first := n.Policy().Sets[0].Program.(*external.Program)
	owe := func(c Config) {
		t.Helper()
		fault.Plan(never...)
		p, err := n.Prepare(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(t.Context()); err == nil {
			t.Fatal("the reload says that it is in force")
		}
	}
	lives := func(p policy.Program) bool {
		s := n.Snapshot()
		about := policy.Verdict{Allow: true, Endpoint: s.Endpoint("e0"), Service: s.Service("sql")}
		a := p.Authorize(t.Context(), policy.Question{Verdict: about})
		return a.Allow || a.Reason == policy.PolicyDenied
	}

	owe(config(t, path, port, target, "127.77.0.5", "127.77.0.6"))
	if !lives(first) {
		t.Error("the program ended before its objects")
	}
	wantAnswer(t, "127.77.0.5", port, "one")

	owe(with(t, config(t, path, port, target, "127.77.0.5", "127.77.0.6"), "deny"))
	second := n.Policy().Sets[1].Program
	if n.Policy().Sets[0].Program != first || !lives(first) || !lives(second) {
		t.Error("both programs should answer")
	}
	wantRefused(t, "127.77.0.5", port)

	// One that was only owed goes with its configuration.
	owe(with(t, config(t, path, port, target, "127.77.0.5", "127.77.0.7"), "allow"))
	if lives(second) || !lives(first) || len(n.policies.programs) != 1 {
		t.Errorf("%d programs, want the one that both configurations have", len(n.policies.programs))
	}
	fault.Plan()
	waitFor(t, "the objects", func() bool { return len(n.Policy().Sets) == 1 })
	if n.Policy().Sets[0].Program != first || !lives(first) {
		t.Error("a program whose configuration is the same was replaced")
	}
	wantAnswer(t, "127.77.0.7", port, "one")
	commit(t, n, config(t, path, port, target, "127.77.0.5"))
	if lives(first) {
		t.Error("the program outlives its policy")
	}
}
