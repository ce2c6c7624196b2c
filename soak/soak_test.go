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
	least   = flag.Int64("bytes", 0, "to be carried each way at least; it takes up to twice the time for them")
	program = flag.String("binary", "../postern", "the program")
)

const (
	// warm is how long everything runs before what is open and used is noted: pools and heaps have their size then.
	warm = 20 * time.Second
	// cutWithin is generous: one second is promised (X32).
	cutWithin = 10 * time.Second
	// restless is how often something is disturbed.
	restless = 2 * time.Second
	// crowdSize is how many come at once: with two descriptors each, more than the node has.
	crowdSize = 700
	// aftermath is how long after a crowd the node may still refuse somebody for want of a descriptor.
	aftermath = 5 * time.Second
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
	crowds  atomic.Int64 // how many are there, 0 or 1
	crowdAt atomic.Int64 // when the last one went, in Unix nanoseconds
	latest  atomic.Int64 // when to end whatever was carried, in Unix nanoseconds
	stop    chan struct{}
	stopped sync.Once
	clients sync.WaitGroup
	counts  [len(kinds)]atomic.Int64
	refused atomic.Int64

	up, down atomic.Int64 // bytes that came to targets and to clients, and were right
}

// fault is something that must not be. The run ends with the first.
func (w *world) fault(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf(format, args...)
	w.stopped.Do(func() { close(w.stop) })
}

// past reports whether nothing new is to begin: the time is over and enough was carried, or too much time is, or something
// was wrong.
func (w *world) past(end time.Time) bool {
	select {
	case <-w.stop:
		return true
	default:
	}
	now := time.Now()
	return now.After(end) && (min(w.up.Load(), w.down.Load()) >= *least || now.UnixNano() > w.latest.Load())
}

// crowded reports whether descriptors may have been short at some time since.
func (w *world) crowded(since time.Time) bool {
	return w.crowds.Load() > 0 || since.UnixNano() < w.crowdAt.Load()+int64(aftermath)
}

// TestSoak is the run.
func TestSoak(t *testing.T) {
	if *runFor <= 0 {
		t.Skip("make soak runs it")
	}
	w := &world{t: t, targets: map[string]*target{}, stop: make(chan struct{})}
	w.allowed.Store(true)
	defer time.AfterFunc(2**runFor+15*quiet, func() { panic("the soak doesn't end") }).Stop()
	for _, k := range kinds {
		w.targets[k.name] = newTarget(w, k)
	}
	w.node = startNode(w)
	began := time.Now()

	w.run(warm)
	w.clients.Wait()
	mark := w.node.rest(t)
	t.Logf("after %v: %s", warm, mark)

	end := w.run(max(*runFor-time.Since(began), warm))
	for now := range time.Tick(time.Second) {
		if w.past(end) {
			break
		}
		if past := now.Sub(began).Round(time.Second); past%time.Minute == 0 {
			t.Logf("%v: %s", past, w.tally())
		}
	}
	w.clients.Wait()
	back := w.node.rest(t)
	t.Logf("at the end, after %v: %s; %s", time.Since(began).Round(time.Second), w.tally(), back)
	if !back.like(mark) {
		t.Errorf("it didn't come back: %s, and before %s", back, mark)
	}
	if got := min(w.up.Load(), w.down.Load()); got < *least {
		t.Errorf("%d bytes were carried each way, %d were wanted", got, *least)
	}
	if m, err := w.node.scrape(); err != nil || m["postern_proxy_accept_errors_total"] == 0 {
		t.Errorf("descriptors never ran out, error %v", err)
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
	w.latest.Store(end.Add(d).UnixNano())
	for i, k := range kinds {
		for range k.clients {
			w.clients.Go(func() {
				for !w.past(end) {
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
		for crowded := false; !w.past(end); {
			select {
			case <-w.stop:
			case <-time.After(restless):
			}
			switch n := r.IntN(7); {
			case !crowded || n == 6:
				crowded = true
				w.crowd(end)
			case n < 2:
				w.node.reload(w)
			case n < 4:
				w.targets["flapping"].flap()
			default:
				w.allow(!w.allowed.Load())
			}
		}
		w.allow(true)
		w.targets["flapping"].serve()
	})
	return end
}

// crowd is more flows at once than the node has descriptors for, while all the others are there and targets go and come: who
// was there before notices nothing, who comes may be refused or has to wait, and DNS and the metrics answer.
func (w *world) crowd(end time.Time) {
	i := len(kinds) - 1
	w.crowds.Store(1)
	var all sync.WaitGroup
	for range crowdSize {
		all.Go(func() {
			if w.client(kinds[i], i, end) {
				w.counts[i].Add(1)
			} else {
				w.refused.Add(1)
			}
		})
	}
	w.targets["flapping"].flap()
	time.Sleep(restless)
	// A reload ends CoreDNS's server of metrics, with a connection that it has accepted and not read yet: that one asks again.
	_, err := w.node.scrape()
	for try := 0; err != nil && try < 3; try++ {
		time.Sleep(restless)
		_, err = w.node.scrape()
	}
	if err != nil {
		w.fault("metrics while descriptors are short: %v", err)
	}
	if err := w.node.ask(kinds[i]); err != nil {
		w.fault("DNS while descriptors are short: %v", err)
	}
	all.Wait()
	w.crowdAt.Store(time.Now().UnixNano())
	w.crowds.Store(0)
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
	fmt.Fprintf(&b, "refused %d, %d MB up and %d MB down", w.refused.Load(), w.up.Load()>>20, w.down.Load()>>20)
	return b.String()
}
