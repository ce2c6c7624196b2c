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
	one.unasked = service.Protocol == link.UDP // no datagram is known that each target would answer
	var heir *serviceHealth                    // of whom
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
