package fastpath

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// Supported reports whether this system has what the package needs.
func Supported() bool { return true }

// Usable returns why the kernel takes no filter of the kind that is needed; nil where it does. It is tried on a socket
// that is bound to nothing.
func Usable() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return err
	}
	filter := spread([]int{0})
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// estate is the sockets that the process before this one has left, by address.
type estate struct {
	mu   sync.Mutex
	left map[netip.AddrPort][]legacy
}

// legacy is one of them. at is its number in the kernel's group, negative where that process didn't know it.
type legacy struct {
	conn *net.UDPConn
	at   int
}

var inherited estate

// Inherit takes a socket of the process whose place this one takes, with what that process says of it ([Owns]). The next group that is
// opened on its address has it, with the datagrams that wait in it.
func Inherit(c *net.UDPConn, place int) {
	inherited.mu.Lock()
	defer inherited.mu.Unlock()
	if inherited.left == nil {
		inherited.left = make(map[netip.AddrPort][]legacy)
	}
	at := addrOf(c)
	inherited.left[at] = append(inherited.left[at], legacy{c, place - 1})
}

// take returns the sockets of an address with their numbers; those are nil where one isn't known.
func (e *estate) take(addr netip.AddrPort) (conns []*net.UDPConn, at []int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	known := true
	for _, l := range e.left[addr] {
		conns, at, known = append(conns, l.conn), append(at, l.at), known && l.at >= 0
	}
	delete(e.left, addr)
	if !known {
		at = nil
	}
	return conns, at
}

// DropInherited closes what was inherited and that nobody has taken. The kernel leads nothing there any more before,
// and the process that has left it reads what is in it.
func DropInherited() {
	inherited.mu.Lock()
	defer inherited.mu.Unlock()
	for addr, all := range inherited.left {
		var conns []*net.UDPConn
		for _, l := range all {
			conns = append(conns, l.conn)
		}
		abandon(addr, conns)
	}
	inherited.left = nil
}

func addrOf(c *net.UDPConn) netip.AddrPort {
	at := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// ownSockets is what belongs to groups, by the kernel's numbers for sockets, which a duplicate has too, with their places: what is
// known of their numbers in their groups, and 1. 0: nothing.
type ownSockets struct {
	mu sync.Mutex
	by map[uint64]int
}

var own = ownSockets{by: make(map[uint64]int)}

func (o *ownSockets) add(c *net.UDPConn) { o.change(c, func(cookie uint64) { o.by[cookie] = 0 }) }

func (o *ownSockets) at(c *net.UDPConn, number int) {
	o.change(c, func(cookie uint64) { o.by[cookie] = number + 1 })
}

func (o *ownSockets) remove(c *net.UDPConn) {
	o.change(c, func(cookie uint64) { delete(o.by, cookie) })
}

func (o *ownSockets) change(c *net.UDPConn, f func(cookie uint64)) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if cookie, err := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE); err == nil {
			o.mu.Lock()
			defer o.mu.Unlock()
			f(cookie)
		}
	})
}

// Owns reports whether a descriptor of this process is a socket of a group. place is for the process that gets it ([Inherit]).
func Owns(fd int) (place int, is bool) {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return 0, false
	}
	own.mu.Lock()
	defer own.mu.Unlock()
	place, is = own.by[cookie]
	return place, is
}
