package targets

import (
	"errors"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-link/postern/link"
)

const (
	// slowStart is the time in which a target that came up comes to its share, linearly, from leastShare of it on.
	slowStart  = 10 * time.Second
	leastShare = 100 // in fullShare
	fullShare  = 1000
	// blindTries is how many targets a flow tries at most where none is known to be of use: all are down or
	// ejected, and each flow trying each of them would be a storm.
	blindTries = 3
)

// Why a flow gets no target.
var (
	// ErrNone: the service has none, or none that the flow hasn't tried.
	ErrNone = errors.New("the service has no target to try")
	// ErrDrained: all have the weight 0.
	ErrDrained = errors.New("every target is drained")
	// ErrFull: all that the flow might get have max_per_target flows.
	ErrFull = errors.New("every target has max_per_target flows")
	// ErrLine: the same, and as many wait already as may.
	ErrLine = errors.New("every target has max_per_target flows, and no more may wait")
)

// Flow is who asks for a place.
type Flow struct {
	Source netip.Addr       // the client, as it is counted: for [link.SourceHash]
	Tried  []netip.AddrPort // the targets that the flow has tried in vain
	Site   string           // whose targets are preferred, "" for none's
}

// Take gives a flow a place at a target of a service, which the set follows first. The place must be given back by
// [Target.Release]. left is how many targets the flow could try, this one included. Nothing is allocated.
//
// Targets that are of use come first, those that are ejected next, and those that are down last. A flow that finds all
// targets of the first kind full isn't given one of the next. Those with weight 0 are given to nobody. Of the first kind, those
// at the flow's site are given as long as one has a place.
func (s *Set) Take(now time.Time, v *link.Service, f Flow) (t *Target, left int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follow(now, v)
	s.serve(now) // nobody overtakes who waits
	return s.take(now, f)
}

// Resume gives a place at a target to a flow that has one there already, which another process has begun: whatever is known
// against the target, and though it is full. So is a target that a name leads to, before the name is looked up.
func (s *Set) Resume(now time.Time, v *link.Service, addr netip.AddrPort) *Target {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follow(now, v)
	t := s.known[addr]
	if t == nil {
		t = &Target{Addr: addr, set: s, hash: hashTarget(addr)}
		s.known[addr] = t
	}
	t.flows++
	return t
}

func (s *Set) take(now time.Time, f Flow) (t *Target, left int, err error) {
	best, left := s.survey(now, f)
	switch {
	case left > 0 && (best == fit || len(f.Tried) < blindTries):
	case len(f.Tried) == 0 && len(s.targets) > 0:
		return nil, 0, ErrDrained
	default:
		return nil, 0, ErrNone
	}
	if t = s.choose(now, f, best, f.Site); t == nil && f.Site != "" {
		t = s.choose(now, f, best, "")
	}
	if t == nil {
		return nil, left, ErrFull
	}
	t.flows++
	return t, left, nil
}

// class is how good a target is for a flow; the lower the better.
type class uint8

const (
	fit     class = iota // nothing is known against it
	ejected              // by flows
	broken               // by probes
	barred               // drained: for nobody
)

// class returns the target's.
func (t *Target) class(now time.Time) class {
	switch {
	case t.weight == 0:
		return barred
	case t.state == down:
		return broken
	case t.ejected(now):
		return ejected
	}
	return fit
}

// survey returns the best class among the targets that a flow hasn't tried, and how many there are in all classes.
func (s *Set) survey(now time.Time, f Flow) (best class, left int) {
	best = barred
	for _, t := range s.targets {
		if slices.Contains(f.Tried, t.Addr) {
			continue
		}
		if c := t.class(now); c != barred {
			best = min(best, c)
			left++
		}
	}
	return best, left
}

// choose returns the target of a class that a flow gets, of those at a site if one is given; nil where all are full.
func (s *Set) choose(now time.Time, f Flow, of class, site string) *Target {
	most := s.service.MaxPerTarget
	for _, t := range s.targets {
		t.may = (site == "" || t.site == site) && t.class(now) == of && (most == 0 || t.flows < most) && !slices.Contains(f.Tried, t.Addr)
	}
	switch s.service.Balance {
	case link.SourceHash:
		return s.hashed(f.Source)
	case link.LeastConnections:
		s.least(now)
	}
	return s.turn(now)
}

// share returns what a target counts for: its weight in thousandths, and less while it is led up to it.
func (t *Target) share(now time.Time) int64 {
	if t.since.IsZero() {
		return int64(t.weight) * fullShare
	}
	in := now.Sub(t.since)
	if in >= slowStart {
		t.since = time.Time{}
		return int64(t.weight) * fullShare
	}
	return int64(t.weight) * min(max(int64(in)*fullShare/int64(slowStart), leastShare), fullShare)
}

// turn is a weighted round robin that spreads the turns of a heavy target: each gains its share, who has most
// has the turn and pays what all have gained.
func (s *Set) turn(now time.Time) (next *Target) {
	var all int64
	for _, t := range s.targets {
		if !t.may {
			continue
		}
		share := t.share(now)
		all += share
		if t.current += share; next == nil || t.current > next.current {
			next = t
		}
	}
	if next != nil {
		next.current -= all
	}
	return next
}

// least leaves the targets with the fewest flows for their share.
func (s *Set) least(now time.Time) {
	var flows, share int64 // of the best
	for _, t := range s.targets {
		if mine := t.share(now); t.may && (share == 0 || int64(t.flows)*share < flows*mine) {
			flows, share = int64(t.flows), mine
		}
	}
	for _, t := range s.targets {
		t.may = t.may && int64(t.flows)*share == flows*t.share(now)
	}
}

// hashed returns the target that wins for a source: each draws a number that depends on nothing but the two, so that
// a target which comes or goes takes or leaves its own share and moves nobody else (highest random weight; for
// weights, the draw is exponential with the weight as its rate, and the first wins).
func (s *Set) hashed(source netip.Addr) (winner *Target) {
	from, best := hashSource(source), math.Inf(1)
	for _, t := range s.targets {
		if !t.may {
			continue
		}
		u := (float64(mix(from^t.hash)>>11) + .5) / (1 << 53) // between 0 and 1
		if at := -math.Log(u) / float64(t.weight); at < best {
			winner, best = t, at
		}
	}
	return winner
}

// The hashes have no secret: all nodes, of this version and of others, must come to the same target.

func hashSource(a netip.Addr) uint64 {
	b := a.As16()
	return mix(word(b[:8]) ^ mix(word(b[8:])+1))
}

func hashTarget(a netip.AddrPort) uint64 {
	return bits.RotateLeft64(mix(hashSource(a.Addr().Unmap())+uint64(a.Port())), 17)
}

func word(b []byte) (w uint64) {
	for _, one := range b {
		w = w<<8 | uint64(one)
	}
	return w
}

// mix is the finaliser of MurmurHash3: each bit of its argument changes half of the result's.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
