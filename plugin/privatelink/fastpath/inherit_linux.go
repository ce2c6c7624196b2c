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
	left map[netip.AddrPort][]*net.UDPConn
}

var inherited estate

// Inherit takes a socket of the process whose place this one takes. The next group that is opened on its address has it,
// with the datagrams that wait in it.
func Inherit(c *net.UDPConn) {
	inherited.mu.Lock()
	defer inherited.mu.Unlock()
	if inherited.left == nil {
		inherited.left = make(map[netip.AddrPort][]*net.UDPConn)
	}
	at := addrOf(c)
	inherited.left[at] = append(inherited.left[at], c)
}

func (e *estate) take(at netip.AddrPort) []*net.UDPConn {
	e.mu.Lock()
	defer e.mu.Unlock()
	conns := e.left[at]
	delete(e.left, at)
	return conns
}

// DropInherited closes what was inherited and that nobody has taken. The kernel leads nothing there any more before,
// and the process that has left it reads what is in it.
func DropInherited() {
	inherited.mu.Lock()
	defer inherited.mu.Unlock()
	for _, conns := range inherited.left {
		if raw, err := conns[0].SyscallConn(); err == nil {
			g := &Group{sockets: []*socket{{raw: raw}}}
			_ = g.attach(spread([]int{0})) // CoreDNS's was bound first
		}
		closeAll(conns)
	}
	inherited.left = nil
}

func addrOf(c *net.UDPConn) netip.AddrPort {
	at := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// ownSockets is what belongs to groups, by the kernel's numbers for sockets, which a duplicate has too.
type ownSockets struct {
	mu sync.Mutex
	by map[uint64]bool
}

var own ownSockets

func (o *ownSockets) add(c *net.UDPConn) {
	o.set(c, true)
}

func (o *ownSockets) remove(c *net.UDPConn) { o.set(c, false) }

func (o *ownSockets) set(c *net.UDPConn, is bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if cookie, err := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE); err == nil {
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.by == nil {
				o.by = make(map[uint64]bool)
			}
			if is {
				o.by[cookie] = true
			} else {
				delete(o.by, cookie)
			}
		}
	})
}

// Owns reports whether a descriptor of this process is a socket of a group.
func Owns(fd int) bool {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return false
	}
	own.mu.Lock()
	defer own.mu.Unlock()
	return own.by[cookie]
}
