// Package targets knows the targets of a service on one node: which of them a flow may get, which one it gets, and
// who waits where all are taken.
//
// It has no socket and no goroutine, and asks no clock: time is an argument, and never goes back but for the little that
// callers on several processors disagree by. Who dials and who probes tells it what they have found out. A [Set] is for
// one service and has a lock of its own, which is held for no longer than a look at each target.
//
//	targets.go  which targets there are, and how many flows each has
//	choose.go   which one a flow gets
//	judge.go    what dials, probes and flows say of a target: up, down, ejected
//	wait.go     the line of those who wait for a place
package targets

import (
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
)

// Set is what is known of the targets of one service. Its methods are safe for concurrent use.
type Set struct {
	mu      sync.Mutex
	service *link.Service // as followed last
	targets []*Target     // of it, in its order
	// known are those and the ones that were removed and have flows yet: what they count mustn't get lost where a
	// change is taken back.
	known map[netip.AddrPort]*Target
	line  line
	found Found
}

// Found are the addresses that names of the service lead to, for whoever may send there. It isn't changed once it is told.
type Found map[link.NamePort][]netip.AddrPort

// Target is one target of a set, as who has a place at it holds it.
type Target struct {
	Addr netip.AddrPort
	set  *Set
	hash uint64
	by   []link.NamePort // the names that lead to it; once it is no target any more, those that did
	record
}

// record is what changes of a target, under the lock of its set.
type record struct {
	weight  int
	site    string // "" for none
	listed  bool   // it is one of the service, not one that was removed
	flows   int    // that have a place
	state   state
	fails   int       // of probes, in a row
	since   time.Time // when it came up, or back; zero: it was there from the start
	current int64     // of the round robin
	may     bool      // of the choice that is being made
	trial
}

// state is what probes say of a target.
type state uint8

const (
	unknown state = iota // not probed yet: it is taken for one that answers
	up
	down
)

// New returns the set of a service.
func New(now time.Time, v *link.Service) *Set {
	s := &Set{known: make(map[netip.AddrPort]*Target, len(v.Targets))}
	s.follow(now, v)
	for _, t := range s.targets {
		t.since = time.Time{} // all begin together: nobody has to be led up to the others
	}
	return s
}

// Follow makes the set that of a service as it is now. What is known of targets that stay is kept, and so are the flows
// of those that go, until they are over.
func (s *Set) Follow(now time.Time, v *link.Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follow(now, v)
}

// follow is Follow. The caller holds mu, as of all that begins in lower case here.
func (s *Set) follow(now time.Time, v *link.Service) {
	if s.service == v {
		return
	}
	s.service = v
	s.list(now)
}

// Find takes what the names of the service lead to now. New addresses are led up to their share; those that a name no longer
// leads to get no new flow, and the flows that they have stay.
func (s *Set) Find(now time.Time, found Found) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.found) == 0 && len(found) == 0 {
		return
	}
	s.found = found
	s.list(now)
}

// list makes the targets those that are written down and those that are found.
func (s *Set) list(now time.Time) {
	was, all := s.targets, s.written()
	s.targets = make([]*Target, 0, len(all))
	kept := make(map[netip.AddrPort]*Target, len(all))
	for _, w := range all {
		t := s.known[w.addr]
		if t == nil {
			t = &Target{Addr: w.addr, set: s, hash: hashTarget(w.addr)}
		}
		if t.weight == 0 && w.weight > 0 {
			t.since = now
		}
		t.weight, t.listed, t.by, t.site = w.weight, true, w.by, s.service.Sites.Of(t.Addr.Addr())
		kept[t.Addr] = t
		s.targets = append(s.targets, t)
	}
	for _, t := range was {
		if kept[t.Addr] == nil {
			t.record = record{flows: t.flows} // should it return, nothing is known of it
		}
	}
	for addr, t := range s.known {
		if kept[addr] == nil && t.flows > 0 {
			kept[addr] = t
		}
	}
	s.known = kept
	s.serve(now)
}

// writing is a target as the service says it.
type writing struct {
	addr   netip.AddrPort
	weight int
	by     []link.NamePort
}

