package node

import (
	"context"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// expected is what the declaration of a configuration makes of a state. The zero value says nothing of any.
type expected struct {
	base    *link.Snapshot
	changes bool // what comes of it isn't base
}

// expect returns what the declaration of c makes of the state; nil where that isn't known, and the
// declaration is then checked by itself. declare needn't find it out again. The caller holds change, or opens the node.
func (n *Node) expect(known *link.Snapshot, c Config) (*link.Snapshot, error) {
	n.expected = expected{}
	if n.place.Etcd.ReadOnly {
		return known, nil
	}
	base := known
	if base == nil {
		base = link.Empty()
	}
	next, deltas, err := base.Apply(time.Now(), c.Declaration)
	if err != nil || known == nil {
		return nil, err
	}
	n.expected = expected{known, len(deltas) > 0}
	return next, nil
}

// declare commits the declaration of c unless the state is already so, and returns the snapshot after
// it. Who may only read has declared nothing. Of a large Corefile the declaration is most of the work of a start, so it is made
// of one state once, and once more where the store commits it.
func (n *Node) declare(ctx context.Context, c Config) (*link.Snapshot, error) {
	if n.place.Etcd.ReadOnly {
		return n.store.Load(ctx)
	}
	known := n.expected
	return store.Update(ctx, n.store, func(s *link.Snapshot) (store.Entry, []link.Change, error) {
		entry := store.Entry{
			At:     time.Now(),
			Actor:  "declaration " + c.Declaration.Declaration,
			From:   c.From,
			Action: "declare",
		}
		if s != known.base {
			_, deltas, err := s.Apply(entry.At, c.Declaration)
			if err != nil {
				return entry, nil, err
			}
			known = expected{s, len(deltas) > 0}
		}
		if !known.changes {
			return entry, nil, nil
		}
		c.inForce(s.Revision()+1, false) // others may have the snapshot before it is returned here
		return entry, []link.Change{c.Declaration}, nil
	})
}
