package proxy

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/postern-link/postern/policy"
)

// TestGuestsAreAsked (P13): programs are asked about flows that another process hands over, once each and a few at once,
// when they are let in, and only a no cuts them.
func TestGuestsAreAsked(t *testing.T) {
	w := newWorld(t, Settings{}, service("s", 7001, echo(t)), endpoint("e", "s", nextAddr(t)))
	w.rules.Store(under(&says{Answer: yes}))
	c := dial(t, w.first())
	eventually(t, "the flow is carried", func() bool { return ping(c) == nil })
	var own FlowInfo
	for f := range w.proxy.Own() {
		own = f
	}
	const flows = 3 * maxAgain
	var handed []FlowInfo
	for i := range flows {
		f := own
		f.ID = fmt.Sprint("guest", i)
		handed = append(handed, f)
	}
	for _, tc := range []struct {
		name string
		policy.Answer
		stay bool
	}{{"allowed", yes, true}, {"G03 no answer", nothing, true}, {"denied", no, false}} {
		t.Run(tc.name, func(t *testing.T) {
			p := &says{Answer: tc.Answer, wait: make(chan struct{})}
			w.rules.Store(under(p))
			var mu sync.Mutex
			var cut []string
			g := w.proxy.Host(func(ids []string) {
				mu.Lock()
				defer mu.Unlock()
				cut = append(cut, ids...)
			})
			defer g.Leave()
			early := slices.Clone(handed)
			for i := range early {
				early[i].Standing.Unread = true
			}
			g.Put(early...)
			if n := p.asked.Load(); n != 0 {
				t.Errorf("asked about %d flows that aren't decided", n)
			}
			g.Put(handed...)
			g.Put(handed...)
			eventually(t, "as many questions as there may be", func() bool { return p.now.Load() == maxAgain })
			close(p.wait)
			eventually(t, "all are asked about", func() bool { return p.asked.Load() == flows && p.now.Load() == 0 })
			if p.most.Load() > maxAgain {
				t.Errorf("%d at once", p.most.Load())
			}
			want := flows
			if !tc.stay {
				want = 0
			}
			eventually(t, "those that may go on are left", func() bool { return len(g.list()) == want })
			mu.Lock()
			defer mu.Unlock()
			if len(cut) != flows-want {
				t.Errorf("%d are cut", len(cut))
			}
		})
	}
}

// TestGuestsLeaveUnasked: with their process ended nobody waits for what a program says of its flows.
func TestGuestsLeaveUnasked(t *testing.T) {
	w := newWorld(t, Settings{}, service("s", 7001, echo(t)), endpoint("e", "s", nextAddr(t)))
	c := dial(t, w.first())
	eventually(t, "the flow is carried", func() bool { return ping(c) == nil })
	p := &says{Answer: no, wait: make(chan struct{})}
	w.rules.Store(under(p))
	g := w.proxy.Host(func([]string) {})
	for f := range w.proxy.Own() {
		for i := range 2 * maxAgain {
			f.ID = fmt.Sprint("guest", i)
			g.Put(f)
		}
	}
	eventually(t, "as many questions as there may be", func() bool { return p.now.Load() == maxAgain })
	g.Leave()
	if now, asked := p.now.Load(), p.asked.Load(); now != 0 || asked > 2*maxAgain {
		t.Errorf("%d questions are open, %d were asked", now, asked)
	}
}
