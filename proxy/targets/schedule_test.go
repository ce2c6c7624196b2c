package targets

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

// schedule does what its bytes say to a set, in any order, beside an obvious account of it, and reports the first thing
// that isn't as promised.
type schedule struct {
	*world
	places  []*Target         // that were given, and not given back
	waiting []*scheduledWaits // in order of their coming
	served  []*scheduledWaits // by the call that is under way
}

type scheduledWaits struct {
	w     *Wait
	tried []netip.AddrPort
}

func (s *schedule) run(script []byte) {
	for len(script) >= 2 {
		op, arg := script[0]%12, int(script[1])
		script = script[2:]
		s.step(op, arg)
		s.check()
		if s.t.Failed() {
			return
		}
	}
}

func (s *schedule) step(op byte, arg int) {
	target := addr(arg % 4)
	switch op {
	case 0, 1: // a flow
		t, left, err := s.set.Take(s.now, s.v, Flow{Source: source(arg), Tried: s.tried(arg)})
		if (t == nil) == (err == nil) || t != nil && left < 1 {
			s.t.Errorf("target %v, %d left, error %v", t, left, err)
		}
		if t != nil {
			s.note(t, s.tried(arg))
		}
	case 2: // one that waits
		f := Flow{Source: source(arg), Tried: s.tried(arg)}
		mine := &scheduledWaits{tried: f.Tried}
		w, t, err := s.set.Wait(s.now, f, func(t *Target) {
			if !slices.Contains(s.waiting, mine) {
				s.t.Error("told twice, or after it has left")
			}
			s.waiting = slices.DeleteFunc(s.waiting, func(o *scheduledWaits) bool { return o == mine })
			if t != nil {
				s.note(t, mine.tried)
			}
		})
		if mine.w = w; w != nil {
			if t != nil || err != nil || len(s.waiting) >= s.v.MaxWaiting {
				s.t.Errorf("it waits with %v, %v", t, err)
			}
			s.waiting = append(s.waiting, mine)
		} else if t != nil {
			s.note(t, f.Tried)
		}
	case 3: // one of them leaves
		if len(s.waiting) > 0 {
			one := s.waiting[arg%len(s.waiting)]
			s.waiting = slices.DeleteFunc(s.waiting, func(o *scheduledWaits) bool { return o == one })
			if !one.w.Leave() || one.w.Leave() {
				s.t.Error("who waited couldn't leave, or twice")
			}
		}
	case 4, 5: // a flow ends
		if len(s.places) > 0 {
			i := arg % len(s.places)
			t := s.places[i]
			s.places = slices.Delete(s.places, i, i+1)
			t.Release(s.now, End(arg/4%3))
		}
	case 6:
		s.set.Probed(s.now, target, link.ProbeKind([]string{"", "tcp", "tls", "http"}[arg/4%4]), arg%3 > 0)
	case 7:
		if len(s.places) > 0 {
			if t := s.places[arg%len(s.places)]; arg&64 == 0 {
				s.set.Reached(s.now, t.Addr)
			} else {
				s.set.Unreached(s.now, t.Addr)
			}
		}
	case 8:
		s.pass(time.Duration(arg) * 200 * time.Millisecond)
	default:
		s.edit(func(v *link.Service) { s.another(v, op, arg) })
	}
}

// another makes a service another.
func (s *schedule) another(v *link.Service, op byte, arg int) {
	switch op {
	case 9: // other targets, of four
		v.Targets = nil
		for i := range 4 {
			if arg>>i&1 == 1 {
				v.Targets = append(v.Targets, link.Target{Addr: addr(i)})
			}
		}
	case 10:
		v.Weights = map[netip.AddrPort]int{addr(arg % 4): arg / 4 % 5}
		v.Balance = append(link.Balances(), "")[arg/16%4]
	case 11:
		v.MaxPerTarget, v.MaxWaiting = arg%4, 0
		if v.MaxPerTarget > 0 {
			v.MaxWaiting = arg / 4 % 8
		}
	}
}

// tried is what a flow has tried: nothing, or targets that have flows.
func (s *schedule) tried(arg int) []netip.AddrPort {
	if arg < 128 || len(s.places) == 0 {
		return nil
	}
	return addrs(s.places[:min(len(s.places), arg%3)])
}

