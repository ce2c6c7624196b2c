package proxy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

// manyServices is a snapshot of services of UDP, which aren't probed, each with a live connection and a name that leads to targets.
func manyServices(t testing.TB, services int, edit ...func(*link.Service)) *link.Snapshot {
	t.Helper()
	changes := []link.Change{link.PutNetwork{Network: link.Network{
		ID: "corp", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, Pools: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")}, Egress: []string{"*"},
	}}}
	for i := range services {
		id := link.ID(fmt.Sprint("s", i))
		changes = append(changes,
			service(id, uint16(1+i), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 7), ofUDP, func(s *link.Service) {
				s.Names = []link.ResourceName{{Public: link.Name(fmt.Sprintf("n%d.example", i))}}
				for _, e := range edit {
					e(s)
				}
			}),
			endpoint(link.ID(fmt.Sprint("e", i)), id, netip.AddrFrom4([4]byte{10, 77, byte(i / 250), byte(i%250 + 1)}).String()))
	}
	s, _, err := link.Empty().Apply(time.Unix(1_800_000_000, 0), changes...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// after returns a snapshot after changes.
func after(t testing.TB, s *link.Snapshot, changes ...link.Change) *link.Snapshot {
	t.Helper()
	next, _, err := s.Apply(time.Unix(1_800_000_000, 0), changes...)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// unstarted returns a data plane that listens on nothing.
func unstarted(t testing.TB) *Proxy {
	p := New(Config{})
	t.Cleanup(func() { p.Close() })
	return p
}

// A change costs what it touches: of many services, what is known of the others is left as it is.
func TestFollowTouches(t *testing.T) {
	t.Parallel()
	s := manyServices(t, 400)
	h := unstarted(t).health
	h.follow(s)
	suspend := link.Suspend{Endpoint: "e7", LinkID: s.Endpoint("e7").Connection.LinkID}
	for _, change := range []struct {
		name string
		of   []link.Change
		id   link.ID
	}{
		{"a connection is suspended", []link.Change{suspend}, "s7"},
		{"a service changes", []link.Change{service("s9", 10, netip.MustParseAddrPort("10.10.0.1:7"), ofUDP)}, "s9"},
		{"a service goes", []link.Change{link.DeleteEndpoint{ID: "e5"}, link.DeleteService{ID: "s5", Force: true}}, "s5"},
		{"a service comes", []link.Change{service("new", 1000, netip.MustParseAddrPort("10.10.0.2:7"), ofUDP), endpoint("en", "new", "10.77.200.1")}, "new"},
	} {
		was := maps.Collect(h.view.Load().services.all())
		s = after(t, s, change.of...)
		h.follow(s)
		now := maps.Collect(h.view.Load().services.all())
		var touched []link.ID
		for id := range now {
			if was[id] != now[id] {
				touched = append(touched, id)
			}
		}
		if was[change.id] == now[change.id] || len(touched) > 10 {
			t.Errorf("%s: %v are touched", change.name, touched)
		}
	}
}

// randomTurn is a change of what a small world of [TestFollowIsWhole] has; it may be refused.
func randomTurn(r *rand.Rand, s *link.Snapshot) link.Change {
	sid, eid := link.ID(fmt.Sprint("s", r.IntN(6))), link.ID(fmt.Sprint("e", r.IntN(10)))
	at := func() netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(r.IntN(4)), 1}), 7)
	}
	tenant := []string{"", "t"}[r.IntN(2)]
	switch r.IntN(8) {
	case 0, 1:
		return service(sid, 7001, at(), ofUDP, func(v *link.Service) {
			if two := at(); two != v.Targets[0].Addr {
				v.Targets = append(v.Targets, link.Target{Addr: two})
				v.Weights = map[netip.AddrPort]int{two: r.IntN(2)}
			}
			v.Tenant = tenant
			if r.IntN(2) == 0 {
				v.TargetNames = []link.NamePort{{Name: link.Name(fmt.Sprintf("t%d.example", r.IntN(3))), Port: 7}}
			}
			if r.IntN(2) == 0 {
				v.Sites = link.Sites{{Site: "paris", Prefix: netip.MustParsePrefix("10.9.0.0/23")}}
			}
		})
	case 2:
		return link.DeleteService{ID: sid, Force: true}
	case 3, 4:
		return endpoint(eid, sid, fmt.Sprintf("10.77.0.%d", 1+r.IntN(200)))
	case 5:
		if e := s.Endpoint(eid); e != nil && r.IntN(2) == 0 {
			return link.Suspend{Endpoint: eid, LinkID: e.Connection.LinkID}
		}
		return link.DeleteEndpoint{ID: eid}
	case 6:
		return link.DeleteNetwork{ID: "other"}
	}
	return link.PutNetwork{Network: link.Network{ // around some of the targets
		ID: "other", Tenant: []string{"", "u"}[r.IntN(2)], Prefixes: []netip.Prefix{netip.PrefixFrom(at().Addr(), 24).Masked()},
	}}
}

