package etcd

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store/storetest"
)

// scaleVariable is the number of endpoints of TestScale: it measures, and takes a minute with 100,000.
const scaleVariable = "POSTERN_SCALE"

// endpoints returns changes that ask for the endpoints from to to-1 of a service, in networks of 1,000.
func endpoints(from, to int) (changes []link.Change) {
	for i := from; i < to; i++ {
		n := link.ID(fmt.Sprintf("net-%d", i/1000))
		if i%1000 == 0 {
			base := netip.AddrFrom4([4]byte{10, byte(i / 1000), 0, 0})
			changes = append(changes, link.PutNetwork{Network: link.Network{ID: n, Prefixes: []netip.Prefix{netip.PrefixFrom(base, 16)}, Pools: []netip.Prefix{netip.PrefixFrom(base, 16)}}})
		}
		changes = append(changes, link.PutEndpoint{Endpoint: link.Endpoint{ID: link.ID(fmt.Sprintf("e-%d", i)), Network: n, Service: "v"}})
	}
	return changes
}

// S15, S16: a state of many endpoints: how long it takes to open it, what it holds in memory, how soon a follower has one
// change, and 300 of them in one commit.
func TestScale(t *testing.T) {
	total, _ := strconv.Atoi(os.Getenv(scaleVariable))
	if total == 0 {
		t.Skipf("measures with the number of endpoints that %s says, such as 100000", scaleVariable)
	}
	c := newCluster(t, 1)
	opts := Options{Endpoints: c.endpoints(), Log: slog.New(slog.DiscardHandler)}
	writer := mustOpen(t, opts)
	if _, err := writer.Commit(t.Context(), load(t, writer), storetest.Entry(0), link.PutService{Service: link.Service{
		ID: "v", Alias: "v.alias", Port: 443, Targets: []link.Target{{Addr: netip.MustParseAddrPort("192.0.2.1:443")}},
		Visible: []link.Party{link.Anyone}, Pin: link.PinAddress, ProxyProtocol: link.ProxyOff,
	}}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for i := 0; i < total; i += 10_000 {
		if _, err := writer.Commit(t.Context(), load(t, writer), storetest.Entry(i), endpoints(i, min(i+10_000, total))...); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("written in %s", time.Since(start))
	before := heap()
	start = time.Now()
	follower := mustOpen(t, opts)
	t.Logf("%d endpoints: opened in %s, %d MiB more", total, time.Since(start), (heap()-before)>>20)
	watch := follower.Watch(t.Context())
	for i, size := range []int{1, 1, 100, 300, 300, 1000} {
		base := load(t, writer)
		changes := endpoints(total+10_000*(i+1), total+10_000*(i+1)+size)
		start := time.Now()
		want, err := writer.Commit(t.Context(), base, storetest.Entry(total+i), changes...)
		if err != nil {
			t.Fatal(err)
		}
		committed := time.Since(start)
		for s := range watch {
			if s.Revision() == want.Revision() {
				break
			}
		}
		t.Logf("%d changes: committed after %s, with the follower after %s", len(changes), committed, time.Since(start))
	}
	wantSame(t, 0, load(t, follower), load(t, writer))
}

// heap returns the bytes that are in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
