package proxy

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/targets"
)

// How the probes become those of a snapshot.

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

// mostReads is how many things the health of one service is made of. One of more is made anew with each snapshot.
const mostReads = 1024

// follow starts and stops probes so that they are those of the snapshot. It looks at the services for which something has changed that
// their health is made of.
func (h *health) follow(s *link.Snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || s == nil {
		return
	}
	old, ground := h.view.Load(), h.proxy.groundNow()
	same := ground.is(h.ground)
	if old.snapshot == s && same {
		return
	}
	next := &view{snapshot: s, services: old.services}
	since := s.Since(old.snapshot)
	if !same {
		since = s.Since(nil) // whether a target is refused depends on it, too
	}
	if old.snapshot == s {
		next.left = old.left
	}
	h.ground = ground
	h.turn(old, next, h.touched(since))
	h.early.forget(next)
	h.asked.forget(time.Now())
}

// touched returns the services of which something may have changed, those that are new or gone among them.
func (h *health) touched(since link.Since) map[link.ID]bool {
	all := make(map[link.ID]bool)
	for id := range since.Services() {
		all[id] = true
	}
	for id := range h.watchers.Touched(since) {
		all[id] = true
	}
	return all
}

// turn makes the view next, which is like old yet, the one that is in force, with what is known of some services now. The caller
// holds mu.
func (h *health) turn(old, next *view, some map[link.ID]bool) {
	trace := &link.Trace{Most: mostReads}
	s := next.snapshot.Traced(trace)
	for id := range some {
		trace.Reset()
		var one *serviceHealth
		if service := s.Service(id); service == nil {
			h.watchers.Leave(id)
		} else {
			one = h.renew(s, service, old)
			h.watchers.Watch(id, trace)
		}
		was := old.services.get(id)
		next.services = next.services.with(id, one)
		if was != nil && one == nil {
			if next.left == nil {
				next.left = make(map[link.ID]*serviceHealth)
			}
			next.left[id] = was
		}
		h.named.turn(id, was, one)
	}
	h.view.Store(next)
	for id := range some {
		if was := old.services.get(id); was != nil {
			h.drop(id, was, next.services.get(id))
		}
	}
	h.named.follow(h.proxy.names.known)
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
	was, live := old.services.get(service.ID), hasLive(s, service.ID)
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
	one.names, one.found = service.TargetNames, h.proxy.names.of(s, service)
	one.set.Find(time.Now(), one.found.targets)
	h.proxy.names.tell(service.ID, was.found, one.found) // when nothing is sent there any more
	one.unasked = service.Protocol == link.UDP           // no datagram is known that each target would answer
	var heir *serviceHealth                              // of whom
	if !one.published.Load() {
		if heir = old.before(s, service.ID); heir != nil {
			one.published.Store(true)
		}
	}
	h.list(s, service, one, was, heir)
	return one
}

// list gives a service its targets, as they were where they are known.
func (h *health) list(s *link.Snapshot, service *link.Service, one, was, heir *serviceHealth) {
	var all []targets.Status // judged when the set isn't held any more
	one.set.Look(time.Now(), func(t targets.Status) { all = append(all, t) })
	for _, target := range all {
		if h.proxy.refuses(s, service, target.Addr) != "" {
			continue // nothing is to be found out about what flows may not reach
		}
		t := was.targets[target.Addr]
		switch {
		case t != nil && was.unasked == one.unasked:
			t.follow(service, target.Weight)
		case one.unasked:
			t = one.assume(service, target)
		default:
			t = h.probe(service, target, one, heir)
		}
		if one.unasked && !t.drained.Load() {
			one.published.Store(true)
		}
		one.targets[target.Addr] = t
		if site := service.Sites.Of(target.Addr.Addr()); site != "" {
			if one.sites == nil {
				one.sites = make(map[string][]*targetHealth)
			}
			one.sites[site] = append(one.sites[site], t)
		}
	}
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

// follow takes over what a snapshot says of the target.
func (t *targetHealth) follow(service *link.Service, weight int) {
	t.service.Store(service)
	t.drained.Store(weight == 0)
}

// assume returns a target that isn't probed.
func (s *serviceHealth) assume(service *link.Service, target targets.Status) *targetHealth {
	t := &targetHealth{id: service.ID, addr: target.Addr, published: s.published, set: s.set, probed: make(chan struct{}), stop: func() {}}
	close(t.probed)
	t.follow(service, target.Weight)
	return t
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