// note takes a place into the account.
func (s *schedule) note(t *Target, tried []netip.AddrPort) {
	if slices.Contains(tried, t.Addr) {
		s.t.Errorf("%v for a flow that has tried it", t.Addr)
	}
	if s.v.Drained(t.Addr) {
		s.t.Errorf("a flow for %v, which is drained", t.Addr)
	}
	if !slices.Contains(s.v.Targets, link.Target{Addr: t.Addr}) {
		s.t.Errorf("a flow for %v, which is no target any more", t.Addr)
	}
	s.places = append(s.places, t)
	if n := s.count(t.Addr); s.v.MaxPerTarget > 0 && n > s.v.MaxPerTarget {
		s.t.Errorf("%d flows of %v, %d are allowed", n, t.Addr, s.v.MaxPerTarget)
	}
}

func (s *schedule) count(addr netip.AddrPort) (n int) {
	for _, p := range s.places {
		if p.Addr == addr {
			n++
		}
	}
	return n
}

// check holds what the set tells against the account.
func (s *schedule) check() {
	n, _ := s.set.Look(s.now, func(one Status) {
		if want := s.count(one.Addr); one.Flows != want {
			s.t.Errorf("%v has %d flows, want %d", one.Addr, one.Flows, want)
		}
	})
	if n != len(s.waiting) {
		s.t.Errorf("%d wait, want %d", n, len(s.waiting))
	}
	ordered := slices.IndexFunc(s.waiting, func(o *scheduledWaits) bool { return len(o.tried) == 0 })
	if ordered >= 0 && ordered < passedOver && s.free() {
		// Time alone makes room too, and is seen with the next call.
		s.set.Probed(s.now, netip.AddrPort{}, "", true)
		s.set.Follow(s.now, func() *link.Service { v := *s.v; s.v = &v; return s.v }())
		if slices.ContainsFunc(s.waiting, func(o *scheduledWaits) bool { return len(o.tried) == 0 }) && s.free() {
			s.t.Error("a flow waits beside a free place")
		}
	}
}

// free reports whether a target of use has room.
func (s *schedule) free() (free bool) {
	s.set.Look(s.now, func(one Status) {
		if one.Weight > 0 && !one.Down && !one.Ejected && (s.v.MaxPerTarget == 0 || one.Flows < s.v.MaxPerTarget) {
			free = true
		}
	})
	return free
}

func newSchedule(t testing.TB) *schedule {
	return &schedule{world: newWorld(t, service(bound(2, 4), 1, 2, 1, 1))}
}

func TestSchedules(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for range 3000 {
		script := make([]byte, 2*(1+r.IntN(120)))
		for i := range script {
			script[i] = byte(r.Uint32())
		}
		if newSchedule(t).run(script); t.Failed() {
			t.Fatalf("seed %d, script %q", seed, script)
		}
	}
}

func FuzzSchedule(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2, 2, 3, 4, 0})
	f.Add([]byte{11, 5, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 130, 9, 1, 4, 0, 9, 15})
	f.Add([]byte{6, 0, 6, 0, 7, 64, 7, 64, 7, 64, 8, 50, 0, 0, 10, 0, 3, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 2000 {
			return
		}
		newSchedule(t).run(script)
	})
}

// Many at once: the bound holds at each moment, everybody who may wait gets a place, and nothing is left behind.
func TestManyAtOnce(t *testing.T) {
	const flows, each, most = 32, 200, 4
	w := newWorld(t, service(bound(most, flows), 1, 1, 1))
	var at [3]atomic.Int32
	var all sync.WaitGroup
	for i := range flows {
		all.Go(func() {
			for range each {
				place, _, err := w.set.Take(w.now, w.v, Flow{Source: source(i)})
				if err == ErrFull {
					got := make(chan *Target, 1)
					var wait *Wait
					if wait, place, err = w.set.Wait(w.now, Flow{Source: source(i)}, func(t *Target) { got <- t }); wait != nil {
						place = <-got
					}
				}
				if err != nil || place == nil {
					t.Error("no place", err)
					return
				}
				one := &at[place.Addr.Addr().As4()[3]]
				if n := one.Add(1); n > most {
					t.Errorf("%d at once", n)
				}
				w.set.Reached(w.now, place.Addr)
				one.Add(-1)
				place.Release(w.now, Served)
			}
		})
	}
	all.Wait()
	if n, _ := w.set.Look(w.now, func(s Status) {
		if s.Flows != 0 {
			t.Errorf("%v has %d flows left", s.Addr, s.Flows)
		}
	}); n != 0 {
		t.Errorf("%d wait for ever", n)
	}
}
