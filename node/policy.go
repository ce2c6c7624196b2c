package node

import (
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/external"
)

// Policy is one linkpolicy: rules, and the program that is asked after them.
type Policy struct {
	Set     policy.Set       // without its Program
	Program *external.Config // nil: none
}

// Policy returns what narrows the state now; nil where nothing does.
func (n *Node) Policy() *policy.Policy { return n.policy.Load() }
