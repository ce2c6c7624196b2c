package node

import (
	"time"

	"github.com/postern-link/postern/policy"
)

// Freshness says how far the snapshot can be trusted to be the newest, as of now: it reads the clock
// and takes no lock, so that a process that was stopped for a while doesn't believe what it knew before. A
// file that this process alone may write is always fresh.
func (n *Node) Freshness() policy.Freshness {
	limits := n.limits.Load()
	if limits.Bound == 0 {
		return policy.Freshness{}
	}
	confirmed := n.store.Confirmed()
	if confirmed.IsZero() {
		confirmed = n.began
	}
	return policy.Freshness{Age: time.Since(confirmed), Limits: *limits}
}

// Stale says why the snapshot is too old to answer from, for a service that demands strict freshness or
// for all others. It is "" where it is fresh enough.
func (n *Node) Stale(strict bool) string {
	f := n.Freshness()
	if f.Level(strict) < policy.Stale {
		return ""
	}
	return f.String()
}

// lookEvery is the time between two looks at the age of the snapshot: for what is told about it.
const lookEvery = 500 * time.Millisecond

// watchAge says in the log when the level of freshness changes, once each time.
func (n *Node) watchAge() {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	last := policy.Fresh
	for {
		select {
		case <-n.life.Done():
			return
		case <-ticker.C:
		}
		f := n.Freshness()
		level := f.Level(false)
		if level == last {
			continue
		}
		switch {
		case level == policy.Fresh:
			n.log.Info("the store confirms the state again")
			n.kick()
		case level < last:
		case level == policy.Late:
			n.log.Warn("the store doesn't confirm the state; nothing changes yet", "age", f.Age, "bound", f.Limits.Bound)
		case level == policy.Stale:
			n.log.Error("the state is too old: new flows are refused, private names are answered SERVFAIL", "age", f.Age, "bound", f.Limits.Bound)
		case level == policy.Expired:
			n.log.Error("the state is twice as old as its bound: live flows are cut", "age", f.Age, "bound", f.Limits.Bound)
		}
		last = level
	}
}

// kick has a configuration that is owed be tried at once.
func (n *Node) kick() {
	select {
	case n.wake <- struct{}{}:
	default: // it will be
	}
}
