package datagram

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a test; nothing takes that long unless it is broken.
const patience = 20 * time.Second

// world is a relay whose flows all go to one target.
type world struct {
	t      testing.TB
	relay  *Relay
	target netip.AddrPort
	from   netip.AddrPort
	head   []byte
	never  func(b []byte) bool
	begin  func(f *Flow) bool // nil: connect and start

	toTarget, toClient atomic.Int64
	moved              atomic.Bool

	mu          sync.Mutex
	flows       []*Flow
	unreachable []error
	serving     sync.WaitGroup
}

func newWorld(t testing.TB, target netip.AddrPort, edit ...func(*world)) *world {
	t.Helper()
	w := &world{t: t, target: target}
	var err error
	if w.relay, err = New(w, new(Counts)); err != nil {
		t.Fatal(err)
	}
	for _, e := range edit {
		e(w)
	}
	t.Cleanup(func() {
		w.serving.Wait()
		w.mu.Lock()
		flows := w.flows
		w.mu.Unlock()
		for _, f := range flows {
			f.End()
		}
		w.relay.Close()
		if n := w.relay.held.Load(); n != 0 {
			t.Errorf("%d bytes are still held", n)
		}
	})
	return w
}

// listen opens a listener, and serves it until the test ends.
func (w *world) listen(at string) *Listener {
	w.t.Helper()
	l, err := w.relay.Listen(netip.MustParseAddrPort(at))
	if err != nil {
		w.t.Fatal(err)
	}
	w.serving.Go(l.Serve)
	w.t.Cleanup(l.Close)
	return l
}

func (w *world) Begin(f *Flow) bool {
	w.mu.Lock()
	w.flows = append(w.flows, f)
	w.mu.Unlock()
	f.Own(w, Account{&w.toTarget, &w.toClient, &w.moved})
	if w.begin != nil {
		return w.begin(f)
	}
	return w.open(f)
}

func (w *world) open(f *Flow) bool {
	if err := f.Connect(w.from, w.target, func(uintptr, netip.AddrPort) error { return nil }); err != nil {
		w.t.Error(err)
		return false
	}
	return f.Start(w.head, w.never) == nil
}

func (w *world) Unreachable(f *Flow, err error) {
	w.mu.Lock()
	w.unreachable = append(w.unreachable, err)
	w.mu.Unlock()
	f.End()
}

func (w *world) Failing(at netip.AddrPort, err error) { w.t.Errorf("listener %v: %v", at, err) }

func (w *world) first() *Flow {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flows[0]
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.flows)
}

// socket opens a UDP socket for the test, on a free port of an address.
func socket(t testing.TB, addr string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func local(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// echo sends back what comes to a socket until the test ends.
func echo(t testing.TB, addr string) netip.AddrPort {
	c := socket(t, addr)
	c.SetDeadline(time.Time{})
	go func() {
		for b := make([]byte, 64<<10); ; {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	return local(c)
}

// client opens a connected socket to an address: only what comes from there is read.
func client(t testing.TB, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}
