package proxy

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-link/postern/link"
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
