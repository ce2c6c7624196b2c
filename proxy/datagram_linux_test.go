package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// ofUDP makes a service of tests one of UDP.
func ofUDP(v *link.Service) { v.Protocol = link.UDP }

// udpTarget is a socket of a target, on 127.0.0.1 or the address given.
func udpTarget(t testing.TB, at ...string) *net.UDPConn {
	t.Helper()
	addr := netip.MustParseAddrPort("127.0.0.1:0")
	if len(at) > 0 {
		addr = netip.MustParseAddrPort(at[0])
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func udpAddr(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// udpEcho sends back what comes, until the test ends.
func udpEcho(t testing.TB, at ...string) netip.AddrPort {
	c := udpTarget(t, at...)
	c.SetDeadline(time.Time{})
	go func() {
		for b := make([]byte, 64<<10); ; {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			c.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	return udpAddr(c)
}

// udpDial opens a connected socket, from an address where one is given.
func udpDial(t testing.TB, to string, from ...string) *net.UDPConn {
	t.Helper()
	var d net.Dialer
	if len(from) > 0 {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from[0]))
	}
	c, err := d.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.UDPConn)
}

// said reads one datagram.
func said(t testing.TB, c *net.UDPConn) string {
	t.Helper()
	b := make([]byte, 64<<10)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// silent reports an error if anything comes to a socket within a moment.
func silent(t testing.TB, c *net.UDPConn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	b := make([]byte, 64)
	if n, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v: nothing was to come", b[:n], err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
}

// udpWorld is a service of UDP with one endpoint, e, on port 7001.
func udpWorld(t testing.TB, target netip.AddrPort, settings Settings, edit ...func(*link.Service)) *world {
	t.Helper()
	return newWorld(t, settings, service("svc", 7001, target, append([]func(*link.Service){ofUDP}, edit...)...), endpoint("e", "svc", nextAddr(t)))
}

// refusedUDP waits until so many flows of UDP were refused for a reason.
func (w *world) refusedUDP(reason policy.Reason, n float64) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%v flows are refused: %s", n, reason), func() bool {
		return w.metric(w.t, "postern_proxy_refused_total", "udp", string(reason)) == n
	})
}

func TestDatagrams(t *testing.T) {
	for _, size := range []int{0, 1, 1200, 9000, 65507} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			w := udpWorld(t, udpEcho(t), Settings{})
			c := udpDial(t, w.first())
			sent := bytes.Repeat([]byte("x"), size)
			c.Write(sent)
			if got := said(t, c); got != string(sent) {
				t.Fatalf("%d bytes came back", len(got))
			}
			all := slices.Collect(w.proxy.List())
			if len(all) != 1 || all[0].Protocol != link.UDP || all[0].State != FlowEstablished || all[0].Endpoint != "e" {
				t.Errorf("flows %+v", all)
			}
			if w.metric(t, "postern_proxy_flows_active", "udp") != 1 || w.metric(t, "postern_proxy_flows_active") != 0 {
				t.Error("it isn't counted as a live flow of UDP")
			}
			w.proxy.Close()
			if lines := w.log.lines("flow ended", "protocol=udp", "reason=drain", fmt.Sprintf("to_target=%d to_client=%d", size, size)); len(lines) != 1 {
				t.Errorf("lines %q", w.log.lines("flow"))
			}
		})
	}
}

// TestDatagramsRefused: what may not pass doesn't, and nobody is told.
func TestDatagramsRefused(t *testing.T) {
	target := udpTarget(t)
	for _, tt := range []struct {
		name   string
		change func(w *world)
		reason policy.Reason
	}{
		{"not approved", func(w *world) {
			w.apply(link.Decide{Endpoint: "e", LinkID: w.connection("e").LinkID, State: link.Rejected})
		}, policy.NotApproved},
		{"suspended", func(w *world) { w.apply(link.Suspend{Endpoint: "e", LinkID: w.connection("e").LinkID}) }, policy.Suspended},
		{"not in the allow-list", func(w *world) { w.apply(endpoint("e", "svc", w.host(), "127.9.0.0/16")) }, policy.SourceDenied},
		{"no snapshot", func(w *world) { w.now.Store(nil) }, policy.PolicyError},
		{"a target that is forbidden", func(w *world) {
			s := *w.proxy.settings.Load()
			s.Own = []netip.AddrPort{udpAddr(target)}
			w.proxy.settings.Store(&s)
		}, policy.NoTarget},
		{"a peer that must send a PROXY header", func(w *world) {
			s := *w.proxy.settings.Load()
			s.InboundHeaders = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			w.proxy.settings.Store(&s)
		}, policy.Malformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := udpWorld(t, udpAddr(target), Settings{})
			c := udpDial(t, w.first())
			tt.change(w)
			w.oneWindow()
			for n := range 20 {
				c.Write([]byte("x"))
				w.refusedUDP(tt.reason, float64(n+1))
			}
			silent(t, target)
			silent(t, c)
			if lines := w.log.lines("flow refused", "protocol=udp", "reason="+string(tt.reason)); len(lines) != refusalLines {
				t.Errorf("%d lines, want %d", len(lines), refusalLines)
			}
			if w.proxy.Flows() != 0 || w.proxy.datagrams.count() != 0 {
				t.Error("flows are left")
			}
		})
	}
}

