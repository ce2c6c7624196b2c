package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// What no flow may have any more is closed at once: when the change is made, nothing is ready.
func TestWarmLetsGo(t *testing.T) {
	t.Parallel()
	other := echo(t)
	for name, change := range map[string]func(w *world, k *keeper){
		"another target":        func(w *world, k *keeper) { w.apply(edited(w, targetsOf(other))...) },
		"drained":               func(w *world, k *keeper) { w.apply(edited(w, weighted([]netip.AddrPort{k.addr, other}, 0, 1))...) },
		"no more":               func(w *world, k *keeper) { w.apply(edited(w, cold)...) },
		"deleted":               func(w *world, k *keeper) { w.apply(link.DeleteService{ID: "svc", Force: true}) },
		"no endpoint":           func(w *world, k *keeper) { w.apply(link.DeleteEndpoint{ID: "e"}) },
		"A21 a tenant's":        func(w *world, k *keeper) { w.apply(edited(w, func(s *link.Service) { s.Tenant = "b" })...) },
		"down":                  func(w *world, k *keeper) { w.fails(k, 2) },
		"another process's":     func(w *world, k *keeper) { w.proxy.Retire(false) },
		"the end":               func(w *world, k *keeper) { w.proxy.quiesce() },
		"from another address":  func(w *world, k *keeper) { w.apply(edited(w, natted)...) },
		"no room at the target": func(w *world, k *keeper) { w.apply(edited(w, func(s *link.Service) { s.MaxPerTarget = 1 })...) },
	} {
		t.Run(name, func(t *testing.T) {
			eachEngine(t, func(t *testing.T, s Settings) {
				k := newKeeper(t)
				w := warmWorld(t, s, k, warmed(2))
				live, _, err := k.flow(w)
				if err != nil {
					t.Fatal(err)
				}
				defer live.Close()
				k.mustBeReady(w, 2)
				before := k.waiting()
				change(w, k)
				eventually(t, "the target sees their end", func() bool {
					return !slices.ContainsFunc(k.waiting(), func(c *net.TCPConn) bool { return slices.Contains(before, c) })
				})
				if n := w.warmth("unused"); n != 2 {
					t.Errorf("%v were closed", n)
				}
				if name == "from another address" {
					k.mustBeReady(w, 2)
					if a := k.mustFlow(w); a.from != "127.99.0.9" || w.warmth("taken") != 1 {
						t.Errorf("it is from %s, %v taken", a.from, w.warmth("taken"))
					}
					return
				}
				if n := k.ready(w); n != 0 {
					t.Errorf("%d are ready", n)
				}
			})
		})
	}
}

func natted(s *link.Service) { s.NAT = []netip.Addr{netip.MustParseAddr("127.99.0.9")} }

// fails has n probes of a target fail.
func (w *world) fails(k *keeper, n int) {
	t := w.proxy.health.of("svc").targets[k.addr]
	for range n {
		w.proxy.health.note(t, fmt.Errorf("dial: %w", syscall.ECONNREFUSED))
	}
}

// The bounds of what may be ready beside flows: of the target, of the node.
func TestWarmBounds(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, s Settings) {
		k := newKeeper(t)
		w := warmWorld(t, s, k, warmed(5), func(s *link.Service) { s.MaxPerTarget = 3 })
		eventually(t, "the probe is over", func() bool { return k.now.Load() == 0 })
		k.most.Store(0)
		var flows []*net.TCPConn
		for i := range 3 {
			c, _, err := k.flow(w)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			flows = append(flows, c)
			k.mustBeReady(w, 2-i)
		}
		if c, _, err := k.flow(w); err == nil {
			c.Close()
			t.Error("a flow beyond the bound")
		}
		flows[0].Close()
		k.mustBeReady(w, 1) // within a second
		if n := k.most.Load(); n > 3 {
			t.Errorf("%d connections at once", n)
		}
	})
	eachEngine(t, func(t *testing.T, s Settings) {
		s.MaxFlows, s.MaxPerSource = 16, 16
		k := newKeeper(t)
		w := warmWorld(t, s, k, warmed(5))
		var flows []*net.TCPConn
		for range 15 {
			c, _, err := k.flow(w)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			flows = append(flows, c)
			if n := k.ready(w); n > 16/warmShare {
				t.Errorf("%d are ready", n)
			}
		}
		k.mustBeReady(w, 1)
		c, _, err := k.flow(w)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		k.mustBeReady(w, 0)
		for _, c := range flows {
			c.Close()
		}
		k.mustBeReady(w, 2)
	})
}

