package targets

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

// start is when tests begin; nothing depends on it.
var start = time.Unix(1_800_000_000, 0)

// addr returns the address of target i.
func addr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 20, byte(i >> 8), byte(i)}), 443)
}

// service is one with a target for each weight.
func service(edit func(*link.Service), weights ...int) *link.Service {
	v := &link.Service{ID: "svc", Spread: link.Spread{Weights: map[netip.AddrPort]int{}}}
	for i, w := range weights {
		v.Targets = append(v.Targets, link.Target{Addr: addr(i)})
		v.Weights[addr(i)] = w
	}
	if edit != nil {
		edit(v)
	}
	return v
}

// world is a set, the service that it is of, and a time that only goes on when it is told to.
type world struct {
	t   testing.TB
	v   *link.Service
	set *Set
	now time.Time
}

func newWorld(t testing.TB, v *link.Service) *world {
	return &world{t: t, v: v, set: New(start, v), now: start}
}

func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

// edit makes the service another.
func (w *world) edit(f func(*link.Service)) {
	v := *w.v
	f(&v)
	w.v = &v
	w.set.Follow(w.now, w.v)
}

// take takes a place, which must be there.
func (w *world) take(tried ...*Target) *Target {
	w.t.Helper()
	t, _, err := w.set.Take(w.now, w.v, Flow{Tried: addrs(tried)})
	if err != nil {
		w.t.Fatalf("no place: %v", err)
	}
	return t
}

// target returns target i as the set knows it.
func (w *world) target(i int) *Target { return w.set.known[addr(i)] }

// shares returns how many of n flows, one after the other, each target gets.
func (w *world) shares(n int) map[netip.AddrPort]int {
	w.t.Helper()
	got := map[netip.AddrPort]int{}
	for range n {
		t := w.take()
		got[t.Addr]++
		t.Release(w.now, Served)
	}
	return got
}

// status returns what is told of target i.
func (w *world) status(i int) Status { return w.set.Status(w.now, addr(i)) }

// fail has n flows fail at target i: by a dial, or by a reset.
func (w *world) fail(i, n int, reset bool) (last Change) {
	for range n {
		if t := w.target(i); !reset {
			last = w.set.Unreached(w.now, addr(i))
		} else {
			w.set.mu.Lock()
			t.flows++
			w.set.mu.Unlock()
			last = t.Release(w.now, WasReset)
		}
	}
	return last
}

func addrs(all []*Target) (list []netip.AddrPort) {
	for _, t := range all {
		list = append(list, t.Addr)
	}
	return list
}

// source is client i.
func source(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{192, byte(i >> 16), byte(i >> 8), byte(i)})
}

func (c Change) String() string {
	if int(c) < 5 {
		return [...]string{"none", "up", "down", "ejected", "back"}[c]
	}
	return fmt.Sprint(uint8(c))
}
