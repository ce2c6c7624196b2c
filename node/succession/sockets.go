//go:build linux

package succession

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/sockname"
)

// SendSockets sends all that [Listening] finds, and then that this is all. apart reports which of them are marked as [Socket]
// has it, and their places.
func (c *Conn) SendSockets(begin Message, notify int, apart func(fd int) (place int, is bool)) error {
	var batch []Socket
	var fds []int
	defer func() { CloseAll(fds) }()
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := c.Send(Message{Kind: Sockets, Sockets: batch}, fds...)
		CloseAll(fds)
		batch, fds = nil, nil
		return err
	}
	err := Listening(func(s Socket, fd int) error {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		if s.Network == "udp" {
			s.Place, s.Apart = apart(dup)
		}
		if batch, fds = append(batch, s), append(fds, dup); len(fds) == MaxSockets {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	begin.Kind, begin.Protocol = Begin, Protocol
	if begin.Notify = notify >= 0; begin.Notify {
		return c.Send(begin, notify)
	}
	return c.Send(begin)
}

// Listening calls f with each socket that this process listens on, whoever has opened it, until it returns an error. The
// descriptor is open for as long as f runs. TCP sockets that accept count, UDP sockets that share their port
// (SO_REUSEPORT), as those of DNS do, and those of endpoints. They are found among the descriptors of the process: neither CoreDNS nor
// Caddy gives theirs out.
func Listening(f func(s Socket, fd int) error) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || !candidate(fd) {
			continue
		}
		// Held, and looked at again: another goroutine may have closed it, and the number be another's now.
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if s, ok := Describe(dup); ok {
			err = f(s, dup)
		}
		_ = unix.Close(dup)
		if err != nil {
			return err
		}
	}
	return nil
}

// candidate reports whether a descriptor may be of a socket that is listened on, which most aren't.
func candidate(fd int) bool {
	_, ok := Describe(fd)
	return ok
}

// Describe returns what a socket is listened on for; false where it isn't.
func Describe(fd int) (Socket, bool) {
	get := func(name int) int {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, name)
		if err != nil {
			return -1
		}
		return v
	}
	s := Socket{Network: "tcp"}
	accepts := get(unix.SO_ACCEPTCONN)
	if accepts < 0 {
		return Socket{}, false // no socket
	}
	domain := get(unix.SO_DOMAIN)
	if domain != unix.AF_INET && domain != unix.AF_INET6 {
		return Socket{}, false
	}
	s.Shared = get(unix.SO_REUSEPORT) == 1
	switch kind := get(unix.SO_TYPE); {
	case kind == unix.SOCK_STREAM && accepts == 1:
	case kind == unix.SOCK_DGRAM && (s.Shared || ofEndpoints(fd, domain)):
		s.Network = "udp"
	default:
		return Socket{}, false
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return Socket{}, false
	}
	s.Addr = sockname.AddrPort(at)
	if six, ok := at.(*unix.SockaddrInet6); ok && six.ZoneId != 0 {
		if i, err := net.InterfaceByIndex(int(six.ZoneId)); err == nil {
			s.Addr = netip.AddrPortFrom(s.Addr.Addr().WithZone(i.Name), s.Addr.Port())
		}
	}
	return s, s.Addr.Port() != 0
}

// ofEndpoints reports whether a UDP socket is one that datagrams for endpoints come in on: it tells where to each was sent,
// may be bound to what isn't an address of this machine, and leads to nobody. No other socket of this process is all of that.
func ofEndpoints(fd, domain int) bool {
	level, free, told := unix.IPPROTO_IP, unix.IP_FREEBIND, unix.IP_PKTINFO
	if domain == unix.AF_INET6 {
		level, free, told = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, unix.IPV6_RECVPKTINFO
	}
	for _, option := range [...]int{free, told} {
		if v, err := unix.GetsockoptInt(fd, level, option); err != nil || v != 1 {
			return false
		}
	}
	_, err := unix.Getpeername(fd)
	return err == unix.ENOTCONN
}

// Listener makes a listener of a descriptor, which it takes over.
func Listener(fd int) (*net.TCPListener, error) {
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	if t, ok := l.(*net.TCPListener); ok {
		return t, nil
	}
	return nil, fmt.Errorf("descriptor %d: no TCP listener", fd)
}

// Packet makes a UDP socket of a descriptor, which it takes over.
func Packet(fd int) (*net.UDPConn, error) {
	f := os.NewFile(uintptr(fd), "packets")
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	if u, ok := c.(*net.UDPConn); ok {
		return u, nil
	}
	return nil, fmt.Errorf("descriptor %d: no UDP socket", fd)
}
