// Package proxy is the data plane: it accepts connections on endpoint addresses, decides, dials a
// healthy target of the service, writes the PROXY header, and copies until both sides are done.
//
// The life of a flow, in this order, each step in its own file:
//
//	accept        accept.go    temporary errors back off and never end the loop
//	live set      live.go      first of all, so that a revocation finds the flow or the flow finds it
//	PROXY header  inbound.go   from peers that must send one
//	decide        flow.go      policy on the newest snapshot
//	admit         admit.go     the limits of policy
//	first bytes   opening*.go  of a pinned service, judged by package hello; then decide again
//	authorize     authorize.go policy programs
//	dial          dial.go      a healthy target, the next one if it fails; warm*.go has connections that are ready
//	header        flow.go      with the first bytes in one write
//	copy          copy.go      by package engine: both ways, each half-closed on its own; watch.go looks at the second hello
//	datagrams     datagrams.go those of UDP services: the same steps, but for PROXY headers, names and the engine
//	hand over     handed.go    those of UDP, with their sockets, to the process that takes this one's place
//	record        record.go    one counter and one line, which lines.go queues: no log is waited for
//
// A flow that is refused, cut or broken on one side ends with a TCP reset on both; one of datagrams without a word.
package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/budget"
	"github.com/postern-link/postern/proxy/engine"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a proxy is made of.
type Config struct {
	Snapshot func() *link.Snapshot // the newest, without waiting; nil: none yet, every flow is refused
	// Freshness says how fresh it is now, without waiting. Nil: always fresh.
	Freshness func() policy.Freshness
	// Policy returns what narrows the state now, without waiting. Nil, or nil from it: nothing does.
	Policy func() *policy.Policy
	// Inherited gives out a listening socket of TCP that the process before this one has, once; nil: none for the
	// address. Nil: this process takes no other's place.
	Inherited func(netip.AddrPort) *net.TCPListener
	// InheritedUDP is Inherited for UDP. Nothing is received on those before [Proxy.Receive].
	InheritedUDP func(netip.AddrPort) *net.UDPConn
	// Portable has connections copied in the portable way. It is taken when the proxy is made, and not changed by settings.
	Portable   bool
	Memory     budget.Memory         // that the process may use; zero: not known, and nothing follows from it
	Tap        func() Tap            // who takes the records of flows now, without waiting; nil, or nil from it: nobody
	Log        *slog.Logger          // may block, which only costs lines; nil: nothing is logged
	Registerer prometheus.Registerer // nil: metrics aren't registered
}

// Proxy is a running data plane.
type Proxy struct {
	snapshot  func() *link.Snapshot
	fresh     func() policy.Freshness
	policy    func() *policy.Policy
	log       *slog.Logger // through lines
	lines     *lines
	metrics   *metrics
	settings  atomic.Pointer[Settings]              // nil before the first Commit
	inherited func(netip.AddrPort) *net.TCPListener // nil: from nobody
	udp       func(netip.AddrPort) *net.UDPConn     // the same
	handing   handing
	live      live
	hosts     hosts
	retired   atomic.Bool // another process says which flows may go on
	undecided undecided
	health    *health
	names     *names
	warm      *warm
	locals    locals
	refusals  refusals
	ids       flowIDs
	engine    engine.Engine
	portable  bool // is asked for
	datagrams datagrams
	memory    budget.Memory

	// stop ends the goroutines that belong to no flow.
	stop       context.CancelFunc
	ctx        context.Context
	background sync.WaitGroup // tend, reviewRules
	reviews    chan struct{}  // of size one: the rules are to be asked about live flows
	pace       pace           // of rounds of reviewRules that nothing but the time calls for
	flows      sync.WaitGroup // none is added once the listeners are closed

	meter policy.Meter // flows, for the limits of policy
	rules *ruleCounters

	mu        sync.Mutex // guards what follows; held while sockets are opened and closed
	listeners map[spot]*listener
	missing   map[spot]error // wanted listeners that can't be opened, and why
	prepared  *Prepared      // between Prepare and Commit or Abandon
	tending   bool
	ending    bool // Drain or Close was called
}

