package link

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

// look reads something of a snapshot, as DNS does, and says what it was.
type look struct {
	name string
	at   func(s *Snapshot) any
}

// objects collects what a snapshot yields.
func objects[T any](seq iter.Seq[T]) any { return slices.Collect(seq) }

type pair [2]any

// randomLook is one of all that DNS reads, about something that random changes are about.
func randomLook(r *rand.Rand) look {
	network, service := ID(fmt.Sprint("n", r.IntN(4))), ID(fmt.Sprint("s", r.IntN(4)))
	name := []string{
		"name%d.database.windows.net", "name%d.privatelink.database.windows.net", "db%d.example.com", "%d.privatelink.database.windows.net",
		"privatelink.database.windows.net", "www.corp.example", "database.windows.net",
	}[r.IntN(7)]
	if name[0] != 'p' && name[0] != 'w' && name[0] != 'd' || name[:2] == "db" {
		name = fmt.Sprintf(name, r.IntN(4))
	}
	zone := []ID{corpZone, "sub/rg/privatelink.database.windows.net", "sub/rg/a.example", "sub/rg/b.a.example"}[r.IntN(4)]
	relative := []string{Apex, "www", "a", "a.b", "b", "*", "name0", "name1", "*.b"}[r.IntN(9)]
	address := netip.MustParseAddr(fmt.Sprintf("10.10%d.0.%d", r.IntN(5), r.IntN(8)))
	all := []look{
		{"network", func(s *Snapshot) any { return s.Network(network) }},
		{"sites", func(s *Snapshot) any { return s.SitesOf(network) }},
		{"service", func(s *Snapshot) any { return s.Service(service) }},
		{"address " + address.String(), func(s *Snapshot) any { return s.EndpointAt(address) }},
		{"endpoints", func(s *Snapshot) any { return objects(s.EndpointsFor(network, service)) }},
		{"endpoints in", func(s *Snapshot) any { return objects(s.EndpointsIn(network)) }},
		{"owner of " + name, func(s *Snapshot) any {
			owner, private, ok := s.Owner(network, []byte(name))
			owner.endpoints = 0
			return [3]any{owner, private, ok}
		}},
		{"below " + name, func(s *Snapshot) any { return s.OwnsBelow(network, []byte(name)) }},
		{"links", func(s *Snapshot) any { return s.HasLinks(network) }},
		{"linked " + name, func(s *Snapshot) any {
			z, redirect, _ := s.LinkedZone(network, []byte(name))
			return pair{z, redirect}
		}},
		{"zone", func(s *Snapshot) any { return s.Zone(zone) }},
		{"record", func(s *Snapshot) any { return s.RecordSet(zone, "A", relative) }},
		{"records at " + relative, func(s *Snapshot) any { return objects(s.RecordSetsAt(zone, relative)) }},
		{"exists " + relative, func(s *Snapshot) any { return s.ExistsIn(zone, relative) }},
		{"grouped " + relative, func(s *Snapshot) any { return objects(s.Grouped(zone, relative)) }},
		{"alias of " + name, func(s *Snapshot) any { private, ok := s.GroupedAlias(Name(name)); return pair{private, ok} }},
		{"endpoints of", func(s *Snapshot) any { return objects(s.EndpointsOf(service)) }},
		{"backend", func(s *Snapshot) any { return s.BackendOfAnother("else", netip.MustParseAddr("10.20.0.4")) }},
		{"target " + address.String(), func(s *Snapshot) any {
			return pair{s.Refuses(&Service{}, netip.AddrPortFrom(address, 80), Ground{}), s.Refuses(&Service{Tenant: "t"}, netip.MustParseAddrPort("10.1.0.9:80"), Ground{})}
		}},
		// What isn't traced is everything.
		{"network of", func(s *Snapshot) any { return s.NetworkOf(netip.MustParseAddr("10.1.0.9")) }},
		{"count", func(s *Snapshot) any { return s.CountIn(network) }},
		{"approved", func(s *Snapshot) any { return s.Approved(service) }},
		{"all", func(s *Snapshot) any { return objects(s.Services()) }},
	}
	return all[r.IntN(len(all))]
}

