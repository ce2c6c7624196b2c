package proxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/internal/tcptest"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/targets"
)

// status returns what is known of a target of service svc.
func (w *world) status(addr netip.AddrPort) targets.Status {
	s := w.proxy.health.of("svc")
	if s == nil {
		return targets.Status{}
	}
	return s.set.Status(time.Now(), addr)
}

// waits returns how many flows of service svc stand in line.
func (w *world) waits() int {
	n, _ := w.proxy.health.of("svc").set.Look(time.Now(), func(targets.Status) {})
	return n
}

// named serves each connection that brings a byte with a name, then with what comes, and returns its address.
func named(t testing.TB, name string) netip.AddrPort {
	return serve(t, func(c *net.TCPConn) {
		var b [1]byte
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return // a probe
		}
		io.WriteString(c, name)
		io.Copy(c, c)
		c.CloseWrite()
	})
}

// asks makes a flow, from an address where one is given, and returns the name of the target that serves it.
func (w *world) asks(from ...string) (string, *net.TCPConn, error) {
	d := net.Dialer{Timeout: patience}
	if len(from) > 0 {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from[0])}
	}
	c, err := d.Dial("tcp", w.first())
	if err != nil {
		return "", nil, err
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	var b [1]byte
	if _, err = c.Write([]byte("?")); err == nil {
		_, err = io.ReadFull(c, b[:])
	}
	return string(b[:]), c.(*net.TCPConn), err
}

// mustAsk is asks for a flow that must be served. It is over when it returns.
func (w *world) mustAsk(from ...string) string {
	w.t.Helper()
	name, c, err := w.asks(from...)
	if err != nil {
		w.t.Fatal(err)
	}
	c.Close()
	return name
}

// weighted is the edit of a service with targets a, b, c ... and their weights.
func weighted(addrs []netip.AddrPort, weights ...int) func(*link.Service) {
	return func(s *link.Service) {
		targetsOf(addrs...)(s)
		s.Weights = map[netip.AddrPort]int{}
		for i, w := range weights {
			s.Weights[addrs[i]] = w
		}
	}
}

func TestWeights(t *testing.T) {
	a, b := named(t, "a"), named(t, "b")
	w := newWorld(t, Settings{}, service("svc", 7001, a, weighted([]netip.AddrPort{a, b}, 3, 1)), endpoint("e", "svc", nextAddr(t)))
	got := map[string]int{}
	for range 12 {
		got[w.mustAsk()]++
	}
	if got["a"] != 9 || got["b"] != 3 {
		t.Errorf("flows of weights 3 and 1: %v", got)
	}
}

// The flows that stay are spread, whatever turn it is.
func TestLeastConnections(t *testing.T) {
	a, b := named(t, "a"), named(t, "b")
	w := newWorld(t, Settings{}, service("svc", 7001, a, targetsOf(a, b), func(s *link.Service) { s.Balance = link.LeastConnections }), endpoint("e", "svc", nextAddr(t)))
	held := map[string][]*net.TCPConn{}
	open := func(n int) {
		for range n {
			name, c, err := w.asks()
			if err != nil {
				t.Fatal(err)
			}
			held[name] = append(held[name], c)
		}
	}
	open(6)
	for _, c := range held["a"] {
		c.Close()
	}
	eventually(t, "the flows of one target are over", func() bool { return w.status(a).Flows == 0 })
	held["a"] = nil
	if open(3); len(held["a"]) != 3 || len(held["b"]) != 3 {
		t.Errorf("flows %d and %d", len(held["a"]), len(held["b"]))
	}
	for _, at := range []netip.AddrPort{a, b} {
		if n := w.metric(t, "postern_proxy_target_flows", "svc", at.String()); n != 3 {
			t.Errorf("target_flows %v", n)
		}
	}
}

