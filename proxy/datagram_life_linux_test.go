package proxy

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// TestDatagramsRevoked: in whatever way a connection ends, nothing of a live flow passes when Update has returned, in
// either direction; and a new approval lets the same client in again.
func TestDatagramsRevoked(t *testing.T) {
	for _, tt := range []struct {
		name         string
		cut, restore func(w *world)
	}{
		{"rejected", func(w *world) {
			w.apply(link.Decide{Endpoint: "e", LinkID: w.connection("e").LinkID, State: link.Rejected})
		}, func(w *world) {
			w.apply(link.Decide{Endpoint: "e", LinkID: w.connection("e").LinkID, State: link.Approved})
		}},
		{"suspended", func(w *world) {
			w.apply(link.Suspend{Endpoint: "e", LinkID: w.connection("e").LinkID})
		}, func(w *world) {
			w.apply(link.Resume{Endpoint: "e", LinkID: w.connection("e").LinkID})
		}},
		{"removed", func(w *world) {
			w.apply(link.Disconnect{Endpoint: "e", LinkID: w.connection("e").LinkID})
		}, func(w *world) { w.apply(link.AskAgain{Endpoint: "e"}) }},
		{"allow-list", func(w *world) { w.apply(endpoint("e", "svc", w.host(), "127.9.0.0/16")) },
			func(w *world) { w.apply(endpoint("e", "svc", w.host())) }},
		{"of TCP now", func(w *world) { w.apply(service("svc", 7001, w.now.Load().Service("svc").Targets[0].Addr)) },
			func(w *world) { w.apply(service("svc", 7001, w.now.Load().Service("svc").Targets[0].Addr, ofUDP)) }},
		{"another port", func(w *world) {
			w.apply(service("svc", 7002, w.now.Load().Service("svc").Targets[0].Addr, ofUDP))
		}, func(w *world) { w.apply(service("svc", 7001, w.now.Load().Service("svc").Targets[0].Addr, ofUDP)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := udpTarget(t)
			w := udpWorld(t, udpAddr(target), Settings{})
			c := udpDial(t, w.first())
			c.Write([]byte("before"))
			b := make([]byte, 64)
			_, from, err := target.ReadFromUDPAddrPort(b)
			if err != nil {
				t.Fatal(err)
			}
			tt.cut(w)
			c.Write([]byte("after"))
			target.WriteToUDPAddrPort([]byte("late"), from)
			silent(t, target)
			c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if n, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%q, %v", b[:n], err) // refused by the kernel where nothing listens any more
			}
			eventually(t, "the flow is recorded", func() bool { return w.metric(t, "postern_proxy_flows_total", "udp", string(policy.Revoked)) == 1 })
			if w.proxy.datagrams.count() != 0 {
				t.Error("it is still counted")
			}
			tt.restore(w)
			c = udpDial(t, w.first())
			c.Write([]byte("again"))
			if got := said(t, target); got != "again" {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestDatagramsIdle: a flow that carries nothing ends after the idle timeout and not before, by a clock of the test's.
func TestDatagramsIdle(t *testing.T) {
	w := udpWorld(t, udpEcho(t), Settings{})
	c := udpDial(t, w.first())
	talk := func() {
		t.Helper()
		c.Write([]byte("x"))
		said(t, c)
	}
	talk()
	f := w.proxy.live.all()[0]
	now := time.Now().Add(time.Hour) // far from the ticker's
	tick := func(d time.Duration) {
		now = now.Add(d)
		f.tend(now)
	}
	w.proxy.stop() // the ticker's goroutine ends
	w.proxy.background.Wait()
	tick(0)
	tick(time.Millisecond)
	tick(29 * time.Second)
	if w.proxy.Flows() != 1 {
		t.Fatal("it has ended too early")
	}
	talk()
	eventually(t, "it is noticed", f.moved.Load)
	tick(2 * time.Second)
	tick(29 * time.Second)
	if w.proxy.Flows() != 1 {
		t.Fatal("it has ended though something moved")
	}
	tick(2 * time.Second)
	eventually(t, "it ends", func() bool { return w.metric(t, "postern_proxy_flows_total", "udp", string(policy.Idle)) == 1 })
	silent(t, c)
}

// TestDatagramsClosedPort: the port of a target is closed. The flow ends and is counted, and the next one goes to another.
func TestDatagramsClosedPort(t *testing.T) {
	gone, there := udpTarget(t), udpTarget(t)
	closed := udpAddr(gone)
	gone.Close()
	w := udpWorld(t, closed, Settings{}, func(v *link.Service) {
		v.Targets = append(v.Targets, link.Target{Addr: udpAddr(there)})
	})
	ended := func() bool { return w.metric(t, "postern_proxy_flows_total", "udp", string(policy.Target)) >= 1 }
	var last *net.UDPConn
	eventually(t, "a flow ends at the closed port", func() bool {
		last = udpDial(t, w.first())
		last.Write([]byte("x"))
		return ended()
	})
	silent(t, last)
	for range 10 { // none goes to the closed one now
		udpDial(t, w.first()).Write([]byte("y"))
	}
	for y := 0; y < 10; { // none of them is lost
		if said(t, there) == "y" {
			y++
		}
	}
}

// TestDatagramsClosedInMidFlow (P05): the target's port is closed after it has answered. The flow ends with the client's next
// datagram, and the client isn't told anything.
func TestDatagramsClosedInMidFlow(t *testing.T) {
	target := udpTarget(t)
	w := udpWorld(t, udpAddr(target), Settings{})
	c := udpDial(t, w.first())
	c.Write([]byte("one"))
	_, from, err := target.ReadFromUDPAddrPort(make([]byte, 8))
	if err != nil {
		t.Fatal(err)
	}
	target.WriteToUDPAddrPort([]byte("answer"), from)
	if got := said(t, c); got != "answer" {
		t.Errorf("%q", got)
	}
	target.Close()
	c.Write([]byte("two"))
	eventually(t, "the flow ends", func() bool {
		return len(w.log.lines("flow ended", "protocol=udp", "reason=target", "to_client=6")) == 1
	})
	silent(t, c)
	if w.proxy.Flows() != 0 || w.proxy.datagrams.count() != 0 {
		t.Error("it is still counted")
	}
}

// heldProgram is a policy program that answers when it is told to.
type heldProgram struct {
	policy.Program // nil
	asked          chan policy.Question
	answer         chan policy.Answer
}

func (p heldProgram) Authorize(ctx context.Context, q policy.Question) policy.Answer {
	p.asked <- q
	select {
	case a := <-p.answer:
		return a
	case <-ctx.Done():
		return policy.Answer{Reason: policy.PolicyError}
	}
}

// TestDatagramsAndPrograms: while a program is asked the first datagrams are held; then they pass, or don't, and who was
// refused is asked about once a second at most.
func TestDatagramsAndPrograms(t *testing.T) {
	for _, tt := range []struct {
		name string
		then func(w *world, p heldProgram)
		want policy.Reason // "": the datagrams pass
	}{
		{"allowed", func(_ *world, p heldProgram) { p.answer <- policy.Answer{Allow: true} }, ""},
		{"refused", func(_ *world, p heldProgram) { p.answer <- policy.Answer{Reason: policy.PolicyDenied, Rule: "no"} }, policy.PolicyDenied},
		{"revoked meanwhile", func(w *world, _ heldProgram) {
			w.apply(link.Suspend{Endpoint: "e", LinkID: w.connection("e").LinkID})
		}, policy.Revoked},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := udpTarget(t)
			w := udpWorld(t, udpAddr(target), Settings{})
			program := heldProgram{asked: make(chan policy.Question, 9), answer: make(chan policy.Answer)}
			w.rules.Store(&policy.Policy{Sets: []policy.Set{{Name: "p", Program: program}}})
			c := udpDial(t, w.first())
			for _, word := range []string{"one", "two", "three"} {
				c.Write([]byte(word))
			}
			if q := <-program.asked; q.Request.Protocol != link.UDP || q.Verdict.Endpoint.ID != "e" {
				t.Errorf("asked about %+v", q)
			}
			silent(t, target)
			tt.then(w, program)
			if tt.want != "" {
				w.refusedUDP(tt.want, 1)
				silent(t, target)
				if tt.want == policy.PolicyDenied {
					c.Write([]byte("again"))
					w.refusedUDP(tt.want, 2)
					if len(program.asked) > 0 {
						t.Error("it is asked again at once")
					}
				}
				return
			}
			for _, word := range []string{"one", "two", "three"} {
				if got := said(t, target); got != word {
					t.Errorf("%q, want %q", got, word)
				}
			}
		})
	}
}

// TestDatagramsReload: live flows go on over other settings, and where the listeners change.
func TestDatagramsReload(t *testing.T) {
	w := newWorld(t, Settings{}, routedPool(), service("svc", 7392, udpEcho(t), ofUDP),
		endpoint("r", "svc", "10.255.77.9"), endpoint("e", "svc", "127.77.9.93")) // one listener for all addresses
	c := udpDial(t, "127.77.9.93:7392")
	talk := func() {
		t.Helper()
		c.Write([]byte("x"))
		said(t, c)
	}
	talk()
	id := w.proxy.live.all()[0].id
	abandoned, err := w.proxy.Prepare(w.now.Load(), Settings{PerAddress: true})
	if err != nil {
		t.Fatal(err)
	}
	abandoned.Abandon()
	talk()
	w.apply(link.DeleteEndpoint{ID: "r"}) // the address by itself again
	checkListening(t, w, "127.77.9.93:7392")
	talk()
	if all := w.proxy.live.all(); len(all) != 1 || all[0].id != id {
		t.Errorf("another flow")
	}
}

// TestDatagramsDrain: live flows go on while the node drains, new ones don't begin, and the time bounds it.
func TestDatagramsDrain(t *testing.T) {
	w := udpWorld(t, udpEcho(t), Settings{DrainTimeout: 300 * time.Millisecond})
	c := udpDial(t, w.first())
	c.Write([]byte("before"))
	said(t, c)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.proxy.Drain(context.Background())
	}()
	eventually(t, "it drains", func() bool {
		w.proxy.mu.Lock()
		defer w.proxy.mu.Unlock()
		return w.proxy.ending
	})
	udpDial(t, w.first()).Write([]byte("new"))
	w.refusedUDP(policy.Drain, 1)
	<-done
	if n := w.metric(t, "postern_proxy_flows_total", "udp", string(policy.Drain)); n != 1 || w.proxy.Flows() != 0 {
		t.Errorf("%v flows were ended by it, %d are left", n, w.proxy.Flows())
	}
}
