//go:build !linux

package engine

import (
	"errors"
	"io"
	"sync"
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

type transfer struct{}

func (transfer) close() {}

type copier struct{}

// copy moves bytes from src to dst until src ends. It returns who broke, Nobody for an orderly end.
func (h *half) copy() (broken Side) {
	b := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(b)
	for {
		n, err := h.src.Read(b[:])
		if n > 0 {
			sent, err := h.dst.Write(b[:n])
			h.note(h.to, sent)
			if err != nil {
				return h.to
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return Nobody
		case err != nil:
			return h.from
		}
	}
}

// ReadNow implements [Conn]: what is there can't be known here.
func (c tcpConn) ReadNow([]byte) (n int, ended bool) { return 0, false }

// Reset implements [Conn]; it may wait for readers and writers.
func (c tcpConn) Reset() {
	c.SetLinger(0)
	c.Close()
}

// dissolved can't say here whether src is no more.
func (h *half) dissolved() bool { return false }

// gone can't say here whether src is reset after its end: who writes to it sees it.
func (h *half) gone() bool { return false }

// idle waits until the read deadline of src passes or it is closed. What src sends meanwhile, its end too, can't be
// seen here without taking it.
func (h *half) idle(bool) error {
	raw, err := h.src.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(uintptr) bool { return false })
}