// TestPortsOfTwoProtocols: an address and port of a service of UDP are none of TCP, even where the port of another
// service is open for all addresses, and the other way round.
func TestPortsOfTwoProtocols(t *testing.T) {
	w := newWorld(t, Settings{}, routedPool(),
		service("tcp", 7391, echo(t)), service("udp", 7391, udpEcho(t), ofUDP),
		endpoint("t", "tcp", "10.255.77.2"), endpoint("u", "udp", "10.255.77.3"), // which opens the port for all
		endpoint("t-lo", "tcp", "127.77.9.91"), endpoint("u-lo", "udp", "127.77.9.92"))
	stream := dial(t, "127.77.9.91:7391")
	io.WriteString(stream, "x")
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	c := udpDial(t, "127.77.9.92:7391")
	c.Write([]byte("x"))
	if said(t, c) != "x" {
		t.Error("another answer")
	}
	wrong, err := net.DialTimeout("tcp", "127.77.9.92:7391", patience)
	if err == nil { // it may be reset so soon that the dial is told
		defer wrong.Close()
		wrong.SetDeadline(time.Now().Add(patience))
		_, err = wrong.Read(make([]byte, 1))
	}
	if !isResetError(err) {
		t.Errorf("TCP to an endpoint of UDP: %v", err)
	}
	udpDial(t, "127.77.9.91:7391").Write([]byte("x"))
	w.refusedUDP(policy.NoPort, 1)
	if n := w.metric(t, "postern_proxy_refused_total", string(policy.NoPort)); n != 1 {
		t.Errorf("%v refused of TCP", n)
	}
}

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

