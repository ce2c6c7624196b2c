package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// successor is a proxy that takes the place of w's, as one in another process: it has the listening sockets of UDP, on the
// same snapshot and rules.
func (w *world) successor(settings Settings) *world {
	w.t.Helper()
	next := &world{t: w.t, log: new(logBuffer), registry: prometheus.NewRegistry()}
	next.now.Store(w.now.Load())
	next.proxy = New(Config{
		Snapshot: w.now.Load, Registerer: next.registry, Policy: w.rules.Load, Log: slog.New(slog.NewTextHandler(next.log, nil)),
		InheritedUDP: func(at netip.AddrPort) *net.UDPConn { return boundTo(w.t, at) },
	})
	next.log.settle = func() { next.proxy.lines.flush(patience) }
	w.t.Cleanup(func() { next.proxy.Close() })
	prepared, err := next.proxy.Prepare(w.now.Load(), settings)
	if err != nil {
		w.t.Fatal(err)
	}
	prepared.Commit()
	return next
}

// boundTo returns a duplicate of the socket of UDP that is bound to an address and leads to nobody.
func boundTo(t testing.TB, at netip.AddrPort) *net.UDPConn {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil {
			continue
		}
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_DGRAM {
			continue
		}
		if sa, err := unix.Getsockname(fd); err != nil || !is(sa, at) {
			continue
		}
		if _, err := unix.Getpeername(fd); err == nil {
			continue
		}
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(dup), "udp")
		defer f.Close()
		c, err := net.FilePacketConn(f)
		if err != nil {
			t.Fatal(err)
		}
		return c.(*net.UDPConn)
	}
	return nil
}

func is(sa unix.Sockaddr, at netip.AddrPort) bool {
	four, ok := sa.(*unix.SockaddrInet4)
	return ok && netip.AddrPortFrom(netip.AddrFrom4(four.Addr), uint16(four.Port)) == at
}

