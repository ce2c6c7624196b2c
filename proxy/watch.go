package proxy

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/hello"
)

// watch is what the two directions of a pinned flow share until the target's first handshake message is known.
//
// The direction from the target looks at the bytes as it copies them. The other one waits with nothing in hand:
// what the client sends behind its hello, early data too, stays in the kernel. When the answer is there, the first
// tells the second by a read deadline in the past, which needs no goroutine and no descriptor.
type watch struct {
	watcher watcher // of the direction from the target
	answer  atomic.Int32
}

// told is the read deadline that says that there is an answer.
var told = time.Unix(1, 0)

// tell ends the wait of the other direction.
func (f *flow) tell(a hello.Answer) {
	f.watch.answer.Store(int32(a))
	f.client.SetReadDeadline(told)
}

// watched copies from the target until its first handshake message is known. It returns who broke, and whether
// the target ended.
func (h *half) watched() (broken policy.Reason, ended bool) {
	f := h.flow
	if broken := h.begin(); broken != "" {
		return broken, false
	}
	for {
		if err := h.take(); err == io.EOF {
			f.tell(hello.Other) // there is nothing that a second hello could answer
			return "", true
		} else if err != nil {
			return h.from, false
		}
		answer := f.watch.watcher.Watch(h.buf[:h.n])
		if answer != hello.Unknown {
			f.tell(answer)
		}
		if err := h.flushBuffer(); err != nil {
			return h.to, false
		}
		if answer != hello.Unknown {
			return "", false
		}
	}
}

// await waits until the other direction knows the answer, and judges the second hello if there will be one. Then
// it sends what was held. It returns who broke, or why the flow ends, and whether the client ended.
func (h *half) await() (broken policy.Reason, ended bool) {
	f := h.flow
	switch err := h.idle(); {
	case errors.Is(err, os.ErrDeadlineExceeded):
	case err == io.EOF:
		return "", true
	default:
		return h.from, false
	}
	f.client.SetReadDeadline(time.Time{})
	if hello.Answer(f.watch.answer.Load()) == hello.Retry {
		if r := f.secondHello(); r != nil {
			if f.end(r.reason) {
				f.detail = r.detail
			}
			return r.reason, false
		}
	}
	if len(f.held) == 0 {
		return "", false
	}
	n, err := h.dst.Write(f.held)
	f.held = nil
	h.note(n)
	if err != nil {
		return h.to, false
	}
	return "", false
}

// secondHello reads and judges the hello behind a HelloRetryRequest, which must say what the first one said. What
// was read is held.
func (f *flow) secondHello() *refusal {
	f.client.SetReadDeadline(time.Now().Add(f.settings.HelloTimeout))
	if f.preface != nil {
		return f.secondWrapped()
	}
	from := &prefixed{f.held, f.client}
	h, err := hello.ReadSecond(from, hello.Hello{Name: f.request.Name, ECH: f.request.ECH})
	if err != nil {
		return refusedHello(err)
	}
	f.client.SetReadDeadline(time.Time{})
	f.held = append(h.Bytes[:len(h.Bytes)+len(h.Rest)], from.first...) // Rest lies right behind
	return nil
}
