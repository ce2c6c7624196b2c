package link

import (
	"fmt"
	"slices"
	"strings"
)

// privateDNS is the private zones of a snapshot with their records, the documents, and what is computed
// from them.
type privateDNS struct {
	zones     sorted[*PrivateZone] // by ID
	records   sorted[*RecordSet]   // by key
	documents sorted[*Document]    // by key

	linked  sorted[zoneLinked] // by network, 0, apex
	atName  sorted[*RecordSet] // by zone, 0, relative name, 0, type
	below   sorted[int]        // by zone, 0, relative name: record sets and live names of endpoints at or below it
	members sorted[*Endpoint]  // by zone, 0, endpoint: those with the zone in their group
	grouped sorted[*Endpoint]  // by zone, 0, relative name, 0, endpoint: those of them that have the name
	aliases sorted[int]        // by public name, 0, private name: endpoints with groups
}

// zoneLinked is a zone as a network has it.
type zoneLinked struct {
	zone     ID
	redirect bool
}

func (d *privateDNS) seal() {
	d.zones.seal()
	d.records.seal()
	d.documents.seal()
	d.linked.seal()
	d.atName.seal()
	d.below.seal()
	d.members.seal()
	d.grouped.seal()
	d.aliases.seal()
}

// PutZone creates a private zone or replaces the one of its ID, whose name never changes.
type PutZone struct{ Zone PrivateZone }

// DeleteZone deletes a private zone with its record sets. One that is linked to a network, or in the
// zone group of an endpoint, is [ErrConflict].
type DeleteZone struct{ ID ID }

func (c PutZone) apply(t *tx) error {
	z := c.Zone
	if err := t.setZone(t.next.Zone(z.ID), &z); err != nil {
		return about(&z, z.ID, Origin{}, err)
	}
	return nil
}

func (c DeleteZone) apply(t *tx) error {
	z := t.next.Zone(c.ID)
	if z == nil {
		return about(z, c.ID, Origin{}, ErrNotFound)
	}
	if len(z.Links) > 0 {
		return about(z, z.ID, Origin{}, fmt.Errorf("%w: it is linked to network %s", ErrConflict, z.Links[0].Network))
	}
	for _, r := range slices.Collect(t.next.RecordSets(z.ID, "")) {
		if err := t.setRecordSet(r, nil); err != nil {
			return aboutRecord(r, err)
		}
	}
	if err := t.setZone(z, nil); err != nil {
		return about(z, z.ID, Origin{}, err)
	}
	return nil
}

// setZone replaces old, nil for none, by z, nil for none. The record sets of a zone that is taken away
// were taken away before.
func (t *tx) setZone(old, z *PrivateZone) error {
	s := &t.next
	id := idOf(old, z)
	touch(t, KindZone, string(id), old)
	if z == nil {
		if e, ok := first(s.private.members.values(within(id, ""))); ok {
			return fmt.Errorf("%w: it is in the zone group of endpoint %s", ErrConflict, e.ID)
		}
		if n := s.CountRecordSets(id); n > 0 {
			return fmt.Errorf("%w: it has %d record sets", ErrConflict, n)
		}
		t.unlink(old, nil)
		s.private.zones.drop([]byte(id))
		t.countObject(KindZone, id, -1)
		return nil
	}
	if old != nil {
		z.keep(old.Facet)
		t.unlink(old, z)
	} else {
		t.countObject(KindZone, id, 1)
	}
	if err := z.check(); err != nil {
		return err
	}
	for _, l := range z.Links {
		if err := t.linkTo(z, l); err != nil {
			return err
		}
	}
	s.private.zones.put([]byte(id), z)
	return nil
}

// unlink takes away the links that old has and z, nil for none, doesn't have just so.
func (t *tx) unlink(old, z *PrivateZone) {
	for _, l := range old.Links {
		if z != nil && slices.ContainsFunc(z.Links, func(k ZoneLink) bool { return k.Network == l.Network && k.Redirect == l.Redirect }) {
			continue
		}
		t.next.private.linked.drop(within(l.Network, string(old.Name)))
		add(&t.next.tallies, tallyKey('l', string(l.Network), ""), -1)
	}
}

// linkTo gives a zone to a network.
func (t *tx) linkTo(z *PrivateZone, l ZoneLink) error {
	key := within(l.Network, string(z.Name))
	now := zoneLinked{zone: z.ID, redirect: l.Redirect}
	if held, ok := t.next.private.linked.get(key); ok {
		if held == now {
			return nil
		}
		return fmt.Errorf("%w: network %s is linked to zone %s already: it can have one zone of a name", ErrConflict, l.Network, held.zone)
	}
	if t.next.Network(l.Network) == nil {
		return fmt.Errorf("%w: network %s", ErrNotFound, l.Network)
	}
	t.next.private.linked.put(key, now)
	add(&t.next.tallies, tallyKey('l', string(l.Network), ""), 1)
	return nil
}

