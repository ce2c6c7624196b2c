package policy

import (
	"context"
	"net/netip"
	"testing"

	"github.com/postern-link/postern/link"
)

// silent is a program that nobody asks here.
type silent struct{ string }

func (*silent) Authorize(context.Context, Question) Answer { return Answer{} }
func (*silent) Review(context.Context, Review) Decision    { return Decision{} }
func (*silent) Changed(*link.Snapshot)                     {}

// TestAnd: two policies allow what both allow, and what they share is counted and asked once.
func TestAnd(t *testing.T) {
	s := base(t)
	const client = "10.1.2.3:40000"
	rules := func(name string, d Default, all ...Rule) *Policy {
		return &Policy{Sets: []Set{{Name: name, Rules: all, Default: d}}}
	}
	here := Conditions{Sources: []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24")}}
	none := Conditions{Sources: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}}
	for _, tc := range []struct {
		name      string
		old, next *Policy
		allow     bool
		refused   string
		observed  int
	}{
		{"neither", nil, nil, true, "", 0},
		{"old denies, next is none", rules("a", Unset, Rule{Name: "r", Conditions: here}), nil, false, "a/r", 0},
		{"old denies, next allows", rules("a", Unset, Rule{Name: "r", Conditions: here}), rules("a", DefaultAllow), false, "a/r", 0},
		{"old allows, next denies", rules("a", DefaultAllow), rules("a", DefaultDeny), false, "a/default", 0},
		{"old is none, next denies", nil, rules("b", DefaultDeny), false, "b/default", 0},
		{"both allow", rules("a", Unset, Rule{Name: "r", Allow: true, Conditions: here}), rules("b", DefaultAllow), true, "", 0},
		{"old denies by its rules alone", rules("a", Unset, Rule{Name: "r", Allow: true, Conditions: none}), rules("b", DefaultAllow), false, "a/default", 0},
		{"old has rules on trial alone", rules("a", Unset, Rule{Name: "r", Observe: true, Conditions: here}), rules("b", DefaultAllow), true, "", 0},
		{"old observes", rules("a", DefaultObserve, Rule{Name: "r", Observe: true, Conditions: here}), rules("b", DefaultAllow), true, "", 0},
		{"both observe", rules("a", DefaultObserve), rules("a", DefaultObserve), true, "", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := tc.old.And(tc.next).Decide(s, Request{
				Source: netip.MustParseAddrPort(client), Local: netip.MustParseAddrPort("10.200.0.5:1433"), At: at,
			})
			if v.Allow != tc.allow || v.Refused != tc.refused || len(v.Observed) != tc.observed {
				t.Errorf("%+v", v)
			}
		})
	}

	two, three := FlowLimit{Flows: 2}, FlowLimit{Flows: 3}
	a, b := &silent{"a"}, &silent{"b"}
	old := &Policy{Sets: []Set{{Name: "x", Limits: []FlowLimit{two, three}, Program: a}, {Name: "y", Limits: []FlowLimit{two}, Program: b}}}
	next := &Policy{Sets: []Set{{Name: "x", Limits: []FlowLimit{two}}, {Name: "z", Program: a}}}
	both := old.And(next).Sets
	if len(both) != 4 || len(both[0].Limits) != 1 || both[0].Limits[0] != three || len(both[1].Limits) != 1 {
		t.Errorf("limits: %+v", both)
	}
	if both[0].Program != nil || both[1].Program != b || both[3].Program != a {
		t.Errorf("programs: %+v", both)
	}
	if len(old.Sets[0].Limits) != 2 || old.Sets[0].Program != a {
		t.Errorf("the old policy was changed: %+v", old.Sets[0])
	}
}
