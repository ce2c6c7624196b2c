package engine

import (
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// None of the system calls of the engine waits, so the scheduler needs not be told of them: telling it costs time on each, and
// where one takes long for its kind, such as a connect that carries a whole handshake over loopback, the runtime
// would take the processor from the loop and wake another thread for it. They are made again where a signal interrupts them.

func raw(trap, a, b, c uintptr) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(trap, a, b, c)
		if errno == 0 {
			return int(n), nil
		}
		if errno != syscall.EINTR {
			return -1, errnoErr(errno)
		}
	}
}

// errnoErr keeps the usual errors from being allocated.
func errnoErr(e syscall.Errno) error {
	switch e {
	case unix.EAGAIN:
		return errAgain
	case unix.EINPROGRESS:
		return errInProgress
	}
	return e
}

var (
	errAgain      error = unix.EAGAIN
	errInProgress error = unix.EINPROGRESS
)

func rawRead(fd int, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		if errno == 0 {
			return int(n), nil
		}
		if errno != syscall.EINTR {
			return -1, errnoErr(errno)
		}
	}
}

func rawWrite(fd int, b []byte) (int, error) {
	for {
		// MSG_NOSIGNAL is the runtime's to care for: it ignores SIGPIPE but on standard output.
		n, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		if errno == 0 {
			return int(n), nil
		}
		if errno != syscall.EINTR {
			return -1, errnoErr(errno)
		}
	}
}

func rawSplice(from, to, n int) (int, error) {
	for {
		moved, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if errno == 0 {
			return int(moved), nil
		}
		if errno != syscall.EINTR {
			return -1, errnoErr(errno)
		}
	}
}

// rawRoom asks how much of the send buffer is left (SO_MEMINFO, sock_diag(7)); 0 where the kernel doesn't say.
func rawRoom(fd int) int {
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	return int(info[unix.SK_MEMINFO_SNDBUF]) - int(info[unix.SK_MEMINFO_WMEM_QUEUED])
}

func rawShutdown(fd int) error {
	_, err := raw(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return err
}

// rawClose closes a descriptor, once whatever it says (close(2)).
func rawClose(fd int) error {
	if _, _, errno := syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func rawEpollCtl(epoll, op, fd int, ev *unix.EpollEvent) error {
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(ev)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func rawSocket(family int) (int, error) {
	return raw(unix.SYS_SOCKET, uintptr(family), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
}

func rawSetsockopt(fd, level, name, value int) error {
	v := int32(value)
	_, _, errno := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), 4, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// rawConnect and rawBind make the call with an address, which the caller keeps in rawAddr.
func rawConnect(fd int, to *rawAddr) error {
	_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to.any)), uintptr(to.size))
	if errno != 0 {
		return errnoErr(errno)
	}
	return nil
}

func rawBind(fd int, to *rawAddr) error {
	_, _, errno := syscall.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&to.any)), uintptr(to.size))
	if errno != 0 {
		return errno
	}
	return nil
}

// rawPoll looks at one descriptor, and doesn't wait.
func rawPoll(fd *unix.PollFd) (int, error) {
	now := unix.Timespec{}
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(fd)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != syscall.EINTR {
			return -1, errno
		}
	}
}

// rawAccept takes a connection from a listening socket, and says who it is of.
func rawAccept(listening int) (fd int, peer netip.AddrPort, err error) {
	var a rawAddr
	for {
		a.size = unix.SizeofSockaddrAny
		fd, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listening), uintptr(unsafe.Pointer(&a.any)), uintptr(unsafe.Pointer(&a.size)),
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if errno == 0 {
			return int(fd), a.addr(), nil
		}
		if errno != syscall.EINTR {
			return -1, netip.AddrPort{}, errnoErr(errno)
		}
	}
}

// rawLocal returns the address of a socket itself.
func rawLocal(fd int) (netip.AddrPort, error) {
	a := rawAddr{size: unix.SizeofSockaddrAny}
	_, _, errno := syscall.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&a.any)), uintptr(unsafe.Pointer(&a.size)))
	if errno != 0 {
		return netip.AddrPort{}, errno
	}
	return a.addr(), nil
}

// rawAddr is an address as the kernel has it.
type rawAddr struct {
	any  unix.RawSockaddrAny
	size uint32
}

// set makes it that of an address.
func (r *rawAddr) set(a netip.AddrPort) {
	if a.Addr().Is4() {
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&r.any))
		*in = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: networkOrder(a.Port()), Addr: a.Addr().As4()}
		r.size = unix.SizeofSockaddrInet4
		return
	}
	in := (*unix.RawSockaddrInet6)(unsafe.Pointer(&r.any))
	*in = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: networkOrder(a.Port()), Addr: a.Addr().As16()}
	r.size = unix.SizeofSockaddrInet6
}

// addr returns what the kernel says of an address, IPv4 as IPv4. A link-local address keeps its zone as a
// number, and matches no prefix.
func (r *rawAddr) addr() netip.AddrPort {
	switch r.any.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&r.any))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), networkOrder(in.Port))
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(&r.any))
		a := netip.AddrFrom16(in.Addr).Unmap()
		if in.Scope_id != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(in.Scope_id), 10))
		}
		return netip.AddrPortFrom(a, networkOrder(in.Port))
	}
	return netip.AddrPort{}
}

// networkOrder turns a port between the machine's byte order and the network's.
func networkOrder(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}
