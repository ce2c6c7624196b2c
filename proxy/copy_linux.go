package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/postern-link/postern/policy"
	"golang.org/x/sys/unix"
)

// How much is moved at once. Together they keep what is held of a direction, in a buffer or in a
// pipe, at 64 KiB however large the pipe is. BenchmarkCopy finds no more than 5 % in 256 KiB at once.
const (
	bufferSize = 32 << 10
	spliceSize = 64 << 10
	// quietSize: a splice that brought less is the end of bulk for now, since small messages cost
	// fewer system calls through a buffer.
	quietSize = 8 << 10
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// transfer is what copying shares between the flows of a proxy.
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

// begin makes the direction ready for steps. It returns who broke.
func (h *half) begin() (broken policy.Reason) {
	var err error
	if h.raw, err = h.src.SyscallConn(); err != nil {
		return h.from
	}
	if h.out, err = h.dst.SyscallConn(); err != nil {
		return h.to
	}
	return ""
}

// take waits with nothing in hand until src has bytes, and reads them into a pooled buffer: buf and n, for
// flushBuffer. At the end of src it returns io.EOF.
func (h *half) take() error {
	if err := h.raw.Read(h.read); err != nil {
		return err
	}
	return h.err
}

// idle waits, and takes nothing from src, until its read deadline passes, src breaks, or it ends with nothing
// left to read, which is io.EOF.
func (h *half) idle() error {
	if broken := h.begin(); broken != "" {
		return net.ErrClosed
	}
	var b [1]byte
	if err := h.raw.Read(func(fd uintptr) bool {
		n, err := retry(func() (int, error) {
			n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			return n, err
		})
		switch {
		case err == unix.EAGAIN:
			return false
		case err != nil:
			h.err = err
		case n == 0 && len(h.flow.held) == 0:
			h.err = io.EOF
		default: // something waits, and hides what came behind it
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			if err != nil || info.State != tcpClose {
				return false
			}
			h.err = unix.ECONNRESET
		}
		return true
	}); err != nil {
		return err
	}
	return h.err
}

// tcpClose is the state of a socket whose peer has reset it (TCP_CLOSE in the kernel's tcp_states.h).
const tcpClose = 7

// copy moves bytes from src to dst until src ends. It returns who broke, "" for an orderly end.
//
// It waits for bytes with nothing in hand. They are read into a pooled buffer; when one comes back
// full there is probably much more to come, and a pooled pipe is filled and emptied by splice until
// that proves wrong.
func (h *half) copy() (broken policy.Reason) {
	if broken := h.begin(); broken != "" {
		return broken
	}
	var err error
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
			return ""
		case h.err != nil:
			return h.from
		}
		n := h.n
		if h.pipe != nil {
			err = h.flushPipe(empty)
			bulk = n >= quietSize
		} else {
			err = h.flushBuffer()
			bulk = n == bufferSize && !h.flow.proxy.transfer.pipes.useless()
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
	n, err := retry(func() (int, error) { return unix.Read(int(fd), b[:]) })
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
	h.note(n)
	buffers.Put(h.buf)
	h.buf, h.n = nil, 0
	return err
}

// fill splices into a pooled pipe; otherwise it is like read.
func (h *half) fill(fd uintptr) bool {
	h.err = nil
	p := h.flow.proxy.transfer.pipes.get()
	if p == nil {
		h.err = errNoSplice
		return true
	}
	n, err := retry(func() (int, error) {
		n, err := unix.Splice(int(fd), nil, p.w, nil, spliceSize, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		return int(n), err
	})
	if n <= 0 {
		h.flow.proxy.transfer.pipes.put(p) // still empty
		switch err {
		case unix.EAGAIN:
			return false
		case nil:
			h.err = io.EOF
		case unix.EINVAL:
			h.flow.proxy.transfer.pipes.disable()
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
		h.flow.proxy.transfer.pipes.put(h.pipe)
	}
	h.pipe, h.n = nil, 0
	return err
}

// empty splices from the pipe until nothing is left in it. It reports false when dst takes no more
// for now.
func (h *half) empty(fd uintptr) bool {
	h.err = nil
	for h.n > 0 {
		n, err := retry(func() (int, error) {
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
		h.note(n)
	}
	return true
}

// retry calls f again for as long as a signal interrupts it.
func retry(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != unix.EINTR {
			return n, err
		}
	}
}

// waiting returns what the client has sent by now, without waiting: so that it goes into the same
// write as the header.
func (f *flow) waiting() []byte {
	raw, err := f.client.SyscallConn()
	if err != nil {
		return nil
	}
	b := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(b)
	var first []byte
	raw.Read(func(fd uintptr) bool {
		// Errors and the end of file come again to the copy.
		if n, _ := retry(func() (int, error) { return unix.Read(int(fd), b[:]) }); n > 0 {
			first = append(first, b[:n]...)
		}
		return true
	})
	return first
}
