package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/engine"
)

// refusing is an address that refuses connections.
func refusing(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func targetsOf(addrs ...netip.AddrPort) func(*link.Service) {
	return func(s *link.Service) {
		s.Targets = nil
		for _, a := range addrs {
			s.Targets = append(s.Targets, link.Target{Addr: a})
		}
	}
}

// P01: no target answers.
func TestNoTarget(t *testing.T) {
	w := newWorld(t, Settings{}, service("svc", 7001, refusing(t), targetsOf(refusing(t), refusing(t))), endpoint("e", "svc", nextAddr(t)))
	began := time.Now()
	c, err := net.DialTimeout("tcp", w.first(), patience)
	if err == nil {
		c.SetDeadline(time.Now().Add(patience))
		checkRefused(t, w, c.(*net.TCPConn), policy.NoTarget)
		c.Close()
	}
	if took := time.Since(began); took > 2*time.Second { // 100 ms on a quiet machine
		t.Errorf("refused after %v", took)
	}
}

// P02: a target that drops everything costs its share of the deadline, not more.
func TestDialDeadline(t *testing.T) {
	w := newWorld(t, Settings{DialTimeout: 300 * time.Millisecond}, service("svc", 7001, deafTarget(t)), endpoint("e", "svc", nextAddr(t)))
	checkRefused(t, w, dial(t, w.first()), policy.NoTarget)
}

// A21: a target in the network of another tenant isn't one, unless the tenant was granted it.
func TestForeignTarget(t *testing.T) {
	good := echo(t)
	of := func(s *link.Service) { s.Tenant = "b" }
	w := newWorld(t, Settings{}, service("svc", 7001, good), endpoint("e", "svc", nextAddr(t)))
	w.apply(service("svc", 7001, good, of))
	if c, err := net.DialTimeout("tcp", w.first(), patience); err == nil {
		checkRefused(t, w, c.(*net.TCPConn), policy.NoTarget)
	}
	w.apply(service("svc", 7001, good, of, func(s *link.Service) { s.Reach = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }))
	c := dial(t, w.first())
	io.WriteString(c, "x")
	c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "x" || err != nil {
		t.Fatalf("echo %q, error %v", b, err)
	}
}

// P17: one target is dead and one is slow; every flow is carried all the same.
func TestFailover(t *testing.T) {
	t.Parallel()
	good := echo(t)
	w := newWorld(t, Settings{DialTimeout: 3 * time.Second},
		service("svc", 7001, good, targetsOf(refusing(t), deafTarget(t), good)), endpoint("e", "svc", nextAddr(t)))
	for range 30 {
		c := dial(t, w.first())
		io.WriteString(c, "x")
		c.CloseWrite()
		if b, err := io.ReadAll(c); string(b) != "x" || err != nil {
			t.Fatalf("echo %q, error %v", b, err)
		}
	}
	// Known to be down, they aren't in the way any more.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.proxy.Probed(ctx); err != nil {
		t.Fatal(err)
	}
	if !w.status(good).Up || w.metric(t, "postern_proxy_target_up", "svc", good.String()) != 1 {
		t.Error("the good target isn't known as good")
	}
}

func TestRotation(t *testing.T) {
	one, two := newTarget(t), newTarget(t)
	w := newWorld(t, Settings{}, service("svc", 7001, one.addr(), targetsOf(one.addr(), two.addr())), endpoint("e", "svc", nextAddr(t)))
	for range 4 {
		c := dial(t, w.first())
		io.WriteString(c, "x")
	}
	for range 2 {
		one.next()
		two.next()
	}
}

// The target sees a NAT address of its family, an address of this host or not.
func TestNAT(t *testing.T) {
	g := newTarget(t)
	w := newWorld(t, Settings{}, service("svc", 7001, g.addr(), func(s *link.Service) {
		s.NAT = []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("127.99.0.7")}
	}), endpoint("e", "svc", nextAddr(t)))
	c := dial(t, w.first())
	io.WriteString(c, "x")
	far, _ := g.next()
	if host, _, _ := net.SplitHostPort(far.RemoteAddr().String()); host != "127.99.0.7" {
		t.Errorf("the target sees %s", host)
	}
	used := func() float64 {
		return w.metric(t, "postern_proxy_nat_ports_used", "127.99.0.7", "svc", g.addr().String())
	}
	if n := used(); n != 1 {
		t.Errorf("%v ports are used", n)
	}
	if n := w.metric(t, "postern_proxy_nat_ports"); n < 1000 {
		t.Errorf("an address has %v ports", n)
	}
	c.Close()
	far.Close()
	eventually(t, "the port is free", func() bool { return used() == 0 })
}

