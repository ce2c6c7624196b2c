package control

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// metrics are the counters of the operations.
type metrics struct {
	operations *prometheus.CounterVec // by action and result
	unwritten  prometheus.Counter     // refusals without an audit entry of their own
	near       *prometheus.CounterVec // by limit
}

// newMetrics registers the counters, or takes those that an earlier Control has registered: a reload
// doesn't begin anew.
func newMetrics(r prometheus.Registerer) *metrics {
	return &metrics{
		operations: registered(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "postern", Subsystem: "control", Name: "operations_total",
			Help: "Operations of the control API that write, by action and result.",
		}, []string{"action", "result"})),
		unwritten: registered(r, prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "postern", Subsystem: "control", Name: "refusals_unwritten_total",
			Help: "Refusals that have no audit entry of their own: repeated, too many, or the store took none.",
		})),
		near: registered(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "postern", Subsystem: "control", Name: "limits_near_total",
			Help: "Changes after which a limit was used to 80 percent or more, by limit.",
		}, []string{"limit"})),
	}
}

// registered registers m, or returns the one that is there already. A nil registerer takes nothing.
func registered[T prometheus.Collector](r prometheus.Registerer, m T) T {
	if r == nil {
		return m
	}
	var there prometheus.AlreadyRegisteredError
	if err := r.Register(m); errors.As(err, &there) {
		if old, same := there.ExistingCollector.(T); same {
			return old
		}
	}
	return m
}

func (m *metrics) count(action, result string) { m.operations.WithLabelValues(action, result).Inc() }

// outcome is the result label of an operation: one word of a fixed set.
func outcome(op Op, r Result, err error) string {
	switch {
	case err == nil && op.DryRun:
		return "dry_run"
	case err == nil && r.Changed:
		return "done"
	case err == nil:
		return "unchanged"
	case errors.Is(err, store.ErrUnknownOutcome):
		return "unknown"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	case errors.Is(err, store.ErrConflict), errors.Is(err, link.ErrConflict), errors.Is(err, ErrInUse), errors.Is(err, ErrPrecondition), errors.Is(err, link.ErrStale):
		return "conflict"
	case classOf("", err) != "":
		return "refused"
	}
	return "invalid"
}
