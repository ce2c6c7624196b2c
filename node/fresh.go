package node

import "github.com/postern-link/postern/policy"

// Freshness says how far the snapshot can be trusted to be the newest, as of now. A file that this
// process alone may write is always fresh.
func (n *Node) Freshness() policy.Freshness { return policy.Freshness{} }

// Stale says why the snapshot is too old to answer from, for a service that demands strict freshness or
// for all others. It is "" where it is fresh enough.
func (n *Node) Stale(strict bool) string {
	f := n.Freshness()
	if f.Level(strict) < policy.Stale {
		return ""
	}
	return f.String()
}
