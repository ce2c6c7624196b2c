package link

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

// Declare makes the objects of one declaration those given: what is new is added, what changed is
// updated, what is gone is removed, everything else is left alone. The Origin of each object must
// carry the declaration's name. A declared endpoint whose network, service or address changed is
// deleted and asked for anew. An object that another origin holds is [ErrConflict].
type Declare struct {
	Declaration string
	Networks    []Network
	Services    []Service // Alias: used for a new service only
	Endpoints   []DeclaredEndpoint
	// Settings stands for what the declaration says beside objects and others have copies of, such as zones: 32 bytes or so. Another
	// one is a change of the state; "": there is none.
	Settings string `json:",omitempty"`
}

// DeclaredEndpoint is an endpoint of a declaration and the consumer's words to the provider.
type DeclaredEndpoint struct {
	Endpoint Endpoint
	Message  string
}

// Restore makes the whole state the given objects, as of a backup. Link IDs that were alive and are
// no more are retired.
type Restore struct {
	Objects  []Object
	Revision uint64 // of the state that they were; 0: they were none
}

// apply removes first, endpoints before what they refer to, and adds in the other direction, so that
// an address or a name can move from one object to another.
func (c Declare) apply(t *tx) error {
	if c.Declaration == "" {
		return fmt.Errorf("%w: a declaration has a name", ErrInvalid)
	}
	if err := c.check(t); err != nil {
		return err
	}
	if err := c.remove(t); err != nil {
		return err
	}
	for _, n := range c.Networks {
		if err := t.putNetwork(t.next.Network(n.ID), &n); err != nil {
			return err
		}
	}
	for _, v := range c.Services {
		if err := t.putService(t.next.Service(v.ID), &v); err != nil {
			return err
		}
	}
	for _, d := range c.Endpoints {
		if err := t.putEndpoint(t.next.Endpoint(d.Endpoint.ID), &d.Endpoint, asking{message: d.Message}); err != nil {
			return err
		}
	}
	return c.settle(t)
}

// settingsType is the type of the documents that remember [Declare].Settings, by the declaration's name.
const settingsType = "settings"

func (c Declare) settle(t *tx) error {
	var now *Document
	if c.Settings != "" {
		body, err := json.Marshal(c.Settings)
		if err != nil {
			return err
		}
		now = &Document{Type: settingsType, ID: ID(c.Declaration), Facet: Facet{API: body}}
	}
	old := t.next.Document(settingsType, ID(c.Declaration))
	if old == nil && now == nil || old != nil && now != nil && bytes.Equal(old.API, now.API) {
		return nil
	}
	return t.setDocument(old, now)
}

