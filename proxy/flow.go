package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/hello"
	"github.com/postern-link/postern/proxy/engine"
	"github.com/postern-link/postern/proxy/header"
)

// flow is one connection through the proxy.
type flow struct {
	proxy     *Proxy
	settings  *Settings
	id        flowID
	client    engine.Conn
	peer      netip.AddrPort // who connected, unmapped
	local     netip.AddrPort // to where, unmapped
	protocol  link.Protocol
	began     time.Time
	late      *time.Timer // ends a flow whose client says nothing; owned by hear
	by        time.Time   // when the hello must be whole; zero: HelloTimeout from when it is read. Owned by hear, then by run
	claimed   netip.Addr  // the source that the flow counts for; owned by run
	admission             // of the limits and rules
	seat                  // at a target
	stranger  bool        // peers send PROXY headers here, and this one may not
	guarded   bool        // the client's first bytes may not be a PROXY header
	held      []byte      // bytes of the client that were read and not sent; owned by run, then by second
	watcher   watcher     // nil: the flow isn't pinned; set before it is copied
	preface   *prefaced   // nil: the flow began with TLS, or its preface is over

	// Progress, written by the engine and read by tend.
	moved              atomic.Bool // something moved since tend looked
	toTarget, toClient atomic.Int64

	// Of tend and record, under mu.
	kept                         bool      // keepalive is on
	quiet                        time.Time // when tend first saw that nothing moved
	looked                       time.Time // when tend last looked at the sockets since; zero: not yet
	acked                        [2]uint64 // what client and target had acknowledged then
	countedTarget, countedClient int64     // bytes that are in the metrics already

	// mu guards what Update looks at. Decisions are noted under it, in one step with a look at whether what they were taken on is still
	// the newest: a review finds the flow before that step, which then decides again, or after it, and reviews it. Rules that may
	// take long are asked without it (apart.go).
	mu          sync.Mutex
	routed      bool        // request and verdict are set
	awaits      link.LinkID // before that: of the connection that a PROXY header is read for; 0: none
	request     policy.Request
	verdict     policy.Verdict
	address     netip.AddrPort // of the target that is dialled or connected
	target      engine.Conn
	established bool // the target may have bytes of the flow
	reason      policy.Reason
	first       policy.Reason      // who ended first in order: Client or Target
	detail      string             // of the reason, for the log
	cancel      context.CancelFunc // ends the dial
}

// refusal is why a flow wasn't carried.
type refusal struct {
	reason policy.Reason
	detail string // "" where the verdict says it all
}

func (r *refusal) Error() string { return string(r.reason) + ": " + r.detail }

// goOn takes a flow to where only copying is left in a goroutine of its own, which may wait.
func (f *flow) goOn(run func(ctx context.Context) *refusal) {
	go func() {
		ctx, cancel := context.WithCancel(f.proxy.ctx)
		defer cancel()
		f.mu.Lock()
		f.cancel = cancel
		if f.reason != "" {
			cancel()
		}
		f.mu.Unlock()
		r := run(ctx)
		if r == nil {
			f.copy()
			return
		}
		f.refuse(r)
	}()
}

// refuse ends a flow with a reset.
func (f *flow) refuse(r *refusal) {
	f.fail(r)
	f.finish()
}

// finish is the last step of a connection that was let in.
func (f *flow) finish() {
	f.settle()
	f.proxy.flows.Done()
}

// settle closes a flow that was let in. When it has left it is counted and its line is queued.
func (f *flow) settle() {
	f.close()
	f.vacate()
	f.discharge()
	f.proxy.record(f)
	f.proxy.live.leave(f, f.claimed)
}

// leave is settle for a flow that goes on in another process, which counts it when it ends.
func (f *flow) leave() {
	f.close()
	f.vacate()
	f.discharge()
	f.proxy.live.leave(f, f.claimed)
}

// run takes the flow to where only copying is left.
func (f *flow) run(ctx context.Context) *refusal {
	first, r := f.inbound()
	if r != nil {
		return r
	}
	if r := f.enter(); r != nil {
		return r
	}
	o, r := f.opening()
	if r != nil {
		return r
	}
	return f.open(ctx, o, first)
}

// enter counts the flow for its source, and asks policy about it as far as that can say anything without a name.
func (f *flow) enter() *refusal {
	if source := f.request.Source.Addr(); f.proxy.live.claim(source, f.settings.MaxPerSource) {
		f.claimed = source
	} else {
		return &refusal{policy.Limit, "too many flows of the source"}
	}
	v := f.decide(f.request)
	if !v.Allow {
		return &refusal{reason: v.Reason} // the line has the rule from the verdict
	}
	return f.admit()
}

