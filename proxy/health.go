package proxy

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/targets"
)

const (
	// probesAtOnce bounds the probes under way in each lane, probesOfOne those of one service in it.
	probesAtOnce = 64
	probesOfOne  = 8
	// firstLook is how long a target may hold a slot of the lane for those that answer.
	firstLook    = 250 * time.Millisecond
	probeTimeout = time.Second // at least; the probe interval where that is longer
)

// health knows which targets answer. It probes those of services with a live connection, and tells package targets,
// which hears of flows too and judges by both. Readers of what DNS answers by take no lock.
type health struct {
	proxy  *Proxy
	view   atomic.Pointer[view]
	probes sync.WaitGroup
	// Targets that answered last, or refused, or are new, and those that were silent, which hold a slot
	// for as long as a probe may take: however many there are, the others are probed in time.
	prompt, silent lane
	asked          asked
	early          early

	mu        sync.Mutex // one writer of view at a time
	inherited map[link.ID]bool
	closed    bool
}

// serviceHealth is immutable but for what it points to.
type serviceHealth struct {
	published      *atomic.Bool
	unasked        bool                             // its targets can't be asked: it is healthy once published
	homeless       bool                             // it is unasked, and none of its names leads anywhere
	found          found                            // what its names lead to
	prompt, silent lane                             // the service's share
	targets        map[netip.AddrPort]*targetHealth // none while the service has no live connection
	sites          map[string][]*targetHealth       // of targets, those at a site
	set            *targets.Set
}

// targetHealth is one target of one service.
type targetHealth struct {
	service        atomic.Pointer[link.Service] // as of the newest snapshot: for NAT and header
	id             link.ID
	addr           netip.AddrPort
	published      *atomic.Bool
	prompt, silent lane
	set            *targets.Set // which judges
	mu             sync.Mutex   // guards that what follows is what set says
	down           atomic.Bool
	up             atomic.Bool   // answered, and not down since; neither: not known yet
	drained        atomic.Bool   // no flow is sent there, whatever it answers
	probed         chan struct{} // closed after the first probe, or when there will be none
	once           sync.Once
	stop           context.CancelFunc
}

func newHealth(p *Proxy) *health {
	h := &health{proxy: p, prompt: newLane(probesAtOnce), silent: newLane(probesAtOnce), inherited: make(map[link.ID]bool)}
	h.view.Store(new(view))
	return h
}

func (h *health) of(service link.ID) *serviceHealth { return h.view.Load().services[service] }

func (h *health) isPublished(service link.ID) bool {
	s := h.find(service)
	return s != nil && s.published.Load()
}

func (h *health) isHealthy(service link.ID) bool {
	s := h.find(service)
	if s == nil {
		return false
	}
	known := s.published.Load()
	if s.unasked {
		return known && !s.homeless
	}
	for _, t := range s.targets {
		if t.serves(known) {
			return true
		}
	}
	return known && s.found.pending // nothing has said otherwise
}

// isHealthyAt is isHealthy for an endpoint at a site: of its targets there, where it has any.
func (h *health) isHealthyAt(service link.ID, site string) bool {
	s := h.find(service)
	if s == nil || len(s.sites[site]) == 0 {
		return h.isHealthy(service)
	}
	known := s.published.Load()
	return slices.ContainsFunc(s.sites[site], func(t *targetHealth) bool { return t.serves(known) })
}

// serves reports whether a flow would be sent to the target and, as far as is known, be served. Known: the service is published.
func (t *targetHealth) serves(known bool) bool {
	return (t.up.Load() || known && !t.down.Load()) && !t.drained.Load()
}

// note takes the result of a probe.
func (h *health) note(t *targetHealth, err error) {
	if err != nil && !blames(err) {
		return
	}
	change := t.set.Probed(time.Now(), t.addr, t.service.Load().Probe.Kind, err == nil)
	if err == nil && !t.drained.Load() {
		t.published.Store(true)
	}
	h.tell(t, t.id, t.addr, change, err)
}

// report takes what a flow found out about a target when it dialled. What isn't the target's fault says nothing.
func (h *health) report(service link.ID, addr netip.AddrPort, err error) {
	s := h.of(service)
	if s == nil || err != nil && !blames(err) {
		return
	}
	if err == nil {
		h.changed(service, addr, s.set.Reached(time.Now(), addr), nil)
	} else {
		h.changed(service, addr, s.set.Unreached(time.Now(), addr), err)
	}
}

// changed takes what became of a target by what a flow has found out about it.
func (h *health) changed(service link.ID, addr netip.AddrPort, c targets.Change, why error) {
	if c == targets.None {
		return
	}
	var t *targetHealth
	if s := h.of(service); s != nil {
		t = s.targets[addr]
	}
	h.tell(t, service, addr, c, why)
}

