package targets

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/postern-link/postern/link"
)

var (
	nameA = link.NamePort{Name: "a.example", Port: 443}
	nameB = link.NamePort{Name: "b.example", Port: 443}
)

// named gives a service names of targets.
func named(weights map[link.NamePort]int, names ...link.NamePort) func(*link.Service) {
	return func(v *link.Service) { v.TargetNames, v.NameWeights = names, weights }
}

func (w *world) find(f Found) { w.set.Find(w.now, f) }

func (w *world) listed() (all []Status) {
	w.set.Look(w.now, func(s Status) { all = append(all, s) })
	return all
}

// Each address weighs what its name does; where there are several weights the smallest counts.
func TestWeightsOfNames(t *testing.T) {
	w := newWorld(t, service(named(map[link.NamePort]int{nameA: 3}, nameA, nameB), 5))
	w.find(Found{nameA: {addr(0), addr(1), addr(2)}, nameB: {addr(2), addr(3)}})
	var got []int
	for _, s := range w.listed() {
		got = append(got, s.Weight)
	}
	if !slices.Equal(got, []int{3, 3, 1, 1}) {
		t.Errorf("weights %v", got)
	}
	w.edit(named(map[link.NamePort]int{nameA: 0}, nameA, nameB))
	for i, want := range []int{0, 0, 0, 1} {
		if s := w.status(i); s.Weight != want {
			t.Errorf("%v weighs %d, want %d", s.Addr, s.Weight, want)
		}
	}
	if by := w.target(2).By(); !slices.Equal(by, []link.NamePort{nameA, nameB}) {
		t.Errorf("it was found by %v", by)
	}
}

// An address that a name no longer leads to gets no flow, those that it has stay and count, and when it is back it is led up.
func TestAddressVanishes(t *testing.T) {
	w := newWorld(t, service(func(v *link.Service) { named(nil, nameA)(v); v.MaxPerTarget = 1 }))
	if _, _, err := w.set.Take(w.now, w.v, Flow{}); err != ErrNone {
		t.Fatalf("error %v before the name was found", err)
	}
	w.find(Found{nameA: {addr(0)}})
	place := w.take()
	w.pass(slowStart)
	w.find(Found{nameA: {addr(1)}})
	if s := w.status(0); s.Addr.IsValid() {
		t.Errorf("it is a target yet: %+v", s)
	}
	if other := w.take(); other.Addr != addr(1) {
		t.Errorf("a flow got %v", other.Addr)
	}
	if by := place.By(); !slices.Equal(by, []link.NamePort{nameA}) {
		t.Errorf("what stays was found by %v", by)
	}
	w.find(Found{nameA: {addr(0), addr(1)}})
	if _, _, err := w.set.Take(w.now, w.v, Flow{}); err != ErrFull {
		t.Errorf("error %v: the flow of before doesn't count", err)
	}
	if share := w.target(0).share(w.now); share != leastShare {
		t.Errorf("it is back with a share of %d", share)
	}
	w.pass(slowStart)
	if share := w.target(0).share(w.now); share != fullShare {
		t.Errorf("its share is %d in the end", share)
	}
	place.Release(w.now, Served)
	if got := w.take(); got.Addr != addr(0) {
		t.Errorf("the place that came free is of %v", got.Addr)
	}
}

// What names lead to stays with the names, through every change of the service.
func TestFoundFollowsTheService(t *testing.T) {
	w := newWorld(t, service(named(nil, nameA, nameB), 1))
	w.find(Found{nameA: {addr(1)}, nameB: {addr(2)}})
	w.edit(named(nil, nameB))
	var got []netip.AddrPort
	for _, s := range w.listed() {
		got = append(got, s.Addr)
	}
	if !slices.Equal(got, []netip.AddrPort{addr(0), addr(2)}) {
		t.Errorf("targets %v", got)
	}
	w.find(nil)
	if n := w.set.Len(); n != 1 {
		t.Errorf("%d targets", n)
	}
}

// Who waits gets a place at an address that is new.
func TestFoundServesTheLine(t *testing.T) {
	q := newQueue(t, service(func(v *link.Service) { named(nil, nameA)(v); bound(1, 5)(v) }, 1))
	q.w.take()
	q.mustWait("1")
	q.w.find(Found{nameA: {addr(9)}})
	if q.at["1"] == nil || q.at["1"].Addr != addr(9) {
		t.Errorf("it has %v", q.at)
	}
}
