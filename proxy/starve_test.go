package proxy

import (
	"net/netip"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

// D22: however many targets of others are silent, a service is published soon after it answers.
func TestSilentTargetsDelayNobody(t *testing.T) {
	deaf := deafOn(t, [4]byte{})
	hole := service("hole", 7002, deaf, func(s *link.Service) {
		s.Targets = nil
		for i := range 512 { // every address of the loopback network leads to the listener
			s.Targets = append(s.Targets, link.Target{
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 9, byte(i >> 8), byte(i)}), deaf.Port())})
		}
	})
	w := newWorld(t, Settings{ProbeInterval: 8 * time.Second}, hole, endpoint("h", "hole", nextAddr(t)))
	eventually(t, "the silent targets hold all that they may", func() bool { return len(w.proxy.health.silent) >= probesOfOne })
	began := time.Now()
	w.apply(service("svc", 7001, echo(t)), endpoint("e", "svc", nextAddr(t)))
	eventually(t, "it is published", func() bool { return w.proxy.Published("svc") })
	took := time.Since(began)
	t.Logf("published after %v", took)
	if took > 4*time.Second { // milliseconds; without lanes 8 s and more
		t.Errorf("published after %v", took)
	}
}
