package bolt

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store/storetest"
)

// filled returns the path of a state file with n endpoints of one service in one network (S15).
func filled(b *testing.B, n int) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "state")
	s := mustOpen(b, path)
	alias, err := link.NewAlias("svc", zeros{})
	if err != nil {
		b.Fatal(err)
	}
	changes := []link.Change{
		link.PutNetwork{Network: link.Network{
			ID:       "corp",
			Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")},
			Pools:    []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")},
		}},
		link.PutService{Service: link.Service{
			ID: "svc", Alias: alias, Port: 1433, Targets: []link.Target{{Addr: netip.MustParseAddrPort("192.0.2.1:1433")}},
			Visible: []link.Party{link.Anyone}, AutoApprove: []link.Party{link.Anyone},
			Pin: link.PinAddress, ProxyProtocol: link.ProxyOff,
		}},
	}
	for i := range n {
		changes = append(changes, link.PutEndpoint{Endpoint: link.Endpoint{ID: link.ID(fmt.Sprintf("ep-%d", i)), Network: "corp", Service: "svc"}})
	}
	mustCommit(b, s, 0, changes...)
	mustClose(b, s)
	return path
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// BenchmarkOpen is S15: 100,000 endpoints in at most 2 s.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			path := filled(b, n)
			for b.Loop() {
				mustClose(b, mustOpen(b, path))
			}
		})
	}
}

// BenchmarkCommit is a small change in a state of a size, with its two syncs.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{0, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := mustOpen(b, filled(b, n))
			defer mustClose(b, s)
			for i := 0; b.Loop(); i++ {
				mustCommit(b, s, i, link.PutNetwork{Network: storetest.Network(i % 1000)})
			}
		})
	}
}