// A client comes to the same target again and again, and not all clients to one.
func TestSourceHash(t *testing.T) {
	all := []netip.AddrPort{named(t, "a"), named(t, "b"), named(t, "c")}
	w := newWorld(t, Settings{}, service("svc", 7001, all[0], targetsOf(all...), func(s *link.Service) { s.Balance = link.SourceHash }), endpoint("e", "svc", nextAddr(t)))
	at := map[string]int{}
	for i := range 24 {
		from := fmt.Sprintf("127.0.9.%d", i+1)
		first := w.mustAsk(from)
		if again := w.mustAsk(from); again != first {
			t.Fatalf("%s comes to %s, then to %s", from, first, again)
		}
		at[first]++
	}
	if len(at) < 2 {
		t.Errorf("24 clients at %v", at)
	}
}

// A target with weight 0 keeps its flows and gets no other; one that is removed loses them at once.
func TestDrainedTarget(t *testing.T) {
	a, b := named(t, "a"), named(t, "b")
	all := []netip.AddrPort{a, b}
	w := newWorld(t, Settings{}, service("svc", 7001, a, targetsOf(all...)), endpoint("e", "svc", nextAddr(t)))
	var live *net.TCPConn
	for live == nil {
		if name, c, err := w.asks(); err != nil {
			t.Fatal(err)
		} else if name == "a" {
			live = c
		}
	}
	goesOn := func() error {
		var b [1]byte
		live.Write([]byte("x"))
		_, err := io.ReadFull(live, b[:])
		return err
	}
	w.apply(edited(w, weighted(all, 0, 1))...)
	for range 6 {
		if name := w.mustAsk(); name != "b" {
			t.Error("a flow for the drained target")
		}
	}
	if err := goesOn(); err != nil {
		t.Errorf("the flow of the drained target: %v", err)
	}
	w.apply(edited(w, weighted(all, 0, 0))...)
	if w.proxy.Healthy("svc") {
		t.Error("a service without a target for new flows is healthy")
	}
	if _, _, err := w.asks(); err == nil {
		t.Error("a flow though all targets are drained")
	}
	eventually(t, "its line", func() bool {
		return len(w.log.lines("flow refused", "reason=no_target", targets.ErrDrained.Error())) == 1
	})
	if err := goesOn(); err != nil {
		t.Errorf("the flow of the drained target: %v", err)
	}
	w.apply(edited(w, targetsOf(b))...)
	if goesOn() == nil {
		t.Error("the flow of a removed target goes on")
	}
}

// Flows beyond the bound wait in line: in order, not too many, and not beyond dial_timeout.
func TestQueueOfFlows(t *testing.T) {
	g := newTarget(t)
	w := newWorld(t, Settings{ProbeInterval: time.Minute, DialTimeout: patience}, service("svc", 7001, g.addr(), func(s *link.Service) {
		s.MaxPerTarget, s.MaxWaiting = 1, 2
	}), endpoint("e", "svc", nextAddr(t)))
	var clients []*net.TCPConn
	for i := range 3 {
		c := dial(t, w.first())
		c.Write([]byte{byte('1' + i)})
		clients = append(clients, c)
		eventually(t, "it has a place, or stands in line", func() bool { return w.status(g.addr()).Flows == 1 && w.waits() == i })
	}
	if n := w.metric(t, "postern_proxy_waiting_flows", "svc"); n != 2 {
		t.Errorf("waiting_flows %v", n)
	}
	if _, _, err := w.asks(); err == nil {
		t.Error("one too many isn't refused")
	}
	eventually(t, "its line", func() bool { return len(w.log.lines("flow refused", "reason=limit", targets.ErrLine.Error())) == 1 })
	for i, c := range clients {
		far, b := g.next()
		if b != byte('1'+i) {
			t.Errorf("flow %c has the place of flow %c", b, '1'+i)
		}
		if n := w.status(g.addr()).Flows; n != 1 {
			t.Errorf("%d flows at the target", n)
		}
		far.Close()
		c.Close()
	}
	eventually(t, "all places are free", func() bool { return w.status(g.addr()).Flows == 0 && w.waits() == 0 })
}

