package proxy

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/targets"
)

// used notes that a flow was connected to a target, and has connections dialled for the next ones. success: it was one that
// was ready, which proves that the target keeps them.
func (w *warm) used(service *link.Service, addr netip.AddrPort, success bool) {
	now, key := time.Now(), shelfKey{service.ID, addr}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || !canWarm {
		return
	}
	s := w.shelves[key]
	if s == nil {
		s = new(shelf)
		s.ctx, s.stop = context.WithCancel(w.proxy.ctx)
		w.shelves[key] = s
	}
	if s.used = now; success {
		s.pause, s.rest = 0, time.Time{}
	}
	w.fill(now, key, s, service)
}

// fill dials what is missing on a shelf, within all bounds. The caller holds mu.
func (w *warm) fill(now time.Time, key shelfKey, s *shelf, service *link.Service) {
	if now.Before(s.rest) || w.proxy.live.short.Load() {
		return
	}
	settings := w.proxy.settings.Load()
	missing := min(service.Warm, w.proxy.health.set(service).Spare(now, key.addr)) - len(s.ready) - s.dialled
	for range min(missing, w.room(settings)) {
		s.dialled++
		w.all++
		ctx := s.ctx
		w.dials.Go(func() { w.dial(ctx, key, s, service, settings.DialTimeout) })
	}
}

// room returns how many more there may be on this node. The caller holds mu.
func (w *warm) room(s *Settings) int {
	return min(max(1, s.MaxFlows/warmShare), s.MaxFlows-w.proxy.live.count()) - w.all
}

// dial makes one connection. Nothing is said on it, so that its handshake is acknowledged at once.
func (w *warm) dial(ctx context.Context, key shelfKey, s *shelf, service *link.Service, timeout time.Duration) {
	d := dialling{engine: w.proxy.engine, guard: w.proxy.guardDial(service)}
	conn, err := d.target(ctx, service, key.addr, timeout)
	k := kept{conn, time.Now(), service.NAT}
	stored, again := w.arrived(ctx, key, s, k, err)
	if !stored && err == nil {
		w.drop(k)
	}
	if ctx.Err() == nil && !again {
		w.proxy.health.report(service.ID, key.addr, err) // as a flow would have found out
	}
}

// arrived takes the result of a dial. It reports whether the connection is ready now, or whether the dial failed as another one
// of those that are made at once: of one moment a target is blamed once, however many are dialled.
func (w *warm) arrived(ctx context.Context, key shelfKey, s *shelf, k kept, err error) (stored, again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.dialled--
	w.all--
	if err != nil && ctx.Err() == nil && !errors.As(err, new(forbidden)) {
		again = !s.failed(k.since)
	}
	if err != nil || ctx.Err() != nil || w.shelves[key] != s {
		return false, again
	}
	service, most := w.allowed(k.since, key)
	if len(s.ready)+s.dialled >= most || !slices.Equal(k.nat, service.NAT) {
		return false, false
	}
	s.ready = append(s.ready, k)
	w.all++
	return true, false
}

// failed has the next dials wait. It reports false, and does nothing, while they do: of several at once it was one failure.
func (s *shelf) failed(now time.Time) bool {
	if now.Before(s.rest) {
		return false
	}
	s.pause = min(max(2*s.pause, warmPause), maxWarmPause)
	s.rest = now.Add(s.pause)
	return true
}

// allowed returns how many connections there may be with a target now, and its service where there may be any.
func (w *warm) allowed(now time.Time, key shelfKey) (service *link.Service, most int) {
	p := w.proxy
	s := p.snapshot()
	if s == nil {
		return nil, 0
	}
	service = s.Service(key.service)
	if service == nil || service.Warm == 0 || !hasLive(s, key.service) || p.refuses(s, service, key.addr) != "" {
		return service, 0
	}
	return service, min(service.Warm, p.health.set(service).Spare(now, key.addr))
}

// follow closes what may not be there any more, as of the newest snapshot and what is known of the targets, and dials what has grown old
// where flows still come.
func (w *warm) follow() {
	w.mu.Lock()
	keys := make([]shelfKey, 0, len(w.shelves))
	for key := range w.shelves {
		keys = append(keys, key)
	}
	w.mu.Unlock()
	for _, key := range keys { // not all at once: flows wait for the lock
		w.tendOne(key)
	}
}

// changed takes what became of a target.
func (w *warm) changed(service link.ID, addr netip.AddrPort, c targets.Change) {
	if c == targets.Down || c == targets.Ejected {
		w.tendOne(shelfKey{service, addr})
	}
}

func (w *warm) tendOne(key shelfKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, now := w.shelves[key], time.Now()
	if s == nil || w.closed {
		return
	}
	service, most := w.allowed(now, key)
	if most == 0 {
		w.clear(key, s)
		return
	}
	old := service.KeptWarm()
	surplus := max(len(s.ready)-most, -w.room(w.proxy.settings.Load()))
	w.sift(s, func(k kept) bool {
		switch {
		case !unended(k.conn):
			w.ended.Inc()
			k.conn.Close()
			s.failed(now)
		case surplus > 0, now.Sub(k.since) >= old, !slices.Equal(k.nat, service.NAT):
			surplus--
			w.drop(k)
		default:
			return true
		}
		return false
	})
	if now.Sub(s.used) < old {
		w.fill(now, key, s, service)
	} else if len(s.ready)+s.dialled == 0 && !now.Before(s.rest) {
		w.clear(key, s)
	}
}

// sift leaves on a shelf what is to stay. The caller holds mu.
func (w *warm) sift(s *shelf, stays func(kept) bool) {
	n := len(s.ready)
	s.ready = slices.DeleteFunc(s.ready, func(k kept) bool { return !stays(k) })
	w.all -= n - len(s.ready)
}

// clear takes a shelf away with all that is on it. The caller holds mu.
func (w *warm) clear(key shelfKey, s *shelf) {
	s.stop()
	w.sift(s, func(k kept) bool { w.drop(k); return false })
	delete(w.shelves, key)
}

// close closes all, and lets none come any more.
func (w *warm) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for key, s := range w.shelves {
		w.clear(key, s)
	}
}