// New returns a proxy that listens on nothing. It must be closed.
func New(c Config) *Proxy {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Snapshot == nil {
		c.Snapshot = func() *link.Snapshot { return nil }
	}
	if c.Freshness == nil {
		c.Freshness = func() policy.Freshness { return policy.Freshness{} }
	}
	if c.Policy == nil {
		c.Policy = func() *policy.Policy { return nil }
	}
	p := &Proxy{
		snapshot:  c.Snapshot,
		fresh:     c.Freshness,
		policy:    c.Policy,
		inherited: c.Inherited,
		udp:       c.InheritedUDP,
		handing:   newHanding(),
		memory:    c.Memory,
		ids:       newFlowIDs(),
		reviews:   make(chan struct{}, 1),
		listeners: make(map[spot]*listener),
		missing:   make(map[spot]error),
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.live.init()
	p.rules = newRuleCounters()
	p.datagrams.init(p)
	p.health, p.names, p.warm = newHealth(p), newNames(p), newWarm(p) // which the metrics ask
	p.metrics = newMetrics(c.Registerer, p.flowsOf, p.rules, &p.datagrams.counts, spread{p}, natPorts{p}, p.names, p.warm)
	p.lines = newLines(p.metrics.logDropped, c.Tap)
	p.log = p.lines.logger(c.Log)
	p.engine, p.portable = newEngine(c.Portable, p.log), c.Portable
	p.background.Go(p.reviewRules)
	p.metrics.memoryLimit.Set(float64(c.Memory.Limit))
	if c.Memory.Bounded() {
		p.background.Go(func() { p.watchMemory(c.Memory) })
	}
	return p
}

// newEngine returns the best engine that can be had, or the portable one.
func newEngine(portable bool, log *slog.Logger) engine.Engine {
	if portable {
		return engine.Portable()
	}
	e, err := engine.New()
	if err != nil {
		log.Warn("connections are copied in the portable way, which is slower", "error", err)
		return engine.Portable()
	}
	return e
}

// Update follows a new snapshot, which Config.Snapshot must return already: it ends the flows that
// policy no longer allows, opens and closes listeners, and starts and stops probes. A listener that
// can't be opened is logged, counted and tried again.
func (p *Proxy) Update(s *link.Snapshot) {
	p.Review() // first: nothing may delay a revocation
	p.mu.Lock()
	defer p.mu.Unlock()
	if settings := p.settings.Load(); settings != nil && !p.ending {
		p.listen(s, *settings)
		p.health.follow(s)
		p.warm.follow()
	}
}

// Review asks about every live flow again and ends those that are no longer allowed: to be called after
// Config.Policy has changed. Update does it by itself. Those that the state denies have ended when it
// returns. The rules of a policy, which may be many and slow, are asked in the background, so that they
// delay neither this revocation nor the next one.
func (p *Proxy) Review() {
	p.rules.follow(p.policy())
	p.reviewState(p.live.all())
	p.reviewGuests(nil)
	if p.policy() == nil || p.retired.Load() {
		return
	}
	select {
	case p.reviews <- struct{}{}:
	default: // one that hasn't begun yet will see this change too
	}
}

// reviewState asks the state about flows. One that is being asked about by rules, or decided, comes last.
func (p *Proxy) reviewState(flows []*flow) {
	var mu sync.Mutex
	var busy []*flow
	sweep(flows, func(f *flow) {
		if !f.mu.TryLock() {
			mu.Lock()
			defer mu.Unlock()
			busy = append(busy, f)
			return
		}
		defer f.mu.Unlock()
		f.reviewLocked(nil)
	})
	for _, f := range busy {
		f.review(nil)
	}
}

// reviewRules is the goroutine that asks the rules of the policy about live flows.
func (p *Proxy) reviewRules() {
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.reviews:
			began := time.Now()
			sweep(p.live.all(), func(f *flow) {
				if by := p.policy(); by != nil {
					f.review(by)
				}
			})
			p.reviewGuests(p.policy())
			p.pace.took(began, time.Now())
		}
	}
}

// Published reports whether a target of the service that isn't drained has ever answered a probe; for UDP, which isn't probed,
// whether it has ever had one. It never goes back while the service has targets. Safe for concurrent use, no lock.
func (p *Proxy) Published(service link.ID) bool { return p.health.isPublished(service) }

// Healthy reports whether a target of the service answers now. A published service counts as healthy
// while no probe has said otherwise. Safe for concurrent use, no lock.
func (p *Proxy) Healthy(service link.ID) bool { return p.health.isHealthy(service) }

// HealthyAt is Healthy for an endpoint at a site: whether a target of the service that is there answers, and where there is
// none, whether any does. Safe for concurrent use, no lock.
func (p *Proxy) HealthyAt(service link.ID, site string) bool {
	return p.health.isHealthyAt(service, site)
}

// Inherit takes the services as published: their connections were approved before this process began.
func (p *Proxy) Inherit(services ...link.ID) { p.health.inherit(services) }

// Probed waits until each target of each service with a live connection was probed once, or ctx is done.
func (p *Proxy) Probed(ctx context.Context) error { return p.health.wait(ctx) }

// Flows returns the number of live flows.
func (p *Proxy) Flows() int { return p.live.count() }

// flowsOf returns the number of those of a protocol.
func (p *Proxy) flowsOf(protocol link.Protocol) int {
	datagrams := p.datagrams.count()
	if protocol == link.UDP {
		return datagrams
	}
	return max(0, p.live.count()-datagrams)
}

// Drain accepts no more and waits until every flow has ended, those of guests too, or until ctx or the drain timeout
// is done, when it resets those left.
func (p *Proxy) Drain(ctx context.Context) {
	p.quiesce()
	if s := p.settings.Load(); s != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.DrainTimeout)
		defer cancel()
	}
	p.Leave(ctx)
}

// Close ends everything at once and waits for its goroutines; for a log that blocks, a second at most.
// The error is always nil.
func (p *Proxy) Close() error {
	p.quiesce()
	p.stop()
	p.cutAll(policy.Drain)
	p.cutGuests()
	p.flows.Wait()
	p.datagrams.close()
	p.names.known.Close()
	p.health.close()
	p.warm.dials.Wait()
	p.background.Wait()
	p.refusals.flush(p.log)
	p.lines.close()
	p.engine.Close()
	p.metrics.unregister()
	return nil
}

// quiesce closes the listeners and lets no flow in any more. Those of UDP stay open for the flows that there are:
// a datagram that comes for none begins none.
func (p *Proxy) quiesce() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ending = true
	p.closeListeners(false) // before: what was accepted is let in still, and what wasn't may wait for another process
	p.live.shut()
	if p.datagrams.shut() {
		p.stopReceiving()
	}
	p.warm.close()
}

// cutAll resets every live flow.
func (p *Proxy) cutAll(reason policy.Reason) {
	sweep(p.live.all(), func(f *flow) { f.end(reason) })
}