// A target that rules keep from the flow is none to wait for, whatever place it has: the flow waits for the others, and its time ends.
func TestQueueBesideForbidden(t *testing.T) {
	g := newTarget(t)
	own := netip.MustParseAddrPort("127.78.0.9:7402")
	w := newWorld(t, Settings{ProbeInterval: time.Minute, DialTimeout: 300 * time.Millisecond, Own: []netip.AddrPort{own}},
		service("svc", 7001, g.addr(), func(s *link.Service) {
			s.Targets = append(s.Targets, link.Target{Addr: own})
			s.MaxPerTarget, s.MaxWaiting = 1, 5
		}), endpoint("e", "svc", nextAddr(t)))
	live := dial(t, w.first())
	live.Write([]byte("1"))
	far, _ := g.next()
	if !isReset(dial(t, w.first())) {
		t.Error("it isn't refused")
	}
	eventually(t, "its line", func() bool { return len(w.log.lines("flow refused", "reason=limit", errNoPlace.Error())) == 1 })
	far.Close()
	live.Close()
}

func TestQueueEnds(t *testing.T) {
	full := func(t *testing.T, s Settings, at string) (w *world, live, waits *net.TCPConn) {
		g := newTarget(t)
		w = newWorld(t, s, service("svc", 7001, g.addr(), func(s *link.Service) { s.MaxPerTarget, s.MaxWaiting = 1, 5 }), endpoint("e", "svc", at))
		live = dial(t, w.first())
		live.Write([]byte("1"))
		g.next()
		waits = dial(t, w.first())
		return w, live, waits
	}
	t.Run("time", func(t *testing.T) {
		w, _, waits := full(t, Settings{DialTimeout: 200 * time.Millisecond}, nextAddr(t))
		if !isReset(waits) {
			t.Error("it waits on")
		}
		eventually(t, "its line", func() bool { return len(w.log.lines("flow refused", "reason=limit", errNoPlace.Error())) == 1 })
		eventually(t, "the line is empty", func() bool { return w.waits() == 0 })
	})
	for name, revoke := range revocations {
		t.Run(name, func(t *testing.T) {
			w, live, waits := full(t, Settings{DialTimeout: time.Hour}, "127.77.0.1")
			eventually(t, "it stands in line", func() bool { return w.waits() == 1 })
			w.apply(revoke(w)...)
			if !isReset(live) {
				t.Error("a flow goes on")
			}
			if name == "A19 another target" || name == "pinned since" {
				waits.Close() // it has no target yet, and may have the new one: it isn't what was revoked
				return
			}
			if !isReset(waits) {
				t.Error("a flow that waits goes on")
			}
			eventually(t, "both are gone", func() bool { return w.proxy.Flows() == 0 })
		})
	}
}

