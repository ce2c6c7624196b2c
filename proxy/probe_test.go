package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/targets"
)

// One backend of many services is asked once for all of them.
func TestProbesAreShared(t *testing.T) {
	const services = 60
	var probes atomic.Int32
	backend := serve(t, func(*net.TCPConn) { probes.Add(1) })
	var changes []link.Change
	for i := range services {
		id := link.ID(fmt.Sprint("svc", i))
		changes = append(changes, service(id, 7001, backend), endpoint("e"+id, id, nextAddr(t)))
	}
	w := newWorld(t, Settings{ProbeInterval: time.Minute}, changes...)
	eventually(t, "all are published", func() bool {
		for i := range services {
			if !w.proxy.Published(link.ID(fmt.Sprint("svc", i))) {
				return false
			}
		}
		return true
	})
	if n := probes.Load(); n > services/2 {
		t.Errorf("%d probes for %d services of one backend", n, services)
	}
}

// A target is drained before its first probe, which may be over before anything else is done: what is found out of one that was drained
// from the start publishes nothing, whether it answers or not.
func TestFirstProbeOfADrainedTarget(t *testing.T) {
	t.Parallel()
	w, backend := newWorld(t, Settings{}), echo(t)
	for _, weight := range []int{0, 1} {
		s := service("svc", 7001, backend, weighted([]netip.AddrPort{backend}, weight)).Service
		of := &serviceHealth{published: new(atomic.Bool), prompt: newLane(1), silent: newLane(1), set: targets.New(time.Now(), &s)}
		one := w.proxy.health.probe(&s, of.set.Status(time.Now(), backend), of, nil)
		select { // and nothing is done meanwhile
		case <-one.probed:
		case <-time.After(patience):
			t.Fatal("no probe")
		}
		one.stop()
		if !one.up.Load() || of.published.Load() != (weight > 0) {
			t.Errorf("weight %d: up %t, published %t", weight, one.up.Load(), of.published.Load())
		}
	}
}

func TestAsked(t *testing.T) {
	var a asked
	q, other := question{timeout: 1}, question{timeout: 2}
	down := errors.New("down")
	calls := 0
	ask := func(q question, fresh time.Duration) error {
		return a.once(q, fresh, func() error { calls++; return down })
	}
	for _, tt := range []struct {
		name  string
		q     question
		fresh time.Duration
		calls int
	}{
		{"the first", q, time.Hour, 1},
		{"fresh", q, time.Hour, 1},
		{"another question", other, time.Hour, 2},
		{"not fresh", q, 0, 3},
	} {
		if err := ask(tt.q, tt.fresh); err != down || calls != tt.calls {
			t.Errorf("%s: %v after %d calls, want %v after %d", tt.name, err, calls, down, tt.calls)
		}
	}
	a.forget(time.Now().Add(2 * time.Minute))
	if len(a.answers) != 0 {
		t.Errorf("%d answers are remembered for ever", len(a.answers))
	}
}

// One under way serves all who come meanwhile, however long it takes.
func TestAskedWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a asked
		release := make(chan struct{})
		go func() { _ = a.once(question{}, 0, func() error { <-release; return nil }) }()
		synctest.Wait()
		for range 8 {
			go func() {
				if err := a.once(question{}, 0, func() error { return errors.New("down") }); err != nil {
					t.Error("asked again while the answer was on its way")
				}
			}()
		}
		synctest.Wait()
		close(release)
		synctest.Wait()
	})
}
