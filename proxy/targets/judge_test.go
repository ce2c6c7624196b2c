package targets

import (
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

// The thresholds of probes: two failures in a row take an answering target down, one that never answered goes with the
// first, and one success brings it up.
func TestProbes(t *testing.T) {
	for name, tt := range map[string]struct {
		probes string // + and -
		want   []Change
	}{
		"up":                  {"+", []Change{Up}},
		"never answered":      {"-", []Change{Down}},
		"one lost packet":     {"+-+", []Change{Up, None, None}},
		"down":                {"+--", []Change{Up, None, Down}},
		"down and stays":      {"+----", []Change{Up, None, Down, None, None}},
		"P17 flaps":           {"+--+--+", []Change{Up, None, Down, Up, None, Down, Up}},
		"every other is lost": {"+-+-+-", []Change{Up, None, None, None, None, None}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, service(nil, 1, 1))
			for i, p := range tt.probes {
				if got := w.set.Probed(w.now, addr(0), "", p == '+'); got != tt.want[i] {
					t.Fatalf("probe %d of %s: %v, want %v", i, tt.probes, got, tt.want[i])
				}
			}
			if c := w.set.Probed(w.now, addr(9), "", false); c != None {
				t.Errorf("a probe of no target: %v", c)
			}
		})
	}
}

// Three in a row, of one kind; what goes well in between begins the count anew.
func TestEjection(t *testing.T) {
	const dial, reset, reached, served = 'd', 'r', '+', 's'
	for name, tt := range map[string]struct {
		faults string
		out    bool
	}{
		"dials":                 {"ddd", true},
		"too few":               {"dd", false},
		"resets":                {"rrr", true},
		"not in a row":          {"dd+d", false},
		"served in between":     {"rrsr", false},
		"connected, then reset": {"+r+r+r", true}, // X: accepting is no excuse
		"of two kinds":          {"ddrr", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, service(nil, 1, 1))
			for _, f := range tt.faults {
				switch f {
				case dial, reset:
					w.fail(0, 1, f == reset)
				case reached:
					w.set.Reached(w.now, addr(0))
				case served:
					w.target(0).flows++
					w.target(0).Release(w.now, Served)
				}
			}
			if w.status(0).Ejected != tt.out {
				t.Errorf("ejected: %v", w.status(0).Ejected)
			}
			if got := w.shares(10)[addr(0)]; tt.out == (got > 0) {
				t.Errorf("%d of 10 flows", got)
			}
		})
	}
}

// Out for 10 s, then twice as long each time, for 5 minutes at most. Back after its time, one fault is enough.
func TestEjectionDoubles(t *testing.T) {
	w := newWorld(t, service(nil, 1, 1))
	n := faultsToEject
	for _, want := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
		want *= time.Second
		if c := w.fail(0, n, true); c != Ejected {
			t.Fatalf("%v after %d faults", c, n)
		}
		n = 1
		w.pass(want - time.Millisecond)
		if !w.status(0).Ejected {
			t.Fatalf("back before %v", want)
		}
		if c := w.set.Probed(w.now, addr(0), link.ProbeTCP, true); c == Back {
			t.Fatal("a connection brings back who resets connections")
		}
		w.pass(time.Millisecond)
		if w.status(0).Ejected {
			t.Fatalf("not back after %v", want)
		}
	}
	w.target(0).flows++
	w.target(0).Release(w.now, Served) // it has served its time, and a flow
	w.pass(longestEjection + time.Second)
	if c := w.fail(0, faultsToEject-1, true); c != None {
		t.Errorf("%v after too few faults", c)
	}
	if c := w.fail(0, 1, true); c != Ejected {
		t.Errorf("%v", c)
	}
	if w.pass(firstEjection); w.status(0).Ejected {
		t.Error("after a long rest it is out for longer than the first time")
	}
}

// A probe that proves as much as was in doubt brings a target back before its time.
func TestProbeBringsBack(t *testing.T) {
	for name, tt := range map[string]struct {
		reset bool
		kind  link.ProbeKind
		back  bool
	}{
		"dials, tcp":   {false, link.ProbeTCP, true},
		"dials, zero":  {false, "", true},
		"dials, tls":   {false, link.ProbeTLS, true},
		"dials, http":  {false, link.ProbeHTTP, true},
		"resets, tcp":  {true, link.ProbeTCP, false},
		"resets, zero": {true, "", false},
		"resets, tls":  {true, link.ProbeTLS, true},
		"resets, http": {true, link.ProbeHTTP, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, service(func(v *link.Service) { v.Probe.Kind = tt.kind }, 1, 1))
			w.set.Probed(w.now, addr(0), tt.kind, true)
			if c := w.fail(0, faultsToEject, tt.reset); c != Ejected {
				t.Fatal(c)
			}
			w.pass(time.Second)
			want := None
			if tt.back {
				want = Back
			}
			if c := w.set.Probed(w.now, addr(0), tt.kind, true); c != want || w.status(0).Ejected == tt.back {
				t.Errorf("%v, ejected %v", c, w.status(0).Ejected)
			}
			if !tt.back {
				return
			}
			if w.fail(0, faultsToEject-1, tt.reset); w.status(0).Ejected {
				t.Error("out after too few faults")
			}
		})
	}
}

