package proxy

import (
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/datagram"
)

// datagrams is what the proxy has for services of UDP: the relay, opened with the first listener, and how many flows
// there are of whom.
type datagrams struct {
	proxy   *Proxy
	counts  datagram.Counts
	relay   *datagram.Relay // nil before the first listener; guarded by the proxy's mu
	serving sync.WaitGroup  // listeners
	asking  atomic.Int32    // flows that wait for a program

	mu        sync.Mutex // taken last
	closed    bool       // no more flows
	all       share
	endpoints map[link.ID]*share    // flows of each
	sources   map[netip.Addr]*share // the same, by sourceOf
	leaving   int                   // flows that gave way to others and aren't finished yet
	denied    map[asker]time.Time
	avoided   map[netip.AddrPort]time.Time // targets that said that their port is closed

	// Flows that were ended and that nobody works for, and the goroutine that finishes them.
	ended   []*flow
	wake    chan struct{} // of size one
	reaping sync.WaitGroup
}

// asker is who begins a flow, and where.
type asker struct{ client, local netip.AddrPort }

const (
	// maxAsking is how many flows of UDP may wait for policy programs: each is a question, a goroutine and the
	// datagrams that are held.
	maxAsking = 1024
	// deniedFor is how long a client is remembered whom a program refused, so that each of its datagrams isn't a
	// question; deniedMost are remembered at a time.
	deniedFor  = time.Second
	deniedMost = 4096
	// avoidedFor is how long other targets come before one whose port was closed.
	avoidedFor = 10 * time.Second
)

func (d *datagrams) init(p *Proxy) {
	d.proxy, d.wake = p, make(chan struct{}, 1)
	d.endpoints, d.sources = make(map[link.ID]*share), make(map[netip.Addr]*share)
	d.denied, d.avoided = make(map[asker]time.Time), make(map[netip.AddrPort]time.Time)
}

// listen opens a socket, or takes the one that the process before this one had. The caller holds the proxy's mu.
func (d *datagrams) listen(at netip.AddrPort) (*datagram.Listener, error) {
	if d.relay == nil {
		relay, err := datagram.New(d, &d.counts)
		if err != nil {
			return nil, err
		}
		d.relay = relay
		d.reaping.Go(d.reap)
	}
	if d.proxy.udp != nil {
		if c := d.proxy.udp(at); c != nil {
			return d.relay.Inherit(c, d.proxy.handing.begin)
		}
	}
	return d.relay.Listen(at)
}

// relayNow returns the relay of a listener that is open, or was.
func (d *datagrams) relayNow() *datagram.Relay {
	d.proxy.mu.Lock()
	defer d.proxy.mu.Unlock()
	return d.relay
}

// serve begins to take what comes to a listener.
func (d *datagrams) serve(l *datagram.Listener) { d.serving.Go(l.Serve) }

// shut lets no more flows in. It reports whether there are none.
func (d *datagrams) shut() (none bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return d.all.n == 0
}

// close closes the listeners and the relay. All flows have ended, and no new ones begin.
func (d *datagrams) close() {
	d.proxy.mu.Lock()
	maps.DeleteFunc(d.proxy.listeners, func(_ spot, l *listener) bool {
		l.close()
		return true
	})
	relay := d.relay
	d.relay = nil
	d.proxy.mu.Unlock()
	d.serving.Wait()
	if relay != nil {
		relay.Close()
		close(d.wake)
		d.reaping.Wait()
	}
}

func (d *datagrams) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all.n
}

// datagramShares are the bounds of flows of UDP: in all, of one endpoint, of one source. Who sends from addresses that
// aren't its own makes flows as fast as datagrams: none of that takes what flows of TCP need, nor one endpoint what
// the others do.
func (s *Settings) datagramShares() (all, endpoint, source int) {
	all = max(1, s.MaxFlows/2)
	return all, max(1, all/2), max(1, min(s.MaxPerSource, all/2))
}

// deny remembers for a moment that a program refused a client.
func (d *datagrams) deny(a asker) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if len(d.denied) >= deniedMost {
		maps.DeleteFunc(d.denied, func(_ asker, at time.Time) bool { return now.Sub(at) >= deniedFor })
	}
	if len(d.denied) < deniedMost {
		d.denied[a] = now
	}
}

// isDenied reports whether a program has just refused a client.
func (d *datagrams) isDenied(a asker) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, ok := d.denied[a]
	if ok && time.Since(at) >= deniedFor {
		delete(d.denied, a)
		ok = false
	}
	return ok
}

// avoid has other targets come before one, for a while.
func (d *datagrams) avoid(target netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(d.avoided, func(_ netip.AddrPort, at time.Time) bool { return now.Sub(at) >= avoidedFor })
	d.avoided[target] = now
}

// avoiding returns those of the targets of a service that others come before; none where that are all.
func (d *datagrams) avoiding(v *link.Service) (some []netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.avoided) == 0 {
		return nil
	}
	seen := make(map[netip.AddrPort]bool) // more than one name may lead to an address
	for addr := range d.proxy.health.addresses(v) {
		if seen[addr] {
			continue
		}
		seen[addr] = true
		if at, ok := d.avoided[addr]; ok && time.Since(at) < avoidedFor {
			some = append(some, addr)
		}
	}
	if len(some) == len(seen) {
		return nil
	}
	return some
}

// finishLater finishes a flow that nobody works for. It is called under the flow's mu.
func (d *datagrams) finishLater(f *flow) {
	d.mu.Lock()
	d.ended = append(d.ended, f)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// reap is the goroutine that finishes flows.
func (d *datagrams) reap() {
	for range d.wake {
		d.mu.Lock()
		ended := d.ended
		d.ended = nil
		d.mu.Unlock()
		for _, f := range ended {
			f.finishDatagrams()
		}
	}
}
