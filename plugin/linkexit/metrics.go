package linkexit

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/coredns/coredns/plugin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/postern-link/postern/link"
)

// counters are the metrics of all handlers of a process. Finding a counter takes no lock.
type counters struct {
	queries *prometheus.CounterVec
	dropped *prometheus.CounterVec

	mu    sync.Mutex // held to change known
	known atomic.Pointer[map[counterKey]*counted]
}

type counterKey struct {
	server  string
	network link.ID
}

// counted are the counters of one network at one listener.
type counted struct {
	queries [reasons]prometheus.Counter
	dropped prometheus.Counter
}

// shared are the counters of this process: like all of CoreDNS, they outlive a reload.
var shared = newCounters(prometheus.DefaultRegisterer)

func newCounters(r prometheus.Registerer) *counters {
	c := &counters{
		queries: promauto.With(r).NewCounterVec(prometheus.CounterOpts{
			Namespace: plugin.Namespace, Subsystem: name, Name: "queries_total",
			Help: "Queries that no private name answers, by network of the client, verdict and its reason.",
		}, []string{"server", "network", "verdict", "reason"}),
		dropped: promauto.With(r).NewCounterVec(prometheus.CounterOpts{
			Namespace: plugin.Namespace, Subsystem: name, Name: "dropped_records_total",
			Help: "Records of answers that were dropped or cut, since they had an address of the inside.",
		}, []string{"server", "network"}),
	}
	c.known.Store(&map[counterKey]*counted{})
	return c
}

// query counts a query. The network is "" where the client belongs to none.
func (c *counters) query(server string, network link.ID, r reason) {
	c.of(server, network).queries[r].Inc()
}

// drop counts records that were dropped.
func (c *counters) drop(server string, network link.ID, n int) {
	c.of(server, network).dropped.Add(float64(n))
}

// of returns the counters of a network at a listener.
func (c *counters) of(server string, network link.ID) *counted {
	key := counterKey{server, network}
	if of := (*c.known.Load())[key]; of != nil {
		return of
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if of := (*c.known.Load())[key]; of != nil {
		return of
	}
	of := &counted{dropped: c.dropped.WithLabelValues(server, string(network))}
	for r := range reasons {
		of.queries[r] = c.queries.WithLabelValues(server, string(network), r.verdict(), r.String())
	}
	next := maps.Clone(*c.known.Load())
	next[key] = of
	c.known.Store(&next)
	return of
}

// forget removes the counters of networks that are no more.
func (c *counters) forget(s *link.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := maps.Clone(*c.known.Load())
	maps.DeleteFunc(next, func(key counterKey, _ *counted) bool {
		gone := key.network != "" && s.Network(key.network) == nil
		if gone {
			c.queries.DeletePartialMatch(prometheus.Labels{"network": string(key.network)})
			c.dropped.DeletePartialMatch(prometheus.Labels{"network": string(key.network)})
		}
		return gone
	})
	if len(next) != len(*c.known.Load()) {
		c.known.Store(&next)
	}
}