// decide asks policy about the flow on the newest snapshot, and notes what it said.
func (f *flow) decide(r policy.Request) policy.Verdict {
	if v, done := f.decideApart(r); done {
		return v
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// How fresh the snapshot is at least: one that comes in between is fresher.
	r.View, r.At = f.proxy.fresh(), time.Now()
	f.request, f.routed = r, true
	f.verdict = f.proxy.now().judge(r)
	return f.verdict
}

// greet writes the PROXY header and the first bytes in one write.
func (f *flow) greet(first []byte) *refusal {
	b, first, r := f.greeting(nil, first)
	if r != nil || len(b) == 0 {
		return r
	}
	if _, err := f.target.Write(b); err != nil {
		return &refusal{policy.Target, err.Error()}
	}
	f.toTarget.Add(int64(len(first)))
	return nil
}

// greeting appends to b what the target gets before all else: the PROXY header, and behind it the bytes of the client
// that it returns again, which are those it was given unless they have to be held, or there are some by now.
func (f *flow) greeting(b, first []byte) (_, payload []byte, r *refusal) {
	if r := f.establish(); r != nil {
		return nil, nil, r
	}
	f.mu.Lock()
	service, e, about, unpinned := f.verdict.Service, f.verdict.Endpoint, f.request, !f.request.Judged && !f.verdict.Unjudged
	f.mu.Unlock()

	b, ok := header.Append(b, service.ProxyProtocol, header.Flow{
		Source: about.Source, Local: about.Local, LinkID: e.Connection.LinkID,
		Endpoint: e.ID, Name: about.Name, UniqueID: f.id[:],
	})
	if !ok {
		return nil, nil, &refusal{policy.PolicyError, "unknown PROXY header " + string(service.ProxyProtocol)}
	}
	if f.guarded = unpinned && (service.ProxyProtocol == link.ProxyOff || f.stranger); f.guarded {
		f.held, first = first, nil
	} else if unpinned && len(b) > 0 && len(first) == 0 {
		first = f.waiting()
	}
	return append(b, first...), first, nil
}

// review asks again, on the newest snapshot, and ends a flow that is no longer allowed, that would now be
// another connection, or whose target is no longer one of the service, or none that it may send to. by are
// the rules to ask too; nil: the state alone, which is what is asked first and takes a microsecond.
func (f *flow) review(by *policy.Policy) {
	if f.reviewApart(by) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reviewLocked(by)
}

// reviewLocked is review. The caller holds mu.
func (f *flow) reviewLocked(by *policy.Policy) {
	if f.reason != "" {
		return
	}
	is := f.standingLocked()
	is.View, is.At = f.proxy.fresh(), time.Now()
	v, goesOn := by.Stands(f.proxy.snapshot(), is, f.proxy.Ground())
	f.reviewedLocked(by, v, goesOn)
}

// reviewedLocked takes what a review has found. The caller holds mu.
func (f *flow) reviewedLocked(by *policy.Policy, v policy.Verdict, goesOn bool) {
	switch {
	case !goesOn:
		if !v.Allow && v.Service != nil {
			f.verdict = v // for the line: why it was revoked
		}
		f.endLocked(policy.Revoked)
		return
	case !f.routed:
		return // not decided yet, and it will be on a newer snapshot
	}
	// With the targets of today, should it have to dial. What the rules said is theirs to say again.
	f.verdict.Endpoint, f.verdict.Service = v.Endpoint, v.Service
	if by != nil || f.proxy.policy() == nil {
		f.verdict = v
	}
}

// fail ends a flow that is refused.
func (f *flow) fail(r *refusal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.endLocked(r.reason) {
		f.detail = r.detail
	}
}

// end resets both sides at once, in whatever state the flow is, and leaves it to the flow to close them. The
// first reason stays; end reports whether this is the one.
func (f *flow) end(reason policy.Reason) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.endLocked(reason)
}

func (f *flow) endLocked(reason policy.Reason) bool {
	if f.reason != "" {
		return false
	}
	f.reason = reason
	if f.cancel != nil {
		f.cancel()
	}
	f.client.Reset()
	if f.target != nil {
		f.target.Reset()
	}
	return true
}

// attach makes conn the target of the flow. It reports false, and resets it, when the flow was
// ended in the meantime.
func (f *flow) attach(conn engine.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reason != "" {
		conn.Reset()
		return false
	}
	f.target = conn
	return true
}

// close closes both sides of a flow that came to its end, or that was ended: then without another word.
func (f *flow) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reason == "" {
		f.reason = policy.Client
		if f.first != "" {
			f.reason = f.first
		}
	}
	f.client.Close()
	if f.target != nil {
		f.target.Close()
	}
}

func refusedHello(err error) *refusal {
	if e, ok := err.(*hello.Error); ok {
		return &refusal{e.Reason, e.Detail}
	}
	return &refusal{policy.Malformed, fmt.Sprint(err)}
}

// prefixed reads bytes that were read already, then from a connection.
type prefixed struct {
	first []byte
	conn  engine.Conn
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) == 0 {
		return p.conn.Read(b)
	}
	n := copy(b, p.first)
	if p.first = p.first[n:]; len(p.first) == 0 {
		p.first = nil // whoever has read it holds it now
	}
	return n, nil
}