// tell tells of a change, if it is one; t is nil for a target that isn't probed.
func (h *health) tell(t *targetHealth, service link.ID, addr netip.AddrPort, c targets.Change, why error) {
	switch c {
	case targets.Up:
		h.proxy.log.Info("target is up", "service", service, "target", addr)
	case targets.Down:
		h.proxy.log.Warn("target is down", "service", service, "target", addr, "error", why)
	case targets.Ejected:
		h.proxy.log.Warn("target is ejected", "service", service, "target", addr, "error", why)
	case targets.Back:
		h.proxy.log.Info("target is back", "service", service, "target", addr)
	}
	h.proxy.warm.changed(service, addr, c)
	if t == nil || c != targets.Up && c != targets.Down {
		return
	}
	t.read()
	if c == targets.Up && !t.drained.Load() {
		t.published.Store(true)
	}
	h.gauge(t)
}

// read takes over what the set says of the target.
func (t *targetHealth) read() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.set.Status(time.Now(), t.addr)
	t.up.Store(now.Up)
	t.down.Store(now.Down)
}

// gauge shows the target's state, unless it has been forgotten meanwhile.
func (h *health) gauge(t *targetHealth) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.of(t.id); s != nil && s.targets[t.addr] == t {
		h.proxy.metrics.setUp(t.id, t.addr.String(), t.up.Load())
	}
}

// inherit takes services as published.
func (h *health) inherit(services []link.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range services {
		h.inherited[id] = true
		if s := h.of(id); s != nil {
			s.published.Store(true)
		}
	}
}

// follow starts and stops probes so that they are those of the snapshot.
func (h *health) follow(s *link.Snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || s == nil {
		return
	}
	old := h.view.Load()
	if old.snapshot == s {
		return
	}
	h.proxy.names.known.Follow(wanted(s))
	next := &view{snapshot: s, services: make(map[link.ID]*serviceHealth, len(old.services))}
	for service := range s.Services() {
		if one := h.renew(s, service, old); one != nil {
			next.services[service.ID] = one
			next.name(service)
		}
	}
	for id, was := range old.services {
		if next.services[id] == nil {
			if next.left == nil {
				next.left = make(map[link.ID]*serviceHealth)
			}
			next.left[id] = was
		}
	}
	h.show(old, next)
	h.early.forget(next)
	h.asked.forget(time.Now())
}

// show makes a view the one that is in force, and ends the probes that it doesn't have. The caller holds mu.
func (h *health) show(old, next *view) {
	h.view.Store(next)
	for id, was := range old.services {
		h.drop(id, was, next.services[id])
	}
}

// drop ends the probes of a service that it doesn't have any more. now is nil where it is gone. The caller holds mu.
func (h *health) drop(id link.ID, was, now *serviceHealth) {
	for addr, t := range was.targets {
		if now == nil || now.targets[addr] != t {
			t.stop()
			h.proxy.metrics.forget(id, addr.String())
		}
	}
}

// renew returns the health of a service as of a snapshot; nil where nothing is to be known of it.
// The caller holds mu.
func (h *health) renew(s *link.Snapshot, service *link.Service, old *view) *serviceHealth {
	was, live := old.services[service.ID], hasLive(s, service.ID)
	if was == nil && !live {
		return nil
	}
	one := &serviceHealth{targets: make(map[netip.AddrPort]*targetHealth, len(service.Targets))}
	if was != nil {
		one.published, one.prompt, one.silent, one.set = was.published, was.prompt, was.silent, was.set
	} else {
		one.set = h.early.set(service)
		one.published, one.prompt, one.silent = new(atomic.Bool), newLane(probesOfOne), newLane(probesOfOne)
		one.published.Store(h.inherited[service.ID])
		delete(h.inherited, service.ID)
	}
	one.set.Follow(time.Now(), service)
	if !live {
		if was != nil && len(was.targets) > 0 {
			one.set = targets.New(time.Now(), service) // what is known now won't be true when it is probed again
		}
		return one
	}
	if was == nil {
		was = new(serviceHealth)
	}
	one.found = h.proxy.names.of(s, service)
	h.proxy.names.tell(service.ID, was.found, one.found)
	one.set.Find(time.Now(), one.found.targets)
	if service.Protocol == link.UDP { // no datagram is known that each target would answer
		one.unasked = true
		one.homeless = len(service.Targets)+len(one.found.targets) == 0
		if !one.homeless {
			one.published.Store(true)
		}
		one.homeless = one.homeless && !one.found.pending
		return one
	}
	var heir *serviceHealth // of whom
	if !one.published.Load() {
		if heir = old.before(s, service.ID); heir != nil {
			one.published.Store(true)
		}
	}
	var all []targets.Status // judged when the set isn't held any more
	one.set.Look(time.Now(), func(t targets.Status) { all = append(all, t) })
	for _, target := range all {
		if h.proxy.refuses(s, service, target.Addr) != "" {
			continue // nothing is to be found out about what flows may not reach
		}
		t := was.targets[target.Addr]
		if t != nil {
			t.follow(service, target.Weight)
		} else {
			t = h.probe(service, target, one, heir)
		}
		one.targets[target.Addr] = t
		if site := service.Sites.Of(target.Addr.Addr()); site != "" {
			if one.sites == nil {
				one.sites = make(map[string][]*targetHealth)
			}
			one.sites[site] = append(one.sites[site], t)
		}
	}
	return one
}

