package linkapi

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of the certificate. They stay registered from one configuration to the next.
type metrics struct {
	expiry  prometheus.Gauge
	reloads *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "postern", Subsystem: "api", Name: "certificate_expiry_timestamp_seconds",
			Help: "When the certificate of the control API ends, in seconds since 1970."}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "postern", Subsystem: "api", Name: "certificate_reloads_total",
			Help: "Reloads of a changed certificate, by result: loaded, or failed with the earlier one still in force."}, []string{"result"}),
	}
	for _, result := range []string{"loaded", "failed"} {
		m.reloads.WithLabelValues(result)
	}
	if reg == nil {
		return m, nil
	}
	err := reg.Register(m.expiry)
	if again, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		m.expiry, err = again.ExistingCollector.(prometheus.Gauge), nil
	}
	if err != nil {
		return nil, err
	}
	err = reg.Register(m.reloads)
	if again, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		m.reloads, err = again.ExistingCollector.(*prometheus.CounterVec), nil
	}
	return m, err
}

// limitNames lists the limits for an error.
func limitNames() string { return strings.Join(slices.Sorted(maps.Keys(new(settings).limits())), ", ") }
