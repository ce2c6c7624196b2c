package proxy

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/hello"
	"github.com/postern-link/postern/proxy/engine"
)

// A flow is decided by the loop of the engine that accepted it, step by step, for as long as nothing has to be waited
// for: in most flows the hello is there when the connection is, or soon after, and no program is asked. A step that has to wait, or
// may take long, goes on in a goroutine: see goOn. What the steps decide is the same.

// begin is the first step.
func (f *flow) begin() {
	if len(f.settings.InboundHeaders) > 0 || f.proxy.policy().Slow() {
		f.goOn(f.run)
		return
	}
	if r := f.enter(); r != nil {
		f.refuse(r)
		return
	}
	switch o, r := f.opening(); {
	case r != nil:
		f.refuse(r)
	case o == &unpinned:
		f.proceed(nil)
	case o == openings[link.PinTLS]:
		f.hear()
	default:
		f.goOn(func(ctx context.Context) *refusal { return f.open(ctx, o, nil) })
	}
}

// firsts are buffers for hellos while they are looked at.
var firsts = sync.Pool{New: func() any { return new([firstSize]byte) }}

// firstSize is more than nearly all hellos have. What is larger, or has much behind it, is read in a goroutine.
const firstSize = 4 << 10

// hear looks for the hello of a flow that is pinned to TLS, again when something came.
func (f *flow) hear() {
	if f.over() {
		f.unhurry()
		f.finish()
		return
	}
	b := firsts.Get().(*[firstSize]byte)
	defer firsts.Put(b)
	n, ended := f.client.ReadNow(b[:])
	if n == 0 && !ended && f.await(f.hear) {
		return
	}
	f.unhurry()
	if f.proxy.policy().Slow() { // by now
		f.readOn(b[:n])
		return
	}
	h, whole, err := hello.Whole(b[:n])
	switch {
	case err != nil:
		f.refuse(refusedHello(err))
	case !whole:
		f.readOn(b[:n])
	default:
		f.held = slices.Clone(h.Rest)
		if r := f.named(h); r != nil {
			f.refuse(r)
			return
		}
		f.watcher = plainWatcher(f)
		f.proceed(h.Bytes)
	}
}

// readOn goes on with a hello that isn't whole, or may take long to judge.
func (f *flow) readOn(first []byte) {
	first = slices.Clone(first)
	f.goOn(func(ctx context.Context) *refusal { return f.open(ctx, openings[link.PinTLS], first) })
}

// unhurry stops what await began.
func (f *flow) unhurry() {
	if f.late != nil {
		f.late.Stop()
		f.late = nil
	}
}

// over reports whether the flow was ended.
func (f *flow) over() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reason != ""
}

// await has a step taken when the client has sent something, or HelloTimeout is over. It reports false where it
// can't, or something came.
func (f *flow) await(step func()) bool {
	if f.late == nil {
		f.by = f.began.Add(f.settings.HelloTimeout)
		f.late = time.AfterFunc(time.Until(f.by), func() {
			f.fail(&refusal{policy.Timeout, "no whole hello in time, 0 bytes"})
		})
	}
	return f.client.Readable(step)
}

// proceed goes on with a flow that state and rules allow, and whose first bytes may go to the target. They are the caller's
// again afterwards.
func (f *flow) proceed(first []byte) {
	if !hasPrograms(f.proxy.policy()) {
		f.note()
		f.reach(first)
		return
	}
	// Programs have come since the flow began: they may take their time.
	first = slices.Clone(first)
	f.goOn(func(ctx context.Context) *refusal {
		if r := f.authorize(ctx); r != nil {
			return r
		}
		if r := f.dial(ctx, attempt{}); r != nil {
			return r
		}
		return f.greet(first)
	})
}

// reach dials, and sends the PROXY header and the first bytes, which are the caller's again afterwards.
func (f *flow) reach(first []byte) {
	b := attempt{at: time.Now()}
	if len(first) <= promptSize {
		if b.service, b.addr, b.left, _ = f.pick(nil); b.left > 0 {
			var conn engine.Conn
			d := f.dialling(b.service)
			d.speaks = d.speaks || len(first) > 0
			if conn, b.finish, b.err = f.seek(d, b.service, b.addr); conn != nil {
				f.deliver(b, conn, first)
				return
			}
		} else {
			b = attempt{at: b.at}
		}
	}
	first = slices.Clone(first)
	f.goOn(func(ctx context.Context) *refusal {
		if r := f.dial(ctx, b); r != nil {
			return r
		}
		return f.greet(first)
	})
}

// promptSize is how much is written to a target at once without waiting for room: less than any new socket has.
const promptSize = 8 << 10

// deliver sends the PROXY header and the first bytes to the target, and begins to copy.
func (f *flow) deliver(b attempt, conn engine.Conn, first []byte) {
	if !f.reached(b, conn) {
		f.refuse(&refusal{policy.Revoked, "ended while dialling"})
		return
	}
	out := greetings.Get().(*[]byte)
	defer greetings.Put(out)
	all, first, r := f.greeting((*out)[:0], first)
	if r != nil {
		f.refuse(r)
		return
	}
	*out = all[:0]
	f.toTarget.Add(int64(len(first)))
	if n := f.target.WriteNow(all); n < len(all) {
		rest := slices.Clone(all[n:])
		f.goOn(func(context.Context) *refusal {
			if _, err := f.target.Write(rest); err != nil {
				return &refusal{policy.Target, err.Error()}
			}
			return nil
		})
		return
	}
	f.copy()
}

// greetings are buffers for what targets get first.
var greetings = sync.Pool{New: func() any { b := make([]byte, 0, 2*promptSize); return &b }}
