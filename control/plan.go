package control

import (
	"context"

	"github.com/postern-link/postern/link"
)

// Plan is what a manifest would do, or has done.
type Plan struct {
	Changes []PlannedChange `json:"changes"`
	// Begin and Cease are names that start or stop being answered, with their network and addresses.
	Begin []PlannedName `json:"begin,omitempty"`
	Cease []PlannedName `json:"cease,omitempty"`
	Cut   []Flow        `json:"cut,omitempty"` // live flows of this node that would end
}

// PlannedChange is one object that changes.
type PlannedChange struct {
	Object string   `json:"object"`           // "kind/id"
	Verb   string   `json:"verb"`             // created, updated, deleted
	Fields []string `json:"fields,omitempty"` // that differ
}

// PlannedName is a name in a network.
type PlannedName struct {
	Network   link.ID   `json:"network"`
	Name      link.Name `json:"name"`
	Addresses []string  `json:"addresses"`
}

// Plan decides on a set of objects as one change and says what it would do: which objects change, which
// names begin or cease to be answered in which network, which flows of this node would be cut.
func (c *Control) Plan(ctx context.Context, op Op, m Manifest) (Plan, error) {
	panic("unfinished")
}

// Apply commits what Plan would do.
func (c *Control) Apply(ctx context.Context, op Op, m Manifest) (Plan, error) {
	panic("unfinished")
}