// written returns the targets of the service, in its order, each once: one that is there more than once has the
// smallest of its weights, so that it is drained where it is drained by any of its names.
func (s *Set) written() []writing {
	v := s.service
	all := make([]writing, 0, len(v.Targets))
	for _, t := range v.Targets {
		all = append(all, writing{addr: t.Addr, weight: v.Weight(t.Addr)})
	}
	if len(v.TargetNames) == 0 {
		return all
	}
	at := make(map[netip.AddrPort]int, len(all))
	for i, w := range all {
		at[w.addr] = i
	}
	for _, name := range v.TargetNames {
		weight := v.NameWeight(name)
		for _, addr := range s.found[name] {
			i, there := at[addr]
			if !there {
				i = len(all)
				at[addr] = i
				all = append(all, writing{addr: addr, weight: weight})
			}
			if all[i].weight = min(all[i].weight, weight); len(all[i].by) < MostBy {
				all[i].by = append(all[i].by, name)
			}
		}
	}
	return all
}

// MostBy bounds the names that are noted of a target.
const MostBy = 2

// By returns the first names that the target was found by; none where it is written down alone. The caller doesn't change
// it.
func (t *Target) By() []link.NamePort {
	t.set.mu.Lock()
	defer t.set.mu.Unlock()
	return t.by
}

// Len returns how many targets there are.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.targets)
}

// End is what a flow has seen of its target.
type End uint8

// The ends of a flow, or of its try to reach a target.
const (
	Quiet    End = iota // nothing to judge by
	Served              // the target has sent a byte
	WasReset            // the target reset the connection at once, before it had sent a byte
)

// Release gives a place back: the flow, or its try, is over.
func (t *Target) Release(now time.Time, end End) (c Change) {
	s := t.set
	s.mu.Lock()
	defer s.mu.Unlock()
	t.flows--
	switch end {
	case Served:
		if t.resets = 0; !t.ejected(now) {
			t.unseen, t.released = false, false
		}
	case WasReset:
		c = t.wasReset(now)
	}
	if t.flows == 0 && !t.listed {
		delete(s.known, t.Addr)
	}
	s.serve(now)
	return c
}

// Status is what there is to tell of a target.
type Status struct {
	Addr     netip.AddrPort
	Weight   int
	Flows    int  // that have a place
	Up, Down bool // by probes; neither: not known yet
	Ejected  bool
	Until    time.Time // when that is over; zero where it isn't ejected
	Share    int       // of what it weighs, in thousandths: less than all while it is led up to it
}

func (t *Target) status(now time.Time) Status {
	s := Status{Addr: t.Addr, Weight: t.weight, Flows: t.flows, Up: t.state == up, Down: t.state == down, Ejected: t.ejected(now), Share: fullShare}
	if s.Ejected {
		s.Until = t.until
	}
	if t.weight > 0 {
		s.Share = int(t.share(now) / int64(t.weight))
	}
	return s
}

// Status returns what there is to tell of one target; the zero Status where it is none.
func (s *Set) Status(now time.Time, addr netip.AddrPort) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.known[addr]; t != nil && t.listed {
		return t.status(now)
	}
	return Status{}
}

// Spare returns how many connections a target of use may have beside those of its flows, for flows to come. 0 for any other: one
// that is drained, down, ejected or none.
func (s *Set) Spare(now time.Time, addr netip.AddrPort) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.known[addr]
	switch most := s.service.MaxPerTarget; {
	case t == nil || !t.listed || t.class(now) != fit:
		return 0
	case most > 0:
		return max(0, most-t.flows)
	}
	return math.MaxInt
}

// Inherit takes over what probes have said of a target when it was one of another service.
func (s *Set) Inherit(addr netip.AddrPort, was Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.known[addr]; t != nil && was.Up {
		t.state = up
	} else if t != nil && was.Down {
		t.state = down
	}
}

// Look calls f with each target of the service, and returns how many flows wait, and whether any may. f must not call
// the set.
func (s *Set) Look(now time.Time, f func(Status)) (waiting int, bounded bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.targets {
		f(t.status(now))
	}
	return s.line.len, s.service.MaxPerTarget > 0
}
