package armapi

import (
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
)

// zoneSet is a record set as the API knows it: one that was made, the SOA of a zone in which nobody has
// made one, or the view of what endpoints with the zone in their group have there.
type zoneSet struct {
	rtype, name string
	made        *link.RecordSet // nil for the other two
	ttl         uint32
	lines       []string
	endpoints   []string // of a view: their names
}

// key orders sets by type and name.
func (s *zoneSet) key() string { return strings.ToLower(s.rtype) + "/" + s.name }

func madeSet(r *link.RecordSet) *zoneSet {
	return &zoneSet{rtype: r.Type, name: r.Name, made: r, ttl: r.TTL, lines: r.Data}
}

// viewTTL is the time to live of what endpoints have in a zone, as Azure has it. DNS answers with the one
// of its own settings.
const viewTTL = 10

// setAt returns the record set of a type and name in a zone, nil where there is none.
func setAt(s *link.Snapshot, z *link.PrivateZone, rtype, name string) *zoneSet {
	if v := viewAt(s, z, rtype, name); v != nil {
		return v
	}
	if r := s.RecordSet(z.ID, rtype, name); r != nil {
		return madeSet(r)
	}
	if rtype == "SOA" && name == link.Apex {
		return madeSet(z.SOA()) // as DNS answers it
	}
	return nil
}

// viewAt returns the addresses that live endpoints have at a name, nil where there are none.
func viewAt(s *link.Snapshot, z *link.PrivateZone, rtype, name string) *zoneSet {
	if rtype != "A" && rtype != "AAAA" {
		return nil
	}
	var v *zoneSet
	for e := range s.Grouped(z.ID, name) {
		v = v.with(rtype, name, e)
	}
	return v
}

// with adds the address of an endpoint to a view, which may be nil, if it is of the type and live.
func (s *zoneSet) with(rtype, name string, e *link.Endpoint) *zoneSet {
	if !e.Connection.Live() || e.Address.Is4() != (rtype == "A") {
		return s
	}
	if s == nil {
		s = &zoneSet{rtype: rtype, name: name, ttl: viewTTL}
	}
	f := facet{Name: e.ID.Last()}
	readFacet(e.API, &f)
	s.lines, s.endpoints = append(s.lines, e.Address.String()), append(s.endpoints, f.Name)
	return s
}

// setsOf returns the record sets of a zone of a type, "" for all, in order of type and name.
func setsOf(s *link.Snapshot, z *link.PrivateZone, rtype string) []*zoneSet {
	var all []*zoneSet
	views := map[string]*zoneSet{}
	for _, of := range []string{"A", "AAAA"} {
		if rtype != "" && rtype != of {
			continue
		}
		for name, e := range s.GroupedIn(z.ID) {
			key := of + " " + name
			if v := views[key].with(of, name, e); v != nil {
				views[key] = v
			}
		}
	}
	for _, v := range views {
		all = append(all, v)
	}
	for r := range s.RecordSets(z.ID, rtype) {
		if views[r.Type+" "+r.Name] == nil {
			all = append(all, madeSet(r))
		}
	}
	if (rtype == "" || rtype == "SOA") && s.RecordSet(z.ID, "SOA", link.Apex) == nil {
		all = append(all, setAt(s, z, "SOA", link.Apex))
	}
	slices.SortFunc(all, func(a, b *zoneSet) int { return strings.Compare(a.key(), b.key()) })
	return all
}

// countSets returns the number of record sets of a zone.
func countSets(s *link.Snapshot, z *link.PrivateZone) int {
	n := s.CountRecordSets(z.ID)
	if s.RecordSet(z.ID, "SOA", link.Apex) == nil {
		n++
	}
	seen := map[string]bool{}
	for name, e := range s.GroupedIn(z.ID) {
		rtype := "A"
		if e.Address.Is6() {
			rtype = "AAAA"
		}
		if e.Connection.Live() && !seen[rtype+name] && s.RecordSet(z.ID, rtype, name) == nil {
			seen[rtype+name] = true
			n++
		}
	}
	return n
}
