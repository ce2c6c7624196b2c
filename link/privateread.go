package link

import (
	"iter"
	"strings"
)

// Zone returns the private zone of an ID, nil where there is none.
func (s *Snapshot) Zone(id ID) *PrivateZone {
	z, _ := s.private.zones.get([]byte(id))
	return z
}

// PrivateZones yields the private zones whose IDs begin with a prefix, in order of their IDs.
func (s *Snapshot) PrivateZones(prefix string) iter.Seq[*PrivateZone] {
	return s.private.zones.values([]byte(prefix))
}

// RecordSet returns the record set of a type and relative name in a zone, nil where there is none.
func (s *Snapshot) RecordSet(zone ID, rtype, name string) *RecordSet {
	r, _ := s.private.records.get([]byte(RecordKey(zone, rtype, name)))
	return r
}

// RecordSets yields the record sets of a zone in order of type and name, those of one type or, with "",
// all.
func (s *Snapshot) RecordSets(zone ID, rtype string) iter.Seq[*RecordSet] {
	prefix := string(zone) + "/"
	if rtype != "" {
		prefix = RecordKey(zone, rtype, "")
	}
	return s.private.records.values([]byte(prefix))
}

// RecordSetsAt yields the record sets of a relative name in a zone, in order of their types.
func (s *Snapshot) RecordSetsAt(zone ID, name string) iter.Seq[*RecordSet] {
	return s.private.atName.values(nameKey(zone, name, ""))
}

// CountRecordSets returns the number of record sets of a zone.
func (s *Snapshot) CountRecordSets(zone ID) int {
	return counter(&s.tallies, tallyKey('r', string(zone), ""))
}

// CountLinks returns the number of private zones that are linked to a network.
func (s *Snapshot) CountLinks(network ID) int {
	return counter(&s.tallies, tallyKey('l', string(network), ""))
}

// HasLinks reports whether a private zone is linked to the network. It doesn't allocate, and is nearly
// free where there are no private zones at all.
func (s *Snapshot) HasLinks(network ID) bool {
	if s.private.linked.none() || len(network) > 255 {
		return false
	}
	var buf [2 + 255]byte
	return some(&s.tallies, append(append(append(buf[:0], 'l'), network...), 0))
}

// MayHaveLinks is HasLinks for who looks for a zone of a name next: of a traced snapshot it is true. What is read there is the zones that the name could be
// in, so that the first zone that is linked to the network, and the last one, change names in them alone.
func (s *Snapshot) MayHaveLinks(network ID) bool {
	return len(network) <= 255 && (s.watch.traces() || s.HasLinks(network))
}

// ZonesOf yields the private zones that are linked to a network, in order of their names.
func (s *Snapshot) ZonesOf(network ID) iter.Seq[ID] {
	return func(yield func(ID) bool) {
		for l := range s.private.linked.values(within(network, "")) {
			if !yield(l.zone) {
				return
			}
		}
	}
}

// LinkedZone returns the private zone with the longest apex at or above a name, in canonical form, of those
// that are linked to a network, and whether the link redirects what the zone doesn't have. ok is
// false where there is none. It doesn't allocate.
func (s *Snapshot) LinkedZone(network ID, name []byte) (zone *PrivateZone, redirect, ok bool) {
	if len(name) > 253 || !s.MayHaveLinks(network) {
		return nil, false, false
	}
	var buf [maxKey]byte
	prefix := len(append(append(buf[:0], network...), 0))
	for i := 0; i < len(name); i++ {
		if i > 0 && name[i-1] != '.' {
			continue
		}
		key := append(buf[:prefix], name[i:]...)
		if l, found := s.private.linked.get(key); found {
			return s.Zone(l.zone), l.redirect, true
		}
	}
	return nil, false, false
}

// ExistsIn reports whether a relative name exists in a zone in the sense of RFC 8020: it or a name below
// it has a record set, or is that of a live connection of an endpoint with the zone in its group.
func (s *Snapshot) ExistsIn(zone ID, name string) bool {
	return name == Apex || some(&s.private.below, within(zone, name))
}

// Grouped yields the endpoints that have a relative name in a zone of their group: by the public or the
// private name of their service, which may be a pattern, "*" and a dot first. Their connections are in any state but
// Disconnected. They are in order of IDs.
func (s *Snapshot) Grouped(zone ID, name string) iter.Seq[*Endpoint] {
	return s.private.grouped.values(nameKey(zone, name, ""))
}

// GroupedIn yields the names that endpoints have in a zone of their group, and the endpoints, in order
// of both.
func (s *Snapshot) GroupedIn(zone ID) iter.Seq2[string, *Endpoint] {
	return func(yield func(string, *Endpoint) bool) {
		for key, e := range s.private.grouped.all(within(zone, "")) {
			name, _, _ := strings.Cut(key[len(zone)+1:], "\x00")
			if !yield(name, e) {
				return
			}
		}
	}
}

// GroupedAlias returns the private name that the public name of a service with endpoints in zone groups
// is an alias of; ok is false where there is none. Patterns are as they are for [Snapshot.Owner].
func (s *Snapshot) GroupedAlias(public Name) (private Name, ok bool) {
	if s.private.aliases.none() {
		return "", false
	}
	if private, ok = s.aliasOf(public); ok {
		return private, true
	}
	label, rest, _ := strings.Cut(string(public), ".")
	if private, ok = s.aliasOf(Name("*." + rest)); !ok || label == "" {
		return "", false
	}
	return Name(label) + private[1:], true
}

func (s *Snapshot) aliasOf(public Name) (Name, bool) {
	for key := range s.private.aliases.all(within(ID(public), "")) {
		return Name(key[len(public)+1:]), true
	}
	return "", false
}

// Members yields the endpoints with a zone in their group, in order of their IDs.
func (s *Snapshot) Members(zone ID) iter.Seq[*Endpoint] {
	return s.private.members.values(within(zone, ""))
}
