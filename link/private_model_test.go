package link

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// verifyPrivate checks what a snapshot computes of private zones against loops over its objects.
func verifyPrivate(t testing.TB, s *Snapshot) {
	t.Helper()
	linked, atName, below, members, grouped, aliases := map[string]zoneLinked{}, map[string]bool{}, map[string]int{}, map[string]bool{}, map[string]bool{}, map[string]int{}
	exist := func(zone ID, name string) {
		for rest := name; rest != "" && name != Apex; _, rest, _ = strings.Cut(rest, ".") {
			below[string(zone)+"\x00"+rest]++
		}
	}
	sets := map[ID]int{}
	for z := range s.PrivateZones("") {
		for _, l := range z.Links {
			linked[string(l.Network)+"\x00"+string(z.Name)] = zoneLinked{z.ID, l.Redirect}
			if s.Network(l.Network) == nil {
				t.Errorf("zone %s is linked to %s, which isn't there", z.ID, l.Network)
			}
			if got, redirect, ok := s.LinkedZone(l.Network, []byte(z.Name)); !ok || got != z || redirect != l.Redirect {
				t.Errorf("network %s has %v as %s", l.Network, got, z.Name)
			}
		}
	}
	for r := range s.private.records.values(nil) {
		atName[string(r.Zone)+"\x00"+r.Name+"\x00"+r.Type] = true
		exist(r.Zone, r.Name)
		sets[r.Zone]++
		if s.Zone(r.Zone) == nil {
			t.Errorf("record set %s has no zone", r.Key())
		}
	}
	for z := range s.PrivateZones("") {
		if got := s.CountRecordSets(z.ID); got != sets[z.ID] {
			t.Errorf("zone %s counts %d record sets, want %d", z.ID, got, sets[z.ID])
		}
	}
	for e := range s.Endpoints() {
		v := s.Service(e.Service)
		if e.Zones == nil {
			continue
		}
		named := v != nil && e.Connection.State != Disconnected
		for _, c := range e.Zones.Configs {
			members[string(c.Zone)+"\x00"+string(e.ID)] = true
			if named {
				for _, name := range s.Zone(c.Zone).namesOf(v) {
					grouped[string(c.Zone)+"\x00"+name+"\x00"+string(e.ID)] = true
					if e.Connection.Live() {
						exist(c.Zone, name)
					}
				}
			}
		}
		if named {
			for _, n := range v.Names {
				if n.Private != "" {
					aliases[string(n.Public)+"\x00"+string(n.Private)]++
				}
			}
		}
	}
	compare(t, "linked", &s.private.linked, func(k string, v zoneLinked) bool { return linked[k] == v }, len(linked))
	compare(t, "atName", &s.private.atName, func(k string, r *RecordSet) bool { return atName[k] && s.RecordSet(r.Zone, r.Type, r.Name) == r }, len(atName))
	compare(t, "below", &s.private.below, func(k string, n int) bool { return below[k] == n }, len(below))
	compare(t, "members", &s.private.members, func(k string, e *Endpoint) bool { return members[k] && s.Endpoint(e.ID) == e }, len(members))
	compare(t, "grouped", &s.private.grouped, func(k string, e *Endpoint) bool { return grouped[k] && s.Endpoint(e.ID) == e }, len(grouped))
	compare(t, "aliases", &s.private.aliases, func(k string, n int) bool { return aliases[k] == n }, len(aliases))
}

// compare checks that a map has n entries, each of which is as it should be.
func compare[V any](t testing.TB, what string, r *sorted[V], right func(string, V) bool, n int) {
	t.Helper()
	for k, v := range r.all(nil) {
		if !right(string(k), v) {
			t.Errorf("%s %q = %v is wrong", what, k, v)
		}
		n--
	}
	if n != 0 {
		t.Errorf("%s lacks %d entries", what, n)
	}
}

// randomPrivate is a change of zones, record sets or documents, right or wrong.
func randomPrivate(r *rand.Rand) Change {
	zones := []ID{"sub/rg/privatelink.database.windows.net", "sub/rg/database.windows.net", "sub/rg/example.com", "sub2/rg/example.com"}
	id := zones[r.IntN(len(zones))]
	switch r.IntN(8) {
	case 0, 1:
		c := zone(id)
		for i := range r.IntN(3) {
			c.Zone.Links = append(c.Zone.Links, ZoneLink{Name: fmt.Sprint("l", i), Network: ID(fmt.Sprint("n", r.IntN(4))), Redirect: r.IntN(2) == 0})
		}
		return c
	case 2:
		return DeleteZone{id}
	case 3:
		return DeleteRecordSet{id, RecordTypes()[r.IntN(3)], []string{"@", "a", "b.a"}[r.IntN(3)]}
	case 4:
		return PutDocument{Document{Type: "group", ID: ID(fmt.Sprint("sub/rg", r.IntN(3))), Facet: Facet{UID: fmt.Sprint(r.IntN(3))}}}
	case 5:
		return DeleteDocument{"group", ID(fmt.Sprint("sub/rg", r.IntN(3)))}
	}
	data := map[string][]string{"A": {"10.0.0.1", "10.0.0.2"}, "AAAA": {"fd00::1"}, "CNAME": {"x.example.com."}}
	rtype := RecordTypes()[r.IntN(3)]
	set := record(id, rtype, []string{"@", "a", "b.a", "*", "*.a", "name1"}[r.IntN(6)])
	set.RecordSet.Data = data[rtype][:r.IntN(1+len(data[rtype]))]
	return set
}

// randomGroup is a zone group of one or two zones.
func randomGroup(r *rand.Rand) *ZoneGroup {
	zones := []ID{"sub/rg/privatelink.database.windows.net", "sub/rg/database.windows.net", "sub/rg/example.com"}
	r.Shuffle(len(zones), func(i, j int) { zones[i], zones[j] = zones[j], zones[i] })
	g := &ZoneGroup{Name: "default"}
	for i, z := range zones[:1+r.IntN(2)] {
		g.Configs = append(g.Configs, ZoneConfig{Name: fmt.Sprint("c", i), Zone: z})
	}
	return g
}

// BenchmarkRecordSet measures one change of a record set: its cost must not grow with the zone.
func BenchmarkRecordSet(b *testing.B) {
	for _, n := range []int{10, 1_000, 25_000} {
		objects := []Object{&PrivateZone{ID: corpZone, Name: "corp.example"}}
		for i := range n {
			objects = append(objects, &RecordSet{Zone: corpZone, Type: "A", Name: fmt.Sprint("host", i), TTL: 10, Data: []string{"10.0.0.1"}})
		}
		s, err := Load(1, slices.Values(objects))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint("sets=", n), func(b *testing.B) {
			for b.Loop() {
				if _, _, err := s.Apply(noon, record(corpZone, "A", "host7", "10.0.0.2")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
