package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/datagram"
	"github.com/postern-link/postern/proxy/engine"
	"github.com/postern-link/postern/proxy/header"
)

// A flow of datagrams takes the steps of any other, in the goroutine of its listener: only where a policy program is
// asked it has one of its own until there is an answer, and what comes meanwhile is held. Nobody is ever told anything:
// an answer to a forged source would go to somebody who has asked nothing.

// grams are both sides of a flow of datagrams, as far as ending a flow needs sides. Nothing is read or written here.
type grams struct {
	engine.Conn // nil
	of          *datagram.Flow
	flow        *flow
	counted
	unattended bool // nobody works for the flow: who ends it has it finished. Under the flow's mu, as goes
	goes       bool // to another process: who works for the flow has it leave, without a line
}

// Reset lets nothing pass any more. The caller holds the flow's mu.
func (g *grams) Reset() {
	g.of.End()
	if g.unattended {
		g.unattended = false
		g.flow.proxy.datagrams.finishLater(g.flow)
	}
}

// Close implements [engine.Conn].
func (g *grams) Close() error {
	g.of.End()
	return nil
}

// Control implements [engine.Conn]: there is nothing that a look at the socket could tell.
func (g *grams) Control(func(fd uintptr)) {}

// metrics returns those that the flow counts in.
func (f *flow) metrics() *flowMetrics { return f.proxy.metrics.of(f.protocol) }

// Begin implements [datagram.Handler].
func (d *datagrams) Begin(of *datagram.Flow) bool {
	p, settings := d.proxy, d.proxy.settings.Load()
	who := asker{of.Client(), of.Local()}
	if d.isDenied(who) {
		p.metrics.udp.refused[policy.PolicyDenied].Inc()
		return false
	}
	var endpoint link.ID
	if s := p.snapshot(); s != nil {
		if e := s.EndpointAt(who.local.Addr()); e != nil {
			endpoint = e.ID
		}
	}
	out, refused := d.enter(settings, who.client.Addr(), endpoint)
	for _, g := range out {
		g.flow.fail(&gaveWay)
	}
	if refused != nil {
		d.turnAway(settings, who, refused)
		return false
	}
	f := p.newDatagrams(settings, who)
	g := &grams{of: of, flow: f, counted: counted{source: sourceOf(who.client.Addr()), endpoint: endpoint}}
	f.client = g
	of.Own(f, datagram.Account{ToTarget: &f.toTarget, ToClient: &f.toClient, Moved: &f.moved})
	if r := p.live.enter(f, settings.MaxFlows); r != nil {
		f.fail(r)
		f.close()
		p.record(f)
		d.leave(g)
		return false
	}
	d.stand(g)
	r := f.admitDatagrams()
	if r == nil && hasPrograms(p.policy()) {
		if d.asking.Add(1) <= maxAsking {
			go f.askDatagrams()
			return true
		}
		d.asking.Add(-1)
		r = &refusal{policy.Limit, "too many flows wait for policy programs"}
	}
	if r == nil {
		r = f.authorize(p.ctx) // asks nobody, and notes what the rules have said
	}
	return f.carry(r)
}

// Unreachable implements [datagram.Handler].
func (d *datagrams) Unreachable(of *datagram.Flow, err error) {
	f := of.Owner().(*flow)
	f.mu.Lock()
	target := f.address
	f.mu.Unlock()
	if errors.Is(err, syscall.ECONNREFUSED) {
		d.avoid(target)
	}
	f.fail(&refusal{policy.Target, err.Error()})
}

// Failing implements [datagram.Handler].
func (d *datagrams) Failing(at netip.AddrPort, err error) {
	d.proxy.metrics.acceptErrors.Inc()
	d.proxy.log.Warn("receiving datagrams failed, trying again", "address", at, "error", err)
}

func (p *Proxy) newDatagrams(settings *Settings, who asker) *flow {
	return &flow{
		proxy: p, settings: settings, id: p.ids.next(), peer: who.client, local: who.local, protocol: link.UDP, began: time.Now(),
		request: policy.Request{Source: who.client, Local: who.local, Protocol: link.UDP},
	}
}

// turnAway counts a datagram that begins no flow because there are too many, and has a line for it if there may be one.
func (d *datagrams) turnAway(settings *Settings, who asker, r *refusal) {
	p := d.proxy
	p.metrics.udp.refused[r.reason].Inc()
	if p.refusals.allow(who.client.Addr(), r.reason) {
		f := p.newDatagrams(settings, who)
		f.reason, f.detail = r.reason, r.detail
		p.log.LogAttrs(p.ctx, slog.LevelInfo, flowRefused, slog.Any("", f.lineLocked(flowRefused)))
	}
}

// admitDatagrams takes a flow to where programs are asked.
func (f *flow) admitDatagrams() *refusal {
	source := f.request.Source.Addr()
	if f.settings.sendsHeader(source) {
		return &refusal{policy.Malformed, "a PROXY header is required of the peer, and there is none in datagrams"}
	}
	// Nothing is claimed of what a source has for TCP: enter has counted the flow, and a forged source takes no more.
	switch v := f.decide(f.request); {
	case !v.Allow:
		return &refusal{reason: v.Reason}
	case v.Unjudged:
		return &refusal{policy.PolicyError, "no way to judge pin " + string(v.Service.Pin) + " of datagrams"}
	}
	return f.admit()
}

