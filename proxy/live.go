package proxy

import (
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/postern-link/postern/policy"
)

// live is the set of live flows: those that a revocation must find. A flow enters before it loads
// the snapshot that it is decided on, so that a revocation either finds the flow here, or happened
// before and is in the snapshot.
type live struct {
	mu      sync.Mutex
	flows   map[*flow]struct{}
	sources map[netip.Addr]int // flows by sourceOf
	closed  bool
	short   atomic.Bool // of memory: no new flow is let in
}

func (l *live) init() {
	l.flows = make(map[*flow]struct{})
	l.sources = make(map[netip.Addr]int)
}

// enter adds a new flow. It returns why not where there are most already or memory is short, and after shut.
func (l *live) enter(f *flow, most int) *refusal { return l.add(f, most, l.short.Load()) }

// takeOver is enter for a flow of another process. It needs hardly more memory here than there, and while it is handed over
// both processes have theirs, so that it isn't refused where memory is short.
func (l *live) takeOver(f *flow, most int) *refusal { return l.add(f, most, false) }

func (l *live) add(f *flow, most int, short bool) *refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return &nodeEnds
	case short:
		return &shortOfMemory
	case len(l.flows) >= most:
		return &tooManyFlows
	}
	l.flows[f] = struct{}{}
	return nil
}

// Why no flow is let in.
var (
	nodeEnds      = refusal{policy.Drain, "the node is ending"}
	shortOfMemory = refusal{policy.Limit, "the node takes no more flows: memory is short"}
	tooManyFlows  = refusal{policy.Limit, "the node takes no more flows: max_flows"}
)

// claim counts a flow as one of its source. It reports false where the source has most already.
func (l *live) claim(source netip.Addr, most int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	source = sourceOf(source)
	if l.sources[source] >= most {
		return false
	}
	l.sources[source]++
	return true
}

// sourceOf returns what a client address counts as: all addresses of an IPv6 /64 are one source, since
// a single host has as many of them as it likes (RFC 8981).
func sourceOf(a netip.Addr) netip.Addr {
	if a.Is6() && !a.Is4In6() {
		return netip.PrefixFrom(a.WithZone(""), 64).Masked().Addr()
	}
	return a
}

// leave removes a flow, and its claim where source is valid.
func (l *live) leave(f *flow, source netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.flows, f)
	if !source.IsValid() {
		return
	}
	source = sourceOf(source)
	if l.sources[source]--; l.sources[source] <= 0 {
		delete(l.sources, source)
	}
}

// all returns the flows of this moment.
func (l *live) all() []*flow {
	l.mu.Lock()
	defer l.mu.Unlock()
	flows := make([]*flow, 0, len(l.flows))
	for f := range l.flows {
		flows = append(flows, f)
	}
	return flows
}

// sweepAtOnce is how many flows a goroutine of a sweep takes at a time.
const sweepAtOnce = 64

// sweep calls f for each flow, on every processor where there are many, and returns when all is done.
func sweep(flows []*flow, f func(*flow)) {
	var next atomic.Int64
	work := func() {
		for {
			from := int(next.Add(sweepAtOnce)) - sweepAtOnce
			if from >= len(flows) {
				return
			}
			for _, one := range flows[from:min(from+sweepAtOnce, len(flows))] {
				f(one)
			}
		}
	}
	var others sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (len(flows)+sweepAtOnce-1)/sweepAtOnce) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}

func (l *live) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.flows)
}

// shut lets no more flows in.
func (l *live) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}
