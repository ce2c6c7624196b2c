package bolt

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/store"
)

// metrics are what a store tells Prometheus. A nil *metrics tells nothing.
type metrics struct {
	reg      prometheus.Registerer
	commits  *prometheus.CounterVec
	duration prometheus.Histogram
	all      []prometheus.Collector
}

func newMetrics(reg prometheus.Registerer, s *Store) (*metrics, error) {
	if reg == nil {
		return nil, nil
	}
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "postern", Subsystem: "store", Name: name, Help: help}
	}
	m := &metrics{
		reg: reg,
		commits: prometheus.NewCounterVec(prometheus.CounterOpts(opts("commits_total",
			"Commits by outcome: stored, conflict, refused by a rule, unknown, failed.")), []string{"outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "postern", Subsystem: "store",
			Name: "commit_duration_seconds", Help: "Time that stored commits took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
	}
	m.all = []prometheus.Collector{
		m.commits, m.duration,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("revision", "Revision of the state.")),
			func() float64 { return float64(s.current.Load().Revision()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("writable", "0 from a commit that could not be written, as on a full disk, until one is; else 1.")),
			func() float64 {
				if s.Err() != nil || s.failing.Load() {
					return 0
				}
				return 1
			}),
	}
	for i, c := range m.all {
		if err := reg.Register(c); err != nil {
			m.all = m.all[:i]
			m.unregister()
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) unregister() {
	if m == nil {
		return
	}
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}

func (m *metrics) committed(took time.Duration, err error) {
	if m == nil {
		return
	}
	m.commits.WithLabelValues(store.Outcome(err)).Inc()
	if err == nil {
		m.duration.Observe(took.Seconds())
	}
}
