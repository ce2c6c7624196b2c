package proxy

import (
	"errors"
	"net"
	"sync/atomic"

	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/header"
)

// errHeader ends a guarded flow whose first bytes are a PROXY header.
var errHeader = errors.New("first bytes are a PROXY header")

// half is one direction of a flow. Each has a goroutine of its own; while nothing moves, that is
// all it has: no buffer and no pipe.
type half struct {
	flow     *flow
	src, dst *net.TCPConn
	from, to policy.Reason // who src and dst are
	moved    *atomic.Int64 // bytes written to dst
	copier                 // of the platform
}

// copy copies both ways until both are done. Each side's end of file is passed on as one, on its
// own; an error on either side resets both. It returns at once: the direction that is done last
// finishes the flow.
func (f *flow) copy() {
	up := &half{flow: f, src: f.client, dst: f.target, from: policy.Client, to: policy.Target, moved: &f.toTarget}
	down := &half{flow: f, src: f.target, dst: f.client, from: policy.Target, to: policy.Client, moved: &f.toClient}
	f.copying.Store(2)
	f.proxy.flows.Go(up.run)
	f.proxy.flows.Go(down.run)
}

// run is the goroutine of a direction.
func (h *half) run() {
	h.carry()
	if h.flow.copying.Add(-1) == 0 {
		h.flow.finish()
	}
}

// carry copies one direction and passes its end on.
func (h *half) carry() {
	if h.flow.guarded && h.from == policy.Client {
		if err := h.guard(); errors.Is(err, errHeader) {
			h.flow.detail = err.Error()
			h.flow.end(policy.Malformed)
			return
		} else if err != nil {
			h.flow.end(h.to)
			return
		}
	}
	broken, ended := policy.Reason(""), false
	if h.flow.watch != nil {
		step := h.watched
		if h.from == policy.Client {
			step = h.await
		}
		broken, ended = step()
	}
	if broken == "" && !ended {
		broken = h.copy()
	}
	if broken == "" {
		h.flow.first.CompareAndSwap(nil, &h.from)
		if h.dst.CloseWrite() == nil {
			return
		}
		broken = h.to
	}
	h.flow.end(broken)
}

// guard holds the first bytes of the client until they can't be a PROXY header any more: a target
// that takes headers from our address would believe it. Nothing of a header reaches the target, and
// the other direction isn't delayed. At the end of file what is held is let go: it is no header.
func (h *half) guard() error {
	f := h.flow
	b := append(make([]byte, 0, header.Longest), f.held...)
	f.held = nil
	for { // with header.Longest bytes Begins is sure, so that b never has to grow
		is, maybe := header.Begins(b)
		if is {
			return errHeader
		}
		if !maybe {
			break
		}
		n, err := h.src.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		h.note(0)
		if n == 0 && err != nil {
			break // the copy that follows sees it again
		}
	}
	n, err := h.dst.Write(b)
	h.note(n)
	return err
}

// note says that bytes moved.
func (h *half) note(n int) {
	if n > 0 {
		h.moved.Add(int64(n))
	}
	if !h.flow.moved.Load() {
		h.flow.moved.Store(true)
	}
}
