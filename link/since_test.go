package link

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// TestSince: whatever ways lead from one snapshot to another, who read what has changed is found, and each service that is new or has.
func TestSince(t *testing.T) {
	t.Parallel()
	type seen struct {
		look
		was any
	}
	touched, idle := 0, 0
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 3))
		s := Empty()
		past := []*Snapshot{s}
		var all [60]seen
		var watchers Watchers[int]
		watch := func(i int, l look) {
			trace := &Trace{Most: 200}
			all[i] = seen{l, l.at(s.Traced(trace))}
			watchers.Watch(i, trace)
		}
		for i := range all {
			watch(i, randomLook(r))
		}
		for step := range 200 {
			from := s
			if r.IntN(20) == 0 {
				from = past[r.IntN(len(past))] // another way from here
			}
			next, _, err := from.Apply(noon, randomChange(r, from))
			if err != nil {
				continue
			}
			if r.IntN(30) == 0 {
				if next, err = Load(next.Revision(), next.Objects()); err != nil {
					t.Fatal(err)
				}
			}
			since := next.Since(s)
			found := map[int]bool{}
			for i := range watchers.Touched(since) {
				found[i] = true
			}
			for i, l := range all {
				if found[i] {
					touched++
				} else if idle++; !reflect.DeepEqual(l.at(next), l.was) {
					t.Fatalf("seed %d, step %d: %s was %v, is %v, and nobody is told", seed, step, l.name, l.was, l.at(next))
				}
			}
			services := slices.Collect(since.Services())
			for v := range next.Services() {
				if s.Service(v.ID) != v && !slices.Contains(services, v.ID) {
					t.Fatalf("seed %d, step %d: service %s has changed, and nobody is told", seed, step, v.ID)
				}
			}
			s = next
			past = append(past, s)
			for i := range all {
				switch {
				case found[i] && r.IntN(4) == 0:
					watch(i, randomLook(r))
				case found[i]:
					watch(i, all[i].look)
				}
			}
		}
		for i := range all {
			watchers.Leave(i)
		}
		if len(watchers.of)+len(watchers.at)+len(watchers.whole) > 0 {
			t.Error("something is left of those that have left")
		}
	}
	if idle < touched {
		t.Errorf("%d are told, %d aren't", touched, idle)
	}
}

// TestSinceIsSmall: of many services, a change touches those that it is about, but for a few with a place in common.
func TestSinceIsSmall(t *testing.T) {
	t.Parallel()
	s := must(t, Empty(), PutNetwork{network("n0", "10.1.0.0/16", "10.200.0.0/16")})
	for i := range 500 {
		s = must(t, s, PutService{Service: service(ID(fmt.Sprint("s", i)), Name(fmt.Sprint("name", i)), Anyone)})
	}
	next := must(t, s, endpoint("e", "n0", "s7"))
	var watchers Watchers[ID]
	for v := range s.Services() {
		trace := new(Trace)
		c := s.Traced(trace)
		c.Refuses(c.Service(v.ID), v.Targets[0].Addr, Ground{})
		for range c.EndpointsOf(v.ID) {
			t.Fatal("there is none")
		}
		watchers.Watch(v.ID, trace)
	}
	told := maps.Collect(func(yield func(ID, bool) bool) {
		for id := range watchers.Touched(next.Since(s)) {
			if !yield(id, true) {
				return
			}
		}
	})
	if !told["s7"] || len(told) > 10 {
		t.Errorf("told are %v", told)
	}
	if services := slices.Collect(must(t, next, PutService{Service: service("new", "new", Anyone)}).Since(next).Services()); !slices.Contains(services, "new") || len(services) > 10 {
		t.Errorf("new or changed are %v", services)
	}
	if slices.Collect(s.Since(s).Services()) != nil || len(slices.Collect(s.Since(nil).Services())) != 500 {
		t.Error("since itself, and since nothing")
	}
}

// TestIsSuffix: names of services and what they are right below, and no more of either than that.
func TestIsSuffix(t *testing.T) {
	t.Parallel()
	v := service("s", "one", Anyone)
	v.Names = []ResourceName{{Public: "a.b.example.com"}, {Public: "*.w.example.com"}}
	s := must(t, Empty(), PutService{Service: v})
	for name, want := range map[string]bool{
		"a.b.example.com": true, "b.example.com": true, "w.example.com": true, "*.w.example.com": false, "example.com": false, "com": false, "": false, "x.a.b.example.com": false,
	} {
		if s.IsSuffix([]byte(name)) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	if must(t, s, DeleteService{"s", false}).IsSuffix([]byte("b.example.com")) {
		t.Error("it stays when the service is gone")
	}
}
