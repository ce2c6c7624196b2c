package armapi

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the API counts. Labels are rows of the tables and status codes: nothing that a caller
// chose. They stay registered: a configuration that follows another counts on.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{}
	return m, errors.Join(
		register(reg, &m.requests, prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "postern", Subsystem: "api", Name: "requests_total", Help: "Requests to the control API, by operation and status code.",
		}, []string{"operation", "code"})),
		register(reg, &m.seconds, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "postern", Subsystem: "api", Name: "request_duration_seconds", Help: "How long requests to the control API took, by operation.",
			Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10},
		}, []string{"operation"})),
	)
}

// register sets to to the collector, or to the one that is registered in its place already.
func register[T prometheus.Collector](reg prometheus.Registerer, to *T, c T) error {
	*to = c
	if reg == nil {
		return nil
	}
	err := reg.Register(c)
	if again, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if there, ok := again.ExistingCollector.(T); ok {
			*to, err = there, nil
		}
	}
	return err
}

func (m *metrics) count(o *operation, code int, took time.Duration) {
	m.requests.WithLabelValues(o.label(), strconv.Itoa(code)).Inc()
	m.seconds.WithLabelValues(o.label()).Observe(took.Seconds())
}
