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
	var changes []link.Change
	for i := range services {
		changes = append(changes, service(link.ID(fmt.Sprint("s", i)), uint16(1+i), netip.AddrPort{}, byName(443, link.Name(fmt.Sprintf("n%d.example", i)))))
	}
	w := newWorld(b, Settings{}, changes...)
	h, v := w.proxy.health, &view{snapshot: w.now.Load(), services: make(map[link.ID]*serviceHealth)}
	for s := range v.snapshot.Services() {
		one := &serviceHealth{set: h.early.set(s), published: new(atomic.Bool), prompt: newLane(1), silent: newLane(1), targets: make(map[netip.AddrPort]*targetHealth)}
		for i := range targets {
			one.targets[netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 443)] = &targetHealth{stop: func() {}}
		}
		v.services[s.ID] = one
		v.name(s)
	}
	h.view.Store(v)
	for b.Loop() {
		h.renamed("n5000.example")
	}
}