// notLinked returns an error wrapping [ErrConflict] where a zone is linked to the network.
func (t *tx) notLinked(network ID) error {
	if z, ok := first(t.next.private.linked.values(within(network, ""))); ok {
		return fmt.Errorf("%w: private zone %s is linked to it", ErrConflict, z.zone)
	}
	return nil
}

// check returns an error wrapping [ErrInvalid] unless the zone obeys the rules that it does by itself.
func (z *PrivateZone) check() error {
	if err := checkID(z.ID); err != nil {
		return err
	}
	if n, err := ParseName(string(z.Name)); err != nil {
		return err
	} else if n != z.Name {
		return fmt.Errorf("%w: name %q is not in canonical form", ErrInvalid, clip(string(z.Name)))
	}
	switch {
	case !strings.Contains(string(z.Name), "."):
		return fmt.Errorf("%w: zone %s: a private zone has at least two labels", ErrInvalid, z.Name)
	case z.ID.Subscription() == "" || z.ID.Last() != string(z.Name):
		return fmt.Errorf("%w: zone %s is called %s", ErrInvalid, z.Name, z.ID)
	}
	names, networks := make(map[string]bool, len(z.Links)), make(map[ID]bool, len(z.Links))
	for _, l := range z.Links {
		if id, err := ParseID(l.Name); err != nil || string(id) != l.Name || strings.Contains(l.Name, "/") {
			return fmt.Errorf("%w: name %q of a link", ErrInvalid, clip(l.Name))
		}
		if names[l.Name] {
			return fmt.Errorf("%w: link %s is given twice", ErrInvalid, l.Name)
		}
		if networks[l.Network] {
			return fmt.Errorf("%w: the zone is linked to network %s already", ErrConflict, l.Network)
		}
		names[l.Name], networks[l.Network] = true, true
	}
	return nil
}

// joinZones enters an endpoint into the zones of its group.
func (t *tx) joinZones(e *Endpoint) error {
	if e.Zones == nil {
		return nil
	}
	if err := e.Zones.check(); err != nil {
		return err
	}
	for _, c := range e.Zones.Configs {
		if t.next.Zone(c.Zone) == nil {
			return fmt.Errorf("%w: zone %s", ErrNotFound, c.Zone)
		}
		t.next.private.members.put(within(c.Zone, string(e.ID)), e)
	}
	return nil
}

func (g *ZoneGroup) check() error {
	if id, err := ParseID(g.Name); err != nil || string(id) != g.Name || strings.Contains(g.Name, "/") {
		return fmt.Errorf("%w: name %q of a zone group", ErrInvalid, clip(g.Name))
	}
	for i, c := range g.Configs {
		if c.Name == "" || len(c.Name) > 80 {
			return fmt.Errorf("%w: zone group %s: the name of a zone's entry has 1 to 80 bytes", ErrInvalid, g.Name)
		}
		for _, d := range g.Configs[:i] {
			if c.Zone == d.Zone || strings.EqualFold(c.Name, d.Name) {
				return fmt.Errorf("%w: zone group %s: zone %s or the name %q is given twice", ErrInvalid, g.Name, c.Zone, clip(c.Name))
			}
		}
	}
	return nil
}

// leaveZones undoes joinZones.
func (t *tx) leaveZones(e *Endpoint) {
	if e.Zones == nil {
		return
	}
	for _, c := range e.Zones.Configs {
		t.next.private.members.drop(within(c.Zone, string(e.ID)))
	}
}

// group adds d, 1 or -1, of the names that an endpoint has in the zones of its group. The service is the
// one that it has the names of.
func (t *tx) group(e *Endpoint, v *Service, d int) {
	if e.Zones == nil {
		return
	}
	p := &t.next.private
	for _, n := range v.Names {
		if n.Private != "" {
			add(&p.aliases, within(ID(n.Public), string(n.Private)), d)
		}
	}
	for _, c := range e.Zones.Configs {
		for _, name := range t.next.Zone(c.Zone).namesOf(v) {
			if d > 0 {
				p.grouped.put(nameKey(c.Zone, name, string(e.ID)), e)
			} else {
				p.grouped.drop(nameKey(c.Zone, name, string(e.ID)))
			}
			if e.Connection.Live() {
				t.existAt(c.Zone, name, d)
			}
		}
	}
}

// namesOf returns the names of a service that are in the zone, relative to it.
func (z *PrivateZone) namesOf(v *Service) []string {
	var names []string
	for _, n := range v.Names {
		for _, full := range [...]Name{n.Public, n.Private} {
			if name, ok := z.Relative(full); ok && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// nameKey returns the key of what a relative name of a zone has.
func nameKey(zone ID, name, what string) []byte {
	key := make([]byte, 0, len(zone)+len(name)+len(what)+2)
	key = append(append(key, zone...), 0)
	key = append(append(key, name...), 0)
	return append(key, what...)
}
