package engine

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Begin implements [Engine].
func (e *epollEngine) Begin(from, to netip.AddrPort, near Conn, control Control) (Conn, Finish, error) {
	l := e.loopOf(near)
	fd, err := rawSocket(family(to.Addr()))
	if err != nil {
		return nil, nil, os.NewSyscallError("socket", err)
	}
	c := newConn(l, fd)
	over, err := c.connect(from, to, control)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	if over {
		return c, nil, nil
	}
	return nil, c.finish, nil
}

// Move implements [Engine]. What the loop before is still going to tell is of a slot that is free, or of a connection that is
// closed.
func (e *epollEngine) Move(c, near Conn) Conn {
	was, to := c.(*conn), e.loopOf(near)
	if was.loop == to {
		return was
	}
	fd, err := was.leave()
	if err != nil {
		return nil
	}
	return newConn(to, fd)
}

// leave takes the descriptor of a connection out of its loop, and leaves the connection as one that is closed.
func (c *conn) leave() (fd int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return -1, net.ErrClosed
	}
	if c.watched != 0 {
		if err := c.loop.kernel.tell(c.loop.epoll, unix.EPOLL_CTL_DEL, c.fd, unix.EpollEvent{}); err != nil {
			_ = c.closeLocked(false)
			return -1, os.NewSyscallError("epoll_ctl", err)
		}
		c.loop.leave(c.number)
		c.watched = 0
	}
	fd, c.fd = c.fd, -1
	c.loop.conns.Add(-1)
	return fd, nil
}

func (e *epollEngine) loopOf(near Conn) *loop {
	if c, ok := near.(*conn); ok {
		return c.loop
	}
	return e.pick()
}

// connect begins the handshake, and reports whether it is over: one with this machine is.
func (c *conn) connect(from, to netip.AddrPort, control Control) (over bool, err error) {
	if control != nil {
		if err := control(uintptr(c.fd), to); err != nil {
			return false, err
		}
	}
	if err := rawSetsockopt(c.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return false, os.NewSyscallError("setsockopt", err)
	}
	var at rawAddr
	if from.IsValid() {
		at.set(from)
		if err := rawBind(c.fd, &at); err != nil {
			return false, os.NewSyscallError("bind", err)
		}
	}
	at.set(to)
	switch err := rawConnect(c.fd, &at); err {
	case nil:
		return true, nil
	case errInProgress, unix.EINTR:
	default:
		return false, os.NewSyscallError("connect", err)
	}
	return c.looked()
}

// looked looks whether the handshake is over.
func (c *conn) looked() (over bool, err error) {
	fds := [1]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLOUT}}
	if _, err := rawPoll(&fds[0]); err != nil {
		return false, os.NewSyscallError("poll", err)
	}
	if fds[0].Revents == 0 {
		return false, nil
	}
	c.out = true
	return true, c.failure(fds[0].Revents)
}

// finish waits for the end of the handshake.
func (c *conn) finish(ctx context.Context) (Conn, error) {
	err := c.connected(ctx)
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *conn) connected(ctx context.Context) error {
	for {
		c.mu.Lock()
		if c.fd < 0 {
			c.mu.Unlock()
			return net.ErrClosed
		}
		if over, err := c.looked(); over || err != nil {
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
