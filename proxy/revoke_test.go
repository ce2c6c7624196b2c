package proxy

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"golang.org/x/sys/unix"
)

// ways to revoke the connection of endpoint e, whose service is svc.
var revocations = map[string]func(*world) []link.Change{
	"reject": func(w *world) []link.Change {
		return []link.Change{link.Decide{Endpoint: "e", LinkID: w.connection("e").LinkID, State: link.Rejected}}
	},
	"remove": func(w *world) []link.Change {
		return []link.Change{link.Disconnect{Endpoint: "e", LinkID: w.connection("e").LinkID}}
	},
	"suspend": func(w *world) []link.Change {
		return []link.Change{link.Suspend{Endpoint: "e", LinkID: w.connection("e").LinkID}}
	},
	"delete endpoint": func(*world) []link.Change { return []link.Change{link.DeleteEndpoint{ID: "e"}} },
	"delete service":  func(*world) []link.Change { return []link.Change{link.DeleteService{ID: "svc", Force: true}} },
	"allow-list": func(*world) []link.Change {
		return []link.Change{endpoint("e", "svc", "127.77.0.1", "127.0.0.99/32")}
	},
	"removed and asked for again": func(w *world) []link.Change {
		return []link.Change{
			link.Disconnect{Endpoint: "e", LinkID: w.connection("e").LinkID}, link.AskAgain{Endpoint: "e"},
		}
	},
	"A19 another target": func(w *world) []link.Change {
		s := *w.now.Load().Service("svc")
		s.Targets = []link.Target{{Addr: netip.MustParseAddrPort("127.0.0.1:1")}}
		return []link.Change{link.PutService{Service: s}}
	},
	"pinned since": func(w *world) []link.Change {
		s := *w.now.Load().Service("svc")
		s.Pin, s.Names = link.PinTLS, []link.ResourceName{{Public: "allowed.example"}}
		return []link.Change{link.PutService{Service: s}}
	},
}