// A target that accepts and resets is out after a few flows; one that answers its HTTP probe comes back.
func TestAcceptsAndResets(t *testing.T) {
	var bad atomic.Bool
	server := func(name string, bad *atomic.Bool) netip.AddrPort {
		return serve(t, func(c *net.TCPConn) {
			b := make([]byte, 256)
			n, _ := c.Read(b)
			switch {
			case strings.HasPrefix(string(b[:n]), "GET"):
				io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n") // a probe finds nothing wrong
			case bad.Load():
				c.SetLinger(0)
			case n > 0:
				io.WriteString(c, name)
			}
		})
	}
	flaps, good := server("f", &bad), server("g", new(atomic.Bool))
	for name, tt := range map[string]struct {
		probe link.Probe
		back  bool
	}{
		"probe tcp":  {link.Probe{}, false},
		"probe http": {link.Probe{Kind: link.ProbeHTTP, Path: "/"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			bad.Store(true)
			settings := Settings{ProbeInterval: time.Minute}
			if tt.back {
				settings.ProbeInterval = 100 * time.Millisecond
			}
			w := newWorld(t, settings, service("svc", 7001, flaps, targetsOf(flaps, good), func(s *link.Service) { s.Probe = tt.probe }), endpoint("e", "svc", nextAddr(t)))
			eventually(t, "it is up", func() bool { return w.status(flaps).Up && w.status(good).Up })
			failed := 0
			eventually(t, "it is ejected", func() bool {
				if _, _, err := w.asks(); err != nil {
					failed++
				}
				return len(w.log.lines("target is ejected", flaps.String())) > 0
			})
			if failed > 10 { // three, unless the machine is so busy that a reset isn't at once
				t.Errorf("%d flows were lost", failed)
			}
			if !tt.back {
				if w.metric(t, "postern_proxy_target_ejected", "svc", flaps.String()) != 1 || w.metric(t, "postern_proxy_target_ejected", "svc", good.String()) != 0 {
					t.Error("the metric says otherwise")
				}
				for range 20 {
					w.mustAsk()
				}
				if !w.status(flaps).Ejected || !w.proxy.Healthy("svc") {
					t.Error("back by a connection, or without health")
				}
				return
			}
			bad.Store(false)
			eventually(t, "it is back and has flows", func() bool {
				name, _, err := w.asks()
				return err == nil && name == "f"
			})
			if len(w.log.lines("target is back", flaps.String())) == 0 {
				t.Error("its return isn't logged")
			}
		})
	}
}

// Dials that fail put a target out long before its next probe, and no flow is lost by them.
func TestFailedDialsEject(t *testing.T) {
	bad := newTarget(t)
	good := named(t, "g")
	w := newWorld(t, Settings{ProbeInterval: time.Minute}, service("svc", 7001, good, targetsOf(bad.addr(), good)), endpoint("e", "svc", nextAddr(t)))
	eventually(t, "both are up", func() bool { return w.status(bad.addr()).Up && w.status(good).Up })
	bad.close()
	for range 8 {
		w.mustAsk()
	}
	if s := w.status(bad.addr()); !s.Ejected || s.Down {
		t.Errorf("known as %+v", s)
	}
}

// P17: one of three targets is dead and one is silent, then the one that was good dies and the dead one comes. All flows but
// one in a thousand are carried, and what is bad is soon left alone.
func TestTargetsSwap(t *testing.T) {
	t.Parallel()
	port := func() netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("127.78.1.1"), freeport.Get(t)) }
	first, second, slow := port(), port(), deafTarget(t)
	w := newWorld(t, Settings{DialTimeout: 6 * time.Second, ProbeInterval: 200 * time.Millisecond, MaxPerSource: 1000},
		service("svc", 7001, first, targetsOf(first, second, slow)), endpoint("e", "svc", nextAddr(t)))
	run := func(good netip.AddrPort) (lost int32) {
		var all sync.WaitGroup
		var bad atomic.Int32
		for range 20 {
			all.Go(func() {
				for range 50 {
					_, c, err := w.asks()
					if err != nil {
						bad.Add(1)
						continue
					}
					c.Close()
				}
			})
		}
		all.Wait()
		eventually(t, "the bad ones are known", func() bool {
			for _, at := range []netip.AddrPort{first, second, slow} {
				if s := w.status(at); (s.Down || s.Ejected) == (at == good) {
					return false
				}
			}
			return true
		})
		return bad.Load()
	}
	g := tcptest.Serve(t, first.String(), tcptest.Echo)
	lost := run(first)
	h := tcptest.Serve(t, second.String(), tcptest.Echo)
	eventually(t, "the other one is up", func() bool { return w.status(second).Up })
	g.Close()
	lost += run(second)
	h.Close()
	if lost > 2 {
		t.Errorf("%d of 2000 flows were lost", lost)
	}
	if n := len(w.log.lines("flow refused", "reason="+string(policy.NoTarget))); n > 2 {
		t.Errorf("%d flows found no target", n)
	}
}
