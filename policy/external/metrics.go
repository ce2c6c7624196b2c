package external

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/internal/collectors"
)

// Metrics are those of all programs of a node, by policy. A nil *Metrics counts nothing.
type Metrics struct {
	register prometheus.Registerer
	up       *prometheus.GaugeVec
	restarts *prometheus.CounterVec
	verdicts *prometheus.CounterVec
	outcomes *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	cached   *prometheus.CounterVec
	dropped  *prometheus.CounterVec

	mu    sync.Mutex
	users map[string]int // programs by policy: two, while one takes the place of the other
}

// NewMetrics registers the metrics of policy programs; with a nil Registerer they are counted and not shown.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	name := func(n string) string { return prometheus.BuildFQName("postern", "policy_program", n) }
	counter := func(n, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name(n), Help: help}, append([]string{"policy"}, labels...))
	}
	m := &Metrics{
		register: r, users: map[string]int{},
		up:       prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name("up"), Help: "1 while the program runs, 0 while what it is asked is refused."}, []string{"policy"}),
		restarts: counter("restarts_total", "How often the program was started again after it had ended."),
		verdicts: counter("decisions_total", "Flows by what became of the question: allow, deny, error, timeout, busy, down.", "verdict"),
		outcomes: counter("reviews_total", "Requests for connections by what became of the question: approve, reject, wait, error, timeout, busy, down.", "outcome"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name("seconds"), Help: "Time that a question about a flow took, without those answered from what was kept.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5},
		}, []string{"policy"}),
		cached:  counter("cached_total", "Questions about flows that were answered from what was kept."),
		dropped: counter("log_dropped_total", "Lines that the program printed and that were not logged."),
	}
	if r == nil {
		return m, nil
	}
	if err := collectors.Register(r, m.all()...); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.up, m.restarts, m.verdicts, m.outcomes, m.seconds, m.cached, m.dropped}
}

// Unregister takes the metrics away.
func (m *Metrics) Unregister() {
	if m == nil || m.register == nil {
		return
	}
	collectors.Unregister(m.register, m.all()...)
}

// metrics are those of one program.
type metrics struct {
	all                       *Metrics
	policy                    string
	up                        prometheus.Gauge
	restarts, cached, dropped prometheus.Counter
	seconds                   prometheus.Observer
	decisions, reviews        map[string]prometheus.Counter
}

// take returns the metrics of a program of a policy, which must release them.
func (m *Metrics) take(policy string) *metrics {
	if m == nil {
		m, _ = NewMetrics(nil) // nothing is registered, so that nothing fails
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.users[policy]++
	one := &metrics{
		all: m, policy: policy, up: m.up.WithLabelValues(policy), restarts: m.restarts.WithLabelValues(policy),
		cached: m.cached.WithLabelValues(policy), dropped: m.dropped.WithLabelValues(policy), seconds: m.seconds.WithLabelValues(policy),
		decisions: map[string]prometheus.Counter{}, reviews: map[string]prometheus.Counter{},
	}
	for _, v := range []string{"allow", "deny", "error", "timeout", "busy", "down"} {
		one.decisions[v] = m.verdicts.WithLabelValues(policy, v)
	}
	for _, o := range []string{"approve", "reject", "wait", "error", "timeout", "busy", "down"} {
		one.reviews[o] = m.outcomes.WithLabelValues(policy, o)
	}
	return one
}

// release removes the labels of a policy with its last program.
func (m *metrics) release() {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if m.all.users[m.policy]--; m.all.users[m.policy] > 0 {
		return
	}
	delete(m.all.users, m.policy)
	by := prometheus.Labels{"policy": m.policy}
	m.all.up.DeletePartialMatch(by)
	m.all.seconds.DeletePartialMatch(by)
	for _, c := range []*prometheus.CounterVec{m.all.restarts, m.all.verdicts, m.all.outcomes, m.all.cached, m.all.dropped} {
		c.DeletePartialMatch(by)
	}
}

func (m *metrics) decision(verdict string) { m.decisions[verdict].Inc() }
func (m *metrics) review(outcome string)   { m.reviews[outcome].Inc() }
