package proxy

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/postern-link/postern/link"
)

// BenchmarkRenamed changes what is known of one name among those of 10,000 services, each with eight targets that are probed.
func BenchmarkRenamed(b *testing.B) {
	const services, targets = 10_000, 8
	h := unstarted(b).health
	v := &view{snapshot: manyServices(b, services, func(s *link.Service) {
		s.TargetNames = []link.NamePort{{Name: link.Name(fmt.Sprintf("n%d.example", s.Port-1)), Port: 443}}
	})}
	for s := range v.snapshot.Services() {
		one := &serviceHealth{set: h.early.set(s), published: new(atomic.Bool), prompt: newLane(1), silent: newLane(1), targets: make(map[netip.AddrPort]*targetHealth)}
		for i := range targets {
			one.targets[netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 443)] = &targetHealth{stop: func() {}}
		}
		one.names = s.TargetNames
		v.services = v.services.with(s.ID, one)
		h.named.turn(s.ID, nil, one)
	}
	h.view.Store(v)
	h.named.moved = nil // nobody looks them up
	for b.Loop() {
		h.renamed("n5000.example")
	}
}