// Where no flow comes nothing stays ready, and what grows old while flows come is dialled anew.
func TestWarmGrowsOld(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, s Settings) {
		k := newKeeper(t)
		w := warmWorld(t, s, k, func(s *link.Service) { s.Warm, s.WarmAge = 2, link.MinWarmAge })
		k.mustFlow(w)
		k.mustBeReady(w, 2)
		eventually(t, "nothing is ready", func() bool {
			w.proxy.warm.mu.Lock()
			defer w.proxy.warm.mu.Unlock()
			return len(w.proxy.warm.shelves) == 0 && w.proxy.warm.all == 0 && len(k.waiting()) == 0
		})
		if n := k.accepted.Load(); n > 2+2*3 { // the probe, the flow; within its age each at most three times
			t.Errorf("%d connections for one flow", n)
		}
		if taken, unused := w.warmth("taken"), w.warmth("unused"); taken != 0 || unused < 2 {
			t.Errorf("%v taken, %v unused", taken, unused)
		}
	})
}

// A target that ends what says nothing, or takes no connection any more, is left alone for a while.
func TestWarmBacksOff(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, s Settings) {
		k := newKeeper(t, func(k *keeper) { k.hasty = true })
		w := warmWorld(t, s, k, warmed(2))
		for range 20 {
			if c, _, err := k.flow(w); err == nil {
				t.Fatal("a flow is served")
			} else if c != nil {
				c.Close()
			}
		}
		eventually(t, "the shelf rests", func() bool {
			w.proxy.warm.follow()
			w.proxy.warm.mu.Lock()
			defer w.proxy.warm.mu.Unlock()
			for _, one := range w.proxy.warm.shelves {
				if one.pause >= 2*warmPause {
					return true
				}
			}
			return false
		})
		if n := k.accepted.Load(); n > 1+20+2*8 { // each flow would have two dialled
			t.Errorf("%d connections", n)
		}
	})
	t.Run("twice as long", func(t *testing.T) {
		s, now := new(shelf), time.Unix(1_800_000_000, 0)
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			s.failed(now)
			s.failed(now.Add(time.Millisecond)) // the same
			if s.pause != want*time.Second || !s.rest.Equal(now.Add(s.pause)) {
				t.Errorf("pause %v, want %v s", s.pause, int64(want))
			}
			now = s.rest
		}
	})
}

// Connections that are dialled at once and refused are one fault of the target, not as many as there are; one after the other they count.
func TestWarmRefusedAtOnce(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, s Settings) {
		s.ProbeInterval = time.Minute
		bad, other := newTarget(t), echo(t)
		w := newWorld(t, s, service("svc", 7001, bad.addr(), targetsOf(bad.addr(), other), warmed(4)), endpoint("e", "svc", nextAddr(t)))
		eventually(t, "both are up", func() bool { return w.status(bad.addr()).Up && w.status(other).Up })
		bad.close()
		service, key := w.now.Load().Service("svc"), shelfKey{"svc", bad.addr()}
		for i, out := range []bool{false, false, true} {
			w.proxy.warm.used(service, key.addr, false)
			w.proxy.warm.dials.Wait()
			if got := w.status(key.addr).Ejected; got != out {
				t.Errorf("ejected after %d times: %v", i+1, got)
			}
			w.proxy.warm.mu.Lock()
			if one := w.proxy.warm.shelves[key]; one != nil {
				one.rest = time.Time{}
			}
			w.proxy.warm.mu.Unlock()
		}
	})
}

// A21: a connection that is ready is judged when it is taken, on a snapshot that nobody has told the proxy of yet.
func TestWarmIsJudgedAgain(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, s Settings) {
		k := newKeeper(t)
		w := warmWorld(t, s, k, warmed(2))
		k.mustFlow(w)
		k.mustBeReady(w, 2)
		w.swap(edited(w, func(s *link.Service) { s.Tenant = "b" })...)
		if c, _, err := k.flow(w); err == nil {
			c.Close()
			t.Error("a flow is served")
		}
		eventually(t, "it is refused", func() bool { return w.metric(t, "postern_proxy_refused_total", string(policy.NoTarget)) == 1 })
		if n := w.warmth("taken"); n != 0 {
			t.Errorf("%v taken", n)
		}
		// And by who has chosen a target that was still allowed.
		f := &flow{proxy: w.proxy}
		service := w.now.Load().Service("svc")
		if conn, finish, err := f.seek(f.dialling(service), service, k.addr); conn != nil || err == nil {
			if finish == nil {
				t.Error("it is taken, or dialled")
			} else if _, err := finish(t.Context()); !errors.As(err, new(forbidden)) {
				t.Errorf("it is dialled: %v", err)
			}
		}
	})
}