// handTo has the flows of w go on in next; between is what happens when w receives nothing any more.
func (w *world) handTo(next *world, between func()) (handed, ended, taken int) {
	w.t.Helper()
	w.proxy.Retire(true)
	between()
	handed, ended, err := w.proxy.HandOver(3, func(flows []Handed, waiting []Waiting) error {
		for _, one := range waiting {
			if next.proxy.TakeWaiting(one) {
				taken++
			}
		}
		for _, h := range flows {
			var err error
			if h.Socket, err = unix.FcntlInt(uintptr(h.Socket), unix.F_DUPFD_CLOEXEC, 0); err != nil {
				return err
			}
			if next.proxy.TakeOver(h) {
				taken++
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	next.proxy.Receive()
	next.proxy.AskTaken(w.t.Context())
	return handed, ended, taken
}

// TestDatagramsHandedOver (P13): live flows go on in another proxy. Targets see the same ports, what comes meanwhile is answered,
// no flow is counted or recorded twice, and each has one line, with all its bytes.
func TestDatagramsHandedOver(t *testing.T) {
	const flows = 10
	w := udpWorld(t, udpPorts(t), Settings{}, func(v *link.Service) { v.MaxPerTarget = 100 })
	w.rules.Store(&policy.Policy{Sets: []policy.Set{{
		Name: "p", Default: policy.DefaultAllow, Rules: []policy.Rule{{Name: "trial", Observe: true}},
		Limits: []policy.FlowLimit{{Rate: flows, Every: time.Hour}, {Flows: flows}},
	}}})
	var clients []*net.UDPConn
	ports := map[*net.UDPConn]string{}
	for range flows {
		c := udpDial(t, w.first())
		c.Write([]byte("first"))
		ports[c] = said(t, c)
		clients = append(clients, c)
	}
	w.answeredUDP(flows)
	var ids []string
	for f := range w.proxy.Own() {
		ids = append(ids, f.ID)
	}
	next := w.successor(Settings{})
	next.proxy.live.short.Store(true) // P11: both processes have their memory
	handed, ended, taken := w.handTo(next, func() {
		for _, c := range clients {
			c.Write([]byte("while"))
		}
	})
	if handed != flows || ended != 0 || taken != flows {
		t.Fatalf("%d handed over, %d ended, %d taken", handed, ended, taken)
	}
	if w.proxy.Flows() != 0 || w.proxy.datagrams.count() != 0 || w.metric(t, "postern_proxy_bytes_total", "to_target", "udp") != 5*flows {
		t.Error("the old proxy still has some")
	}
	for _, c := range clients {
		if got := said(t, c); got != ports[c] {
			t.Errorf("the target sees port %s, before %s", got, ports[c])
		}
	}
	next.answeredUDP(flows)
	for f := range next.proxy.Own() {
		if !slices.Contains(ids, f.ID) || f.ToTarget != 10 || f.Endpoint != "e" || f.State != FlowEstablished || f.Guest {
			t.Errorf("%+v", f)
		}
	}
	d, source := &next.proxy.datagrams, netip.MustParseAddr("127.0.0.1")
	d.mu.Lock()
	if d.all.n != flows || d.endpoints["e"].n != flows || d.sources[source].n != flows {
		t.Errorf("%d counted in all", d.all.n)
	}
	d.mu.Unlock()
	at := w.now.Load().Service("svc").Targets[0].Addr
	if st := next.proxy.health.of("svc").set.Status(time.Now(), at); st.Flows != flows {
		t.Errorf("%d places at the target", st.Flows)
	}
	next.proxy.live.short.Store(false)
	udpDial(t, w.first()).Write([]byte("one more")) // the meter knows them
	next.refusedUDP(policy.Limit, 1)

	if lines := w.log.lines("flow ended"); len(lines) != 0 {
		t.Errorf("the old proxy says %q", lines)
	}
	w.swap(link.Suspend{Endpoint: "e", LinkID: w.connection("e").LinkID})
	next.proxy.Update(w.now.Load())
	eventually(t, "all have ended", func() bool { return d.count() == 0 })
	if n := len(next.log.lines("flow ended", "reason=revoked", "to_target=10", "endpoint=e", "observed=p/trial")); n != flows {
		t.Errorf("%d lines\n%s", n, strings.Join(next.log.lines("flow"), ""))
	}
	if n := next.metric(t, "postern_proxy_bytes_total", "to_target", "udp"); n != 5*flows {
		t.Errorf("%v bytes are counted, want those that went here", n)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.endpoints) != 0 || len(d.sources) != 0 {
		t.Error("still counted")
	}
}

// udpPorts answers each datagram with the port that it came from.
func udpPorts(t testing.TB) netip.AddrPort {
	c := udpTarget(t)
	c.SetDeadline(time.Time{})
	go func() {
		for b := make([]byte, 64<<10); ; {
			_, from, err := c.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			c.WriteToUDPAddrPort(fmt.Append(nil, from.Port()), from)
		}
	}()
	return udpAddr(c)
}

// TestDatagramsHandedOverJudged (P13): what takes a flow over judges it by its own state, rules, programs and limits. One that may
// not go on ends, with one line of all its bytes, and nothing of it passes.
func TestDatagramsHandedOverJudged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(w *world) Settings // before the other one begins
		reason policy.Reason
	}{
		{"revoked", func(w *world) Settings {
			w.swap(link.Suspend{Endpoint: "e", LinkID: w.connection("e").LinkID})
			return Settings{}
		}, policy.Revoked}, // nothing listens there any more
		{"not in the allow-list", func(w *world) Settings {
			w.swap(endpoint("e", "svc", w.host(), "127.9.0.0/16"))
			return Settings{}
		}, policy.Revoked},
		{"another connection", func(w *world) Settings {
			w.swap(link.Disconnect{Endpoint: "e", LinkID: w.connection("e").LinkID}, link.AskAgain{Endpoint: "e"})
			return Settings{}
		}, policy.Revoked},
		{"target removed", func(w *world) Settings {
			w.swap(service("svc", 7001, netip.MustParseAddrPort("127.0.0.1:9"), ofUDP))
			return Settings{}
		}, policy.Revoked},
		{"rule", func(w *world) Settings {
			w.rules.Store(&policy.Policy{Sets: []policy.Set{{Name: "p", Default: policy.DefaultDeny}}})
			return Settings{}
		}, policy.Revoked},
		{"program", func(w *world) Settings {
			w.rules.Store(under(&says{Answer: no}))
			return Settings{}
		}, policy.Revoked},
		{"max_flows", func(w *world) Settings {
			return Settings{MaxFlows: 4, MaxPerSource: 1}
		}, policy.Limit},
		{"no state", func(w *world) Settings {
			w.now.Store(nil)
			return Settings{}
		}, policy.Revoked},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := udpWorld(t, udpEcho(t), Settings{})
			c := udpDial(t, w.first())
			c.Write([]byte("before"))
			said(t, c)
			if tt.reason == policy.Limit { // the older one has the place
				other := udpDial(t, w.first())
				other.Write([]byte("before"))
				said(t, other)
				c = other
			}
			settings := tt.change(w)
			next := w.successor(settings)
			w.handTo(next, func() {})
			eventually(t, "it has a line", func() bool {
				return len(next.log.lines("flow ended", "protocol=udp", "reason="+string(tt.reason), "to_target=6 to_client=6")) == 1
			})
			if n := len(w.log.lines("flow ended")); n != 0 {
				t.Errorf("%d lines of the old one", n)
			}
			c.Write([]byte("after"))
			c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if tt.name == "another connection" {
				return // which the client may use
			}
			if n, err := c.Read(make([]byte, 64)); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%d bytes, %v", n, err) // refused by the kernel where nothing listens any more
			}
		})
	}
}