// checkCut revokes, and checks that every given side sees a reset and that there is one line.
func checkCut(t *testing.T, w *world, revoke []link.Change, message string, sides ...*net.TCPConn) {
	t.Helper()
	w.apply(revoke...)
	for i, c := range sides {
		if !isReset(c) {
			t.Errorf("side %d saw no reset", i)
		}
	}
	eventually(t, "the flow is gone", func() bool { return w.proxy.Flows() == 0 })
	if lines := w.log.lines(message, "reason=revoked"); len(lines) != 1 {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
}

func TestRevokeIdleFlow(t *testing.T) {
	for name, revoke := range revocations {
		t.Run("X32 "+name, func(t *testing.T) {
			w, client, far := pair(t, Settings{})
			checkCut(t, w, revoke(w), "flow ended", client, far)
		})
	}
}

// What doesn't concern a flow doesn't end it.
func TestFlowStays(t *testing.T) {
	w, client, far := pair(t, Settings{})
	s := *w.now.Load().Service("svc")
	s.ProxyProtocol, s.MaxConnections = link.ProxyV2, 7
	s.Targets = append(s.Targets, link.Target{Addr: netip.MustParseAddrPort("127.0.0.1:1")})
	w.apply(link.PutService{Service: s})
	w.apply(endpoint("e", "svc", "127.77.0.1", "127.0.0.0/24"))
	w.apply(service("other", 7002, netip.MustParseAddrPort("127.0.0.1:1")), endpoint("o", "other", "127.77.0.2"))
	w.apply(link.DeleteEndpoint{ID: "o"}, link.DeleteService{ID: "other"})
	if _, err := client.Write([]byte("on")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(far, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
}

func TestRevokeInEachState(t *testing.T) {
	suspend := revocations["suspend"]
	t.Run("X32 at full speed", func(t *testing.T) {
		w, client, far := pair(t, Settings{})
		var pumps sync.WaitGroup
		for _, c := range []*net.TCPConn{client, far} {
			pumps.Go(func() {
				for b := make([]byte, 64<<10); ; {
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			})
		}
		f := w.proxy.live.all()[0]
		drained := make(chan struct{})
		go func() {
			io.CopyN(io.Discard, client, 8<<20)
			close(drained)
		}()
		io.CopyN(io.Discard, far, 8<<20)
		<-drained
		checkCut(t, w, suspend(w), "flow ended")
		pumps.Wait() // both writers see an error
		if f.toTarget.Load() < 8<<20 {
			t.Error("bytes weren't counted")
		}
	})
	t.Run("X33 waiting for the hello", func(t *testing.T) {
		g := newTarget(t)
		w := newWorld(t, Settings{}, service("svc", 7001, g.addr(), pinned), endpoint("e", "svc", "127.77.0.1"))
		client := dial(t, "127.77.0.1:7001")
		eventually(t, "the flow waits", func() bool { return w.unjudged() == 1 })
		checkCut(t, w, suspend(w), "flow refused", client)
		if w.dials(t) != 0 {
			t.Error("the target was dialled")
		}
	})
	t.Run("X33 waiting for the inbound header", func(t *testing.T) {
		g := newTarget(t)
		w := newWorld(t, Settings{InboundHeaders: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
			service("svc", 7001, g.addr()), endpoint("e", "svc", "127.77.0.1"))
		client := dial(t, "127.77.0.1:7001")
		eventually(t, "the flow waits", func() bool { return w.awaiting() == 1 })
		checkCut(t, w, suspend(w), "flow refused", client)
		if w.dials(t) != 0 {
			t.Error("the target was dialled")
		}
	})
	t.Run("X33 dialling", func(t *testing.T) {
		w := newWorld(t, Settings{DialTimeout: patience},
			service("svc", 7001, deafTarget(t)), endpoint("e", "svc", "127.77.0.1"))
		client := dial(t, "127.77.0.1:7001")
		eventually(t, "the flow dials", func() bool {
			for _, f := range w.proxy.live.all() {
				f.mu.Lock()
				dialling := f.address.IsValid() && f.target == nil
				f.mu.Unlock()
				return dialling
			}
			return false
		})
		checkCut(t, w, suspend(w), "flow refused", client)
	})
	t.Run("X34 half-closed by the client", func(t *testing.T) {
		w, client, far := pair(t, Settings{})
		client.CloseWrite()
		if _, err := io.ReadAll(far); err != nil {
			t.Fatal(err)
		}
		checkCut(t, w, suspend(w), "flow ended", client)
		eventually(t, "the target sees it", func() bool {
			_, err := far.Write([]byte("x"))
			return err != nil
		})
	})
	t.Run("X34 half-closed by the target", func(t *testing.T) {
		w, client, far := pair(t, Settings{})
		far.CloseWrite()
		if _, err := io.ReadAll(client); err != nil {
			t.Fatal(err)
		}
		checkCut(t, w, suspend(w), "flow ended", far)
	})
	for _, side := range []string{"client", "target"} {
		t.Run("X34 zero window, "+side+" doesn't read", func(t *testing.T) {
			w, client, far := pair(t, Settings{})
			writer, reader := far, client
			if side == "target" {
				writer, reader = client, far
			}
			w.stall(t, writer)
			checkCut(t, w, suspend(w), "flow ended", reader)
		})
	}
}

// stall writes until the other side takes no more, and the flow is still. The writer goes on in the
// background until the connection fails.
func (w *world) stall(t *testing.T, c *net.TCPConn) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 256<<10); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	f := w.proxy.live.all()[0]
	last := int64(-1)
	eventually(t, "nothing moves any more", func() bool {
		now := f.toTarget.Load() + f.toClient.Load()
		still := now == last && now > 1
		last = now
		time.Sleep(100 * time.Millisecond)
		return still
	})
}

// pinned makes a service one of the name allowed.example.
func pinned(s *link.Service) {
	s.Pin, s.Names = link.PinTLS, []link.ResourceName{{Public: "allowed.example"}}
}

// unjudged returns how many flows wait for their first bytes.
func (w *world) unjudged() (n int) {
	for _, f := range w.proxy.live.all() {
		f.mu.Lock()
		if f.routed && f.verdict.Unjudged {
			n++
		}
		f.mu.Unlock()
	}
	return n
}

// awaiting returns how many flows wait for a PROXY header.
func (w *world) awaiting() (n int) {
	for _, f := range w.proxy.live.all() {
		f.mu.Lock()
		if f.awaits != 0 && !f.routed {
			n++
		}
		f.mu.Unlock()
	}
	return n
}

// deafTarget is an address where a dial gets no answer: its queue of connections is full.
func deafTarget(t testing.TB) netip.AddrPort { return deafOn(t, [4]byte{127, 0, 0, 1}) }

// deafOn is deafTarget for an address, or for every one.
func deafOn(t testing.TB, bind [4]byte) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.CloseOnExec(fd)
	t.Cleanup(func() { syscall.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: bind}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(at.(*unix.SockaddrInet4).Port))
	for range 16 {
		c, err := net.DialTimeout("tcp", addr.String(), 300*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("this kernel lets every connection in")
	return addr
}

// The cut of many flows is one walk: 10,000 within two seconds, fewer where descriptors are few.
func TestCutMany(t *testing.T) {
	n := min(10_000, (descriptorLimit()-1000)/4)
	if raceDetector {
		n = min(n, 500)
	}
	g := newTarget(t)
	w := newWorld(t, Settings{MaxFlows: n + 1, MaxPerSource: n + 1},
		service("svc", 7001, g.addr()), endpoint("e", "svc", "127.77.0.1"))
	clients := make([]*net.TCPConn, n)
	var fars sync.WaitGroup
	fars.Go(func() {
		for range n {
			g.next()
		}
	})
	for i := range clients {
		clients[i] = dial(t, "127.77.0.1:7001")
		clients[i].Write([]byte{'!'})
	}
	fars.Wait()
	if w.proxy.Flows() != n {
		t.Fatalf("%d flows", w.proxy.Flows())
	}
	began := time.Now()
	w.apply(revocations["reject"](w)...)
	eventually(t, "all flows are gone", func() bool { return w.proxy.Flows() == 0 })
	took := time.Since(began)
	t.Logf("%d flows were cut in %v", n, took)
	if took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	for _, c := range clients {
		if !isReset(c) {
			t.Fatal("a client saw no reset")
		}
	}
}

// X32, P12: while a proxy drains, a revocation ends the flow that it waits for at once, at both ends, and Drain returns.
func TestRevokeWhileDraining(t *testing.T) {
	for name, revoke := range revocations {
		t.Run(name, func(t *testing.T) {
			w, client, far := pair(t, Settings{DrainTimeout: time.Hour})
			done := make(chan struct{})
			go func() {
				w.proxy.Drain(context.Background())
				close(done)
			}()
			eventually(t, "no new flows", func() bool {
				w.proxy.mu.Lock()
				defer w.proxy.mu.Unlock()
				return w.proxy.ending
			})
			if err := exchange(nil, cutFlow{client, far}); err != nil {
				t.Fatalf("the flow didn't go on: %v", err)
			}
			select {
			case <-done:
				t.Fatal("Drain didn't wait")
			default:
			}
			checkCut(t, w, revoke(w), "flow ended", client, far)
			select {
			case <-done:
			case <-time.After(patience):
				t.Error("Drain still waits")
			}
		})
	}
}