// TestTrace: whatever changes, and whatever ways lead from one snapshot to another, what was read of one is in the other if that says so.
func TestTrace(t *testing.T) {
	t.Parallel()
	type seen struct {
		look
		reads Reads
		was   any
	}
	kept, void, missed := map[string]int{}, 0, 0 // void: does not hold any more, missed: though it would
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := Empty()
		past := []*Snapshot{s}
		var all []seen
		for step := range 300 {
			for range 4 {
				l := randomLook(r)
				trace := new(Trace)
				was := l.at(s.Traced(trace))
				if now := l.at(s); !reflect.DeepEqual(was, now) {
					t.Fatalf("seed %d, step %d: %s is %v traced, and %v", seed, step, l.name, was, now)
				}
				if reads, ok := trace.Reads(); !ok {
					continue
				} else if len(all) < 100 {
					all = append(all, seen{l, reads, was})
				} else {
					all[r.IntN(len(all))] = seen{l, reads, was}
				}
			}
			var change Change
			switch n := s.Network(ID(fmt.Sprint("n", r.IntN(4)))); {
			case n != nil && r.IntN(6) == 0:
				c := *n
				if r.IntN(2) == 0 {
					c.Sites = Sites{{fmt.Sprint("paris", r.IntN(2)), netip.MustParsePrefix("10.1.0.0/24")}}
				} else {
					c.Egress = []string{fmt.Sprint("s", r.IntN(4))}
				}
				change = PutNetwork{c}
			default:
				change = randomChange(r, s)
			}
			if r.IntN(40) == 0 {
				s = past[r.IntN(len(past))] // another way from here
			}
			next, _, err := s.Apply(noon, change)
			if err != nil {
				continue
			}
			if r.IntN(5) == 0 { // as another node has it
				put, gone := difference(s, next)
				if next, err = s.Follow(next.Revision(), put, gone); err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, step, err)
				}
			}
			s = next
			past = append(past, s)
			for _, l := range all {
				same := reflect.DeepEqual(l.at(s), l.was)
				switch {
				case !s.Has(l.reads):
					void++
					if same {
						missed++
					}
				case !same:
					t.Fatalf("seed %d, step %d, %T: %s was %v and is %v", seed, step, change, l.name, l.was, l.at(s))
				default:
					kept[l.name]++
				}
			}
		}
	}
	all := 0
	for _, n := range kept {
		all += n
	}
	if all < missed || void == 0 {
		t.Errorf("%d readings still hold, %d don't, of which %d would", all, void, missed)
	}
	t.Logf("%d readings still hold, %d don't, of which %d would", all, void, missed)
}

// difference returns what leads from one snapshot to another.
func difference(a, b *Snapshot) (put []Object, gone []Ref) {
	had := map[Ref]Object{}
	for o := range a.Objects() {
		had[Ref{o.Kind(), o.Key()}] = o
	}
	for o := range b.Objects() {
		k := Ref{o.Kind(), o.Key()}
		if old := had[k]; old == nil || !reflect.DeepEqual(old, o) {
			put = append(put, o)
		}
		delete(had, k)
	}
	for k := range had {
		gone = append(gone, k)
	}
	return put, gone
}

// TestTraceLoad: nothing is known of a snapshot that was loaded, nor of one after a change of all.
func TestTraceLoad(t *testing.T) {
	t.Parallel()
	s := must(t, Empty(), PutNetwork{network("n0", "10.1.0.0/16", "10.200.0.0/24")}, PutService{Service: service("s0", "one", Anyone)}, endpoint("e0", "n0", "s0"))
	trace := new(Trace)
	if s.Traced(trace).Service("s0") == nil || !s.Traced(trace).HasZone("n0", []byte("privatelink.database.windows.net")) {
		t.Fatal("nothing there")
	}
	reads, ok := trace.Reads()
	if !ok || !s.Has(reads) {
		t.Fatal("not as it was read")
	}
	loaded, err := Load(s.Revision(), s.Objects())
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Has(reads) {
		t.Error("what was loaded has what was read before")
	}
	if must(t, s, Restore{Objects: slices.Collect(s.Objects())}, PutService{Service: service("s1", "two", Anyone)}).Has(reads) {
		t.Error("what was restored has what was read before")
	}
	many := *s
	of := changes{stamp: stamps.Add(1)}
	for i := range mostMarked + 1 {
		of.note(ofServices, fmt.Appendf(nil, "m%d", i))
	}
	if many.marks = of.marked(s.marks); many.Has(reads) {
		t.Error("a change of very much leaves what was read")
	}
	left := false
	for i := range 4 { // one may have a place in common with what was read
		next := must(t, s, PutService{Service: service("s1", Name(fmt.Sprint("other", i)), Anyone)}, endpoint(ID(fmt.Sprint("other", i)), "n0", "s1"))
		left = left || next.Has(reads)
	}
	if !left {
		t.Error("no change of something else leaves what was read")
	}
	if must(t, s, Suspend{"e0", s.Endpoint("e0").Connection.LinkID, Decision{}}).Has(reads) {
		t.Error("the zone has gone, and what was read is said to be there")
	}
}

