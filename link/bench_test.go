package link

import (
	"fmt"
	"iter"
	"slices"
	"testing"
)

// large returns a snapshot of n endpoints of n/100 services in 10 networks.
func large(t testing.TB, n int) *Snapshot {
	t.Helper()
	s, err := Load(1, largeObjects(n))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func largeObjects(n int) iter.Seq[Object] {
	return func(yield func(Object) bool) {
		for i := range 10 {
			net := network(ID(fmt.Sprint("n", i)), fmt.Sprintf("10.%d.0.0/16", i), fmt.Sprintf("10.%d.0.0/16", 100+i))
			if !yield(&net) {
				return
			}
		}
		for i := range n / 10 {
			v := service(ID(fmt.Sprint("s", i)), Name(fmt.Sprint("db", i)), Anyone)
			if !yield(&v) {
				return
			}
		}
		for i := range n {
			j := i / 10
			e := at(ID(fmt.Sprint("e", i)), ID(fmt.Sprint("n", i%10)), ID(fmt.Sprint("s", j)), fmt.Sprintf("10.%d.%d.%d", 100+i%10, (j+1)/256, (j+1)%256)).Endpoint
			e.Connection = Connection{LinkID: LinkID(i + 1), State: Approved, Asked: 1, RequestedAt: noon}
			if !yield(&e) {
				return
			}
		}
	}
}

// warmed gives out one address, so that what follows doesn't look through those of the load again.
func warmed(b *testing.B, s *Snapshot) *Snapshot {
	next, _, err := s.Apply(noon, endpoint("warm", "n0", "s0"))
	if err != nil {
		b.Fatal(err)
	}
	return next
}

// BenchmarkApply measures one change: its cost must not grow with the number of endpoints.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000, 100_000} {
		s := warmed(b, large(b, n))
		e := s.Endpoint("e0")
		for name, change := range map[string]Change{
			"decide":  Decide{Endpoint: e.ID, LinkID: e.Connection.LinkID, State: Rejected, Decision: Decision{Actor: "bob"}},
			"request": endpoint("new", "n0", "s1"),
			"delete":  DeleteEndpoint{e.ID},
		} {
			b.Run(fmt.Sprintf("%s/endpoints=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, _, err := s.Apply(noon, change); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkOwner measures what DNS asks for each query.
func BenchmarkOwner(b *testing.B) {
	s := large(b, 100_000)
	name := []byte("db4711.privatelink.database.windows.net")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := s.Owner("n1", name); !ok {
			b.Fatal("no owner")
		}
	}
}

// BenchmarkManyOfOne measures a change of the names of a service with all its endpoints in one network.
func BenchmarkManyOfOne(b *testing.B) {
	s, _, err := Empty().Apply(noon, PutNetwork{network("corp", "10.1.0.0/16", "10.200.0.0/16")}, PutService{Service: service("sql", "one", Anyone)})
	if err != nil {
		b.Fatal(err)
	}
	const n = 16_000
	var changes []Change
	for i := range n {
		changes = append(changes, endpoint(ID(fmt.Sprint("e", i)), "corp", "sql"))
	}
	if s, _, err = s.Apply(noon, changes...); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := s.Apply(noon, PutService{Service: service("sql", "two", Anyone)}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNetworkOf measures the choice of the view.
func BenchmarkNetworkOf(b *testing.B) {
	s := large(b, 1000)
	a := prefixes("10.7.1.2/32")[0].Addr()
	b.ReportAllocs()
	for b.Loop() {
		if s.NetworkOf(a) == nil {
			b.Fatal("no network")
		}
	}
}

// BenchmarkLoad measures the start of a node with 100,000 endpoints.
func BenchmarkLoad(b *testing.B) {
	objects := slices.Collect(largeObjects(100_000))
	for b.Loop() {
		if _, err := Load(1, slices.Values(objects)); err != nil {
			b.Fatal(err)
		}
	}
}

func TestReadersDoNotAllocate(t *testing.T) {
	s := large(t, 1000)
	a := prefixes("10.7.1.2/32")[0].Addr()
	owned, pattern, missing := []byte("db47.privatelink.database.windows.net"), []byte("a.b.c"), []byte("nobody.example.com")
	if n := testing.AllocsPerRun(100, func() {
		s.NetworkOf(a)
		s.EndpointAt(a)
		s.Owner("n1", owned)
		s.Owner("n1", pattern)
		s.Owner("n1", missing)
		s.HasZone("n1", owned)
	}); n > 0 {
		t.Errorf("reading allocates %v times", n)
	}
}

// BenchmarkDeclare measures a declaration of 10,000 endpoints: as at the first start, at each start after it, and after a line
// was put in at the head of the Corefile; and how the Corefile's objects are tried one by one while it is read.
func BenchmarkDeclare(b *testing.B) {
	declaration := func(line int) Declare {
		d := Declare{Declaration: "test"}
		origin := func() Origin { line += 5; return Origin{Declaration: "test", File: "Corefile", Line: line} }
		for o := range largeObjects(10_000) {
			switch o := o.(type) {
			case *Network:
				n := *o
				n.Origin = origin()
				d.Networks = append(d.Networks, n)
			case *Service:
				v := *o
				v.Origin = origin()
				d.Services = append(d.Services, v)
			case *Endpoint:
				e := *o
				e.Connection, e.Origin = Connection{}, origin()
				d.Endpoints = append(d.Endpoints, DeclaredEndpoint{Endpoint: e})
			}
		}
		return d
	}
	first := declaration(1)
	known, _, err := Empty().Apply(noon, first)
	if err != nil {
		b.Fatal(err)
	}
	for _, bb := range []struct {
		name string
		base *Snapshot
		now  Declare
	}{
		{"first", Empty(), first},
		{"again", known, declaration(1)},
		{"a line more", known, declaration(2)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := bb.base.Apply(noon, bb.now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("tried", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var trial Trial
			try := func(c Change) {
				if err := trial.Try(noon, c); err != nil {
					b.Fatal(err)
				}
			}
			for _, n := range first.Networks {
				try(PutNetwork{n})
			}
			for _, v := range first.Services {
				try(PutService{Service: v})
			}
			for _, e := range first.Endpoints {
				try(PutEndpoint{Endpoint: e.Endpoint})
			}
		}
	})
}