// Whatever has changed, what is known is what it would be if all of it was found out anew.
func TestFollowIsWhole(t *testing.T) {
	t.Parallel()
	type summary struct {
		Targets map[netip.AddrPort]bool // drained
		Sites   []string
		Names   []link.NamePort
	}
	state := func(p *Proxy, s *link.Snapshot) map[link.ID]summary {
		all := make(map[link.ID]summary)
		for id, one := range p.health.view.Load().services.all() {
			if !hasLive(s, id) {
				if len(one.targets)+len(one.names) > 0 {
					t.Errorf("service %s has targets and no live connection", id)
				}
				continue
			}
			sum := summary{Targets: map[netip.AddrPort]bool{}, Sites: slices.Sorted(maps.Keys(one.sites)), Names: one.names}
			for addr, target := range one.targets {
				sum.Targets[addr] = target.drained.Load()
			}
			all[id] = sum
		}
		return all
	}
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 5))
		p, s := unstarted(t), manyServices(t, 0)
		for step := range 150 {
			for range 1 + r.IntN(3) {
				if next, _, err := s.Apply(time.Unix(1_800_000_000, 0), randomTurn(r, s)); err == nil {
					s = next
				}
			}
			p.health.follow(s)
			fresh := New(Config{})
			fresh.health.follow(s)
			got, want := state(p, s), state(fresh, s)
			fresh.Close()
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d, step %d: got %v, want %v", seed, step, got, want)
			}
			p.health.mu.Lock()
			for id, one := range got {
				for _, n := range one.Names {
					if !p.health.named.of[n.Name][id] {
						t.Errorf("seed %d, step %d: name %s of service %s isn't looked up", seed, step, n.Name, id)
					}
				}
			}
			for name, of := range p.health.named.of {
				for id := range of {
					if !slices.ContainsFunc(got[id].Names, func(n link.NamePort) bool { return n.Name == name }) {
						t.Errorf("seed %d, step %d: name %s is looked up for service %s", seed, step, name, id)
					}
				}
			}
			p.health.mu.Unlock()
		}
	}
}

// What this node itself listens on changes what may be a target, with the snapshot as it is.
func TestFollowGround(t *testing.T) {
	t.Parallel()
	s := manyServices(t, 3)
	p := unstarted(t)
	count := func() int { return len(p.health.of("s1").targets) }
	p.health.follow(s)
	if count() != 1 {
		t.Fatal("no target")
	}
	p.settings.Store(&Settings{Own: []netip.AddrPort{netip.MustParseAddrPort("10.9.0.1:7")}})
	if p.health.follow(s); count() != 0 {
		t.Error("a target where this node listens")
	}
	p.settings.Store(&Settings{})
	if p.health.follow(s); count() != 1 {
		t.Error("no target again")
	}
}

// BenchmarkFollow suspends one connection and has it live again, among many services.
func BenchmarkFollow(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			s := manyServices(b, n)
			two := [2]*link.Snapshot{s, after(b, s, link.Suspend{Endpoint: "e7", LinkID: s.Endpoint("e7").Connection.LinkID})}
			h := unstarted(b).health
			h.follow(s)
			for i := 1; b.Loop(); i++ {
				h.follow(two[i%2])
			}
		})
	}
}
