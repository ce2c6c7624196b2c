//go:build !linux

package proxy

import (
	"io"
	"sync"

	"github.com/postern-link/postern/policy"
)

const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// transfer is what copying shares between the flows of a proxy: nothing here.
type transfer struct{}

func (*transfer) close() {}

// copier is the buffer of a direction between two steps.
type copier struct {
	buf *[bufferSize]byte
	n   int // bytes in buf
}

// copy moves bytes from src to dst through a buffer until src ends. It returns who broke, "" for an
// orderly end.
func (h *half) copy() (broken policy.Reason) {
	for {
		if err := h.take(); err == io.EOF {
			return ""
		} else if err != nil {
			return h.from
		}
		if err := h.flushBuffer(); err != nil {
			return h.to
		}
	}
}

func (h *half) begin() (broken policy.Reason) { return "" }

// take waits until src has bytes, and reads them into a pooled buffer: buf and n, for flushBuffer. At the end
// of src it returns io.EOF.
func (h *half) take() error {
	b := buffers.Get().(*[bufferSize]byte)
	n, err := h.src.Read(b[:])
	if n == 0 {
		buffers.Put(b)
		return err
	}
	h.buf, h.n = b, n
	return nil // an error comes again
}

func (h *half) flushBuffer() error {
	n, err := h.dst.Write(h.buf[:h.n])
	h.note(n)
	buffers.Put(h.buf)
	h.buf, h.n = nil, 0
	return err
}

// idle waits, and takes nothing from src, until its read deadline passes or it is closed. That the peer is gone
// isn't seen here.
func (h *half) idle() error {
	raw, err := h.src.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(uintptr) bool { return false })
}

// waiting returns what the client has sent by now; nothing is known here without waiting.
func (*flow) waiting() []byte { return nil }
