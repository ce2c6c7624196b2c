package engine

import (
	"errors"
	"io"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// transfer is what copying shares between the flows of a portable engine.
type transfer struct{ pipes pipes }

func (t *transfer) close() { t.pipes.close() }

// copier is the state of one direction between two steps. All of it is zero while the direction
// waits for bytes.
type copier struct {
	raw  syscall.RawConn // of src
	out  syscall.RawConn // of dst
	buf  *[bufferSize]byte
	pipe *pipe
	n    int // bytes in buf or pipe
	err  error
}

// copy moves bytes from src to dst until src ends. It returns who broke, "" for an orderly end.
//
// It waits for bytes with nothing in hand. They are read into a pooled buffer; when one comes back
// full there is probably much more to come, and a pooled pipe is filled and emptied by splice until
// that proves wrong.
func (h *half) copy() (broken Side) {
	var err error
	if h.raw, err = h.src.SyscallConn(); err != nil {
		return h.from
	}
	if h.out, err = h.dst.SyscallConn(); err != nil {
		return h.to
	}
	read, fill, empty := h.read, h.fill, h.empty // allocated once, not at each step
	bulk := false
	for {
		step := read
		if bulk {
			step = fill
		}
		if err := h.raw.Read(step); err != nil {
			h.err = err
		}
		switch {
		case errors.Is(h.err, errNoSplice):
			bulk = false
			continue
		case h.err == io.EOF:
			return Nobody
		case h.err != nil:
			return h.from
		}
		n := h.n
		if h.pipe != nil {
			err = h.flushPipe(empty)
			bulk = n >= quietSize
		} else {
			err = h.flushBuffer()
			bulk = n == bufferSize && !h.engine.pipes.useless()
		}
		if err != nil {
			return h.to
		}
	}
}

// read reads into a pooled buffer. It reports false, with nothing in hand, when there are no bytes
// yet: then the runtime calls it again when there are.
func (h *half) read(fd uintptr) bool {
	h.err = nil
	b := buffers.Get().(*[bufferSize]byte)
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(int(fd), b[:]) })
	if n <= 0 {
		buffers.Put(b)
		if err == unix.EAGAIN {
			return false
		}
		h.err = err
		if err == nil {
			h.err = io.EOF
		}
		return true
	}
	h.buf, h.n = b, n
	return true
}

func (h *half) flushBuffer() error {
	n, err := h.dst.Write(h.buf[:h.n])
	h.note(h.to, n)
	buffers.Put(h.buf)
	h.buf, h.n = nil, 0
	return err
}

// fill splices into a pooled pipe; otherwise it is like read.
func (h *half) fill(fd uintptr) bool {
	h.err = nil
	p := h.engine.pipes.get()
	if p == nil {
		h.err = errNoSplice
		return true
	}
	n, err := ignoringEINTR(func() (int, error) {
		n, err := unix.Splice(int(fd), nil, p.w, nil, spliceSize, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		return int(n), err
	})
	if n <= 0 {
		h.engine.pipes.put(p) // still empty
		switch err {
		case unix.EAGAIN:
			// A splice never gets past urgent data. A read does.
			var b [1]byte
			if _, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT); err == unix.EAGAIN {
				return false
			}
			h.err = errNoSplice
		case nil:
			h.err = errNoSplice // it is the end, or urgent data with the end behind
		case unix.EINVAL:
			h.engine.pipes.disable()
			h.err = errNoSplice
		default:
			h.err = err
		}
		return true
	}
	h.pipe, h.n = p, n
	return true
}

// flushPipe empties the pipe into dst and gives it back.
func (h *half) flushPipe(empty func(uintptr) bool) error {
	err := h.out.Write(empty)
	if err == nil {
		err = h.err
	}
	if err != nil {
		h.pipe.close() // there are bytes in it
	} else {
		h.engine.pipes.put(h.pipe)
	}
	h.pipe, h.n = nil, 0
	return err
}

// empty splices from the pipe until nothing is left in it. It reports false when dst takes no more
// for now.
func (h *half) empty(fd uintptr) bool {
	h.err = nil
	for h.n > 0 {
		n, err := ignoringEINTR(func() (int, error) {
			n, err := unix.Splice(h.pipe.r, nil, int(fd), nil, h.n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			return int(n), err
		})
		switch {
		case err == unix.EAGAIN:
			return false
		case err != nil:
			h.err = err
			return true
		case n == 0:
			h.err = io.ErrUnexpectedEOF // can't be: there are bytes in the pipe
			return true
		}
		h.n -= n
		h.note(h.to, n)
	}
	return true
}

// ReadNow implements [Conn].
func (c tcpConn) ReadNow(b []byte) (n int, ended bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, true
	}
	if failed := raw.Read(func(fd uintptr) bool {
		n, err = rawRead(int(fd), b)
		return true
	}); failed != nil {
		return 0, true
	}
	return max(n, 0), n == 0 || err != nil && err != errAgain
}

// Reset implements [Conn]. Close would wait until every reader and writer has let go, which on a busy node
// takes a round of the scheduler for each.
//
// To connect a socket to no address dissolves its connection (connect(2)), with a reset where the peer doesn't
// know yet, in whatever state it is: no window is asked, and who reads or writes here is woken.
func (c tcpConn) Reset() {
	raw, err := c.SyscallConn()
	if err != nil {
		return // closed already
	}
	if err := raw.Control(func(fd uintptr) {
		nobody := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		// Where it fails there is no connection, and Close is all that is left.
		unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody))
	}); err == nil {
		c.SetLinger(0)
		c.Close()
	}
}

// dissolved reports whether src is no more: reset, or ended by both.
func (h *half) dissolved() (is bool) {
	if raw, err := h.src.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { is = linux{}.dissolved(int(fd)) })
	}
	return is
}

// gone waits, after the end of src, until its read deadline passes or it is closed or no more, and reports whether it is no more:
// of a reset where the other direction waits for bytes, nothing else would tell.
func (h *half) gone() bool {
	raw, err := h.src.SyscallConn()
	if err != nil {
		return false
	}
	raw.Read(func(fd uintptr) bool { return linux{}.dissolved(int(fd)) })
	return h.dissolved() // where the poller tells of an error the wait fails
}

// idle waits, and takes nothing from src, until its read deadline passes, src breaks, or it ends with nothing
// left to read, which is io.EOF if that is asked for.
func (h *half) idle(end bool) (err error) {
	raw, err := h.src.SyscallConn()
	if err != nil {
		return err
	}
	var b [1]byte
	waited := raw.Read(func(fd uintptr) bool {
		n, failed := ignoringEINTR(func() (int, error) {
			n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			return n, err
		})
		switch {
		case failed == unix.EAGAIN:
			return false
		case failed != nil:
			err = failed
			return true
		case n == 0 && end:
			err = io.EOF
			return true
		}
		// Something waits, and hides what came behind it.
		if (linux{}).dissolved(int(fd)) {
			err = unix.ECONNRESET
			return true
		}
		return false
	})
	if waited != nil {
		return waited
	}
	return err
}
