package proxy

import (
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
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
		err = setAll(int(fd), append(keepalive, option{unix.IPPROTO_IP, unix.IP_FREEBIND, 1})...)
	}); e != nil {
		return e
	}
	return err
}

// dialOptions prepares a socket towards a target. IP_FREEBIND lets a NAT address be one that is
// only routed here; IP_BIND_ADDRESS_NO_PORT leaves the port to connect, which knows the target, so
// that each target has all the ports of an address.
func dialOptions(nat bool) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		options := keepalive
		if nat {
			options = natOptions
		}
		var err error
		if e := c.Control(func(fd uintptr) { err = setAll(int(fd), options...) }); e != nil {
			return e
		}
		return err
	}
}

type option struct{ level, name, value int }

var keepalive = []option{
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepIdle / time.Second)},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepInterval / time.Second)},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepCount},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout / time.Millisecond)},
}

var natOptions = append(keepalive[:len(keepalive):len(keepalive)],
	option{unix.IPPROTO_IP, unix.IP_FREEBIND, 1},
	option{unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1})

func setAll(fd int, options ...option) error {
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return err
		}
	}
	return nil
}

// sever resets a connection without waiting: what is queued is dropped both ways, the peer is told so at once,
// and who reads or writes here is woken with an error. The descriptor stays to be closed. Close would wait
// until every reader and writer has let go, which on a busy node takes a round of the scheduler for each.
//
// To connect a socket to no address dissolves its connection (connect(2)), with a reset where the peer doesn't
// know yet, in whatever state it is: no window is asked.
func sever(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return // closed already
	}
	failed := false
	if err := raw.Control(func(fd uintptr) {
		nobody := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody))
		failed = errno != 0
	}); err == nil && failed {
		reset(c)
	}
}

// acknowledged returns how many bytes the peer of a connection has acknowledged, 0 where that isn't known.
func acknowledged(c *net.TCPConn) (n uint64) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Bytes_acked
		}
	})
	return n
}

// descriptorLimit returns how many descriptors this process may have.
func descriptorLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, 1<<30))
}
