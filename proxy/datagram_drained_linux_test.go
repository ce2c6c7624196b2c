package proxy

import (
	"net/netip"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// D22 D23: what is known of a service of UDP whose targets are drained is what is known of one of TCP, but that a target which may
// have flows counts as one that answers.
func TestDatagramsDrained(t *testing.T) {
	t.Parallel()
	one, other := netip.MustParseAddrPort("127.50.7.1:7"), netip.MustParseAddrPort("127.50.8.1:7")
	weights := func(of map[netip.AddrPort]int) func(*link.Service) {
		return func(s *link.Service) { s.Weights = of }
	}
	drained := weights(map[netip.AddrPort]int{one: 0, other: 0})
	named := func(s *link.Service) { s.Names = []link.ResourceName{{Public: "a.example.com"}} }
	check := func(t *testing.T, w *world, id link.ID, published, healthy bool) {
		t.Helper()
		if p, h := w.proxy.Published(id), w.proxy.Healthy(id); p != published || h != healthy {
			t.Errorf("published %v, healthy %v, want %v and %v", p, h, published, healthy)
		}
	}
	t.Run("D22 drained from the start", func(t *testing.T) {
		w := udpWorld(t, one, Settings{}, targetsOf(one, other), drained)
		if err := w.proxy.Probed(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, w, "svc", false, false)
		udpDial(t, w.first()).Write([]byte("x"))
		w.refusedUDP(policy.NoTarget, 1)
		w.apply(edited(w, weights(map[netip.AddrPort]int{one: 0}))...)
		check(t, w, "svc", true, true)
	})
	t.Run("D23 drained later", func(t *testing.T) {
		w := udpWorld(t, one, Settings{}, targetsOf(one, other))
		check(t, w, "svc", true, true)
		w.apply(edited(w, drained)...)
		check(t, w, "svc", true, false)
		w.apply(edited(w, weights(nil))...)
		check(t, w, "svc", true, true)
	})
	t.Run("at one site", func(t *testing.T) {
		w := udpWorld(t, one, Settings{}, targetsOf(one, other), weights(map[netip.AddrPort]int{one: 0}), func(s *link.Service) {
			s.Sites = link.Sites{{Site: "paris", Prefix: netip.MustParsePrefix("127.50.7.0/24")}, {Site: "lyon", Prefix: netip.MustParsePrefix("127.50.8.0/24")}}
		})
		if w.proxy.HealthyAt("svc", "paris") || !w.proxy.HealthyAt("svc", "lyon") || !w.proxy.HealthyAt("svc", "brest") {
			t.Error("the health of the sites isn't that of their targets")
		}
	})
	t.Run("D23 by the names of another service", func(t *testing.T) {
		w := udpWorld(t, one, Settings{}, named)
		addr := w.host()
		w.apply(link.DeleteEndpoint{ID: "e"}, link.DeleteService{ID: "svc", Force: true},
			service("new", 7001, one, ofUDP, drained, named), endpoint("e", "new", addr))
		check(t, w, "new", true, false)
	})
	t.Run("of TCP from now on", func(t *testing.T) {
		w := udpWorld(t, refusing(t), Settings{ProbeInterval: 50 * time.Millisecond}) // nobody is there
		w.apply(edited(w, func(s *link.Service) { s.Protocol = link.TCP })...)
		eventually(t, "it is probed", func() bool { return !w.proxy.Healthy("svc") })
		w.apply(edited(w, ofUDP)...)
		check(t, w, "svc", true, true)
	})
}
