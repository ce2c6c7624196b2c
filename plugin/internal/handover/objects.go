package handover

import (
	"cmp"
	"crypto/rand"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
)

// objects are those that a Corefile declares, in its order. Names carry their public half only: the
// private one follows from the zones, which are complete after the last directive.
type objects struct {
	networks  []link.Network
	services  []link.Service
	endpoints []link.DeclaredEndpoint
	// scratch holds them all, and nothing else: it refuses during setup, at the right line, what the
	// state would refuse at the start. Nil before the first object.
	scratch *link.Trial
}

type declaredKey struct {
	kind link.Kind
	id   link.ID
}

// AddNetwork declares a network. Its origin is set here.
func (d *Draft) AddNetwork(at block.Position, n link.Network) error {
	if err := d.claim(at, link.KindNetwork, n.ID); err != nil {
		return err
	}
	n.Origin = d.originOf(at)
	if err := d.apply(at, link.PutNetwork{Network: n}); err != nil {
		return err
	}
	d.objects.networks = append(d.objects.networks, n)
	for addr := range d.listen {
		if err := d.checkListener(addr, n); err != nil {
			return err
		}
	}
	return nil
}

// Networks returns the names of the networks declared so far, in their order in the Corefile's blocks.
func (d *Draft) Networks() []link.ID {
	ids := make([]link.ID, len(d.objects.networks))
	for i, n := range d.objects.networks {
		ids[i] = n.ID
	}
	return ids
}

// checkListener refuses pools of networks with an address that DNS listens on: it could be given out. It is
// asked for every network and for every address when they come.
func (d *Draft) checkListener(addr netip.Addr, networks ...link.Network) error {
	for _, n := range networks {
		for _, pool := range n.Pools {
			if pool.Contains(addr) {
				at := d.declared[declaredKey{link.KindNetwork, n.ID}].Property("endpoints")
				return at.Errorf("pool %s contains %s, which a server block listens on (bind)", pool, addr)
			}
		}
	}
	return nil
}

// AddService declares a service. Its names carry their public half; alias and origin are set here.
func (d *Draft) AddService(at block.Position, s link.Service) error {
	if err := d.claim(at, link.KindService, s.ID); err != nil {
		return err
	}
	for _, n := range s.Names {
		if zone := d.zones.Zone([]byte(n.Public)); zone != "" {
			return insideZone(at, n.Public, zone)
		}
	}
	s.Origin = d.originOf(at)
	var err error
	if s.Alias, err = link.NewAlias(s.ID, rand.Reader); err != nil {
		return at.Errorf("alias of the service: %w", err)
	}
	if err := d.apply(at, link.PutService{Service: d.resolve(s)}); err != nil {
		return err
	}
	d.objects.services = append(d.objects.services, s)
	return nil
}

func insideZone(at block.Position, name, zone link.Name) error {
	return at.Property("names").Errorf("name %s is inside the privatelink zone %s; give the public name, its private one follows", name, zone)
}

// AddEndpoint declares an endpoint, and what the provider reads of it. Without an address it is given
// one of its network's pools. Its origin is set here.
func (d *Draft) AddEndpoint(at block.Position, e link.Endpoint, message string) error {
	if err := d.claim(at, link.KindEndpoint, e.ID); err != nil {
		return err
	}
	if d.listen[e.Address] {
		return at.Property("address").Errorf("a server block listens on %s (bind); an endpoint needs an address of its own", e.Address)
	}
	e.Origin = d.originOf(at)
	d.objects.endpoints = append(d.objects.endpoints, link.DeclaredEndpoint{Endpoint: e, Message: message})
	return d.apply(at, link.PutEndpoint{Endpoint: e, Message: message})
}

// AddZones adds privatelink zones and the public suffixes that they belong to, before all that are known.
// The services declared so far get their private names anew.
func (d *Draft) AddZones(at block.Position, rows ...link.ZoneRow) error {
	zones, err := d.zones.With(rows...)
	if err != nil {
		return at.Errorf("%w", block.Plain(err))
	}
	d.zones = zones
	for _, s := range d.objects.services {
		for _, n := range s.Names {
			if zone := d.zones.Zone([]byte(n.Public)); zone != "" {
				return insideZone(d.declared[declaredKey{link.KindService, s.ID}], n.Public, zone)
			}
		}
	}
	return d.rebuild(at)
}

// Zones returns the zones known so far: those that ship with Postern and those added.
func (d *Draft) Zones() *link.Zones { return d.zones }

// claim refuses a second object of a kind and name.
func (d *Draft) claim(at block.Position, kind link.Kind, id link.ID) error {
	key := declaredKey{kind, id}
	if d.store.Place.Etcd.ReadOnly {
		return at.Errorf("%s %s: linkstore at %s is read_only, and such a node declares nothing", kind, id, d.storedAt)
	}
	if first, ok := d.declared[key]; ok {
		return at.Errorf("%s %s is declared already at %s", kind, id, first)
	}
	d.declared[key] = at
	return nil
}

// resolve returns the service with the private half of its names.
func (d *Draft) resolve(s link.Service) link.Service {
	names := s.Names
	s.Names = make([]link.ResourceName, len(names))
	for i, n := range names {
		s.Names[i] = d.zones.Resource(n.Public)
	}
	return s
}

// apply tries a change on the scratch state. After an error the whole Corefile is refused.
func (d *Draft) apply(at block.Position, c link.Change) error {
	if d.objects.scratch == nil {
		d.objects.scratch = new(link.Trial)
	}
	if err := d.objects.scratch.Try(time.Now(), c); err != nil {
		return d.positioned(at, err)
	}
	return nil
}

// rebuild makes the scratch state anew from all objects.
func (d *Draft) rebuild(at block.Position) error {
	if d.objects.scratch == nil {
		return nil
	}
	d.objects.scratch = nil
	return d.apply(at, d.declaration())
}

// declaration returns all objects as the change that the node applies.
func (d *Draft) declaration() link.Declare {
	dec := link.Declare{
		Declaration: d.nameOrigin(),
		Networks:    d.objects.networks,
		Endpoints:   slices.Clone(d.objects.endpoints),
	}
	// Endpoints without an address are given what the others leave.
	slices.SortStableFunc(dec.Endpoints, func(a, b link.DeclaredEndpoint) int {
		return cmp.Compare(without(a), without(b))
	})
	for _, s := range d.objects.services {
		dec.Services = append(dec.Services, d.resolve(s))
	}
	return dec
}

func without(e link.DeclaredEndpoint) int {
	if e.Endpoint.Address.IsValid() {
		return 0
	}
	return 1
}

// defaultOrigin is the name of the declaration where linkstore gives none and nobody shares the state.
const defaultOrigin link.ID = "corefile"

// originOf returns the origin of an object that is declared at a position.
func (d *Draft) originOf(at block.Position) link.Origin {
	return link.Origin{Declaration: d.nameOrigin(), File: at.File, Line: at.Line}
}

// nameOrigin returns the name of the declaration.
func (d *Draft) nameOrigin() string { return string(cmp.Or(d.store.Origin, defaultOrigin)) }

// positioned returns an error of link as one at the line of the object that it is about, at the
// given position where that object isn't of this Corefile.
func (d *Draft) positioned(at block.Position, err error) error {
	var about *link.ObjectError
	if !errors.As(err, &about) {
		return at.Errorf("%w", err)
	}
	if pos, ok := d.declared[declaredKey{about.Kind, about.ID}]; ok {
		at = pos
	}
	return at.Errorf("%s %s: %w", about.Kind, about.ID, block.Plain(about.Err))
}
