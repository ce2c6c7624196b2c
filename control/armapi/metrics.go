package armapi

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the API counts. Labels are rows of the tables and status codes: nothing that a caller chose.
type metrics struct {
	registerer prometheus.Registerer
	requests   *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		registerer: reg,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_api_requests_total", Help: "Requests to the control API, by operation and status code.",
		}, []string{"operation", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "postern_api_request_duration_seconds", Help: "How long requests to the control API took, by operation.",
			Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10},
		}, []string{"operation"}),
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.requests, m.seconds} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) close() {
	if m.registerer != nil {
		m.registerer.Unregister(m.requests)
		m.registerer.Unregister(m.seconds)
	}
}

func (m *metrics) count(o *operation, code int, took time.Duration) {
	m.requests.WithLabelValues(o.label(), strconv.Itoa(code)).Inc()
	m.seconds.WithLabelValues(o.label()).Observe(took.Seconds())
}