// askDatagrams is the goroutine of a flow that programs are asked about.
func (f *flow) askDatagrams() {
	d := &f.proxy.datagrams
	defer d.asking.Add(-1)
	ctx, cancel := context.WithCancel(f.proxy.ctx)
	defer cancel()
	f.mu.Lock()
	f.cancel = cancel
	ended := f.reason != ""
	f.mu.Unlock()
	var r *refusal
	if !ended {
		r = f.authorize(ctx)
	}
	if r != nil && r.reason == policy.PolicyDenied {
		d.deny(asker{f.peer, f.local})
	}
	f.carry(r)
}

// carry lets the datagrams of a flow pass that may, and finishes one that is refused. It reports whether the flow lives.
func (f *flow) carry(r *refusal) bool {
	if r == nil {
		r = f.connect()
	}
	return f.attend(r)
}

// attend leaves a flow that nothing is against to the relay, and finishes another one. It reports whether the flow lives.
func (f *flow) attend(r *refusal) bool {
	if r != nil {
		f.fail(r)
	}
	f.mu.Lock()
	g, live := f.client.(*grams), f.reason == ""
	g.unattended = live // from here on
	goes := g.goes
	f.mu.Unlock()
	switch {
	case goes:
		f.leaveDatagrams()
	case !live:
		f.finishDatagrams()
	}
	return live
}

// finishDatagrams is the last step of a flow that was let in.
func (f *flow) finishDatagrams() {
	f.settle()
	f.proxy.datagrams.leave(f.client.(*grams))
}

// connect opens the socket towards a target and lets datagrams pass. A target isn't asked whether it is there: its
// host says so later, or nobody does.
func (f *flow) connect() *refusal {
	f.mu.Lock()
	service := f.verdict.Service
	f.mu.Unlock()
	tried := f.proxy.datagrams.avoiding(service)
	avoided := len(tried)
	var last error = errors.New("the service has no target")
	for {
		service, addr, left, refused := f.pick(tried)
		if left == 0 && avoided > 0 { // those that are left were tried, or may not be
			tried, avoided = tried[avoided:], 0
			continue
		}
		if left == 0 {
			if crowded(refused) {
				return &refusal{policy.Limit, refused.Error()}
			}
			if refused != nil && len(tried) == 0 {
				last = refused
			}
			break
		}
		tried = append(slices.Clone(tried), addr)
		if last = f.connectTo(service, addr); last == nil {
			return f.pass()
		}
	}
	if noPort(last) {
		return &refusal{policy.Limit, "no NAT port left: " + last.Error()}
	}
	return &refusal{policy.NoTarget, last.Error()}
}

// connectTo connects to a target, from one of the NAT addresses of the service where it has any of the family.
func (f *flow) connectTo(service *link.Service, addr netip.AddrPort) (err error) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	of, allowed := f.client.(*grams).of, f.proxy.guardDial(service)
	nat := false
	guard := func(fd uintptr, to netip.AddrPort) error {
		if err := allowed(to); err != nil {
			return err
		}
		return datagramOptions(fd, nat)
	}
	for _, from := range service.NAT {
		if from.Is4() != addr.Addr().Is4() {
			continue
		}
		nat = true
		if err = of.Connect(netip.AddrPortFrom(from, 0), addr, guard); err == nil || !noPort(err) {
			return err
		}
	}
	if nat {
		return err
	}
	return of.Connect(netip.AddrPort{}, addr, guard)
}

// noPort reports whether an error is that an address has no port left.
func noPort(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAGAIN)
}

// pass lets datagrams pass on a socket that is connected.
func (f *flow) pass() *refusal {
	if !f.attach(f.client) {
		return &refusal{policy.Revoked, "ended while connecting"}
	}
	if r := f.establish(); r != nil {
		return r
	}
	return f.start()
}

// start lets datagrams pass, each with the PROXY header in front that the service asks for. Where it asks for none, no
// datagram of a client may begin as if it had one: a target that takes them from our address would believe it.
func (f *flow) start() *refusal {
	f.mu.Lock()
	service, e, r := f.verdict.Service, f.verdict.Endpoint, f.request
	f.mu.Unlock()
	head, ok := header.Append(nil, service.ProxyProtocol, header.Flow{
		Source: r.Source, Local: r.Local, LinkID: e.Connection.LinkID, Endpoint: e.ID, UniqueID: f.id[:], Protocol: link.UDP,
	})
	if !ok {
		return &refusal{policy.PolicyError, "unknown PROXY header " + string(service.ProxyProtocol)}
	}
	var never func([]byte) bool
	if len(head) == 0 {
		never = header.Starts
	}
	if err := f.client.(*grams).of.Start(head, never); err != nil {
		return &refusal{policy.NoTarget, err.Error()}
	}
	return nil
}
