package control

import (
	"context"
	"slices"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// asked is a program that says whether it is asked about flows.
type asked bool

func (a asked) AsksFlows() bool                                        { return bool(a) }
func (asked) Authorize(context.Context, policy.Question) policy.Answer { return policy.Answer{} }
func (asked) Review(context.Context, policy.Review) policy.Decision    { return policy.Decision{} }
func (asked) Changed(*link.Snapshot)                                   {}

// TestExplainAsked: only a program that is asked about flows is said to be.
func TestExplainAsked(t *testing.T) {
	by := &policy.Policy{Sets: []policy.Set{{Name: "tickets", Program: asked(false)}, {Name: "gate", Program: asked(true)}, {Name: "none"}}}
	x := Explanation{Allowed: true}
	x.policySteps(by, []policy.Finding{{Policy: "tickets", Allow: true}, {Policy: "gate", Allow: true}, {Policy: "none", Allow: true}})
	var got []string
	for _, s := range x.Steps {
		got = append(got, s.Rule)
	}
	if !slices.Equal(got, []string{"policy gate"}) {
		t.Errorf("said to be asked: %q", got)
	}
}