// A flow that was connected counts as a probe that connects, and not as one that asks for more.
func TestReachedCountsAsAProbe(t *testing.T) {
	for kind, want := range map[link.ProbeKind]Change{"": Up, link.ProbeTCP: Up, link.ProbeTLS: None, link.ProbeHTTP: None} {
		w := newWorld(t, service(func(v *link.Service) { v.Probe.Kind = kind }, 1, 1))
		w.set.Probed(w.now, addr(0), kind, false)
		if c := w.set.Reached(w.now, addr(0)); c != want {
			t.Errorf("probe %q: %v, want %v", kind, c, want)
		}
	}
}

// The last target of use is never ejected, and resets, which a client may provoke, leave half of them.
func TestPanic(t *testing.T) {
	for name, tt := range map[string]struct {
		weights []int
		down    []int // by probes
		reset   bool
		most    int // that can be ejected
	}{
		"one":                  {[]int{1}, nil, false, 0},
		"two":                  {[]int{1, 1}, nil, false, 1},
		"five":                 {[]int{1, 1, 1, 1, 1}, nil, false, 4},
		"one is down":          {[]int{1, 1, 1}, []int{0}, false, 1},
		"one is drained":       {[]int{1, 0, 1}, nil, false, 1},
		"one, reset":           {[]int{1}, nil, true, 0},
		"two, reset":           {[]int{1, 1}, nil, true, 1},
		"three, reset":         {[]int{1, 1, 1}, nil, true, 1},
		"five, reset":          {[]int{1, 1, 1, 1, 1}, nil, true, 2},
		"four, down, reset":    {[]int{1, 1, 1, 1}, []int{0}, true, 1},
		"four, drained, reset": {[]int{1, 1, 1, 0}, nil, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, service(nil, tt.weights...))
			for _, i := range tt.down {
				w.set.Probed(w.now, addr(i), "", false)
			}
			out := 0
			for range 3 {
				for i := range tt.weights {
					if w.fail(i, faultsToEject, tt.reset) == Ejected {
						out++
					}
				}
			}
			if out != tt.most {
				t.Errorf("%d are ejected, want %d", out, tt.most)
			}
			w.take()
		})
	}
}

// Where the last one of use is the bad one, it is out as soon as another is back.
func TestPanicEnds(t *testing.T) {
	w := newWorld(t, service(nil, 1, 1))
	w.set.Probed(w.now, addr(1), "", false)
	if c := w.fail(0, 10, true); c != None {
		t.Fatal(c)
	}
	w.set.Probed(w.now, addr(1), "", true)
	if c := w.fail(0, 1, true); c != Ejected {
		t.Errorf("%v after the eleventh fault", c)
	}
}

// What was removed is forgotten, but for the flows that it has yet.
func TestFollow(t *testing.T) {
	w := newWorld(t, service(nil, 1, 1))
	w.fail(0, faultsToEject, false)
	w.set.Probed(w.now, addr(1), "", true)
	place := w.take()
	if place.Addr != addr(1) {
		t.Fatal("a flow for an ejected target")
	}
	both := w.v
	w.edit(func(v *link.Service) { v.Targets = nil })
	if _, _, err := w.set.Take(w.now, w.v, Flow{}); err != ErrNone {
		t.Errorf("error %v", err)
	}
	if len(w.set.known) != 1 {
		t.Errorf("%d are known, want the one with a flow", len(w.set.known))
	}
	w.v = both
	w.set.Follow(w.now, both)
	if s := w.status(1); s.Flows != 1 || s.Up {
		t.Errorf("returned as %+v", s)
	}
	if w.status(0).Ejected {
		t.Error("a target that was removed is still ejected")
	}
	w.edit(func(v *link.Service) { v.Targets = nil })
	place.Release(w.now, Served)
	if len(w.set.known) != 0 {
		t.Errorf("%d are known for ever", len(w.set.known))
	}
	w.set.Unreached(w.now, place.Addr) // of no concern any more
}

// What probes said of a target goes on to hold where it becomes another service's; what flows said doesn't.
func TestInherit(t *testing.T) {
	w, heir := newWorld(t, service(nil, 1, 1, 1)), newWorld(t, service(nil, 1, 1, 1))
	w.set.Probed(w.now, addr(0), "", true)
	w.set.Probed(w.now, addr(1), "", false)
	w.fail(2, faultsToEject, false)
	for i := range 3 {
		heir.set.Inherit(addr(i), w.status(i))
	}
	heir.set.Inherit(addr(7), Status{Down: true})
	if a, b, c := heir.status(0), heir.status(1), heir.status(2); !a.Up || !b.Down || c.Up || c.Down || c.Ejected {
		t.Errorf("inherited %+v, %+v, %+v", a, b, c)
	}
	if (heir.status(7) != Status{}) {
		t.Error("a target was inherited that is none")
	}
}
