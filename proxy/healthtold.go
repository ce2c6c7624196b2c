package proxy

import (
	"net/netip"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/targets"
)

// What probes and flows have found out about targets.

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
