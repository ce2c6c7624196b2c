package proxy

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/engine"
	"github.com/prometheus/client_golang/prometheus"
)

// Connections that are dialled ahead of need, for services that ask for it: a flow that takes one has saved the way to its target
// and back. Nothing is written to one, and nothing read: the PROXY header is the flow's, and what a target says first waits in
// the socket. It belongs to no flow, so that there is nothing in it to revoke; but whoever takes it asks the rules anew, as one
// who dials does, and what no flow could get any more is closed at once.
//
//	warm.go      which there are, and who takes them
//	warmfill.go  how they come, and how they go

// warm are those of a node. Its methods are safe for concurrent use.
type warm struct {
	proxy                         *Proxy
	taken, missed, ended, surplus prometheus.Counter
	dials                         sync.WaitGroup // none is added once closed

	mu      sync.Mutex // guards what follows; taken after those of health
	shelves map[shelfKey]*shelf
	all     int // that are ready or being dialled
	closed  bool
}

// shelfKey is a target of a service.
type shelfKey struct {
	service link.ID
	addr    netip.AddrPort
}

// shelf are those to one target of one service.
type shelf struct {
	ready   []kept // the oldest first
	dialled int    // that are being dialled
	used    time.Time
	ctx     context.Context // of the dials
	stop    context.CancelFunc
	pause   time.Duration // after the last failure, 0: it was none
	rest    time.Time     // none is dialled before
}

// kept is one of them.
type kept struct {
	conn  engine.Conn
	since time.Time
	nat   []netip.Addr // of the service when it was dialled, which says where from
}

// Where a target doesn't take connections, or ends those that say nothing, the next are dialled after a while, twice as long each time.
const (
	warmPause    = time.Second
	maxWarmPause = 30 * time.Second
)

// warmShare is the part of max_flows that connections may be warm, together with the flows no more than all of it.
const warmShare = 8

func newWarm(p *Proxy) *warm {
	count := func(what string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "postern", Subsystem: "proxy", Name: "warm_total", ConstLabels: prometheus.Labels{"result": what},
			Help: "Flows of services with warm that took a connection which was ready or found none, and ready connections that were of no use.",
		})
	}
	return &warm{
		proxy: p, shelves: make(map[shelfKey]*shelf),
		taken: count("taken"), missed: count("missed"), ended: count("ended"), surplus: count("unused"),
	}
}

// take returns a connection to a target that was dialled ahead, for a flow of a client; nil for none. The caller has asked the rules.
func (w *warm) take(service *link.Service, addr netip.AddrPort, client engine.Conn) engine.Conn {
	now, key := time.Now(), shelfKey{service.ID, addr}
	for {
		k, is := w.oldest(now, key, service)
		if !is {
			w.missed.Inc()
			return nil
		}
		switch {
		case now.Sub(k.since) >= service.KeptWarm(), !slices.Equal(k.nat, service.NAT):
			w.drop(k)
		case !unended(k.conn):
			k.conn.Close()
			w.failed(now, key)
		default:
			if conn := w.proxy.engine.Move(k.conn, client); conn != nil {
				w.taken.Inc()
				return conn
			}
		}
	}
}

// oldest takes one from the shelf. Where there is none, and the target would have more connections than max_per_target with those
// that are being dialled, these are given up.
func (w *warm) oldest(now time.Time, key shelfKey, service *link.Service) (k kept, is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.shelves[key]
	switch {
	case s == nil:
	case len(s.ready) > 0:
		k = s.ready[0]
		s.ready = slices.Delete(s.ready, 0, 1)
		w.all--
		return k, true
	case s.dialled > w.proxy.health.set(service).Spare(now, key.addr):
		s.stop()
		s.ctx, s.stop = context.WithCancel(w.proxy.ctx)
	}
	return k, false
}

// failed notes that the target has ended one.
func (w *warm) failed(now time.Time, key shelfKey) {
	w.ended.Inc()
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.shelves[key]; s != nil {
		s.failed(now)
	}
}

// drop closes one that nobody has used. In order: a reset is what servers complain about in their logs.
func (w *warm) drop(k kept) {
	w.surplus.Inc()
	k.conn.Close()
}

// Describe implements [prometheus.Collector].
func (w *warm) Describe(to chan<- *prometheus.Desc) {
	to <- warmReady
	for _, c := range w.counters() {
		c.Describe(to)
	}
}

var warmReady = prometheus.NewDesc("postern_proxy_warm_connections",
	"Connections to the target of a service that are ready for flows to come.", []string{"service", "target"}, nil)

func (w *warm) counters() []prometheus.Counter {
	return []prometheus.Counter{w.taken, w.missed, w.ended, w.surplus}
}

// Collect implements [prometheus.Collector].
func (w *warm) Collect(to chan<- prometheus.Metric) {
	for _, c := range w.counters() {
		c.Collect(to)
	}
	w.mu.Lock()
	ready := make(map[shelfKey]int, len(w.shelves))
	for key, s := range w.shelves {
		ready[key] = len(s.ready)
	}
	w.mu.Unlock()
	for key, n := range ready {
		to <- prometheus.MustNewConstMetric(warmReady, prometheus.GaugeValue, float64(n), string(key.service), key.addr.String())
	}
}

// sources calls f with the service, the target and where it is from of each that is ready.
func (w *warm) sources(f func(natUse)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, s := range w.shelves {
		for _, k := range s.ready {
			if len(k.nat) > 0 {
				f(natUse{key.service, localAddress(k.conn), netip.AddrPortFrom(key.addr.Addr().Unmap(), key.addr.Port())})
			}
		}
	}
}
