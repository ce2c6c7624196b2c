package proxy

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/datagram"
)

// Flows of UDP go to the process that takes this one's place, unlike those of TCP, of which this process has half-read
// buffers and pipes: a flow of UDP is a socket and a few words. Its port, by which the target knows it, goes along, and so
// does what waits in it. The next process judges it by its own state and rules, as a live one, counts it for its limits, and
// has the line at its end, with all bytes. Programs are asked when all have come ([Proxy.AskTaken]); until one denies a flow
// it goes on. One that still waits for a program's first answer begins anew there, with the datagrams that are held of it.

// Handed is a live flow of UDP on its way from one process to another. See [FlowInfo] for what isn't said here; its bytes
// are final as far as the process before has carried it.
type Handed struct {
	FlowInfo
	Socket   int           // that is connected to the target
	Age      time.Duration // since it began: two processes' clocks may differ from what they were told
	Quiet    time.Duration // for how long nothing has moved
	Observed []string      // rules on trial that would have refused it
}

// Waiting is a flow of UDP that isn't decided yet, on its way from one process to another.
type Waiting struct {
	Client, Local netip.AddrPort
	Held          []datagram.Held // the oldest first
}

// handing is what a proxy has of flows that another process hands over. It is made by newHanding.
type handing struct {
	begin chan struct{} // closed by Receive
	taken []*flow       // that programs weren't asked about. Under the mu of datagrams
}

func newHanding() handing { return handing{begin: make(chan struct{})} }

