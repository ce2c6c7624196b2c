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

type copier struct{}

// copy moves bytes from src to dst through a buffer until src ends. It returns who broke, "" for an
// orderly end.
func (h *half) copy() (broken policy.Reason) {
	b := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(b)
	for {
		n, err := h.src.Read(b[:])
		if n > 0 {
			n, err := h.dst.Write(b[:n])
			h.note(n)
			if err != nil {
				return h.to
			}
		}
		if err == io.EOF {
			return ""
		}
		if err != nil {
			return h.from
		}
	}
}

// waiting returns what the client has sent by now; nothing is known here without waiting.
func (*flow) waiting() []byte { return nil }
