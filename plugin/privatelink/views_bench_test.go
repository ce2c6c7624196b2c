package privatelink

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/coredns/coredns/plugin/test"

	"github.com/postern-link/postern/link"
)

// crowd is a snapshot of n networks, each a /24 of 10.0.0.0/8 in a /16 of a network above it.
func crowd(t testing.TB, n int) *link.Snapshot {
	t.Helper()
	var changes []link.Change
	for i := range n / 256 {
		changes = append(changes, link.PutNetwork{Network: link.Network{ID: link.ID(fmt.Sprintf("wide%d", i)), Prefixes: []netip.Prefix{wide(i)}}})
	}
	for i := range n {
		changes = append(changes, link.PutNetwork{Network: link.Network{ID: link.ID(fmt.Sprintf("n%d", i)), Prefixes: []netip.Prefix{narrow(i)}}})
	}
	return apply(t, link.Empty(), changes...)
}

func wide(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16)
}

// narrow leaves every other /24 of its /16 to the wide network.
func narrow(i int) netip.Prefix {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 10<<24|uint32(2*i)<<8)
	return netip.PrefixFrom(netip.AddrFrom4(b), 24)
}

// Ten thousand networks: each client is found in the longest prefix, and between them in the one above.
func TestManyNetworks(t *testing.T) {
	const n = 10_240
	srv := newServer(t, crowd(t, n))
	g := srv.generation(srv.snapshot)
	at := func(addr netip.Addr) link.ID {
		return srv.viewOf(g, &test.ResponseWriter{RemoteIP: addr.String()}, question("a.example A")).network
	}
	for i := range n {
		inside := narrow(i).Addr().Next()
		if got, want := at(inside), link.ID(fmt.Sprintf("n%d", i)); got != want {
			t.Fatalf("%s is in %q, want %s", inside, got, want)
		}
		b := inside.As4()
		b[2]++
		if got, want := at(netip.AddrFrom4(b)), link.ID(fmt.Sprintf("wide%d", b[1])); int(b[1]) < n/256 && got != want {
			t.Fatalf("beside %s: %q, want %s", inside, got, want)
		}
	}
	if got := at(netip.MustParseAddr("192.0.2.1")); got != "" {
		t.Errorf("a stranger is in %q", got)
	}
}

// BenchmarkView finds the network of a client among ten, and among ten thousand: the prefix table is no list.
func BenchmarkView(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		srv := newServer(b, crowd(b, n))
		g := srv.generation(srv.snapshot)
		r := question("a.example A")
		var clients []*remote
		for i := range 1024 {
			clients = append(clients, &remote{addr: (&test.ResponseWriter{RemoteIP: narrow(i * 7 % n).Addr().Next().String()}).RemoteAddr()})
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			i := 0
			for b.Loop() {
				if v := srv.viewOf(g, clients[i%len(clients)], r); !v.found {
					b.Fatal("no network")
				}
				i++
			}
		})
	}
}