// HandOver gives the live flows of UDP to the process that has taken this one's place, after [Proxy.Retire]: send is called
// with at most so many, the oldest first, which nothing passes of any more: those that are decided, and those that aren't yet. Sockets
// are closed here when it has returned. From an error of send on all flows end. handed is how many went, and ended how many didn't.
func (p *Proxy) HandOver(most int, send func(flows []Handed, waiting []Waiting) error) (handed, ended int, err error) {
	var flows []*flow
	for _, f := range p.live.all() {
		if f.protocol == link.UDP {
			flows = append(flows, f)
		}
	}
	slices.SortFunc(flows, func(a, b *flow) int { return a.began.Compare(b.began) })
	for some := range slices.Chunk(flows, most) {
		var all []*flow
		var these []Handed
		var waiting []Waiting
		for _, f := range some {
			h, w := f.detach(err == nil)
			switch {
			case h != nil:
				all, these = append(all, f), append(these, *h)
			case w != nil:
				all, waiting = append(all, f), append(waiting, *w)
			case f.end(policy.Drain):
				ended++
			}
		}
		if len(all) == 0 {
			continue
		}
		if err = send(these, waiting); err == nil {
			handed += len(all)
		} else {
			ended += len(all)
		}
		for _, h := range these {
			datagram.CloseSocket(h.Socket)
		}
		for _, f := range all {
			f.handedOver(err == nil)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeListeners(true)
	return handed, ended, err
}

// handedOver is the last step of a flow that was detached: it goes on elsewhere, or has ended.
func (f *flow) handedOver(goesOn bool) {
	switch g := f.client.(*grams); {
	case g.goes && !goesOn:
		f.proxy.record(f)
	case g.goes: // its goroutine has the rest to do
	case goesOn:
		f.leaveDatagrams()
	default:
		f.finishDatagrams()
	}
}

// leaveDatagrams is finishDatagrams for a flow that goes on elsewhere.
func (f *flow) leaveDatagrams() {
	f.leave()
	f.proxy.datagrams.leave(f.client.(*grams))
}

// detach takes the socket of a flow that is decided, or what is held of one that isn't, and leaves the end of it to handedOver and the
// goroutine that works for it. It returns neither, and does nothing, for a flow that has ended, or where it shall not.
func (f *flow) detach(shall bool) (h *Handed, w *Waiting) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.client.(*grams)
	if !shall || f.reason != "" {
		return nil, nil
	}
	if socket, ok := g.of.Detach(); ok {
		f.count()
		h = &Handed{Socket: socket, FlowInfo: f.infoLocked(), Age: time.Since(f.began), Observed: f.observed}
		if !f.moved.Load() && !f.quiet.IsZero() {
			h.Quiet = time.Since(f.quiet)
		}
	} else if held, ok := g.of.Withdraw(); ok {
		w = &Waiting{Client: f.peer, Local: f.local, Held: held}
	} else {
		return nil, nil
	}
	g.goes, g.unattended = !g.unattended, false
	f.reason = policy.Drain // nobody else ends it
	if f.cancel != nil {
		f.cancel() // no program needs to be waited for
	}
	return h, w
}

// Hush lets nothing pass any more of the flows of UDP that are still to be handed over: what the process that gets them knows of them may be
// that they have ended. What their targets send waits in their sockets, and passes there if it may. It comes after [Proxy.Retire].
func (p *Proxy) Hush() {
	sweep(p.live.all(), func(f *flow) {
		if f.protocol != link.UDP {
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.reason == "" {
			f.client.(*grams).of.Hush()
		}
	})
}

// TakeWaiting begins a flow that wasn't decided in the process before this one. It reports whether there is anything that hears its
// client.
func (p *Proxy) TakeWaiting(w Waiting) bool {
	via := p.datagrams.listener(w.Local)
	if via != nil {
		via.Deliver(w.Client, w.Local, w.Held)
	}
	return via != nil
}

// TakeOver goes on with a flow of the process before this one, whose socket it takes over, where the flow may go on. It
// reports whether it does; where not, the flow has the line of one that has ended.
func (p *Proxy) TakeOver(h Handed) bool {
	settings := p.settings.Load()
	f := p.handedFlow(settings, &h)
	if r := p.datagrams.takeOver(settings, f, &h); r != nil {
		f.mu.Lock()
		f.reason, f.detail = r.reason, r.detail
		f.mu.Unlock()
		p.record(f)
		return false
	}
	f.review(p.policy())
	if !f.attend(f.resume()) {
		return false
	}
	if hasPrograms(p.policy()) {
		p.datagrams.mu.Lock()
		defer p.datagrams.mu.Unlock()
		p.handing.taken = append(p.handing.taken, f)
	}
	return true
}

// handedFlow returns a flow as it was handed over. Its endpoint and service say no more than what it was let in for:
// the review that follows takes those of today.
func (p *Proxy) handedFlow(settings *Settings, h *Handed) *flow {
	now := time.Now()
	f := &flow{
		proxy: p, settings: settings, peer: h.Source, local: h.Local, protocol: link.UDP, began: now.Add(-h.Age), request: h.Standing.Request,
		routed: true, established: true, kept: true, address: h.Target,
		quiet: now.Add(-h.Quiet), countedTarget: h.ToTarget, countedClient: h.ToClient,
	}
	f.request.Protocol = link.UDP
	f.noted, f.observed, f.foundBy = true, h.Observed, h.Standing.By
	if id, err := hex.DecodeString(h.ID); err == nil && len(id) == len(f.id) {
		f.id = flowID(id)
	} else {
		f.id = p.ids.next()
	}
	f.toTarget.Store(h.ToTarget)
	f.toClient.Store(h.ToClient)
	f.verdict = policy.Verdict{
		Allow:    true,
		Service:  &link.Service{ID: h.Standing.Service},
		Endpoint: &link.Endpoint{ID: h.Endpoint, Service: h.Standing.Service, Connection: link.Connection{LinkID: h.Standing.LinkID}},
	}
	f.client = new(grams)
	return f
}

// takeOver counts a flow and enters it into the live set, or says what is against it; then its socket is closed.
func (d *datagrams) takeOver(settings *Settings, f *flow, h *Handed) (r *refusal) {
	g, p := f.client.(*grams), d.proxy
	via := d.listener(f.local)
	if settings == nil || via == nil {
		datagram.CloseSocket(h.Socket)
		if !f.stands() {
			return &refusal{reason: policy.Revoked}
		}
		return &refusal{policy.Drain, fmt.Sprintf("nothing listens on %v in the process that took it over", f.local)}
	}
	var endpoint link.ID
	if s := p.snapshot(); s != nil {
		if e := s.EndpointAt(f.local.Addr()); e != nil {
			endpoint = e.ID
		}
	}
	out, refused := d.enter(settings, f.peer.Addr(), endpoint)
	for _, other := range out {
		other.flow.fail(&gaveWay)
	}
	if refused != nil {
		datagram.CloseSocket(h.Socket)
		return refused
	}
	*g = grams{flow: f, counted: counted{source: sourceOf(f.peer.Addr()), endpoint: endpoint}}
	defer func() {
		if r != nil {
			d.leave(g)
		}
	}()
	var err error
	if g.of, err = d.relayNow().Resume(h.Socket, f.peer, f.local, f.address, via); err != nil {
		return &refusal{policy.Drain, "its socket can't be taken over: " + err.Error()}
	}
	g.of.Own(f, datagram.Account{ToTarget: &f.toTarget, ToClient: &f.toClient, Moved: &f.moved})
	f.target = g
	if r := p.live.takeOver(f, settings.MaxFlows); r != nil {
		g.of.End()
		return r
	}
	d.stand(g)
	return nil
}

// stands reports whether a flow may go on, by state and rules.
func (f *flow) stands() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	is := f.standingLocked()
	is.View, is.At = f.proxy.fresh(), time.Now()
	_, stands := f.proxy.policy().Stands(f.proxy.snapshot(), is, f.proxy.Ground())
	return stands
}

// listener returns what hears the clients of an address, nil for none.
func (d *datagrams) listener(local netip.AddrPort) *datagram.Listener {
	d.proxy.mu.Lock()
	defer d.proxy.mu.Unlock()
	at := spot{local, link.UDP}
	for _, at := range [...]spot{at, everyAddress(at)} {
		if l := d.proxy.listeners[at]; l != nil && !d.proxy.ending {
			return l.datagrams
		}
	}
	return nil
}

// resume counts a flow of another process that may go on, and lets datagrams pass.
func (f *flow) resume() *refusal {
	f.mu.Lock()
	if f.reason == "" {
		f.counted = f.verdict.Endpoint.ID
		f.proxy.meter.Count(f.counted, sourceOf(f.request.Source.Addr()), time.Now())
		f.place, f.taken = f.proxy.health.set(f.verdict.Service).Resume(time.Now(), f.verdict.Service, f.address), f.began
	}
	f.mu.Unlock()
	return f.start()
}

// Receive begins to receive on the sockets of UDP that are from the process before this one, which reads them no more.
func (p *Proxy) Receive() {
	p.datagrams.mu.Lock()
	defer p.datagrams.mu.Unlock()
	select {
	case <-p.handing.begin:
	default:
		close(p.handing.begin)
	}
}

// AskTaken asks the programs about the flows that were taken over, and ends those that one of them denies, as
// [Proxy.Reauthorize] does. It returns when all are asked, or ctx is done.
func (p *Proxy) AskTaken(ctx context.Context) {
	p.datagrams.mu.Lock()
	taken := p.handing.taken
	p.handing.taken = nil
	p.datagrams.mu.Unlock()
	reauthorize(ctx, taken)
}
