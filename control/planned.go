package control

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
)

// cutKey is the inverse of object.
func cutKey(key string) (kind link.Kind, id link.ID, ok bool) {
	k, i, ok := strings.Cut(key, "/")
	return link.Kind(k), link.ID(i), ok
}

// uidOf returns the UID of an object, "" where there is none.
func uidOf(s *link.Snapshot, kind link.Kind, id link.ID) string {
	switch kind {
	case link.KindNetwork:
		if n := s.Network(id); n != nil {
			return n.UID
		}
	case link.KindService:
		if v := s.Service(id); v != nil {
			return v.UID
		}
	case link.KindEndpoint:
		if e := s.Endpoint(id); e != nil {
			return e.UID
		}
	}
	return ""
}

// plan says what a change has done or would do, as far as the scope may know. cut are the flows that it ends.
func (c *Control) plan(sees scope, t trial, revision uint64, cut []Flow) Plan {
	p := Plan{Changes: []PlannedChange{}, Revision: revision}
	for _, d := range t.deltas {
		if change, ok := sees.planned(d); ok {
			p.Changes = append(p.Changes, change)
		}
	}
	if len(t.deltas) == 0 {
		return p
	}
	p.Begin, p.Cease = sees.names(t)
	p.Cut = cut
	return p
}

// planned returns a delta as the scope may know it. Of a consumer's endpoint the provider sees that its
// connection changes; what manifests remember isn't an object that anyone knows.
func (s scope) planned(d link.Delta) (PlannedChange, bool) {
	p := PlannedChange{Object: string(d.Kind) + "/" + d.Key, Verb: d.Verb()}
	switch {
	case d.Kind == link.KindRetired, d.Kind == link.KindDocument:
		return p, false
	case s.holdsKey(p.Object):
		p.Fields = fields(d.Old, d.New)
		return p, true
	}
	for _, o := range []link.Object{d.Old, d.New} {
		if e, ok := o.(*link.Endpoint); ok && s.holds(e.Service) {
			p.Verb, p.Fields = "updated", []string{"connection"}
			return p, true
		}
	}
	return p, false
}

// fields returns which parts of an object differ, of one that is there before and after.
func fields(old, now link.Object) []string {
	if old == nil || now == nil {
		return nil
	}
	a, b := parts(old), parts(now)
	var differ []string
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if !bytes.Equal(a[name], b[name]) {
			differ = append(differ, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if _, there := a[name]; !there {
			differ = append(differ, name)
		}
	}
	slices.Sort(differ)
	if len(differ) > 1 { // the API's part says the same in its own words
		differ = slices.DeleteFunc(differ, func(name string) bool { return name == "api" })
	}
	return differ
}

func parts(o link.Object) map[string]json.RawMessage {
	all := map[string]json.RawMessage{}
	if text, err := json.Marshal(o); err == nil {
		_ = json.Unmarshal(text, &all) // of an object that was just encoded
	}
	return all
}

// where is a name in a network.
type where struct {
	network link.ID
	name    link.Name
}

// names compares what is answered before and after, in the networks and for the services that a change touches.
func (s scope) names(t trial) (begin, cease []PlannedName) {
	type pair struct{ network, service link.ID }
	pairs := map[pair]bool{}
	for _, d := range t.deltas {
		for _, o := range []link.Object{d.Old, d.New} {
			switch o := o.(type) {
			case *link.Endpoint:
				pairs[pair{o.Network, o.Service}] = true
			case *link.Service:
				for e := range t.after.EndpointsOf(o.ID) {
					pairs[pair{e.Network, o.ID}] = true
				}
			}
		}
	}
	before, after := map[where][]string{}, map[where][]string{}
	for p := range pairs {
		if s.holds(p.network) {
			answered(before, t.before, p.network, p.service)
			answered(after, t.after, p.network, p.service)
		}
	}
	return without(after, before), without(before, after)
}

// answered adds the names of a service that have an answer in a network, as soon as a target answers.
func answered(all map[where][]string, s *link.Snapshot, network, service link.ID) {
	v := s.Service(service)
	if v == nil {
		return
	}
	var addresses []string
	for e := range s.EndpointsFor(network, service) {
		if e.Connection.Live() {
			addresses = append(addresses, e.Address.String())
		}
	}
	if len(addresses) == 0 {
		return
	}
	for _, n := range v.Names {
		all[where{network, n.Public}] = addresses
		if n.Private != "" {
			all[where{network, n.Private}] = addresses
		}
	}
}

// without returns what of a isn't the same in b, in order.
func without(a, b map[where][]string) []PlannedName {
	var list []PlannedName
	for w, addresses := range a {
		if !slices.Equal(b[w], addresses) {
			list = append(list, PlannedName{Network: w.network, Name: w.name, Addresses: addresses})
		}
	}
	slices.SortFunc(list, func(x, y PlannedName) int {
		if n := strings.Compare(string(x.Network), string(y.Network)); n != 0 {
			return n
		}
		return strings.Compare(string(x.Name), string(y.Name))
	})
	return list
}

// cut returns the live flows of this node that would end: policy is asked for each on the state after the change,
// as the data plane does.
func (c *Control) cut(sees scope, t trial) []Flow {
	if c.config.Flows == nil || len(t.deltas) == 0 {
		return nil
	}
	by, ground, view, at := c.policy(), c.ground(), c.observed().view, c.config.Now()
	var list []Flow
	for f := range c.config.Flows {
		if !sees.holds(f.Endpoint) && !sees.holds(f.Service) {
			continue
		}
		is := f.Standing
		is.View, is.At = view, at
		if _, goesOn := by.Stands(t.after, is, ground); goesOn {
			continue
		}
		if _, stood := by.Stands(t.before, is, ground); stood { // else it is on its way out anyhow
			list = append(list, sees.flow(t.before, f))
		}
	}
	return list
}

// ground is what is known of this node where the right of a flow to its target is judged.
func (c *Control) ground() link.Ground {
	if c.config.Ground != nil {
		return c.config.Ground()
	}
	own := c.sockets()
	return link.Ground{Listeners: own.beside, Local: func(a netip.Addr) bool { return slices.Contains(own.local, a) }}
}
