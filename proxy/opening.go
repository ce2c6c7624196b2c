package proxy

import (
	"context"
	"slices"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/hello"
)

// opening is the strategy of a pin: how the name of a flow comes to be known and judged, and what the target
// may see of the client until then. It has three steps, each in the goroutine of the flow but for the last:
//
//	before   nothing is dialled. What must be known before it is, is read here: for most pins all of it.
//	after    the target is connected and has its PROXY header, which carries no name if there is none yet. Pins whose
//	         target speaks before the client tells its name read and judge it here, and let through what the
//	         protocol needs and nothing more.
//	watch    the first hello went to the target. Nothing of the client behind it does until the target's first
//	         handshake message is known, and after a HelloRetryRequest the second hello is judged too: see watch.go.
//
// To add a pin: write its steps as functions of a flow, give them a line in openings, and let policy.Decide know
// the pin. A step that reads the name hands it to [flow.judged], which decides again and asks the programs; without
// that no flow of a pinned service is carried, whatever else the steps do. They set deadlines of their own, of
// HelloTimeout in all, on whomever they wait for, and take them away again. Bytes of the client that were read and
// mustn't go to the target yet stay in held. What the target sends before the name is judged goes to the client by
// Write and is added to toClient; what the client sends goes to the target by [flow.send].
type opening struct {
	// before gets what was read of the client already, and returns what goes to the target right behind the PROXY
	// header, in one write. Nil: nothing is read.
	before func(f *flow, ctx context.Context, first []byte) (send []byte, r *refusal)
	// after is nil where the name is judged before.
	after func(f *flow, ctx context.Context) *refusal
	// watch returns a fresh look at what the target sends, nil for no look.
	watch func(f *flow) watcher
}

// watcher finds out what a target's first handshake message is, from the bytes that it sends. A pin whose TLS is
// wrapped in packets unwraps them first.
type watcher interface {
	Watch(b []byte) hello.Answer
}

// openings are the strategies of the pins. A pin that isn't among them is refused.
var openings = map[link.Pin]*opening{
	link.PinTLS: {
		before: (*flow).firstHello,
		watch:  plainWatcher,
	},
	link.PinPostgres: {before: (*flow).postgresHello, after: (*flow).postgresAnswer, watch: plainWatcher},
	link.PinTDS:      {before: (*flow).tdsPrelogin, after: (*flow).tdsHello, watch: (*flow).tdsWatcher},
	link.PinMySQL:    {before: (*flow).mysqlWait, after: (*flow).mysqlHello, watch: plainWatcher},
}

// plainWatcher is the look at a target whose TLS is in nothing else.
func plainWatcher(*flow) watcher { return new(hello.Watcher) }

// unpinned is the strategy of a flow whose name nobody asks for.
var unpinned = opening{
	before: func(f *flow, ctx context.Context, first []byte) ([]byte, *refusal) { return first, f.authorize(ctx) },
}

// opening returns the strategy of the service's pin.
func (f *flow) opening() (*opening, *refusal) {
	f.mu.Lock()
	v := f.verdict // a review may put another in its place
	f.mu.Unlock()
	if !v.Unjudged {
		return &unpinned, nil
	}
	o := openings[v.Service.Pin]
	if o == nil {
		return nil, &refusal{policy.PolicyError, "no way to judge pin " + string(v.Service.Pin)}
	}
	return o, nil
}

// open takes a flow that may be decided upon its first bytes to where only copying is left.
func (f *flow) open(ctx context.Context, o *opening, first []byte) *refusal {
	send := first
	if o.before != nil {
		var r *refusal
		if send, r = o.before(f, ctx, first); r != nil {
			return r
		}
	} else {
		send, f.held = nil, first
	}
	if r := f.dial(ctx, attempt{}); r != nil {
		return r
	}
	if r := f.greet(send); r != nil {
		return r
	}
	if o.after != nil {
		if r := o.after(f, ctx); r != nil {
			return r
		}
	}
	if f.unjudged() {
		return &refusal{policy.PolicyError, "the name was never judged"}
	}
	if o.watch != nil {
		f.watcher = o.watch(f)
	}
	return nil
}

// unjudged reports whether the service is pinned and the name isn't judged yet.
func (f *flow) unjudged() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.verdict.Unjudged
}

// judged decides about a flow whose hello was judged, and asks the programs.
func (f *flow) judged(ctx context.Context, h hello.Hello) *refusal {
	if r := f.named(h); r != nil {
		return r
	}
	return f.authorize(ctx)
}

// named decides about a flow whose hello was judged, up to where programs are asked.
func (f *flow) named(h hello.Hello) *refusal {
	r := f.request
	r.Judged, r.Name, r.ECH = true, h.Name, h.ECH
	if v := f.decide(r); !v.Allow {
		return &refusal{reason: v.Reason}
	}
	return nil
}

// firstHello reads and judges the hello that a flow pinned to TLS begins with. What came behind it is held.
func (f *flow) firstHello(ctx context.Context, first []byte) ([]byte, *refusal) {
	by := f.by
	if by.IsZero() {
		by = time.Now().Add(f.settings.HelloTimeout)
	}
	f.client.SetReadDeadline(by)
	from := &prefixed{first, f.client}
	h, err := hello.Read(from)
	if err != nil {
		return nil, refusedHello(err)
	}
	f.client.SetReadDeadline(time.Time{})
	f.held = slices.Concat(h.Rest, from.first) // with what was read ahead of the hello's reader
	return h.Bytes, f.judged(ctx, h)
}

// send writes bytes of the client to the target. From then on the flow counts as established, unless its name
// isn't judged yet.
func (f *flow) send(b []byte) *refusal {
	if r := f.establish(); r != nil || len(b) == 0 {
		return r
	}
	n, err := f.target.Write(b)
	f.toTarget.Add(int64(n))
	if err != nil {
		return &refusal{policy.Target, err.Error()}
	}
	return nil
}

// establish notes that the target may have bytes of the flow, or refuses one that was ended.
func (f *flow) establish() *refusal {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reason != "" {
		return &refusal{f.reason, "ended before anything was sent"}
	}
	f.established = !f.verdict.Unjudged
	return nil
}
