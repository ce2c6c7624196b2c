package engine

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Dial implements [Engine].
func (e *epollEngine) Dial(ctx context.Context, from, to netip.AddrPort, near Conn, control Control) (Conn, error) {
	l := e.loopOf(near)
	fd, err := unix.Socket(family(to.Addr()), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c := newConn(l, fd)
	if err := c.connect(ctx, from, to, control); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (e *epollEngine) loopOf(near Conn) *loop {
	if c, ok := near.(*conn); ok {
		return c.loop
	}
	return e.pick()
}

func (c *conn) connect(ctx context.Context, from, to netip.AddrPort, control Control) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if control != nil {
		if err := control(uintptr(c.fd), to); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if from.IsValid() {
		if err := unix.Bind(c.fd, sockaddr(from)); err != nil {
			return os.NewSyscallError("bind", err)
		}
	}
	err := unix.Connect(c.fd, sockaddr(to))
	switch err {
	case nil:
		return nil
	case unix.EINPROGRESS, unix.EINTR:
	default:
		return os.NewSyscallError("connect", err)
	}
	return c.connected(ctx)
}

// connected waits for the end of the handshake. One with this machine is over by now.
func (c *conn) connected(ctx context.Context) error {
	for {
		c.mu.Lock()
		fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLOUT}}
		if _, err := ignoringEINTR(func() (int, error) { return unix.Poll(fds, 0) }); err != nil {
			c.mu.Unlock()
			return os.NewSyscallError("poll", err)
		}
		if fds[0].Revents != 0 {
			c.out = true
			err := c.failure(fds[0].Revents)
			c.mu.Unlock()
			return err
		}
		if err := ctx.Err(); err != nil {
			c.mu.Unlock()
			return fmt.Errorf("connect: %w", context.Cause(ctx))
		}
		c.out = false
		if err := c.watch(watchOut); err != nil {
			c.mu.Unlock()
			return err
		}
		c.await(&c.out, time.Time{}, ctx.Done())
	}
}

// failure returns why a handshake has failed, nil if it has not.
func (c *conn) failure(events int16) error {
	if events&(unix.POLLERR|unix.POLLHUP) == 0 {
		return nil
	}
	errno, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if errno != 0 {
		return os.NewSyscallError("connect", syscall.Errno(errno))
	}
	return nil // connected, and closed by the peer since
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// addrOf returns what the kernel says of an address, IPv4 as IPv4. A link-local address keeps its zone as a
// number, and matches no prefix.
func addrOf(sa syscall.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 {
			a = a.WithZone(fmt.Sprint(sa.ZoneId))
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// listener accepts for the epoll engine. Its socket is watched by the runtime's poller.
type listener struct {
	engine *epollEngine
	file   *os.File
	raw    syscall.RawConn
	local  netip.AddrPort // valid if it is that of every connection
	closed atomic.Bool
}

// Listener implements [Engine].
func (e *epollEngine) Listener(l *net.TCPListener) (Listener, error) {
	defer l.Close()
	file, err := l.File()
	if err != nil {
		return nil, err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	one := &listener{engine: e, file: file, raw: raw}
	if at := l.Addr().(*net.TCPAddr).AddrPort(); !at.Addr().IsUnspecified() {
		one.local = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return one, nil
}

// Accept implements [Listener].
func (l *listener) Accept() (Conn, netip.AddrPort, netip.AddrPort, error) {
	fd, peer, err := -1, syscall.Sockaddr(nil), error(nil)
	waited := l.raw.Read(func(listening uintptr) bool {
		for {
			// Not package unix's, which asks for the protocol of each socket.
			fd, peer, err = syscall.Accept4(int(listening), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			if err != syscall.EINTR {
				return err != syscall.EAGAIN
			}
		}
	})
	switch {
	case waited != nil:
		if l.closed.Load() { // the error of the file says so in no way that can be asked for
			waited = net.ErrClosed
		}
		return nil, netip.AddrPort{}, netip.AddrPort{}, waited
	case err != nil:
		return nil, netip.AddrPort{}, netip.AddrPort{}, os.NewSyscallError("accept4", err)
	}
	local := l.local
	if !local.IsValid() {
		sa, err := syscall.Getsockname(fd)
		if err != nil {
			unix.Close(fd)
			return nil, netip.AddrPort{}, netip.AddrPort{}, os.NewSyscallError("getsockname", err)
		}
		local = addrOf(sa)
	}
	return newConn(l.engine.pick(), fd), addrOf(peer), local, nil
}

// Close implements [Listener].
func (l *listener) Close() error {
	l.closed.Store(true)
	return l.file.Close()
}