// TestDatagramsNotHandedOver: a flow that isn't decided yet ends, and so do those that can't be sent, each with its line.
func TestDatagramsNotHandedOver(t *testing.T) {
	w := udpWorld(t, udpEcho(t), Settings{})
	for range 4 {
		c := udpDial(t, w.first())
		c.Write([]byte("x"))
		said(t, c)
	}
	program := heldProgram{asked: make(chan policy.Question, 9), answer: make(chan policy.Answer)}
	w.rules.Store(&policy.Policy{Sets: []policy.Set{{Name: "p", Program: program}}})
	udpDial(t, w.first()).Write([]byte("x"))
	<-program.asked
	w.proxy.Retire(true)
	broken := errors.New("broken")
	calls := 0
	handed, ended, err := w.proxy.HandOver(2, func([]Handed, []Waiting) error {
		if calls++; calls == 1 {
			return nil
		}
		return broken
	})
	if handed != 2 || ended != 3 || !errors.Is(err, broken) || calls != 2 {
		t.Errorf("%d handed over, %d ended, %d calls: %v", handed, ended, calls, err)
	}
	eventually(t, "all are gone", func() bool { return w.proxy.Flows() == 0 && w.proxy.datagrams.count() == 0 })
	if n, m := len(w.log.lines("flow ended", "reason=drain")), len(w.log.lines("flow refused", "reason=drain")); n != 2 || m != 1 {
		t.Errorf("%d and %d lines", n, m)
	}
}

// TestDatagramsUndecidedHandedOver (P13): a flow that waits for a program's first answer begins anew in the next process, with what is held of
// it, and the program of that one is asked.
func TestDatagramsUndecidedHandedOver(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer policy.Answer
	}{{"allowed", policy.Answer{Allow: true}}, {"denied", no}} {
		t.Run(tt.name, func(t *testing.T) {
			w := udpWorld(t, udpEcho(t), Settings{})
			program := heldProgram{asked: make(chan policy.Question, 9), answer: make(chan policy.Answer)}
			w.rules.Store(&policy.Policy{Sets: []policy.Set{{Name: "p", Program: program}}})
			c := udpDial(t, w.first())
			words := []string{"one", "two", ""}
			for _, word := range words {
				c.Write([]byte(word))
			}
			<-program.asked
			next := w.successor(Settings{})
			if handed, ended, taken := w.handTo(next, func() {}); handed != 1 || ended != 0 || taken != 1 {
				t.Fatalf("%d handed over, %d ended, %d taken", handed, ended, taken)
			}
			eventually(t, "it has left", func() bool { return w.proxy.Flows() == 0 && w.proxy.datagrams.count() == 0 })
			<-program.asked
			program.answer <- tt.answer
			if !tt.answer.Allow {
				next.refusedUDP(policy.PolicyDenied, 1)
				silent(t, c)
			} else {
				for _, word := range words {
					if got := said(t, c); got != word {
						t.Errorf("%q, want %q", got, word)
					}
				}
			}
			if lines := w.log.lines(`msg="flow `); len(lines) != 0 {
				t.Errorf("the old proxy says %q", lines)
			}
		})
	}
	w := udpWorld(t, udpEcho(t), Settings{})
	if w.proxy.TakeWaiting(Waiting{Client: netip.MustParseAddrPort("127.0.0.1:9"), Local: netip.MustParseAddrPort("127.0.0.1:9")}) {
		t.Error("taken where nothing is listened on")
	}
}

// udpTalk returns a client whose flow has had a datagram each way, and whom the target knows it by.
func udpTalk(t *testing.T, w *world, target *net.UDPConn) (c *net.UDPConn, from netip.AddrPort) {
	t.Helper()
	c = udpDial(t, w.first())
	c.Write([]byte("x"))
	_, from, err := target.ReadFromUDPAddrPort(make([]byte, 1))
	if err != nil {
		t.Fatal(err)
	}
	target.WriteToUDPAddrPort([]byte("y"), from)
	said(t, c)
	return c, from
}

