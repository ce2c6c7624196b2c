package engine

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// conn is a connection of the epoll engine. The kernel is asked first; only when it has nothing is the
// connection put into the epoll of its loop, edge-triggered, and waited for.
//
// Each system call on the descriptor is made under mu: none of them waits, and a descriptor that is closed
// by a revocation can't be another connection's by the time it is used.
type conn struct {
	loop *loop

	mu       sync.Mutex
	fd       int    // -1: closed
	watched  uint32 // events that epoll tells; 0: not in it
	number   uint32 // of its slot in the loop, and which use of that it is
	uses     uint32
	in, out  bool          // there may be bytes, or room
	hup      bool          // the peer has ended, or worse: there is an end to be read
	broken   bool          // epoll told of an error
	lost     error         // that was told once, and nobody else will be
	urgent   bool          // urgent data has come: a read stops in front of it, with more behind
	wake     chan struct{} // for the goroutine that waits; nil before the first did
	deadline time.Time     // of reading
	late     time.Time     // of writing
	pair     *pair         // that it is copied in; nil while a goroutine talks on it
	readable func()        // to be called when there is something to read; nil: nobody waits so
}

func newConn(l *loop, fd int) *conn {
	l.conns.Add(1)
	return &conn{loop: l, fd: fd, in: true, out: true}
}

const (
	watchIn  = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET
	watchOut = unix.EPOLLOUT
)

// watch puts the connection into the epoll for events, beside those that it is there for. If they are there
// already, epoll tells at once. The caller holds mu.
func (c *conn) watch(events uint32) error {
	if c.watched&events == events {
		return nil
	}
	op := unix.EPOLL_CTL_MOD
	if c.watched == 0 {
		op = unix.EPOLL_CTL_ADD
		c.number, c.uses = c.loop.enter(c)
	}
	ev := unix.EpollEvent{Events: c.watched | events | watchIn}
	setSlot(&ev, c.number, c.uses)
	if err := c.loop.kernel.tell(c.loop.epoll, op, c.fd, ev); err != nil {
		if c.watched == 0 {
			c.loop.leave(c.number)
		}
		return os.NewSyscallError("epoll_ctl", err)
	}
	c.watched = ev.Events
	return nil
}

// ready implements [watched].
func (c *conn) ready(_ *loop, events uint32) *pair {
	c.mu.Lock()
	if events&(unix.EPOLLERR|unix.EPOLLHUP|unix.EPOLLRDHUP) != 0 {
		c.hup = true
	}
	if events&unix.EPOLLERR != 0 {
		c.broken = true
	}
	if events&unix.EPOLLPRI != 0 {
		c.urgent = true
	}
	if events&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP|unix.EPOLLRDHUP) != 0 {
		c.in = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		c.out = true
	}
	c.signal()
	p, call := c.pair, c.readable
	if !c.in {
		call = nil
	}
	if call != nil {
		c.readable = nil
	}
	c.mu.Unlock()
	if call != nil {
		call()
	}
	return p
}

// signal wakes the goroutine that waits, if there is one. The caller holds mu.
func (c *conn) signal() {
	if c.wake != nil {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// Read implements [Conn].
func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		c.mu.Lock()
		if c.fd < 0 {
			c.mu.Unlock()
			return 0, net.ErrClosed
		}
		if passed(c.deadline) {
			c.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		}
		n, err := ignoringEINTR(func() (int, error) { return c.loop.kernel.read(c.fd, b) })
		if err == unix.EAGAIN {
			c.in = false
			if err = c.watch(watchIn); err == nil {
				c.await(&c.in, c.deadline, nil)
				continue
			}
		}
		end := c.end()
		c.mu.Unlock()
		switch {
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, end
		}
		return n, nil
	}
}

// ReadNow implements [Conn].
func (c *conn) ReadNow(b []byte) (n int, ended bool) {
	n, err := c.incoming(len(b), func(fd int) (int, error) {
		n, err := c.loop.kernel.read(fd, b)
		c.lose(err)
		return n, err
	})
	return max(n, 0), err != nil && err != errWait
}

// WriteNow implements [Conn].
func (c *conn) WriteNow(b []byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return 0
	}
	n, err := c.loop.kernel.write(c.fd, b)
	c.lose(err)
	return max(n, 0)
}

// lose keeps an error that the kernel tells once. The caller holds mu.
func (c *conn) lose(err error) {
	if err != nil && err != unix.EAGAIN && err != unix.EINTR {
		c.lost = err
	}
}

// Readable implements [Conn].
func (c *conn) Readable(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 || c.in || c.watch(watchIn) != nil {
		return false
	}
	c.readable = f
	return true
}

// end is what a read of nothing says. The caller holds mu.
func (c *conn) end() error {
	if c.lost != nil {
		return c.lost
	}
	return io.EOF
}

// Write implements [Conn].
func (c *conn) Write(b []byte) (int, error) {
	done := 0
	for {
		c.mu.Lock()
		if c.fd < 0 {
			c.mu.Unlock()
			return done, net.ErrClosed
		}
		if passed(c.late) {
			c.mu.Unlock()
			return done, os.ErrDeadlineExceeded
		}
		n, err := ignoringEINTR(func() (int, error) { return unix.Write(c.fd, b[done:]) })
		if err == unix.EAGAIN {
			c.out = false
			if err = c.watch(watchOut); err == nil {
				c.await(&c.out, c.late, nil)
				continue
			}
		}
		c.mu.Unlock()
		if err != nil {
			return done, os.NewSyscallError("write", err)
		}
		if done += n; done >= len(b) {
			return done, nil
		}
	}
}

// await waits until *is is true, the connection is closed, the deadline is over, or done is closed. The caller holds mu, which is
// released, and looks again.
func (c *conn) await(is *bool, deadline time.Time, done <-chan struct{}) {
	if c.wake == nil {
		c.wake = make(chan struct{}, 1)
	}
	var late <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	for !*is && c.fd >= 0 {
		c.mu.Unlock()
		over := false
		select {
		case <-c.wake:
		case <-late:
			over = true
		case <-done:
			over = true
		}
		c.mu.Lock()
		if over {
			break
		}
	}
	c.mu.Unlock()
}

// SetReadDeadline implements [Conn].
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	c.signal()
	return nil
}

// SetWriteDeadline implements [Conn].
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = t
	c.signal()
	return nil
}

// passed reports whether a deadline is over; the zero one never is.
func passed(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// CloseWrite implements [Conn].
func (c *conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return net.ErrClosed
	}
	return os.NewSyscallError("shutdown", c.loop.kernel.shutdown(c.fd))
}

// Close implements [Conn].
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closeLocked(false)
}

// Reset implements [Conn].
func (c *conn) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.closeLocked(true)
}

func (c *conn) closeLocked(reset bool) error {
	if c.fd < 0 {
		return net.ErrClosed
	}
	err := c.loop.kernel.close(c.fd, reset) // which takes it out of the epoll
	c.fd = -1
	c.loop.conns.Add(-1)
	if c.watched != 0 {
		c.loop.leave(c.number)
	}
	if c.pair != nil {
		c.loop.post(c.pair)
	}
	if c.readable != nil {
		c.loop.call(c.readable)
		c.readable = nil
	}
	c.signal()
	return os.NewSyscallError("close", err)
}

// Control implements [Conn].
func (c *conn) Control(f func(fd uintptr)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		f(uintptr(c.fd))
	}
}

// ignoringEINTR calls f again for as long as a signal interrupts it.
func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != syscall.EINTR {
			return n, err
		}
	}
}