// TestTraceChanges: what was read of private zones isn't there any more when it has changed, whether it was found or not.
func TestTraceChanges(t *testing.T) {
	t.Parallel()
	const sqlZone ID = "sub/rg/privatelink.database.windows.net"
	s := must(t, Empty(),
		PutNetwork{network("corp", "10.1.0.0/16", "10.200.0.0/24")}, PutNetwork{network("lab", "10.2.0.0/16", "10.201.0.0/24")},
		PutService{Service: service("sql", "one", Anyone)}, PutService{Service: service("new", "two", Anyone)},
		zone(corpZone, "corp"), zone(sqlZone, "lab"), record(corpZone, "A", "www", "10.20.0.7"), record(corpZone, "A", "a.b.c", "10.20.0.8"),
		inZones("e", "corp", "sql", sqlZone),
	)
	for _, tc := range []struct {
		name   string
		at     func(s *Snapshot) any
		change Change
	}{
		{"record set", func(s *Snapshot) any { return s.RecordSet(corpZone, "A", "www") }, record(corpZone, "A", "www", "10.20.0.9")},
		{"record set made", func(s *Snapshot) any { return s.RecordSet(corpZone, "TXT", "www") }, record(corpZone, "TXT", "www", `"w"`)},
		{"another at a name", func(s *Snapshot) any { return objects(s.RecordSetsAt(corpZone, "www")) }, record(corpZone, "TXT", "www", `"w"`)},
		{"name made", func(s *Snapshot) any { return s.ExistsIn(corpZone, "x") }, record(corpZone, "A", "y.x", "10.20.0.9")},
		{"name gone", func(s *Snapshot) any { return s.ExistsIn(corpZone, "c") }, DeleteRecordSet{Zone: corpZone, Type: "A", Name: "a.b.c"}},
		{"link gone", func(s *Snapshot) any { return s.HasLinks("lab") }, zone(sqlZone)},
		{"zone of a name, the last", func(s *Snapshot) any {
			z, _, _ := s.LinkedZone("lab", []byte("x.privatelink.database.windows.net"))
			return z != nil
		}, zone(sqlZone)},
		{"zone of a name", func(s *Snapshot) any {
			z, _, _ := s.LinkedZone("lab", []byte("www.corp.example"))
			return z != nil
		}, zone(corpZone, "corp", "lab")},
		{"endpoint of a name", func(s *Snapshot) any { return len(slices.Collect(s.Grouped(sqlZone, "one"))) }, DeleteEndpoint{"e"}},
		{"endpoint of a name that wasn't", func(s *Snapshot) any { return len(slices.Collect(s.Grouped(sqlZone, "two"))) }, inZones("e2", "corp", "new", sqlZone)},
		{"endpoint suspended", func(s *Snapshot) any { return slices.Collect(s.Grouped(sqlZone, "one"))[0].Connection.Live() }, Suspend{"e", s.Endpoint("e").Connection.LinkID, Decision{}}},
		{"alias gone", func(s *Snapshot) any { _, ok := s.GroupedAlias("one.database.windows.net"); return ok }, DeleteEndpoint{"e"}},
		{"alias made", func(s *Snapshot) any { _, ok := s.GroupedAlias("two.database.windows.net"); return ok }, inZones("e2", "corp", "new", sqlZone)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			trace := new(Trace)
			was := tc.at(s.Traced(trace))
			reads, ok := trace.Reads()
			next := must(t, s, tc.change)
			if reflect.DeepEqual(was, tc.at(next)) {
				t.Fatalf("still %v", was)
			}
			if ok && next.Has(reads) {
				t.Errorf("was %v, is %v, and is said to be the same", was, tc.at(next))
			}
		})
	}
}

// BenchmarkHas measures what is asked for all answers of 100,000 names after a change of one connection, and how many it takes with it
// for a place in common.
func BenchmarkHas(b *testing.B) {
	const n = 100_000
	s := warmed(b, large(b, n))
	all := make([]Reads, 0, n)
	for i := range n {
		trace := new(Trace)
		c, network := s.Traced(trace), ID(fmt.Sprint("n", i%10))
		owner, _, ok := c.Owner(network, fmt.Appendf(nil, "db%d.privatelink.database.windows.net", i/10))
		if !ok || len(slices.Collect(c.EndpointsFor(network, owner.Service))) == 0 || c.Service(owner.Service) == nil {
			b.Fatal("no endpoint")
		}
		c.SitesOf(network)
		reads, ok := trace.Reads()
		if !ok {
			b.Fatal("not all was noted")
		}
		all = append(all, reads)
	}
	e := s.Endpoint("e4711")
	lost, asked := 0, 0
	for b.Loop() {
		b.StopTimer()
		next, _, err := s.Apply(noon, Decide{Endpoint: e.ID, LinkID: e.Connection.LinkID, State: Rejected, Decision: Decision{Actor: "bob"}})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		for _, reads := range all {
			if !next.Has(reads) {
				lost++
			}
		}
		asked += n
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(asked), "ns/answer")
	b.ReportMetric(float64(lost)/float64(asked)*n, "lost/change")
}
