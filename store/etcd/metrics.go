package etcd

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/store"
)

// metrics are what a store tells Prometheus. A nil *metrics tells nothing.
type metrics struct {
	reg      prometheus.Registerer
	commits  *prometheus.CounterVec
	duration prometheus.Histogram
	watches  *prometheus.CounterVec
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
		watches: prometheus.NewCounterVec(prometheus.CounterOpts(opts("reconnects_total",
			"Watches of the cluster that ended, by what followed: resume, reload of the whole state.")), []string{"how"}),
	}
	m.all = []prometheus.Collector{
		m.commits, m.duration, m.watches,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("revision", "Revision of the state.")),
			func() float64 { return float64(s.current.Load().meta.Revision) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("view_age_seconds", "Time since the view of the state was last confirmed to be the newest.")),
			func() float64 { return time.Since(s.Confirmed()).Seconds() }),
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

func (m *metrics) watchEnded(err error) {
	if m == nil {
		return
	}
	how := "resume"
	if errors.Is(err, errGap) {
		how = "reload"
	}
	m.watches.WithLabelValues(how).Inc()
}
