package engine

import (
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// What a turn of a pair does with one connection. None of it waits.

// errWait: nothing can be done now; epoll will tell when it can.
var errWait = errors.New("not now")

// take reads what is there.
func (c *conn) take(b []byte) (int, error) {
	return c.incoming(len(b), func(fd int) (int, error) { return c.loop.kernel.read(fd, b) })
}

// spliceTo moves up to most bytes of what is there into an empty pipe, or as much as there is a slot for: that it is less than was asked
// for says nothing of the socket. A splice never gets past urgent data: there it finds nothing, or an end, whatever lies
// behind. Where that may be so the error is errNoSplice, and a read knows.
func (c *conn) spliceTo(p *pipe, most int) (int, error) {
	return c.incoming(0, func(fd int) (int, error) {
		n, err := c.loop.kernel.splice(fd, p.w, most)
		if n == 0 && err == nil || err == unix.EAGAIN && c.urgent {
			return 0, errNoSplice
		}
		return n, err
	})
}

// incoming calls f, which takes at most so many bytes, 0 for one that may leave some. What is less has emptied the
// socket: the end and what comes later are told by epoll anew, unless the end was told already.
func (c *conn) incoming(most int, f func(fd int) (int, error)) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return 0, net.ErrClosed
	}
	if !c.in {
		return 0, errWait
	}
	n, err := ignoringEINTR(func() (int, error) { return f(c.fd) })
	switch {
	case err == unix.EAGAIN:
		c.in = false
		return 0, errWait
	case err != nil:
		return 0, err
	case n == 0:
		return 0, c.end()
	}
	if n < most && !c.hup && !c.urgent {
		c.in = false
	}
	return n, nil
}

// give writes what there is room for; less than all comes with errWait.
func (c *conn) give(b []byte) (int, error) {
	return c.outgoing(len(b), func(fd int) (int, error) { return c.loop.kernel.write(fd, b) })
}

// spliceFrom moves from a pipe what there is room for; nothing comes with errWait.
func (c *conn) spliceFrom(p *pipe, n int) (int, error) {
	return c.outgoing(0, func(fd int) (int, error) {
		n, err := c.loop.kernel.splice(p.r, fd, n)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF // can't be: there are bytes in the pipe
		}
		return n, err
	})
}

// outgoing calls f, which gives at most so many bytes, and has epoll tell when there is room again where
// less was taken than wanted.
func (c *conn) outgoing(wanted int, f func(fd int) (int, error)) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return 0, net.ErrClosed
	}
	if !c.out {
		return 0, errWait
	}
	n, err := ignoringEINTR(func() (int, error) { return f(c.fd) })
	switch {
	case err == unix.EAGAIN, err == nil && n < wanted:
		n = max(n, 0)
		if c.watched&watchOut != 0 {
			if err == unix.EAGAIN { // an edge comes for sure only after the socket has said so
				c.out = false
				return n, errWait
			}
			return n, nil // it says so next time, or takes more
		}
		c.out = false
		if err := c.watch(watchOut); err != nil {
			return n, err
		}
		return n, errWait
	case err != nil:
		return 0, err
	}
	return n, nil
}

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// failed reports whether epoll has told of an error, or would have if nobody had taken it before.
func (c *conn) failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken || c.lost != nil
}

// over returns io.EOF where the peer has ended and all it sent was read, an error where the connection is broken, and
// nil where neither is known.
func (c *conn) over() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.fd < 0:
		return net.ErrClosed
	case !c.hup:
		return nil
	}
	var b [1]byte
	n, err := ignoringEINTR(func() (int, error) { return c.loop.kernel.peek(c.fd, b[:]) })
	switch {
	case err == unix.EAGAIN:
		return nil
	case err != nil:
		return err
	case n == 0:
		return c.end()
	}
	// Something waits, and hides what came behind it.
	if c.loop.kernel.dissolved(c.fd) {
		return unix.ECONNRESET
	}
	return nil
}