// hasLive reports whether a service has a live connection.
func hasLive(s *link.Snapshot, service link.ID) bool {
	for e := range s.EndpointsOf(service) {
		if e.Connection.Live() {
			return true
		}
	}
	return false
}

// wanted returns the names that targets of services with a live connection have.
func wanted(s *link.Snapshot) map[link.Name]bool {
	names := make(map[link.Name]bool)
	for service := range s.Services() {
		if len(service.TargetNames) == 0 || !hasLive(s, service.ID) {
			continue
		}
		for _, n := range service.TargetNames {
			names[n.Name] = true
		}
	}
	return names
}

// follow takes over what a snapshot says of the target.
func (t *targetHealth) follow(service *link.Service, weight int) {
	t.service.Store(service)
	t.drained.Store(weight == 0)
}

// probe starts the goroutine that probes a target. What was known of the address when it was one of
// the service heir, nil for none, holds until then.
func (h *health) probe(service *link.Service, target targets.Status, of, heir *serviceHealth) *targetHealth {
	ctx, stop := context.WithCancel(h.proxy.ctx)
	t := &targetHealth{
		id: service.ID, addr: target.Addr, published: of.published, prompt: of.prompt, silent: of.silent,
		probed: make(chan struct{}), stop: stop, set: of.set,
	}
	t.follow(service, target.Weight) // before its first probe: one that is drained mustn't publish the service
	if heir != nil && heir.targets[t.addr] != nil {
		t.set.Inherit(t.addr, heir.set.Status(time.Now(), t.addr))
		if t.read(); t.up.Load() || t.down.Load() {
			h.proxy.metrics.setUp(t.id, t.addr.String(), t.up.Load())
		}
	}
	h.probes.Go(func() { h.watch(ctx, t) })
	return t
}

// watch is the goroutine of a target: it probes until ctx is done.
func (h *health) watch(ctx context.Context, t *targetHealth) {
	defer t.once.Do(func() { close(t.probed) })
	silent, slow := false, false
	for {
		interval := h.proxy.settings.Load().ProbeInterval
		patience := max(interval, probeTimeout)
		var err error
		if !silent {
			look := patience
			if !slow {
				look = firstLook
			}
			err = h.ask(ctx, t, h.prompt, t.prompt, look)
			silent = timedOut(err)
		}
		if silent {
			began := time.Now()
			err = h.ask(ctx, t, h.silent, t.silent, patience)
			silent, slow = timedOut(err), err == nil && time.Since(began) > firstLook/2
		}
		if ctx.Err() != nil {
			return
		}
		h.note(t, err)
		t.once.Do(func() { close(t.probed) })
		if !t.published.Load() {
			interval = min(interval, unpublishedPace)
		}
		select {
		// Up to a fifth less, so that the probes of many nodes and targets spread.
		case <-time.After(interval - rand.N(interval/5+1)):
		case <-ctx.Done():
			return
		}
	}
}

// wait waits until each name was looked up and each target was probed once.
func (h *health) wait(ctx context.Context) error {
	if err := h.proxy.names.known.Wait(ctx); err != nil {
		return err
	}
	for _, s := range h.view.Load().services {
		for _, t := range s.targets {
			select {
			case <-t.probed:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// TargetStatus is what there is to tell of a target of a service.
type TargetStatus = targets.Status

// Targets returns what there is to tell of the targets of a service, in its order; nothing where the data plane doesn't know it.
// Safe for concurrent use.
func (p *Proxy) Targets(service link.ID) (all []TargetStatus) {
	if s := p.health.of(service); s != nil {
		s.set.Look(time.Now(), func(t targets.Status) { all = append(all, t) })
	}
	return all
}

// close ends all probes and waits for them.
func (h *health) close() {
	h.mu.Lock()
	h.closed = true
	for _, s := range h.view.Load().services {
		for _, t := range s.targets {
			t.stop()
		}
	}
	h.mu.Unlock()
	h.probes.Wait()
}
