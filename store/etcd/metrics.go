package etcd

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/store/meter"
)

// metrics are what a store tells Prometheus. Zero tells nothing.
type metrics struct {
	*meter.Meter
	watches *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, s *Store) (m metrics, err error) {
	m.watches = prometheus.NewCounterVec(prometheus.CounterOpts(meter.Opts("reconnects_total",
		"Watches of the cluster that ended, by what followed: resume, reload of the whole state.")), []string{"how"})
	m.Meter, err = meter.New(reg, m.watches,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(meter.Opts("revision", "Revision of the state.")),
			func() float64 { return float64(s.current.Load().meta.Revision) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(meter.Opts("view_age_seconds", "Time since the view of the state was last confirmed to be the newest.")),
			func() float64 { return time.Since(s.Confirmed()).Seconds() }),
	)
	return m, err
}

func (m *metrics) watchEnded(err error) {
	if m.watches == nil {
		return
	}
	how := "resume"
	if errors.Is(err, errGap) {
		how = "reload"
	}
	m.watches.WithLabelValues(how).Inc()
}