// check refuses objects given twice, of another origin, or held by another origin.
func (c Declare) check(t *tx) error {
	seen := map[objectKey]Origin{}
	one := func(o, held Object, now, old Origin) error {
		k := objectKey{o.Kind(), o.Key()}
		if other, twice := seen[k]; twice {
			return about(o, ID(k.key), now, fmt.Errorf("%w: it is declared in %s already", ErrConflict, other))
		}
		seen[k] = now
		if now.Declaration != c.Declaration {
			return about(o, ID(k.key), now, fmt.Errorf("%w: it is of declaration %q, not %q", ErrInvalid, now.Declaration, c.Declaration))
		}
		if held != nil {
			if err := sameOrigin(old, now); err != nil {
				return about(o, ID(k.key), now, err)
			}
		}
		return nil
	}
	for i := range c.Networks {
		n := &c.Networks[i]
		if err := one(n, t.next.object(KindNetwork, n.Key()), n.Origin, t.originOf(KindNetwork, n.Key())); err != nil {
			return err
		}
	}
	for i := range c.Services {
		v := &c.Services[i]
		if err := one(v, t.next.object(KindService, v.Key()), v.Origin, t.originOf(KindService, v.Key())); err != nil {
			return err
		}
	}
	for i := range c.Endpoints {
		e := &c.Endpoints[i].Endpoint
		if err := one(e, t.next.object(KindEndpoint, e.Key()), e.Origin, t.originOf(KindEndpoint, e.Key())); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) originOf(kind Kind, key string) Origin {
	switch o := t.next.object(kind, key).(type) {
	case *Network:
		return o.Origin
	case *Service:
		return o.Origin
	case *Endpoint:
		return o.Origin
	}
	return Origin{}
}

// remove deletes what the declaration holds and no longer names, and the endpoints that moved.
func (c Declare) remove(t *tx) error {
	endpoints, services, networks := map[ID]*Endpoint{}, map[ID]*Service{}, map[ID]*Network{}
	for i := range c.Endpoints {
		endpoints[c.Endpoints[i].Endpoint.ID] = &c.Endpoints[i].Endpoint
	}
	for i := range c.Services {
		services[c.Services[i].ID] = &c.Services[i]
	}
	for i := range c.Networks {
		networks[c.Networks[i].ID] = &c.Networks[i]
	}
	for _, e := range slices.Collect(t.next.Endpoints()) {
		if e.Origin.Declaration != c.Declaration {
			continue
		}
		now, n := endpoints[e.ID], networks[e.Network]
		if now == nil || !samePlace(e, now) || now.Tenant != e.Tenant || n != nil && n.fits(e) != nil {
			if err := t.deleteEndpoint(e); err != nil {
				return err
			}
		}
	}
	for _, v := range slices.Collect(t.next.Services()) {
		if v.Origin.Declaration == c.Declaration && services[v.ID] == nil {
			if err := t.deleteService(v); err != nil {
				return err
			}
		}
	}
	for _, n := range slices.Collect(t.next.Networks()) {
		if n.Origin.Declaration == c.Declaration && networks[n.ID] == nil {
			if err := t.deleteNetwork(n); err != nil {
				return err
			}
		}
	}
	return c.release(t)
}

// release takes the pools, prefixes and names that objects lose out of the way of those that gain them.
func (c Declare) release(t *tx) error {
	for _, n := range c.Networks {
		old := t.next.Network(n.ID)
		if old == nil {
			continue
		}
		t.leave(old, without(old.Pools, n.Pools), old.Prefixes)
	}
	for _, v := range c.Services {
		old := t.next.Service(v.ID)
		if old == nil || slices.Equal(old.Names, v.Names) {
			continue
		}
		less := *old
		less.Pin = PinAddress
		less.Names = slices.DeleteFunc(slices.Clone(old.Names), func(n ResourceName) bool { return !slices.Contains(v.Names, n) })
		if err := t.setService(old, &less); err != nil {
			return about(old, old.ID, old.Origin, err)
		}
	}
	return nil
}

// without returns the prefixes of a that aren't in b.
func without(a, b []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(a), func(p netip.Prefix) bool { return slices.Contains(b, p) })
}

func (c Restore) apply(t *tx) error {
	old := t.next
	before := slices.Collect(old.Objects())
	fresh := begin(Empty(), t.at)
	if err := fresh.load(c.Objects); err != nil {
		return err
	}
	if err := fresh.succeed(&old, c.Revision); err != nil {
		return err
	}
	for _, o := range before {
		k := objectKey{o.Kind(), o.Key()}
		if _, ok := t.touched[k]; !ok {
			t.touched[k] = o
		}
		switch o := o.(type) {
		case *Retired:
			if fresh.next.EndpointOf(o.LinkID) == nil {
				fresh.retire(o)
			}
		case *Endpoint:
			if id := o.Connection.LinkID; id != 0 && fresh.next.EndpointOf(id) == nil {
				fresh.retire(&Retired{LinkID: id, At: t.at, Tenant: o.Tenant})
			}
		}
	}
	for k := range fresh.touched {
		if _, ok := t.touched[k]; !ok {
			t.touched[k] = nil
		}
	}
	revision := t.next.revision
	t.next = *fresh.seal()
	t.next.revision = revision
	t.changes.all = true
	t.next.watchedBy(&watch{changes: &t.changes})
	return nil
}
