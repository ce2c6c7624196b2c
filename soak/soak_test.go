package soak

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	runFor  = flag.Duration("for", 0, "how long to run; 0: not at all")
	program = flag.String("binary", "../postern", "the program")
)

const (
	// warm is how long everything runs before what is open and used is noted: pools and heaps have their size then.
	warm = 20 * time.Second
	// cutWithin is generous: one second is promised (X32).
	cutWithin = 10 * time.Second
	// restless is how often something is disturbed.
	restless = 2 * time.Second
)

// world is a node, its targets and its clients.
type world struct {
	t       *testing.T
	node    *node
	targets map[string]*target
	ports   uint16 // of the endpoints

	flows   sync.Map // of those under way: id to *flow, for the target's end
	next    atomic.Uint64
	allowed atomic.Bool  // what is taken back and given again is given
	changed atomic.Int64 // when that last changed, in Unix nanoseconds
	stop    chan struct{}
	clients sync.WaitGroup
	counts  [len(kinds)]atomic.Int64
	refused atomic.Int64
	bytes   atomic.Int64
}

// fault is something that must not be.
func (w *world) fault(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf(format, args...)
}

// TestSoak is the run.
func TestSoak(t *testing.T) {
	if *runFor <= 0 {
		t.Skip("make soak runs it")
	}
	w := &world{t: t, targets: map[string]*target{}, stop: make(chan struct{})}
	w.allowed.Store(true)
	for _, k := range kinds {
		w.targets[k.name] = newTarget(w, k)
	}
	w.node = startNode(w)
	began := time.Now()

	end := w.run(warm)
	w.clients.Wait()
	mark := w.node.rest(t)
	t.Logf("after %v: %s", warm, mark)

	end = w.run(max(*runFor-time.Since(began), warm))
	for now := range time.Tick(time.Minute) {
		if !now.Before(end) {
			break
		}
		t.Logf("%v: %s", now.Sub(began).Round(time.Second), w.tally())
	}
	w.clients.Wait()
	back := w.node.rest(t)
	t.Logf("at the end: %s; %s", w.tally(), back)
	if !back.like(mark) {
		t.Errorf("it didn't come back: %s, and before %s", back, mark)
	}
	for _, tg := range w.targets {
		tg.close()
	}
	w.node.stop(t)
	if _, bad, _ := w.node.out.words(); len(bad) > 0 {
		t.Errorf("the node said %d times what it shouldn't have to: %q", len(bad), bad[:min(len(bad), 10)])
	}
}

// run starts clients of all kinds, and what disturbs them, for so long, and returns when that will be over.
func (w *world) run(d time.Duration) (end time.Time) {
	end = time.Now().Add(d)
	for i, k := range kinds {
		for range k.clients {
			w.clients.Go(func() {
				for time.Now().Before(end) {
					if w.client(k, i, end) {
						w.counts[i].Add(1)
					} else {
						w.refused.Add(1)
						time.Sleep(20 * time.Millisecond)
					}
				}
			})
		}
	}
	w.clients.Go(func() {
		r := rand.New(rand.NewPCG(rand.Uint64(), 0))
		for time.Now().Before(end.Add(-restless)) {
			time.Sleep(restless)
			switch r.IntN(3) {
			case 0:
				w.node.reload(w)
			case 1:
				w.targets["flapping"].flap()
			case 2:
				w.allow(!w.allowed.Load())
			}
		}
		w.allow(true)
		w.targets["flapping"].serve()
	})
	return end
}

// allow gives an approval or takes it back, and waits until nothing that goes by it is left.
func (w *world) allow(yes bool) {
	if w.allowed.Load() == yes {
		return
	}
	w.changed.Store(time.Now().UnixNano())
	w.allowed.Store(yes)
	w.node.reload(w)
	if yes {
		return
	}
	left := 0
	for end := time.Now().Add(cutWithin); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		left = 0
		w.flows.Range(func(_, v any) bool {
			if f := v.(*flow); f.kind.cut && f.established.Load() {
				left++
			}
			return true
		})
		if left == 0 {
			return
		}
	}
	w.fault("%d flows are left %v after their approval was taken back", left, cutWithin)
}

func (w *world) tally() string {
	var b strings.Builder
	for i, k := range kinds {
		fmt.Fprintf(&b, "%s %d, ", k.name, w.counts[i].Load())
	}
	fmt.Fprintf(&b, "refused %d, %d MB", w.refused.Load(), w.bytes.Load()>>20)
	return b.String()
}
