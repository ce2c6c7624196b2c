package handover

import (
	"github.com/postern-link/postern/node"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/external"
)

// policies are those of a Corefile, in its order, and where each stands.
type policies struct {
	all []node.Policy
	at  map[string]block.Position
}

// AddPolicy adds a set of rules, and the program that is asked after them; nil: none. Sets are asked in the
// order in which they are added.
func (d *Draft) AddPolicy(at block.Position, s policy.Set, program *external.Config) error {
	if first, twice := d.policies.at[s.Name]; twice {
		return at.Errorf("policy %s is given already at %s", s.Name, first)
	}
	if d.policies.at == nil {
		d.policies.at = make(map[string]block.Position)
	}
	d.policies.at[s.Name] = at
	d.policies.all = append(d.policies.all, node.Policy{Set: s, Program: program})
	return nil
}

// programAt returns where the program of a policy stands.
func (d *Draft) programAt(name string) block.Position {
	if at, ok := d.policies.at[name]; ok {
		return at.Property("program")
	}
	return d.first
}
