package fastpath

import (
	"context"
	"net"
	"net/netip"
	"runtime"
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
	target  atomic.Pointer[Target]
	probe   atomic.Pointer[probe] // while one is under way

	mu     sync.Mutex // held to change the filter, and to end
	at     []int      // where the sockets are in the kernel's group, nil: not known
	closed bool
}

// maxSockets is how many sockets a group has at most: one for each processor up to here.
const maxSockets = 16

// Open opens sockets on an address that is not a wildcard, or takes those that another process has left for it ([Inherit]),
// and serves t. CoreDNS's sockets on the address are open already.
func Open(addr netip.AddrPort, t *Target) (*Group, error) {
	g := &Group{addr: addr}
	g.target.Store(t)
	conns := inherited.take(addr)
	for len(conns) < min(runtime.GOMAXPROCS(0), maxSockets) {
		c, err := listen(addr)
		if err != nil {
			closeAll(conns)
			return nil, err
		}
		conns = append(conns, c)
	}
	for i, c := range conns {
		s, err := newSocket(g, c)
		if err != nil {
			closeAll(conns[i:])
			g.Close(0)
			return nil, err
		}
		g.sockets = append(g.sockets, s)
		own.add(c)
		go s.run()
	}
	return g, nil
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

func closeAll(conns []*net.UDPConn) {
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

// Steer has the kernel lead all datagrams of the address to the group. Before, some come to CoreDNS's own sockets, of which
// there are others. The error is that the kernel takes no filter.
func (g *Group) Steer(others int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	at := g.locate(others + len(g.sockets))
	if at == nil {
		// Nobody could be asked. Sockets have their places in the order in which they were bound.
		for i := range g.sockets {
			at = append(at, others+i)
		}
	}
	g.at = at
	return g.attach(spread(at))
}

// Leave has the kernel lead nothing to the group any more, and closes it when all is answered that has come. What it
// serves is drained, too. others is how many sockets CoreDNS has on the address.
func (g *Group) Leave(others int) {
	g.mu.Lock()
	left := make([]int, 0, others)
	for i := range others + len(g.sockets) {
		if !contains(g.at, i) && len(left) < others {
			left = append(left, i)
		}
	}
	if len(left) > 0 && !g.closed && g.attach(spread(left)) == nil {
		g.empty()
	}
	g.mu.Unlock()
	g.Close(closeTime)
}

// closeTime is how long a group waits for answers of the plugins before it ends: as long as CoreDNS does.
const closeTime = 5 * time.Second

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
// lost, unless another process has the sockets as well.
func (g *Group) Close(atMost time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.closed = true
	var wg sync.WaitGroup
	for _, s := range g.sockets {
		wg.Go(func() { s.stop(atMost) })
		own.remove(s.conn)
	}
	wg.Wait()
}

func contains(list []int, n int) bool {
	for _, v := range list {
		if v == n {
			return true
		}
	}
	return false
}
