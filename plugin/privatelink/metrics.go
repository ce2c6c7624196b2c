package privatelink

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics/vars"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/postern-link/postern/link"
)

// result is what became of a query.
type result uint8

const (
	positive result = iota
	nodata
	nxdomain
	refused
	servfail
	passed    // left to the next plugin
	continued // passed, and the answer led to a name of ours
	results
)

// String returns the result as the metric has it.
func (r result) String() string {
	return [results]string{"positive", "nodata", "nxdomain", "refused", "servfail", "passed", "continued"}[r]
}

// counters are the metrics of all handlers of a process. Finding a counter takes no lock, but for a network that was met lately.
type counters struct {
	answers *prometheus.CounterVec
	misses  *prometheus.CounterVec
	loops   *prometheus.GaugeVec
	waits   *prometheus.GaugeVec
	rejects *prometheus.CounterVec

	mu     sync.Mutex // held to change known, and for what follows
	known  atomic.Pointer[map[counterKey]*[results]prometheus.Counter]
	met    map[counterKey]*[results]prometheus.Counter // lately, and not in known
	sought int                                         // how often met was looked into since known was made
}

type counterKey struct {
	server  string
	network link.ID
}

// The metrics of the fast path, by server.
var (
	fastInUse = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace, Subsystem: name, Name: "fastpath",
		Help: "1 where queries by UDP are answered from the table, without the plugins; 0 where they aren't, with the reason.",
	}, []string{"server", "reason"})
	fastAnswers = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: name, Name: "fastpath_answers_total",
		Help: "Queries that were answered without the plugins; other metrics count them, too.",
	}, []string{"server"})
	fastDropped = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: name, Name: "fastpath_dropped_total",
		Help: "Queries by UDP that were dropped, for too many waited for a processor to be answered by the plugins.",
	}, []string{"server"})
)

// setFast notes whether a server has a fast path: it has where the reason is "".
func setFast(server, reason string) {
	fastInUse.DeletePartialMatch(prometheus.Labels{"server": server})
	in := fastInUse.WithLabelValues(server, reason)
	if reason == "" {
		in.Set(1)
	}
}

// forgetFast removes what is said of a server that is no more.
func forgetFast(server string) {
	fastInUse.DeletePartialMatch(prometheus.Labels{"server": server})
	fastAnswers.DeleteLabelValues(server)
	fastDropped.DeleteLabelValues(server)
}

// meter has what is answered counted; sizes and times as prometheus does. It is called before the target is in use.
func (f *fast) meter() {
	f.target.Answered, f.target.Dropped = fastAnswers.WithLabelValues(f.server.Addr), fastDropped.WithLabelValues(f.server.Addr)
	if f.counted == "" {
		return
	}
	f.target.Requests = vars.RequestSize.WithLabelValues(f.server.Addr, ".", "", "udp")
	f.target.Responses = vars.ResponseSize.WithLabelValues(f.server.Addr, ".", "", "udp")
	f.target.Duration = vars.RequestDuration.WithLabelValues(f.server.Addr, ".", "")
}

// shared are the counters of this process: like all of CoreDNS, they outlive a reload.
var shared = newCounters(prometheus.DefaultRegisterer)

func newCounters(r prometheus.Registerer) *counters {
	c := &counters{
		answers: promauto.With(r).NewCounterVec(prometheus.CounterOpts{
			Namespace: plugin.Namespace, Subsystem: name, Name: "answers_total",
			Help: "Queries by network of the client and by what became of them.",
		}, []string{"server", "network", "result"}),
		misses: promauto.With(r).NewCounterVec(prometheus.CounterOpts{
			Namespace: plugin.Namespace, Subsystem: name, Name: "misses_total",
			Help: "Queries for names in a privatelink zone that have no endpoint, by zone and policy.",
		}, []string{"server", "zone", "policy"}),
		loops: promauto.With(r).NewGaugeVec(prometheus.GaugeOpts{
			Namespace: plugin.Namespace, Subsystem: name, Name: "upstream_loop",
			Help: "1 for a suffix whose names the servers of forward ask this process for again.",
		}, []string{"server", "suffix"}),
		waits: promauto.With(r).NewGaugeVec(prometheus.GaugeOpts{
			Namespace: plugin.Namespace, Subsystem: name, Name: "upstream_pending",
			Help: "Queries that were passed on and aren't answered yet.",
		}, []string{"server"}),
		rejects: promauto.With(r).NewCounterVec(prometheus.CounterOpts{
			Namespace: plugin.Namespace, Subsystem: name, Name: "upstream_rejects_total",
			Help: "Queries of which no other server was asked, for too many waited for one.",
		}, []string{"server"}),
	}
	c.known.Store(&map[counterKey]*[results]prometheus.Counter{})
	return c
}

// answer counts a query. The network is "" where the client belongs to none.
func (c *counters) answer(server string, network link.ID, r result) {
	c.of(server, network)[r].Inc()
}

// of returns the counters of a network by result.
func (c *counters) of(server string, network link.ID) *[results]prometheus.Counter {
	key := counterKey{server, network}
	if by := (*c.known.Load())[key]; by != nil {
		return by
	}
	return c.learn(key)
}

// learn adds the counters of a network. They are put to those that are known when they have been looked for as often as it takes to copy those:
// a network costs the same, however many there are.
func (c *counters) learn(key counterKey) *[results]prometheus.Counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	if by := (*c.known.Load())[key]; by != nil {
		return by
	}
	by := c.met[key]
	if by == nil {
		by = new([results]prometheus.Counter)
		for r := range results {
			by[r] = c.answers.WithLabelValues(key.server, string(key.network), r.String())
		}
		if c.met == nil {
			c.met = make(map[counterKey]*[results]prometheus.Counter)
		}
		c.met[key] = by
	}
	if c.sought++; c.sought > len(*c.known.Load()) {
		c.settle(nil)
	}
	return by
}

// settle puts those that were met lately to those that are known, without those of networks that are gone. The caller holds mu.
func (c *counters) settle(gone []counterKey) {
	next := maps.Clone(*c.known.Load())
	maps.Copy(next, c.met)
	for _, key := range gone {
		delete(next, key)
	}
	c.known.Store(&next)
	c.met, c.sought = nil, 0
}

// miss counts a name without an endpoint, and returns the counter. The zone is as the table writes it: a template is one
// zone here, or clients could make as many labels as they like.
func (c *counters) miss(server, zone string, p policy) prometheus.Counter {
	if zone == "" {
		zone = "other" // that of a service, in no table
	}
	counter := c.misses.WithLabelValues(server, zone, string(p))
	counter.Inc()
	return counter
}

// forget removes the counters of networks that are no more.
func (c *counters) forget(s *link.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var gone []counterKey
	seek := func(key counterKey) {
		if key.network != "" && s.Network(key.network) == nil {
			for r := range results { // by all labels: a part of them is compared with those of every series
				c.answers.DeleteLabelValues(key.server, string(key.network), r.String())
			}
			gone = append(gone, key)
		}
	}
	for key := range *c.known.Load() {
		seek(key)
	}
	for key := range c.met {
		seek(key)
	}
	if len(gone) > 0 { // as after few changes
		c.settle(gone)
	}
}
