package fastpath

import (
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel leads a datagram to the socket whose number in its group a filter returns, and by a hash of the addresses where
// there is no such number. Three filters are used:
//
//	anywhere   by the hash, over all sockets but those that are connected: CoreDNS's, once a group has connected its own
//	toNumber   to the number that a datagram names: so the numbers are found out (locate_linux.go)
//	spread     to the numbers of a group's sockets
//
// A number is never guessed: as long as the numbers aren't known all sockets get their share, and all are read.

// errNotFound: the numbers of the sockets aren't known yet.
var errNotFound = errors.New("the kernel's numbers for the sockets aren't found yet")

// Times of a search that goes on.
const (
	firstLook = 250 * time.Millisecond
	lastLook  = 64 * time.Second
)

// hold keeps this process from looking for numbers, and so from changing filters.
var hold struct {
	sync.RWMutex
	on bool
}

// Hold has the groups of this process leave the filters as they are, for another process that takes their sockets, until release is
// called.
func Hold() (release func()) {
	set := func(on bool) {
		hold.Lock()
		defer hold.Unlock()
		hold.on = on
	}
	set(true)
	return func() { set(false) }
}

// Steer has the kernel lead all datagrams of the address to the group. others is about how many sockets there are beside. Where that
// can't be done yet the error says why: some datagrams come to CoreDNS's sockets, and found, which may be nil, is called once they don't any more.
// It is to be called again when other sockets of the address were closed.
func (g *Group) Steer(others int, found func()) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left || g.closed {
		return nil
	}
	g.round++
	// The process that the sockets come from takes probes away as long as it reads them, and closes sockets later. What it has told of the
	// numbers holds at first: a search would be in vain, and an upgrade has no time for one at each address.
	told := g.shared && g.at != nil && g.round == 1
	var err error
	if told {
		err = g.resume()
	} else {
		err = g.seek(others)
	}
	if err != nil || g.shared {
		round, missing := g.round, told || err != nil
		g.looks.Go(func() { g.look(round, others, missing, found) })
		if g.at != nil && g.shared {
			err = nil // it has told the numbers
		}
	}
	return err
}

// resume has the kernel spread datagrams over the numbers that are known. It is called with the lock held.
func (g *Group) resume() error {
	hold.RLock()
	defer hold.RUnlock()
	if hold.on || g.Retreated() {
		return nil
	}
	return g.attach(spread(g.at))
}

// look searches on until the numbers are known, and for a while longer where they may change. It ends when Steer is called again.
func (g *Group) look(round, others int, missing bool, found func()) {
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		timer := time.NewTimer(wait)
		select {
		case <-g.quit:
			timer.Stop()
			return
		case <-timer.C:
		}
		g.mu.Lock()
		if g.round != round || g.left || g.closed {
			g.mu.Unlock()
			return
		}
		err := g.seek(others)
		g.mu.Unlock()
		if err != nil {
			continue
		}
		if missing && found != nil {
			found()
		}
		missing = false
		if !g.shared || wait == lastLook {
			return
		}
	}
}

// seek looks for the numbers once and has the kernel spread datagrams over them. It is called with the lock held.
func (g *Group) seek(others int) error {
	hold.RLock()
	defer hold.RUnlock()
	if hold.on || g.Retreated() {
		return errNotFound
	}
	at, err := g.locate(others + len(g.sockets) + maxSockets)
	if err != nil {
		return err
	}
	if at == nil {
		if g.at == nil {
			return errors.Join(errNotFound, g.attach(anywhere))
		}
		return errors.Join(errNotFound, g.attach(spread(g.at))) // as before
	}
	g.at = at
	for i, s := range g.sockets {
		own.at(s.conn, at[i])
	}
	return g.attach(spread(at))
}

// attach gives the kernel a filter for all sockets of the address.
func (g *Group) attach(filter []unix.SockFilter) error { return attach(g.sockets[0].raw, filter) }

func attach(to syscall.RawConn, filter []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	var err error
	ctl := to.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &prog)
	})
	if ctl != nil {
		return ctl
	}
	return err
}

// retreat has the kernel lead nothing to sockets any more, whatever their numbers are: the hash passes over sockets that are connected
// (Linux 5.4). What they have got they still have, and answers are sent from them as before.
func retreat(addr netip.AddrPort, sockets []syscall.RawConn) {
	if len(sockets) == 0 {
		return
	}
	_ = attach(sockets[0], anywhere)
	for _, raw := range sockets {
		_ = raw.Control(func(fd uintptr) {
			for _, peer := range nobody(addr, int(fd)) {
				if unix.Connect(int(fd), peer) == nil {
					return
				}
			}
		})
	}
}

// nobody returns addresses to connect a socket to from which no query comes: its own, or the loopback's.
func nobody(addr netip.AddrPort, fd int) []unix.Sockaddr {
	own, err := unix.Getsockname(fd)
	if err != nil {
		return nil
	}
	if !addr.Addr().IsUnspecified() {
		return []unix.Sockaddr{own}
	}
	port := int(addr.Port())
	if _, ok := own.(*unix.SockaddrInet4); ok {
		return []unix.Sockaddr{&unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}}
	}
	return []unix.Sockaddr{
		&unix.SockaddrInet6{Port: port, Addr: netip.IPv6Loopback().As16()},
		&unix.SockaddrInet6{Port: port, Addr: netip.AddrFrom4([4]byte{127, 0, 0, 1}).As16()},
	}
}

// Retreated reports whether the sockets of a group get nothing any more, because of this process or another one that has them.
func (g *Group) Retreated() bool {
	is := false
	for _, s := range g.sockets {
		_ = s.raw.Control(func(fd uintptr) {
			_, err := unix.Getpeername(int(fd))
			is = is || err == nil
		})
	}
	return is
}

// anywhere is a filter that returns no number.
var anywhere = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 1<<31 - 1}}

// spread returns a filter that leads datagrams to the sockets with the given numbers by the ID of the query. It sees a
// datagram from its first byte of data. One that is shorter than an ID is led to the first socket of all.
func spread(at []int) []unix.SockFilter {
	f := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(len(at))},
	}
	for i, n := range at {
		f = append(f, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(i), Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(n)})
	}
	return append(f, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(at[0])})
}
