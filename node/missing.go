package node

import (
	"fmt"

	"github.com/postern-link/postern/link"
)

// maxMissing is how many lines one configuration gets about objects that rules name and that aren't there.
const maxMissing = 20

// tellMissing warns of rules that name what the state in force doesn't have: they hold for nothing by it,
// which nobody would notice of one that denies. It isn't an error, for the object may be made later.
func (n *Node) tellMissing(s *link.Snapshot) {
	missing := n.Policy().Missing(s)
	for i, m := range missing {
		if i == maxMissing {
			n.log.Warn("rules name more objects that aren't there", "objects", len(missing)-i)
			return
		}
		n.log.Warn(fmt.Sprintf("a rule names a %s that isn't there, and holds for nothing by it", m.Kind),
			"rule", m.Policy+"/"+m.Rule, string(m.Kind), m.ID)
	}
}
