package proxy

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/targets"
)

// seat is a flow's place at a target, which package targets gives and wants back. It is owned by who dials for the
// flow, then by finish.
type seat struct {
	place  *targets.Target // that is tried, or was reached; nil: none
	taken  time.Time       // when
	queued bool            // the flow has waited for a place
	warmed bool            // its connection was ready
	// foundBy are the names that the target was found by: the flow may stay for as long as the service has one of them. Under
	// the flow's mu.
	foundBy []link.NamePort
}

var (
	errNoSnapshot = errors.New("no snapshot")
	errNoService  = errors.New("the service was deleted")
	errNoPlace    = errors.New("no place came free at a target in dial_timeout")
)

// pick chooses the next target among those that weren't tried, and notes it so that a review sees it. The place at the one
// before is given back. left is how many there are, itself included; 0 when there is none now or the flow has ended. Then
// why is what is in the way: [targets.ErrFull] where the flow would have to wait.
func (f *flow) pick(tried []netip.AddrPort) (service *link.Service, addr netip.AddrPort, left int, why error) {
	f.stand(targets.Quiet)
	f.mu.Lock()
	defer f.mu.Unlock()
	s, service, why := f.aimLocked()
	if why != nil {
		return nil, addr, 0, why
	}
	set := f.proxy.health.set(service)
	for {
		place, left, err := set.Take(time.Now(), service, f.wishLocked(s, service, tried))
		if err != nil {
			if why == nil || errors.Is(err, targets.ErrFull) {
				why = err
			}
			return nil, addr, 0, why
		}
		f.place = place
		if why = f.sitLocked(s, service); why == nil {
			return service, place.Addr, left, nil
		}
		tried = append(slices.Clone(tried), place.Addr)
	}
}

// aimLocked returns the newest snapshot and the flow's service in it. The caller holds mu, so that a review comes
// before, and then the snapshot is newer, or after, and sees what was chosen.
func (f *flow) aimLocked() (s *link.Snapshot, service *link.Service, why error) {
	s = f.proxy.snapshot()
	switch {
	case f.reason != "":
		return nil, nil, errors.New("the flow was ended")
	case s == nil:
		return nil, nil, errNoSnapshot
	}
	if service = s.Service(f.verdict.Service.ID); service == nil {
		return nil, nil, errNoService
	}
	return s, service, nil
}

// wishLocked is what the flow asks for: at a target of the site that its endpoint is at, if it can be. The caller holds mu.
func (f *flow) wishLocked(s *link.Snapshot, service *link.Service, tried []netip.AddrPort) targets.Flow {
	wish := targets.Flow{Source: sourceOf(f.request.Source.Addr()), Tried: tried}
	if len(service.Sites) > 0 {
		if n := s.Network(f.verdict.Endpoint.Network); n != nil {
			wish.Site = n.Sites.Of(f.verdict.Endpoint.Address)
		}
	}
	return wish
}

// sitLocked makes the target that the flow has a place at its own, or gives the place back where the service may not
// send there.
func (f *flow) sitLocked(s *link.Snapshot, service *link.Service) error {
	if rule := f.proxy.refuses(s, service, f.place.Addr); rule != "" {
		why := forbidden{f.place.Addr, rule} // it slipped into the state (A21), or a network of another tenant has come around it
		f.stand(targets.Quiet)
		return why
	}
	f.address, f.taken, f.foundBy = f.place.Addr, time.Now(), nil
	if len(service.TargetNames) > 0 {
		f.foundBy = f.place.By()
	}
	return nil
}

// stand gives the flow's place back, if it has one.
func (f *flow) stand(end targets.End) (c targets.Change) {
	if f.place != nil {
		c = f.place.Release(time.Now(), end)
		f.place = nil
	}
	return c
}

// line is pick for who can wait: for a place where all are taken, until ctx is done, which the end of the flow does at
// once.
func (f *flow) line(ctx context.Context, tried []netip.AddrPort) (service *link.Service, addr netip.AddrPort, left int, why error) {
	for {
		if ctx.Err() != nil {
			return nil, addr, 0, errNoPlace
		}
		service, addr, left, why = f.pick(tried)
		if !errors.Is(why, targets.ErrFull) {
			return service, addr, left, why
		}
		if f.place, why = f.wait(ctx, tried); why != nil {
			return nil, addr, 0, why
		}
		if f.place == nil {
			continue // nothing is left to wait for, and pick says why
		}
		at := f.place.Addr
		if service, why = f.sit(); why == nil {
			return service, at, max(1, f.proxy.health.set(service).Len()-len(tried)), nil
		}
		tried = append(slices.Clip(tried), at) // else it is offered again and again
	}
}

// sit is sitLocked for a flow that has waited: what it waited for may have changed.
func (f *flow) sit() (*link.Service, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, service, why := f.aimLocked()
	if why == nil && !service.Sends(f.place.Addr, f.place.By()) {
		why = errNoService
	}
	if why != nil {
		f.stand(targets.Quiet)
		return nil, why
	}
	return service, f.sitLocked(s, service)
}

// wait stands in line, and returns the place that the flow gets; nil where nothing is left to wait for.
func (f *flow) wait(ctx context.Context, tried []netip.AddrPort) (*targets.Target, error) {
	f.mu.Lock()
	s, service, why := f.aimLocked()
	if why != nil {
		f.mu.Unlock()
		return nil, why
	}
	wish := f.wishLocked(s, service, tried)
	f.mu.Unlock()
	f.queued = true
	granted := make(chan *targets.Target, 1) // of size one: who grants doesn't wait
	wait, place, err := f.proxy.health.set(service).Wait(time.Now(), wish, func(t *targets.Target) { granted <- t })
	if wait == nil {
		if err == nil || errors.Is(err, targets.ErrLine) {
			return place, err
		}
		return nil, nil
	}
	select {
	case place = <-granted:
		return place, nil
	case <-ctx.Done():
	}
	if !wait.Leave() { // too late: it has one
		if place = <-granted; place != nil {
			place.Release(time.Now(), targets.Quiet)
		}
	}
	return nil, errNoPlace
}

// resetAtOnce is how soon a target must reset a flow, from the dial on, for it to be held against the target. Who waits
// for longer has perhaps waited for the client.
const resetAtOnce = time.Second

// vacate gives back the place of a flow that has ended, and says what it has seen of its target.
func (f *flow) vacate() {
	if f.place == nil {
		return
	}
	f.mu.Lock()
	service, broken := f.verdict.Service.ID, f.reason == policy.Target && f.first == ""
	f.mu.Unlock()
	end, addr := targets.Quiet, f.place.Addr
	switch {
	case f.toClient.Load() > 0:
		end = targets.Served
	case broken && !f.warmed && time.Since(f.taken) < resetAtOnce: // else it has perhaps only waited for too long
		end = targets.WasReset
	}
	f.proxy.health.changed(service, addr, f.stand(end), errReset)
}

var errReset = errors.New("it resets connections before it sends a byte")

// crowded reports whether a flow got no target for want of a place.
func crowded(why error) bool {
	return errors.Is(why, targets.ErrFull) || errors.Is(why, targets.ErrLine) || errors.Is(why, errNoPlace)
}
