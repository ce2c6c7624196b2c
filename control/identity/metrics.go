package identity

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what a directory tells Prometheus. A nil *metrics tells nothing. They stay registered: a
// configuration that follows another opens its directory before the old one is closed, and counts on.
type metrics struct {
	signIns *prometheus.CounterVec
	reloads *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	if reg == nil {
		return nil, nil
	}
	opts := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "postern", Subsystem: "identity", Name: name, Help: help}
	}
	m := &metrics{
		signIns: prometheus.NewCounterVec(opts("sign_ins_total",
			"Sign-ins by method (token, client, issued, certificate, oidc, none) and result (accepted, refused, unavailable)."), []string{"method", "result"}),
		reloads: prometheus.NewCounterVec(opts("reloads_total",
			"Reloads of a changed identities file by result: loaded, or failed with the earlier one still in force."), []string{"result"}),
	}
	for _, c := range []**prometheus.CounterVec{&m.signIns, &m.reloads} {
		err := reg.Register(*c)
		if again, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
			if *c, ok = again.ExistingCollector.(*prometheus.CounterVec); ok {
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("metrics of the identities: %w", err)
		}
	}
	// A failure that never happened is a zero, so that an alert can look at it.
	m.reload("failed", 0)
	m.reload("loaded", 0)
	return m, nil
}

func (m *metrics) signIn(method, result string) {
	if m != nil {
		m.signIns.WithLabelValues(method, result).Inc()
	}
}

func (m *metrics) reload(result string, n int) {
	if m != nil {
		m.reloads.WithLabelValues(result).Add(float64(n))
	}
}