// TestDatagramsHushed (P13): what wasn't handed over yet passes nothing any more where it may have been revoked, and what its target sends
// waits for the next process.
func TestDatagramsHushed(t *testing.T) {
	target := udpTarget(t)
	w := udpWorld(t, udpAddr(target), Settings{})
	c, from := udpTalk(t, w, target)
	program := heldProgram{asked: make(chan policy.Question, 9), answer: make(chan policy.Answer, 9)}
	w.rules.Store(&policy.Policy{Sets: []policy.Set{{Name: "p", Program: program}}})
	undecided := udpDial(t, w.first())
	undecided.Write([]byte("held"))
	<-program.asked
	next := w.successor(Settings{})
	handed, ended, taken := w.handTo(next, func() {
		w.proxy.Hush()
		program.answer <- policy.Answer{Allow: true} // too late: nothing of it passes here
		f := w.youngest()
		eventually(t, "it is decided", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.client.(*grams).unattended
		})
		target.WriteToUDPAddrPort([]byte("late"), from)
		silent(t, c)
		program.answer <- policy.Answer{Allow: true} // of the next one
		program.answer <- policy.Answer{Allow: true} // AskTaken
	})
	if handed != 2 || ended != 0 || taken != 2 {
		t.Fatalf("%d handed over, %d ended, %d taken", handed, ended, taken)
	}
	if got := said(t, c); got != "late" {
		t.Errorf("%q", got)
	}
	b := make([]byte, 64)
	if n, _, err := target.ReadFromUDPAddrPort(b); err != nil || string(b[:n]) != "held" {
		t.Errorf("%q, %v", b[:n], err)
	}
}

// youngest returns the live flow that began last.
func (w *world) youngest() *flow {
	return slices.MaxFunc(w.proxy.live.all(), func(a, b *flow) int { return a.began.Compare(b.began) })
}

// TestDatagramsHandedOverIdle: the time in which nothing moves goes on from process to process.
func TestDatagramsHandedOverIdle(t *testing.T) {
	w := udpWorld(t, udpEcho(t), Settings{})
	c := udpDial(t, w.first())
	c.Write([]byte("x"))
	said(t, c)
	w.answeredUDP(1)
	next := w.successor(Settings{})
	for _, one := range []*world{w, next} {
		one.proxy.stop() // the ticker's goroutine ends
		one.proxy.background.Wait()
	}
	f := w.proxy.live.all()[0]
	f.mu.Lock()
	f.moved.Store(false)
	f.quiet = time.Now().Add(-20 * time.Second)
	f.mu.Unlock()
	w.handTo(next, func() {})
	over := next.proxy.live.all()[0]
	over.tend(time.Now().Add(9 * time.Second))
	if next.proxy.Flows() != 1 {
		t.Fatal("it has ended too early")
	}
	over.tend(time.Now().Add(11 * time.Second))
	eventually(t, "it ends", func() bool { return len(next.log.lines("flow ended", "reason=idle")) == 1 })
}

// TestDatagramsClosedPortInBetween (P05): the target's port is closed while the flow is in neither process. The one that takes it
// over is told, and the client isn't.
func TestDatagramsClosedPortInBetween(t *testing.T) {
	target := udpTarget(t)
	w := udpWorld(t, udpAddr(target), Settings{})
	c, _ := udpTalk(t, w, target)
	next := w.successor(Settings{})
	w.handTo(next, func() {
		target.Close()
		c.Write([]byte("z"))
	})
	eventually(t, "it ends", func() bool { return len(next.log.lines("flow ended", "reason=target", "to_client=1")) == 1 })
	silent(t, c)
}

// TestDatagramsWaitForTheNext: a proxy that ends and has no flow of UDP, or none any more, takes nothing out of its sockets: it is there
// for the next one.
func TestDatagramsWaitForTheNext(t *testing.T) {
	for _, flows := range []int{0, 1} {
		t.Run(fmt.Sprint(flows, " flows"), func(t *testing.T) {
			w := newWorld(t, Settings{DrainTimeout: time.Millisecond}, service("svc", 7001, udpEcho(t), ofUDP), endpoint("e", "svc", nextAddr(t)))
			for range flows {
				c := udpDial(t, w.first())
				c.Write([]byte("x"))
				said(t, c)
			}
			w.proxy.Drain(t.Context())
			w.proxy.datagrams.serving.Wait() // what is being received then is dropped
			c := udpDial(t, w.first())
			c.Write([]byte("waits"))
			next := w.successor(Settings{})
			w.proxy.Close()
			next.proxy.Receive()
			if got := said(t, c); got != "waits" {
				t.Errorf("%q", got)
			}
		})
	}
}
