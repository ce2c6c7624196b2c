// Package meter is what every store tells Prometheus of its commits, whatever it stores them in.
package meter

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/internal/collectors"
	"github.com/postern-link/postern/store"
)

// Meter counts commits. A nil *Meter counts nothing.
type Meter struct {
	reg      prometheus.Registerer
	commits  *prometheus.CounterVec
	duration prometheus.Histogram
	all      []prometheus.Collector
}

// Opts are those of a metric of a store.
func Opts(name, help string) prometheus.Opts {
	return prometheus.Opts{Namespace: "postern", Subsystem: "store", Name: name, Help: help}
}

// New registers the metrics of all stores, and those that this one has beside them. Nobody to tell, a nil reg, is nil.
func New(reg prometheus.Registerer, own ...prometheus.Collector) (*Meter, error) {
	if reg == nil {
		return nil, nil
	}
	m := &Meter{
		reg: reg,
		commits: prometheus.NewCounterVec(prometheus.CounterOpts(Opts("commits_total",
			"Commits by outcome: stored, conflict, refused by a rule, unknown, failed.")), []string{"outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "postern", Subsystem: "store",
			Name: "commit_duration_seconds", Help: "Time that stored commits took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
	}
	m.all = append([]prometheus.Collector{m.commits, m.duration}, own...)
	if err := collectors.Register(reg, m.all...); err != nil {
		return nil, err
	}
	return m, nil
}

// Unregister takes the metrics away.
func (m *Meter) Unregister() {
	if m == nil {
		return
	}
	collectors.Unregister(m.reg, m.all...)
}

// Committed counts a commit by what came of it, and how long one took that was stored.
func (m *Meter) Committed(took time.Duration, err error) {
	if m == nil {
		return
	}
	m.commits.WithLabelValues(store.Outcome(err)).Inc()
	if err == nil {
		m.duration.Observe(took.Seconds())
	}
}
