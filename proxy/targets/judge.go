package targets

import (
	"net/netip"
	"time"

	"github.com/postern-link/postern/link"
)

const (
	// failsToDown: one lost packet doesn't take a target down.
	failsToDown = 2
	// faultsToEject is how many flows in a row must have gone wrong at a target.
	faultsToEject = 3
	// A target is out for firstEjection, and for twice as long each time that it goes wrong again within
	// longestEjection of its return, which is the most too.
	firstEjection   = 10 * time.Second
	longestEjection = 5 * time.Minute
)

// trial is what flows have found out about a target.
type trial struct {
	undialled int       // dials that failed, in a row
	resets    int       // flows that it reset before it had sent a byte, in a row
	times     int       // that it was ejected, without a long rest between
	until     time.Time // when it is back, or was
	unseen    bool      // it is out for what a connection doesn't show: accepting one isn't enough to be back
	released  bool      // it is out, or back since its time was over: the next fault puts it out again
}

// ejected reports whether a target is out.
func (t *Target) ejected(now time.Time) bool { return now.Before(t.until) }

// Change is what became of a target by what was told of it.
type Change uint8

// The changes.
const (
	None    Change = iota
	Up             // by probes
	Down           // by probes
	Ejected        // by flows
	Back           // by a probe, before its time was over
)

// Probed takes the result of a probe of kind to a target of the set; to none, it does nothing.
//
// Two failures in a row take a target down, one where it has never answered; one success brings it up. A success
// also ends an ejection, unless it says too little: who resets its flows may well accept a connection, so that it has
// to do more than that.
func (s *Set) Probed(now time.Time, addr netip.AddrPort, kind link.ProbeKind, ok bool) Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.known[addr]
	if t == nil {
		return None
	}
	defer s.serve(now)
	if ok {
		return t.answered(now, kind)
	}
	t.fails++
	if t.state == down || t.fails < failsToDown && t.state == up {
		return None
	}
	t.state = down
	return Down
}

// answered takes it that a target did what a probe of kind asks for.
func (t *Target) answered(now time.Time, kind link.ProbeKind) Change {
	was := t.state
	t.fails, t.state = 0, up
	if was == down {
		t.since, t.current = now, 0
	}
	shallow := kind == "" || kind == link.ProbeTCP
	if t.unseen && shallow {
		return changed(was)
	}
	t.released = false
	if t.ejected(now) {
		t.until, t.since = now, now
		if was == up {
			return Back
		}
	}
	return changed(was)
}

// changed is what a target that is up now has become.
func changed(was state) Change {
	if was == up {
		return None
	}
	return Up
}

// Reached takes it that a flow was connected to a target. Where probes do no more than that it counts as one.
func (s *Set) Reached(now time.Time, addr netip.AddrPort) Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.known[addr]
	if t == nil {
		return None
	}
	t.undialled = 0
	if kind := s.service.Probe.Kind; kind == "" || kind == link.ProbeTCP {
		if t.state != up || t.fails > 0 || t.ejected(now) {
			defer s.serve(now)
		}
		return t.answered(now, kind)
	}
	return None
}

// Unreached takes it that a flow couldn't be connected to a target, by no fault of our own.
func (s *Set) Unreached(now time.Time, addr netip.AddrPort) Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.known[addr]
	if t == nil {
		return None
	}
	if t.undialled++; t.undialled < t.patience() {
		return None
	}
	good, _ := s.census(now)
	return t.eject(now, good > 1, false)
}

// wasReset takes it that the target reset a flow before it had sent a byte in it. A client may be able to bring that
// about, so that it never puts out more than half of the targets.
func (t *Target) wasReset(now time.Time) Change {
	if t.resets++; t.resets < t.patience() {
		return None
	}
	good, all := t.set.census(now)
	return t.eject(now, good > 1 && 2*(all-good+1) <= all, true)
}

// patience is how many faults in a row are too many.
func (t *Target) patience() int {
	if t.released {
		return 1
	}
	return faultsToEject
}

// census returns how many targets nothing is known against, and how many may have flows at all.
func (s *Set) census(now time.Time) (good, all int) {
	for _, t := range s.targets {
		switch t.class(now) {
		case fit:
			good++
			all++
		case ejected, broken:
			all++
		}
	}
	return good, all
}

// eject puts a target out, if it may be: the last one of use never is, since a bad target is better than none. The
// faults go on to count, and where another one comes up it is out with the next.
func (t *Target) eject(now time.Time, may, unseen bool) Change {
	if !may || t.class(now) != fit {
		return None
	}
	if now.Sub(t.until) > longestEjection {
		t.times = 0
	}
	out := longestEjection
	if t.times < 5 { // 10, 20, 40, 80, 160 s
		out = firstEjection << t.times
	}
	t.times++
	t.until, t.unseen, t.released = now.Add(out), unseen, true
	t.since, t.current = t.until, 0 // back, it is led up to its share
	t.undialled, t.resets = 0, 0
	return Ejected
}
