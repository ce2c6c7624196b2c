package proxy

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/sockname"
)

// Keepalive: a peer that is gone without a word is noticed within four minutes, whether the
// connection is quiet (keepalive) or has bytes that aren't acknowledged (user timeout).
const (
	keepIdle     = 60 * time.Second
	keepInterval = 20 * time.Second
	keepCount    = 9
	userTimeout  = 240 * time.Second
)

// listenOptions prepares a listening socket. Accepted connections inherit the options, which saves
// setting them on each.
func listenOptions(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = setAll(int(fd), option{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, option{unix.IPPROTO_IP, unix.IP_FREEBIND, 1})
	}); e != nil {
		return e
	}
	return err
}

// fastOpen lets so many connections wait with what came with their SYN, none for 0 (RFC 7413 section 4.2.1, tcp(7)).
func fastOpen(listener uintptr, waiting int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(listener), unix.IPPROTO_TCP, unix.TCP_FASTOPEN, waiting))
}

// dialOptions prepares a socket towards a target. IP_FREEBIND lets a NAT address be one that is
// only routed here; IP_BIND_ADDRESS_NO_PORT leaves the port to connect, which knows the target, so
// that each target has all the ports of an address.
func dialOptions(fd uintptr, nat, speaks bool) error {
	if speaks {
		// On a socket that connects it means: the handshake is acknowledged by what is written first, which saves a packet,
		// or after 200 ms. Unlike TCP_QUICKACK it changes nothing of what comes later.
		if err := setAll(int(fd), option{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1}); err != nil {
			return err
		}
	}
	if !nat {
		return nil
	}
	return setAll(int(fd), option{unix.IPPROTO_IP, unix.IP_FREEBIND, 1}, option{unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1})
}

// keep has the kernel notice that the peer of a connection is gone. It is of use to a flow that lasts, and would be a tenth
// of the work of a short one.
func keep(c controlled) {
	// On an open socket they can't fail, and without them the idle timeout is all there is.
	c.Control(func(fd uintptr) { _ = setAll(int(fd), keepalive...) })
}

// datagramOptions prepares a socket towards a target of UDP.
func datagramOptions(fd uintptr, nat bool) error {
	if !nat {
		return nil
	}
	return setAll(int(fd), option{unix.IPPROTO_IP, unix.IP_FREEBIND, 1})
}

type option struct{ level, name, value int }

var keepalive = []option{
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepIdle / time.Second)},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepInterval / time.Second)},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepCount},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout / time.Millisecond)},
}

func setAll(fd int, options ...option) error {
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return err
		}
	}
	return nil
}

// acknowledged returns how many bytes the peer of a connection has acknowledged, 0 where that isn't known.
func acknowledged(c controlled) (n uint64) {
	c.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Bytes_acked
		}
	})
	return n
}

// canWarm: connections can be kept ready, since it can be told whether they have ended.
const canWarm = true

// unended reports whether the peer of a connection that nothing was read from has neither ended nor reset it. It may have said
// something; where it ended behind that, it has ended.
func unended(c controlled) (is bool) {
	c.Control(func(fd uintptr) {
		n, err := -1, error(unix.EINTR)
		for err == unix.EINTR { // also where nothing is waited for: by the runtime, which preempts with signals
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}, 0)
		}
		is = n == 0 && err == nil
	})
	return is
}

// localAddress returns the address that a connection is from; the zero one where it is closed.
func localAddress(c controlled) (a netip.Addr) {
	c.Control(func(fd uintptr) {
		if sa, err := unix.Getsockname(int(fd)); err == nil {
			a = sockname.AddrPort(sa).Addr().Unmap()
		}
	})
	return a
}

// localPorts returns how many ports the kernel has for connections from one address to one target, 0 where that isn't known.
func localPorts() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0
	}
	var first, last int
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil {
		return 0
	}
	return last - first + 1
}

// descriptorLimit returns how many descriptors this process may have.
func descriptorLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, 1<<30))
}
