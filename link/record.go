package link

import (
	"fmt"
	"slices"
	"strings"
)

// Apex is the relative name of a zone itself.
const Apex = "@"

// Bounds of a record set.
const (
	MaxRecords = 20 // in one set
	MaxTTL     = 1<<31 - 1
)

// PutRecordSet creates a record set of a private zone or replaces the one of its type and name. It is
// [ErrConflict] where endpoints with the zone in their group have the name, and the set would stand
// against their addresses.
type PutRecordSet struct{ RecordSet RecordSet }

// DeleteRecordSet deletes a record set.
type DeleteRecordSet struct {
	Zone       ID
	Type, Name string
}

func (c PutRecordSet) apply(t *tx) error {
	r := c.RecordSet
	err := t.setRecordSet(t.next.RecordSet(r.Zone, r.Type, r.Name), &r)
	if err == nil {
		err = t.viewed(&r)
	}
	if err != nil {
		return aboutRecord(&r, err)
	}
	return nil
}

func (c DeleteRecordSet) apply(t *tx) error {
	r := t.next.RecordSet(c.Zone, c.Type, c.Name)
	if r == nil {
		return aboutRecord(&RecordSet{Zone: c.Zone, Type: c.Type, Name: c.Name}, ErrNotFound)
	}
	return t.setRecordSet(r, nil)
}

func aboutRecord(r *RecordSet, err error) error { return about(r, ID(r.Key()), Origin{}, err) }

// viewed refuses a record set that hides the addresses of endpoints, or that they hide.
func (t *tx) viewed(r *RecordSet) error {
	for e := range t.next.Grouped(r.Zone, r.Name) {
		if r.Type == "CNAME" || r.Type == "A" && e.Address.Is4() || r.Type == "AAAA" && e.Address.Is6() {
			return fmt.Errorf("%w: the zone group of endpoint %s holds the name", ErrConflict, e.ID)
		}
	}
	return nil
}

// setRecordSet replaces old, nil for none, by r, nil for none.
func (t *tx) setRecordSet(old, r *RecordSet) error {
	s := &t.next
	one := old
	if r != nil {
		one = r
	}
	key := one.Key()
	touch(t, KindRecord, key, old)
	if old != nil {
		s.private.records.drop([]byte(key))
		s.private.atName.drop(nameKey(old.Zone, old.Name, old.Type))
		t.existAt(old.Zone, old.Name, -1)
		add(&s.tallies, tallyKey('r', string(old.Zone), ""), -1)
	}
	if r == nil {
		return nil
	}
	if old != nil {
		r.keep(old.Facet)
	}
	z := s.Zone(r.Zone)
	if z == nil {
		return fmt.Errorf("%w: zone %s", ErrNotFound, r.Zone)
	}
	if err := r.check(z); err != nil {
		return err
	}
	for other := range s.RecordSetsAt(r.Zone, r.Name) {
		if r.Type == "CNAME" || other.Type == "CNAME" {
			return fmt.Errorf("%w: %s has a record set of type %s: a CNAME stands alone (RFC 1034 section 3.6.2)", ErrConflict, r.Name, other.Type)
		}
	}
	s.private.records.put([]byte(key), r)
	s.private.atName.put(nameKey(r.Zone, r.Name, r.Type), r)
	t.existAt(r.Zone, r.Name, 1)
	add(&s.tallies, tallyKey('r', string(r.Zone), ""), 1)
	return nil
}

// existAt adds d to what exists at a relative name and at those above it, the apex left out.
func (t *tx) existAt(zone ID, name string, d int) {
	if name == Apex {
		return
	}
	for rest := name; rest != ""; {
		add(&t.next.private.below, within(zone, rest), d)
		_, rest, _ = strings.Cut(rest, ".")
	}
}

// check returns an error wrapping [ErrInvalid] unless the record set can stand in the zone.
func (r *RecordSet) check(z *PrivateZone) error {
	if !slices.Contains(RecordTypes(), r.Type) {
		return fmt.Errorf("%w: record type %q: %s are allowed", ErrInvalid, clip(r.Type), strings.Join(RecordTypes(), " "))
	}
	if name, err := ParseRelative(r.Name, z.Name); err != nil {
		return err
	} else if name != r.Name {
		return fmt.Errorf("%w: name %q is not in canonical form", ErrInvalid, clip(r.Name))
	}
	switch {
	case r.TTL > MaxTTL: // RFC 2181 section 8
		return fmt.Errorf("%w: TTL %d, at most %d is allowed", ErrInvalid, r.TTL, MaxTTL)
	case len(r.Data) > MaxRecords:
		return fmt.Errorf("%w: %d records in a set, %d are allowed", ErrInvalid, len(r.Data), MaxRecords)
	case r.Type == "SOA" && (r.Name != Apex || len(r.Data) != 1):
		return fmt.Errorf("%w: a zone has one SOA record, at its apex", ErrInvalid)
	case r.Type == "CNAME" && r.Name == Apex:
		return fmt.Errorf("%w: the apex of a zone has an SOA record, so no CNAME", ErrInvalid)
	case r.Type == "CNAME" && len(r.Data) > 1:
		return fmt.Errorf("%w: %d CNAME records of one name, 1 is allowed", ErrInvalid, len(r.Data))
	}
	for i, d := range r.Data {
		canonical, err := ParseRecord(r.Type, d)
		switch {
		case err != nil:
			return err
		case canonical != d:
			return fmt.Errorf("%w: %s record %q is not in canonical form", ErrInvalid, r.Type, clip(d))
		case slices.Contains(r.Data[:i], d):
			return fmt.Errorf("%w: %s record %q is given twice", ErrInvalid, r.Type, clip(d))
		}
	}
	return nil
}

// ParseRelative returns a name relative to a zone in canonical form: "@", or labels in lower case of
// letters, digits, '-' and '_', of which the first may be "*". The error wraps [ErrInvalid].
func ParseRelative(s string, zone Name) (string, error) {
	if s == Apex {
		return s, nil
	}
	if n := len(s) + 1 + len(zone); s == "" || n > 253 {
		return "", fmt.Errorf("%w: record name %q: with its zone it has %d bytes, 253 are allowed", ErrInvalid, clip(s), n)
	}
	rest, wild := strings.CutPrefix(s, "*")
	if wild && rest == "" {
		return s, nil
	}
	if wild {
		rest = strings.TrimPrefix(rest, ".")
	}
	for label := range strings.SplitSeq(rest, ".") {
		if err := checkLabel(label); err != nil {
			return "", fmt.Errorf("%w: record name %q: %w", ErrInvalid, clip(s), err)
		}
	}
	if wild && s[1] != '.' {
		return "", fmt.Errorf("%w: record name %q: '*' is a whole label", ErrInvalid, clip(s))
	}
	return strings.ToLower(s), nil
}

// Full returns the whole name of a relative one.
func (z *PrivateZone) Full(relative string) Name {
	if relative == Apex {
		return z.Name
	}
	return Name(relative) + "." + z.Name
}

// Relative returns a whole name relative to the zone; ok is false where it isn't in the zone.
func (z *PrivateZone) Relative(full Name) (relative string, ok bool) {
	if full == z.Name {
		return Apex, true
	}
	return strings.CutSuffix(string(full), "."+string(z.Name))
}
