package targets

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/postern-link/postern/link"
)

// bound has at most n flows at a target, and waiting in line.
func bound(n, waiting int) func(*link.Service) {
	return func(v *link.Service) { v.MaxPerTarget, v.MaxWaiting = n, waiting }
}

// queue lets who wait note what they got, by name.
type queue struct {
	w   *world
	got []string
	at  map[string]*Target
}

func (q *queue) wait(name string, tried ...*Target) (*Wait, *Target, error) {
	return q.w.set.Wait(q.w.now, Flow{Tried: addrs(tried)}, func(t *Target) {
		q.got = append(q.got, name)
		q.at[name] = t
	})
}

func (q *queue) mustWait(names ...string) (all []*Wait) {
	q.w.t.Helper()
	for _, name := range names {
		one, t, err := q.wait(name)
		if one == nil || t != nil || err != nil {
			q.w.t.Fatalf("%s doesn't wait: %v, %v", name, t, err)
		}
		all = append(all, one)
	}
	return all
}

func newQueue(t *testing.T, v *link.Service) *queue {
	return &queue{w: newWorld(t, v), at: map[string]*Target{}}
}

// In order, bounded, and nobody overtakes.
func TestQueue(t *testing.T) {
	q := newQueue(t, service(bound(1, 3), 1, 1))
	a, b := q.w.take(), q.w.take()
	if _, _, err := q.w.set.Take(q.w.now, q.w.v, Flow{}); err != ErrFull {
		t.Fatalf("error %v", err)
	}
	q.mustWait("1", "2", "3")
	if _, _, err := q.wait("4"); err != ErrLine {
		t.Errorf("error %v of one too many", err)
	}
	if n, _ := q.w.set.Look(q.w.now, func(Status) {}); n != 3 {
		t.Errorf("%d wait", n)
	}
	a.Release(q.w.now, Served)
	if _, _, err := q.w.set.Take(q.w.now, q.w.v, Flow{}); err != ErrFull {
		t.Error("somebody has overtaken")
	}
	b.Release(q.w.now, Served)
	if fmt.Sprint(q.got) != "[1 2]" || q.at["1"] != a || q.at["2"] != b {
		t.Errorf("places went to %v", q.got)
	}
	q.at["1"].Release(q.w.now, Served)
	q.at["2"].Release(q.w.now, Served)
	if fmt.Sprint(q.got) != "[1 2 3]" {
		t.Errorf("places went to %v", q.got)
	}
	if place, _, err := q.w.set.Take(q.w.now, q.w.v, Flow{}); err != nil || q.w.status(0).Flows+q.w.status(1).Flows != 2 {
		t.Errorf("%v, %v", place, err)
	}
}

// Who leaves has no place; who leaves too late has one to give back.
func TestQueueIsLeft(t *testing.T) {
	q := newQueue(t, service(bound(1, 10), 1))
	a := q.w.take()
	all := q.mustWait("1", "2", "3")
	if !all[1].Leave() || all[1].Leave() {
		t.Error("not left once")
	}
	a.Release(q.w.now, Served)
	if all[0].Leave() {
		t.Error("left with a place")
	}
	q.at["1"].Release(q.w.now, Quiet)
	if fmt.Sprint(q.got) != "[1 3]" {
		t.Errorf("places went to %v", q.got)
	}
}

// What makes room for who waits.
func TestQueueIsServed(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(w *world)
		event   func(w *world)
	}{
		"a higher bound": {nil, func(w *world) { w.edit(bound(2, 1)) }},
		"no bound":       {nil, func(w *world) { w.edit(bound(0, 0)) }},
		"another target": {nil, func(w *world) {
			w.edit(func(v *link.Service) { v.Targets = append(slices.Clip(v.Targets), link.Target{Addr: addr(7)}) })
		}},
		"one is up": {func(w *world) { w.set.Probed(w.now, addr(1), "", false) },
			func(w *world) { w.set.Probed(w.now, addr(1), "", true) }},
		"one is back": {func(w *world) { w.fail(1, faultsToEject, false) },
			func(w *world) { w.set.Probed(w.now, addr(1), "", true) }},
		"its time is over": {func(w *world) { w.fail(1, faultsToEject, true) },
			func(w *world) { w.pass(firstEjection); w.set.Probed(w.now, addr(0), "", true) }},
		"drained no more": {func(w *world) { w.edit(func(v *link.Service) { v.Weights = map[netip.AddrPort]int{addr(1): 0} }) },
			func(w *world) { w.edit(func(v *link.Service) { v.Weights = nil }) }},
	} {
		t.Run(name, func(t *testing.T) {
			q := newQueue(t, service(bound(1, 10), 1, 1))
			if tt.prepare != nil {
				tt.prepare(q.w)
			} else {
				q.w.take()
			}
			q.w.take()
			q.mustWait("1")
			tt.event(q.w)
			if len(q.got) != 1 || q.at["1"] == nil {
				t.Errorf("it has %v", q.at)
			}
		})
	}
}

// A place that time alone has made is for who waits, too.
func TestNobodyOvertakes(t *testing.T) {
	q := newQueue(t, service(bound(1, 10), 1, 1))
	q.w.fail(1, faultsToEject, true)
	q.w.take()
	q.mustWait("1")
	q.w.pass(firstEjection)
	if place, _, err := q.w.set.Take(q.w.now, q.w.v, Flow{}); err != ErrFull || q.at["1"] != q.w.target(1) {
		t.Errorf("a flow that came later has %v (%v), who waited %v", place, err, q.at["1"])
	}
}

// Who has tried the target that came free is passed over, and who has nothing left to try is told so.
func TestQueuePassesOver(t *testing.T) {
	q := newQueue(t, service(bound(1, 10), 1, 1))
	a, b := q.w.take(), q.w.take()
	if w, _, err := q.wait("not a", a); w == nil || err != nil {
		t.Fatal(err)
	}
	q.mustWait("any")
	a.Release(q.w.now, Served)
	if fmt.Sprint(q.got) != "[any]" {
		t.Fatalf("places went to %v", q.got)
	}
	b.Release(q.w.now, Served)
	if fmt.Sprint(q.got) != "[any not a]" || q.at["not a"] != b {
		t.Fatalf("places went to %v", q.got)
	}
	q.mustWait("late")
	q.w.edit(func(v *link.Service) { v.Weights = map[netip.AddrPort]int{addr(0): 0, addr(1): 0} })
	if place, told := q.at["late"]; !told || place != nil {
		t.Errorf("all are drained, and who waits has %v", place)
	}
}

// Of one class alone: a flow doesn't flee from a full target to one that is down.
func TestFullIsNotDown(t *testing.T) {
	q := newQueue(t, service(bound(1, 10), 1, 1))
	q.w.set.Probed(q.w.now, addr(1), "", false)
	a := q.w.take()
	q.mustWait("1")
	if c := q.w.set.Unreached(q.w.now, a.Addr); c != None || len(q.got) != 0 {
		t.Errorf("%v, %v", c, q.got)
	}
}
