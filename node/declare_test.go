package node

import (
	"context"

	"net/netip"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// counting is a store that counts what is committed.
type counting struct {
	store.Store
	state   *link.Snapshot
	commits int
}

func (c *counting) Load(context.Context) (*link.Snapshot, error) { return c.state, nil }

func (c *counting) Commit(_ context.Context, base *link.Snapshot, e store.Entry, changes ...link.Change) (*link.Snapshot, error) {
	c.commits++
	next, _, err := base.Apply(e.At, changes...)
	c.state = next
	return next, err
}

// TestP15DeclaresOnce: what a declaration makes of the state is found out once for a configuration, whatever it holds: what
// was expected of a state is believed of that state, and of no other. All objects are one commit.
func TestP15DeclaresOnce(t *testing.T) {
	c := Config{State: Place{Bolt: "/nowhere"}, Declaration: link.Declare{Declaration: "test", Networks: []link.Network{{
		ID: "corp", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, Pools: []netip.Prefix{netip.MustParsePrefix("10.200.0.0/24")}, Origin: link.Origin{Declaration: "test"},
	}}}}
	st := &counting{state: link.Empty()}
	n := &Node{place: c.State, store: st}
	next, err := n.expect(st.state, c)
	if err != nil || next.Network("corp") == nil {
		t.Fatal(next, err)
	}
	if n.expected != (expected{st.state, true}) {
		t.Fatalf("%+v", n.expected)
	}
	// Told that nothing changes, declare doesn't look again.
	n.expected.changes = false
	if _, err := n.declare(t.Context(), c); err != nil || st.commits != 0 {
		t.Errorf("%d commits, %v", st.commits, err)
	}
	// Of another state it does.
	n.expected.base = link.Empty()
	now, err := n.declare(t.Context(), c)
	if err != nil || st.commits != 1 || now.Network("corp") == nil {
		t.Errorf("%d commits, %v", st.commits, err)
	}
	n.expected = expected{}
	if _, err := n.declare(t.Context(), c); err != nil || st.commits != 1 {
		t.Errorf("%d commits, %v: declared twice", st.commits, err)
	}
}
