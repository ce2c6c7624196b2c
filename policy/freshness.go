package policy

import (
	"fmt"
	"time"
)

// Freshness is how far a snapshot can be trusted to be the newest. A node that is cut off from its
// store keeps the last good snapshot, and a revocation made elsewhere doesn't reach it: so there is an
// end to that. The zero Freshness is of a snapshot that can't fall behind.
type Freshness struct {
	Age    time.Duration // since the store last confirmed that the snapshot is the newest
	Limits Limits
}

// Limits say what becomes of a snapshot that isn't confirmed. The zero Limits are those of a store
// that is always fresh, such as a file that this process alone may write.
type Limits struct {
	// Bound is the age from which new flows are refused and private names aren't answered. 0: never.
	Bound time.Duration
	// Strict: at twice the bound live flows are cut too.
	Strict bool
}

const (
	// lateAfter is the age at which operators are told.
	lateAfter = 10 * time.Second
	// strictBound is the bound of a service whose provider demands strict freshness where the store
	// doesn't, unless that of the store is shorter.
	strictBound = 30 * time.Second
)

// Level is what the age of a snapshot means, in the order of its coming.
type Level uint8

// The levels.
const (
	Fresh   Level = iota // confirmed a moment ago
	Late                 // somebody should look; nothing changes
	Stale                // new flows are refused, private names aren't answered; live flows stay
	Expired              // live flows are cut
)

// Levels are all of them in order.
var levels = [...]string{"fresh", "late", "stale", "expired"}

// String returns the level in lower case.
func (l Level) String() string { return levels[l] }

// Levels returns every level that there is, in order.
func Levels() []Level { return []Level{Fresh, Late, Stale, Expired} }

// of returns the limits for a service: those of the store, or stricter ones if the provider demands it.
func (l Limits) of(strict bool) Limits {
	if !strict || l.Strict || l.Bound == 0 {
		return l
	}
	return Limits{Bound: min(l.Bound, strictBound), Strict: true}
}

// Level returns what the age means for a service that demands strict freshness, or for all others.
func (f Freshness) Level(strict bool) Level {
	l := f.Limits.of(strict)
	switch {
	case l.Bound == 0 || f.Age < min(lateAfter, l.Bound/2):
		return Fresh
	case f.Age < l.Bound:
		return Late
	case !l.Strict || f.Age < 2*l.Bound:
		return Stale
	}
	return Expired
}

// Worst returns the level of a service that demands strict freshness: no service is worse off.
func (f Freshness) Worst() Level { return f.Level(true) }

// String says how old the snapshot is, as in "state not confirmed for 31s".
func (f Freshness) String() string {
	return fmt.Sprintf("state not confirmed for %v", f.Age.Truncate(time.Second))
}