func TestHealth(t *testing.T) {
	addr := netip.MustParseAddrPort("127.78.0.1:7401") // no port that the kernel gives out
	w := newWorld(t, Settings{ProbeInterval: 50 * time.Millisecond},
		service("svc", 7001, addr, func(s *link.Service) { s.ProxyProtocol = link.ProxyAzure }), endpoint("e", "svc", nextAddr(t)))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.proxy.Probed(ctx); err != nil {
		t.Fatal(err)
	}
	if w.proxy.Published("svc") || w.proxy.Healthy("svc") {
		t.Fatal("D22: published although the target never answered")
	}
	if up := w.metric(t, "postern_proxy_target_up", "svc", addr.String()); up != 0 {
		t.Errorf("target_up %v", up)
	}

	g := newTarget(t, addr.String())
	eventually(t, "D22 it is published", func() bool { return w.proxy.Published("svc") && w.proxy.Healthy("svc") })
	select { // a probe says that it is no client
	case c := <-g.conns:
		b, _ := io.ReadAll(c)
		c.Close()
		if len(b) < 16 || b[12] != 0x20 {
			t.Errorf("a probe sends %q", b)
		}
	case <-time.After(patience):
		t.Fatal("no probe")
	}

	g.close()
	eventually(t, "D23 it is down", func() bool { return !w.proxy.Healthy("svc") })
	if !w.proxy.Published("svc") {
		t.Error("D23: no longer published")
	}

	// Its metrics go with the object.
	w.apply(link.DeleteService{ID: "svc", Force: true})
	if up := w.metric(t, "postern_proxy_target_up", "svc", addr.String()); up != -1 {
		t.Errorf("target_up %v of a deleted service", up)
	}
	w.apply(service("other", 7002, addr)) // for who still reads the snapshot before it stays so long
	if w.proxy.Published("svc") {
		t.Error("a deleted service is published")
	}
}

// A service whose connection isn't live isn't probed; an inherited one is published before its probe.
func TestHealthOfOthers(t *testing.T) {
	g := newTarget(t)
	quiet := service("quiet", 7002, g.addr(), func(s *link.Service) { s.AutoApprove = nil })
	w := newWorld(t, Settings{}, quiet, endpoint("q", "quiet", nextAddr(t)))
	w.proxy.Inherit("svc")
	if w.proxy.Published("svc") || w.proxy.Published("quiet") {
		t.Error("published out of nothing")
	}
	w.apply(service("svc", 7001, deafTarget(t)), endpoint("e", "svc", nextAddr(t)))
	if !w.proxy.Published("svc") || !w.proxy.Healthy("svc") {
		t.Error("an inherited service isn't published, or taken for down before its first probe")
	}
	select {
	case c := <-g.conns:
		c.Close()
		t.Error("a service without a live connection is probed")
	default:
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if w.proxy.Probed(ctx) == nil {
		t.Error("Probed doesn't mind its context")
	}
}

// What goes wrong on this side says nothing about a target.
func TestBlame(t *testing.T) {
	wrap := func(err error) error {
		return fmt.Errorf("dial: %w", cause(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", err)}))
	}
	for _, err := range []syscall.Errno{
		syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ETIMEDOUT, syscall.ECONNRESET, syscall.EPIPE,
	} {
		if !blames(wrap(err)) {
			t.Errorf("%v isn't the target's", err)
		}
	}
	for _, err := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL, syscall.EADDRINUSE,
		syscall.EACCES, syscall.EPERM, syscall.EAGAIN,
	} {
		if blames(wrap(err)) {
			t.Errorf("%v is the target's", err)
		}
	}
	e := engine.Portable()
	defer e.Close()
	d := dialling{engine: e, guard: func(netip.AddrPort) error { return nil }}
	deaf := deafTarget(t)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := d.target(ctx, &link.Service{}, deaf, 20*time.Millisecond); !blames(err) {
		t.Errorf("our deadline isn't the target's: %v", err)
	}
	cancel()
	if _, err := d.target(ctx, &link.Service{}, deaf, patience); err == nil || blames(err) {
		t.Errorf("a dial that was called off is the target's: %v", err)
	}
}

// Flows and probes that this side fails take no target down; refused ones do.
func TestLocalFaultLeavesTargetsUp(t *testing.T) {
	at := echo(t)
	w := newWorld(t, Settings{ProbeInterval: time.Minute}, service("svc", 7001, at), endpoint("e", "svc", nextAddr(t)))
	eventually(t, "the target is up", func() bool { return w.proxy.Healthy("svc") })
	h := w.proxy.health
	probed := h.of("svc").targets[at]
	for range 4 {
		h.note(probed, fmt.Errorf("dial: %w", syscall.EMFILE))
		h.note(probed, fmt.Errorf("dial: %w", context.Canceled))
	}
	if !w.proxy.Healthy("svc") || !w.status(at).Up {
		t.Errorf("taken down: %q", w.log.lines("target is down"))
	}
	for range 2 {
		h.note(probed, fmt.Errorf("dial: %w", syscall.ECONNREFUSED))
	}
	if w.proxy.Healthy("svc") {
		t.Error("not taken down by refusals")
	}
}
