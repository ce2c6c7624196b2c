package proxy

import (
	"slices"

	"github.com/postern-link/postern/link"
)

// view is what is known of the services of one snapshot. It is immutable but for what it points to.
type view struct {
	snapshot *link.Snapshot // nil before the first
	services byID[serviceHealth]
	// left are the services that were in the view before and aren't in this one: who still reads the
	// snapshot before asks for them.
	left map[link.ID]*serviceHealth
}

// find returns what is known of a service, nil where nothing is. A snapshot is in force before the
// probes have followed it, and answers are still made from the one before when they have: in between,
// what held for the names of a service goes on to hold.
func (h *health) find(service link.ID) *serviceHealth {
	v := h.view.Load()
	one := v.services.get(service)
	if one != nil && one.published.Load() {
		return one
	}
	if newest := h.proxy.snapshot(); newest != v.snapshot {
		if newest == nil {
			return one
		}
		if was := v.before(newest, service); was != nil {
			return was
		}
		return one
	}
	if one == nil {
		return v.left[service]
	}
	return one
}

// before returns what is known of a published service of the view that had a public name in a network
// where a service has a live connection and the name in the snapshot next. nil: there is none.
//
// A provider that calls a service by another ID, or splits one, hands its names on. They were
// answered, so that they must not pass to public addresses until a target was probed again.
func (v *view) before(next *link.Snapshot, id link.ID) *serviceHealth {
	service := next.Service(id)
	if service == nil || v.snapshot == nil {
		return nil
	}
	var last link.ID // networks come in any order; most often it is one
	for e := range next.EndpointsOf(id) {
		if !e.Connection.Live() || e.Network == last {
			continue
		}
		last = e.Network
		for _, name := range service.Names {
			if was := v.owner(e.Network, name.Public); was != nil {
				return was
			}
		}
	}
	return nil
}

// owner returns the published service that a name was answered for in a network.
func (v *view) owner(network link.ID, name link.Name) *serviceHealth {
	if o, _, ok := v.snapshot.Owner(network, []byte(name)); ok {
		return v.answered(network, o.Service)
	}
	if name[0] != '*' {
		return nil
	}
	// A pattern may follow on names that stood by themselves.
	for id := range v.services.all() {
		service := v.snapshot.Service(id)
		if service == nil || !slices.ContainsFunc(service.Names, func(n link.ResourceName) bool { return name.Matches(n.Public) }) {
			continue
		}
		if was := v.answered(network, id); was != nil {
			return was
		}
	}
	return nil
}

// answered returns what is known of a service if it is published and has a live connection in a network.
func (v *view) answered(network, id link.ID) *serviceHealth {
	was := v.services.get(id)
	if was == nil || !was.published.Load() {
		return nil
	}
	for e := range v.snapshot.EndpointsFor(network, id) {
		if e.Connection.Live() {
			return was
		}
	}
	return nil
}
