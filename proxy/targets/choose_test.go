package targets

import (
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/postern-link/postern/link"
)

func least(v *link.Service)  { v.Balance = link.LeastConnections }
func hashed(v *link.Service) { v.Balance = link.SourceHash }

// The turns of a heavy target are spread, and in each round every target has its share exactly.
func TestRoundRobin(t *testing.T) {
	for name, tt := range map[string]struct {
		weights []int
		turns   string // targets as letters; the round repeats
	}{
		"equal":        {[]int{1, 1, 1}, "abc"},
		"one":          {[]int{7}, "aaa"},
		"heavy":        {[]int{5, 1, 1}, "aabacaa"},
		"drained":      {[]int{1, 0, 1}, "ac"},
		"equally dear": {[]int{9, 9}, "ab"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, service(nil, tt.weights...))
			var got strings.Builder
			for range 3 * len(tt.turns) {
				place := w.take()
				got.WriteByte('a' + byte(place.Addr.Addr().As4()[3]))
				place.Release(w.now, Quiet)
			}
			if want := strings.Repeat(tt.turns, 3); got.String() != want {
				t.Errorf("turns %s, want %s", got.String(), want)
			}
		})
	}
}

// Whatever the weights are, the shares are theirs after each whole round: a property.
func TestWeightsConverge(t *testing.T) {
	for name, edit := range map[string]func(*link.Service){"round robin": nil, "least connections": least} {
		t.Run(name, func(t *testing.T) {
			property := func(weights [5]uint8) bool {
				list, all := make([]int, 5), 0
				for i, x := range weights {
					list[i] = int(x % 20)
					all += list[i]
				}
				if all == 0 {
					return true
				}
				w := newWorld(t, service(edit, list...))
				got := w.shares(4 * all) // no flow is there when the next one comes
				for i, want := range list {
					if got[addr(i)] != 4*want {
						t.Logf("weights %v: target %d has %d of %d", list, i, got[addr(i)], 4*all)
						return false
					}
				}
				return true
			}
			if err := quick.Check(property, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// A flow gets a target of its endpoint's site as long as one is of use and has a place, by whatever way of choosing, and then any.
func TestSite(t *testing.T) {
	for _, edit := range []func(*link.Service){nil, least, hashed} {
		w := newWorld(t, service(edit, 1, 1, 1, 1))
		w.edit(func(v *link.Service) {
			v.MaxPerTarget = 2
			v.Sites = link.Sites{{Site: "paris", Prefix: netip.MustParsePrefix("10.20.0.0/31")}, {Site: "lyon", Prefix: netip.MustParsePrefix("10.20.0.2/32")}}
		})
		in := func(site string, places int) (got [4]int) {
			t.Helper()
			var all []*Target
			for i := range places {
				place, _, err := w.set.Take(w.now, w.v, Flow{Source: source(i), Site: site})
				if err != nil {
					t.Fatalf("%s: %v", site, err)
				}
				all = append(all, place)
				got[place.Addr.Addr().As4()[3]]++
			}
			for _, place := range all {
				place.Release(w.now, Served)
			}
			return got
		}
		for _, tt := range []struct {
			what, site string
			places     int
			want       [4]int
		}{
			{"of Paris", "paris", 4, [4]int{2, 2}},
			{"of Lyon", "lyon", 2, [4]int{2: 2}},
			{"beyond the bound in Lyon, Paris and elsewhere too", "lyon", 8, [4]int{2, 2, 2, 2}},
			{"of a site without targets", "brest", 8, [4]int{2, 2, 2, 2}},
			{"of none", "", 8, [4]int{2, 2, 2, 2}},
		} {
			if got := in(tt.site, tt.places); got != tt.want {
				t.Errorf("%s: %v, want %v", tt.what, got, tt.want)
			}
		}
		for range 3 {
			w.set.Probed(w.now, addr(2), link.ProbeTCP, false)
		}
		if got := in("lyon", 6); got != [4]int{2, 2, 0, 2} {
			t.Errorf("Lyon is down: %v", got)
		}
	}
}

// Who has few flows for its weight gets the next, so that flows that stay are spread by weight.
func TestLeastConnections(t *testing.T) {
	w := newWorld(t, service(least, 3, 1, 0))
	var at [3][]*Target
	for range 40 {
		place := w.take()
		i := place.Addr.Addr().As4()[3]
		at[i] = append(at[i], place)
	}
	if len(at[0]) != 30 || len(at[1]) != 10 {
		t.Fatalf("%d and %d flows of weights 3 and 1", len(at[0]), len(at[1]))
	}
	for _, place := range at[1] { // those of one end
		place.Release(w.now, Served)
	}
	for range 10 {
		if place := w.take(); place.Addr != addr(1) {
			t.Fatal("the next flow goes to the target with more flows")
		}
	}
}

// A target that goes moves its own clients and nobody else's, and has them back when it returns; one that is down or
// ejected is like one that went.
func TestSourceHashMovesItsShare(t *testing.T) {
	const clients = 4000
	w := newWorld(t, service(hashed, 1, 1, 1, 1, 1))
	all := func() (at [clients]netip.AddrPort) {
		for i := range at {
			place, _, err := w.set.Take(w.now, w.v, Flow{Source: source(i)})
			if err != nil {
				t.Fatal(err)
			}
			at[i] = place.Addr
			place.Release(w.now, Quiet)
		}
		return at
	}
	before := all()
	moved := func(why string, gone int) {
		t.Helper()
		now, n := all(), 0
		for i := range now {
			if now[i] == before[i] {
				continue
			}
			if n++; before[i] != addr(gone) {
				t.Fatalf("%s: a client of %v was moved", why, before[i])
			}
		}
		if n < clients/5*8/10 || n > clients/5*12/10 {
			t.Errorf("%s: %d of %d clients moved", why, n, clients)
		}
	}
	full := w.v
	w.edit(func(v *link.Service) { v.Targets = v.Targets[:4] })
	moved("removed", 4)
	w.v = full
	w.set.Follow(w.now, full)
	if all() != before {
		t.Error("not all are back with a target that is back")
	}
	w.set.Probed(w.now, addr(2), "", false)
	moved("down", 2)
	w.set.Probed(w.now, addr(2), "", true)
	w.fail(1, faultsToEject, false)
	moved("ejected", 1)
	w.set.Probed(w.now, addr(1), "", true)
	if all() != before {
		t.Error("not all are back with a target that is up again")
	}
}

// The shares of a hash are those of the weights; one that gains weight takes from all and gives to none.
func TestSourceHashWeights(t *testing.T) {
	const clients = 20000
	w := newWorld(t, service(hashed, 1, 2, 5, 0))
	before := make([]netip.AddrPort, clients)
	count := func(note bool, gains netip.AddrPort) map[netip.AddrPort]int {
		got := map[netip.AddrPort]int{}
		for i := range clients {
			place, _, _ := w.set.Take(w.now, w.v, Flow{Source: source(i)})
			got[place.Addr]++
			if note {
				before[i] = place.Addr
			} else if place.Addr != before[i] && place.Addr != gains {
				t.Fatalf("a client went from %v to %v, which gained nothing", before[i], place.Addr)
			}
			place.Release(w.now, Quiet)
		}
		return got
	}
	near := func(got, want int) bool { return math.Abs(float64(got-want)) < .1*float64(want) }
	if got := count(true, netip.AddrPort{}); !near(got[addr(0)], clients/8) || !near(got[addr(1)], clients/4) || !near(got[addr(2)], clients*5/8) || got[addr(3)] != 0 {
		t.Errorf("clients of weights 1, 2, 5, 0: %v", got)
	}
	w.edit(func(v *link.Service) { v.Weights = map[netip.AddrPort]int{addr(1): 4, addr(2): 5, addr(3): 0} })
	if got := count(false, addr(1)); !near(got[addr(1)], clients*4/10) {
		t.Errorf("clients of weights 1, 4, 5, 0: %v", got)
	}
}

// All nodes come to the same target, and go on to after an upgrade: the draws are a part of what is promised.
func TestSourceHashIsForGood(t *testing.T) {
	w := newWorld(t, service(hashed, 1, 1, 1, 1))
	var got strings.Builder
	for i := range 16 {
		place, _, _ := w.set.Take(w.now, w.v, Flow{Source: source(i)})
		got.WriteByte('a' + byte(place.Addr.Addr().As4()[3]))
	}
	if want := "aabbcdbcadababbc"; got.String() != want {
		t.Errorf("targets %s, want %s", got.String(), want)
	}
}

// A target that came up comes to its share within 10 s, linearly; those that were there from the start, and a hash,
// have theirs at once.
func TestSlowStart(t *testing.T) {
	for name, tt := range map[string]struct {
		edit  func(*link.Service)
		comes func(w *world) // brings target 1 up
	}{
		"after it was down": {nil, func(w *world) {
			w.set.Probed(w.now, addr(1), "", false)
			w.set.Probed(w.now, addr(1), "", true)
		}},
		"after it was ejected": {nil, func(w *world) {
			w.fail(1, faultsToEject, false)
			w.set.Probed(w.now, addr(1), "", true)
		}},
		"after its time was over": {nil, func(w *world) {
			w.fail(1, faultsToEject, false)
			w.pass(firstEjection)
		}},
		"after it was drained": {nil, func(w *world) {
			w.edit(func(v *link.Service) { v.Weights = map[netip.AddrPort]int{addr(1): 0} })
			w.edit(func(v *link.Service) { v.Weights = nil })
		}},
		"added": {nil, func(w *world) {
			w.edit(func(v *link.Service) { v.Targets = v.Targets[:1] })
			w.edit(func(v *link.Service) { v.Targets = append(v.Targets[:1:1], link.Target{Addr: addr(1)}) })
		}},
		"least connections": {least, func(w *world) {
			w.set.Probed(w.now, addr(1), "", false)
			w.set.Probed(w.now, addr(1), "", true)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, service(tt.edit, 1, 1))
			if got := w.shares(100)[addr(1)]; got != 50 {
				t.Fatalf("%d of 100 flows from the start", got)
			}
			tt.comes(w)
			for _, step := range []struct {
				after time.Duration
				want  float64 // of the flows
			}{{0, .1 / 1.1}, {5 * time.Second, .5 / 1.5}, {5 * time.Second, .5}, {time.Hour, .5}} {
				w.pass(step.after)
				if got := w.shares(3000)[addr(1)]; math.Abs(float64(got)/3000-step.want) > .01 {
					t.Errorf("%d of 3000 flows, want a share of %.2f", got, step.want)
				}
			}
		})
	}
}

func TestNoTarget(t *testing.T) {
	for name, tt := range map[string]struct {
		weights []int
		tries   int // of all
		prepare func(w *world)
		want    error
	}{
		"no target":      {nil, 0, nil, ErrNone},
		"all drained":    {[]int{0, 0}, 0, nil, ErrDrained},
		"each once":      {[]int{1, 1, 1, 1, 1}, 5, nil, ErrNone},
		"one is drained": {[]int{1, 0, 1}, 2, nil, ErrNone},
		"P17 all are down": {[]int{1, 1, 1, 1, 1}, blindTries, func(w *world) {
			for i := range 5 {
				w.set.Probed(w.now, addr(i), "", false)
			}
		}, ErrNone},
		"good ones first": {[]int{1, 1, 1, 1, 1}, 4, func(w *world) {
			w.set.Probed(w.now, addr(2), "", false) // the fourth try would be blind
		}, ErrNone},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, service(nil, tt.weights...))
			if tt.prepare != nil {
				tt.prepare(w)
			}
			var tried []netip.AddrPort
			for {
				place, left, err := w.set.Take(w.now, w.v, Flow{Tried: tried})
				if err != nil {
					if !errors.Is(err, tt.want) || len(tried) != tt.tries {
						t.Errorf("error %v after %d tries, want %v after %d", err, len(tried), tt.want, tt.tries)
					}
					return
				}
				if left < 1 || left > len(tt.weights) {
					t.Errorf("%d left", left)
				}
				tried = append(tried, place.Addr)
			}
		})
	}
}

// What is known to be bad comes last: ejected before down.
func TestOrderOfLastResort(t *testing.T) {
	w := newWorld(t, service(nil, 1, 1, 1))
	w.fail(0, faultsToEject, false)
	w.set.Probed(w.now, addr(1), "", false)
	first := w.take()
	second := w.take(first)
	third := w.take(first, second)
	if first.Addr != addr(2) || second.Addr != addr(0) || third.Addr != addr(1) {
		t.Errorf("tried %v, %v, %v", first.Addr, second.Addr, third.Addr)
	}
}

func TestTakeAllocatesNothing(t *testing.T) {
	for name, v := range map[string]*link.Service{
		"one": service(nil, 1), "round robin": service(nil, 1, 2), "least": service(least, 1, 2), "hash": service(hashed, 1, 2),
	} {
		w := newWorld(t, v)
		if n := testing.AllocsPerRun(100, func() {
			place, _, _ := w.set.Take(w.now, w.v, Flow{Source: source(1)})
			w.set.Reached(w.now, place.Addr)
			place.Release(w.now, Served)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	for _, bb := range []struct {
		name string
		v    *link.Service
	}{
		{"one", service(nil, 1)}, {"three", service(nil, 1, 1, 1)}, {"least", service(least, 1, 1, 1)},
		{"hash", service(hashed, 1, 1, 1)}, {"hundred", service(nil, make([]int, 100)...)},
	} {
		if bb.name == "hundred" {
			bb.v.Weights = nil
		}
		b.Run(bb.name, func(b *testing.B) {
			w := newWorld(b, bb.v)
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					place, _, _ := w.set.Take(w.now, w.v, Flow{Source: source(1)})
					w.set.Reached(w.now, place.Addr)
					place.Release(w.now, Served)
				}
			})
		})
	}
}