// TestDatagramsHeader: each datagram has a header of version 2 in front, of UDP, which an independent reader reads.
func TestDatagramsHeader(t *testing.T) {
	for _, kind := range []link.ProxyProtocol{link.ProxyV2, link.ProxyAzure, link.ProxyAWS, link.ProxyGCP} {
		t.Run(string(kind), func(t *testing.T) {
			target := udpTarget(t)
			w := udpWorld(t, udpAddr(target), Settings{}, func(v *link.Service) { v.ProxyProtocol = kind })
			c := udpDial(t, w.first())
			for _, payload := range []string{"one", "", "three"} {
				c.Write([]byte(payload))
				r := bytes.NewBufferString(said(t, target))
				if b := r.Bytes(); b[13] != 0x12 {
					t.Fatalf("family and transport %#x, want IPv4 and datagrams", b[13])
				}
				in := bufio.NewReader(r)
				h, err := proxyproto.Read(in)
				if err != nil {
					t.Fatal(err)
				}
				rest, _ := io.ReadAll(in)
				if string(rest) != payload || h.SourceAddr.String() != c.LocalAddr().String() || h.DestinationAddr.String() != w.first() || h.Command != proxyproto.PROXY {
					t.Errorf("%v to %v, %q behind", h.SourceAddr, h.DestinationAddr, rest)
				}
			}
		})
	}
	t.Run("of the client's own", func(t *testing.T) {
		target := udpTarget(t)
		w := udpWorld(t, udpAddr(target), Settings{})
		c := udpDial(t, w.first())
		c.Write([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00\x00evil"))
		c.Write([]byte("good"))
		if got := said(t, target); got != "good" {
			t.Errorf("%q", got)
		}
		eventually(t, "it is counted", func() bool { return w.metric(t, "postern_proxy_datagrams_dropped_total", "forbidden") == 1 })
	})
}

// TestDatagramsNAT: the target sees an address of the service's.
func TestDatagramsNAT(t *testing.T) {
	target := udpTarget(t)
	w := udpWorld(t, udpAddr(target), Settings{}, func(v *link.Service) {
		v.NAT = []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("127.0.0.78")}
	})
	udpDial(t, w.first()).Write([]byte("x"))
	if _, from, err := target.ReadFromUDPAddrPort(make([]byte, 1)); err != nil || from.Addr().String() != "127.0.0.78" {
		t.Errorf("%v, %v", from, err)
	}
}

// TestDatagramsFlood: P09 of datagrams, from as many addresses and ports as it takes: no more flows and descriptors than
// there may be, other endpoints and TCP served, a bounded number of lines, and all as before when it is over.
func TestDatagramsFlood(t *testing.T) {
	w := newWorld(t, Settings{MaxFlows: 80, MaxPerSource: 8},
		service("svc", 7001, udpEcho(t), ofUDP), service("other", 7002, udpEcho(t), ofUDP), service("tcp", 7003, echo(t)),
		endpoint("e", "svc", nextAddr(t)), endpoint("o", "other", nextAddr(t)), endpoint("t", "tcp", nextAddr(t)))
	all, ofEndpoint, ofSource := w.proxy.settings.Load().datagramShares()
	if all != 40 || ofEndpoint != 20 || ofSource != 8 {
		t.Fatalf("bounds %d, %d, %d", all, ofEndpoint, ofSource)
	}
	const one, many = 30, 200
	for i := range one + many {
		from := "127.5.0.1:0"
		if i >= one {
			from = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 6, byte(i >> 8), byte(i)}), 0).String()
		}
		c := udpDial(t, w.first(), from)
		c.Write([]byte("flood"))
		if i < ofSource || i >= one && i < one+ofEndpoint-ofSource {
			said(t, c) // it is in use, and stays
			w.answeredUDP(min(i+1, ofSource) + max(0, i+1-one))
		}
		if i == one-1 {
			w.refusedUDP(policy.Limit, float64(one-ofSource))
		}
		if i%16 == 15 { // no faster than the listener takes them
			eventually(t, "it is taken", func() bool {
				return w.metric(t, "postern_proxy_refused_total", "udp", "limit")+float64(w.proxy.datagrams.count()) == float64(i+1)
			})
		}
	}
	w.refusedUDP(policy.Limit, float64(one+many-ofEndpoint))
	if n := w.proxy.datagrams.count(); n != ofEndpoint {
		t.Errorf("%d flows, want %d", n, ofEndpoint)
	}
	if n := len(w.log.lines("flow refused", "reason=limit")); n > many+refusalLines {
		t.Errorf("%d lines", n)
	}
	c := udpDial(t, w.now.Load().Endpoint("o").Address.String()+":7002")
	c.Write([]byte("x"))
	said(t, c)
	stream := dial(t, w.now.Load().Endpoint("t").Address.String()+":7003")
	io.WriteString(stream, "x")
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	w.apply(link.Suspend{Endpoint: "e", LinkID: w.connection("e").LinkID})
	eventually(t, "all is given back", func() bool { return w.proxy.datagrams.count() == 1 })
	d := &w.proxy.datagrams
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.endpoints) != 1 || len(d.sources) != 1 {
		t.Errorf("still counted: %v %v", d.endpoints, d.sources)
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

// TestDatagramsOwn: the port that DNS has is none for endpoints, and one that only TCP of this node has is.
func TestDatagramsOwn(t *testing.T) {
	own := netip.MustParseAddrPort("[::]:7393")
	for _, tt := range []struct {
		name string
		udp  []netip.AddrPort
		open int
	}{{"DNS", []netip.AddrPort{own}, 0}, {"the API", nil, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Settings{Own: []netip.AddrPort{own}, OwnUDP: tt.udp}, service("svc", 7393, udpEcho(t), ofUDP), endpoint("e", "svc", "127.77.9.94"))
			if n := len(w.listening()); n != tt.open {
				t.Errorf("%d listeners", n)
			}
			if len(w.proxy.Listeners()) != 0 {
				t.Error("it is told of as one of TCP")
			}
		})
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

// TestDatagramsPublished: nothing can be asked of a target of UDP, so that a service is published with its approval.
func TestDatagramsPublished(t *testing.T) {
	w := newWorld(t, Settings{}, service("svc", 7001, netip.MustParseAddrPort("127.0.0.1:9"), ofUDP))
	if w.proxy.Published("svc") {
		t.Error("published without a connection")
	}
	w.apply(endpoint("e", "svc", nextAddr(t)))
	if !w.proxy.Published("svc") || !w.proxy.Healthy("svc") {
		t.Error("not published")
	}
}
