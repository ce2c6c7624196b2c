package fastpath

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Group is the sockets of one address.
type Group struct {
	addr    netip.AddrPort
	sockets []*socket
	shared  bool // another process has them, too, or had when they were opened
	target  atomic.Pointer[Target]
	probe   atomic.Pointer[probe] // while one is under way

	quit  chan struct{}
	looks sync.WaitGroup // what searches for numbers

	mu     sync.Mutex // held to change the filter, and to end
	at     []int      // where the sockets are in the kernel's group, nil: not known
	round  int        // of searches: a new one ends those of before
	left   bool
	closed bool
}

// maxSockets is how many sockets a group has at most: one for each processor up to here.
const maxSockets = 16

// Wildcard returns the address that a socket has that is on all addresses: "::" where the system has IPv6.
var Wildcard = sync.OnceValue(func() netip.Addr {
	c, err := net.ListenPacket("udp", ":0")
	if err != nil {
		return netip.IPv6Unspecified()
	}
	defer c.Close()
	return addrOf(c.(*net.UDPConn)).Addr()
})

// Open opens sockets on an address, or takes those that another process has left for it ([Inherit]), and serves t. One that is on all
// addresses is given as [Wildcard]. CoreDNS's sockets on the address are open already.
func Open(addr netip.AddrPort, t *Target) (*Group, error) {
	g := &Group{addr: addr, quit: make(chan struct{})}
	conns, at := inherited.take(addr)
	g.shared, g.at = len(conns) > 0, at
	if err := g.open(conns, t); err != nil {
		for i, c := range conns { // the other process may go on with them: [DropInherited] ends them if it doesn't
			place := 0
			if at != nil {
				place = at[i] + 1
			}
			Inherit(c, place)
		}
		return nil, err
	}
	return g, nil
}

// open makes the group's sockets of those that are inherited, and of as many new ones as it takes. On an error nothing has come of it.
func (g *Group) open(conns []*net.UDPConn, t *Target) error {
	old := len(conns)
	conns = slices.Clone(conns)
	fail := func(err error) error {
		abandon(g.addr, conns[old:])
		return err
	}
	for len(conns) < min(runtime.GOMAXPROCS(0), maxSockets) {
		c, err := listen(g.addr)
		if err != nil {
			return fail(err)
		}
		conns = append(conns, c)
	}
	for _, c := range conns {
		s, err := newSocket(g, c)
		if err != nil {
			return fail(err)
		}
		g.sockets = append(g.sockets, s)
	}
	g.target.Store(t)
	for i, s := range g.sockets { // nothing can fail any more
		own.add(s.conn)
		if i < len(g.at) {
			own.at(s.conn, g.at[i])
		}
		go s.run()
	}
	return nil
}

func listen(addr netip.AddrPort) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if ctl := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); ctl != nil {
			return ctl
		}
		return err
	}}
	c, err := lc.ListenPacket(context.Background(), "udp", addr.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// abandon closes sockets that nobody here reads. Another process may still have them.
func abandon(addr netip.AddrPort, conns []*net.UDPConn) {
	var raws []syscall.RawConn
	for _, c := range conns {
		if raw, err := c.SyscallConn(); err == nil {
			raws = append(raws, raw)
		}
	}
	retreat(addr, raws)
	for _, c := range conns {
		c.Close()
	}
}

// Use has the group serve another target. The caller drains the one before, which is returned.
func (g *Group) Use(t *Target) (before *Target) { return g.target.Swap(t) }

// Target returns what the group serves.
func (g *Group) Target() *Target { return g.target.Load() }

// enter returns the target of a query that goes to the plugins.
func (g *Group) enter() *Target {
	for {
		t := g.target.Load()
		if t.enter(); g.target.Load() == t {
			return t
		}
		t.leave() // it is being drained
	}
}

// Leave has the kernel lead nothing to the group any more: it returns when all was read that has come. CoreDNS's sockets get the rest.
func (g *Group) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left || g.closed {
		return
	}
	g.left = true
	raws := make([]syscall.RawConn, len(g.sockets))
	for i, s := range g.sockets {
		raws[i] = s.raw
	}
	retreat(g.addr, raws)
	g.empty()
}

// empty returns when no socket has a datagram left, after about the time that one takes through the kernel.
func (g *Group) empty() {
	for range 100 {
		time.Sleep(2 * time.Millisecond)
		left := false
		for _, s := range g.sockets {
			_ = s.raw.Control(func(fd uintptr) {
				n, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
				left = left || err == nil && n > 0
			})
		}
		if !left {
			return
		}
	}
}

// Close ends the group when what it has read is answered, at most after the given time. A datagram that waits in the kernel is
// lost, unless another process has the sockets as well, or the group has left.
func (g *Group) Close(atMost time.Duration) {
	g.mu.Lock()
	closed := g.closed
	g.closed = true
	g.mu.Unlock()
	if closed {
		return
	}
	close(g.quit)
	g.looks.Wait()
	if g.Retreated() { // by the other process, which doesn't read them
		g.empty()
	}
	var wg sync.WaitGroup
	for _, s := range g.sockets {
		wg.Go(func() { s.stop(atMost) })
		own.remove(s.conn)
	}
	wg.Wait()
}
