package linkstore

import (
	"github.com/postern-link/postern/node"
	"github.com/postern-link/postern/plugin/internal/handover"
)

// Inherit has the node of the next Corefile that is started take the place of another process's.
func Inherit(i *node.Inheritance) { handover.Inherit(i) }

// Running returns the node of this process, nil where there is none.
func Running() *node.Node { return handover.Node() }
