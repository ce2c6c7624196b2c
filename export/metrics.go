package export

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/internal/collectors"
)

// Reason is why flow records were dropped.
type Reason string

// The reasons.
const (
	ReasonQueue    Reason = "queue"    // newer ones came, and the queue was full
	ReasonLog      Reason = "log"      // lines of the data plane that its log was too slow for, most of them flows
	ReasonRejected Reason = "rejected" // the receiver doesn't want them
	ReasonEnd      Reason = "end"      // the receiver was taken out, or the process has ended
)

// Reasons returns all.
func Reasons() []Reason { return []Reason{ReasonQueue, ReasonLog, ReasonRejected, ReasonEnd} }

// Metrics are those of all receivers of a process.
type Metrics struct {
	register                  prometheus.Registerer
	sent, dropped, failed     *prometheus.CounterVec
	queue, success, seen, lag *prometheus.GaugeVec
}

// NewMetrics registers metrics; a nil r takes none.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "postern", Subsystem: "export", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "postern", Subsystem: "export", Name: name, Help: help}, labels)
	}
	m := &Metrics{
		register: r,
		sent:     counter("sent_total", "Records that a receiver has taken, by records: flows, audit.", "receiver", "records"),
		dropped:  counter("dropped_total", "Flow records that a receiver won't get, by reason.", "receiver", "reason"),
		failed:   counter("failures_total", "Requests that a receiver has not taken, by records: flows, audit.", "receiver", "records"),
		queue:    gauge("queue_length", "Flow records that wait for a receiver.", "receiver"),
		success:  gauge("last_success_timestamp_seconds", "When a receiver took records last, in seconds since 1970, 0 for never, by records: flows, audit.", "receiver", "records"),
		seen:     gauge("audit_position", "Revision of the last entry of the audit record that a receiver has taken.", "receiver"),
		lag:      gauge("audit_lag", "Entries of the audit record that a receiver has not taken yet, as far as this node knows.", "receiver"),
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
	return []prometheus.Collector{m.sent, m.dropped, m.failed, m.queue, m.success, m.seen, m.lag}
}

// Unregister ends them. m may be nil.
func (m *Metrics) Unregister() {
	if m != nil && m.register != nil {
		collectors.Unregister(m.register, m.all()...)
	}
}

// Forget removes what there is of a receiver.
func (m *Metrics) Forget(receiver string) {
	of := prometheus.Labels{"receiver": receiver}
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.sent, m.dropped, m.failed, m.queue, m.success, m.seen, m.lag} {
		v.DeletePartialMatch(of)
	}
}

// receiverMetrics are those of one.
type receiverMetrics struct {
	all                  *Metrics
	name                 string
	queue, position, lag prometheus.Gauge
}

// of returns those of a receiver. What it isn't sent isn't shown.
func (m *Metrics) of(name string, flows, audit bool) receiverMetrics {
	none := func() prometheus.Gauge { return prometheus.NewGauge(prometheus.GaugeOpts{Name: "none"}) }
	r := receiverMetrics{m, name, none(), none(), none()}
	begin := func(records string) {
		m.sent.WithLabelValues(name, records)
		m.failed.WithLabelValues(name, records)
		m.success.WithLabelValues(name, records)
	}
	if flows {
		begin("flows")
		r.queue = m.queue.WithLabelValues(name)
		for _, why := range Reasons() {
			m.dropped.WithLabelValues(name, string(why))
		}
	}
	if audit {
		begin("audit")
		r.position, r.lag = m.seen.WithLabelValues(name), m.lag.WithLabelValues(name)
	}
	return r
}

func (r receiverMetrics) sent(records string, n int) {
	r.all.sent.WithLabelValues(r.name, records).Add(float64(max(0, n)))
	r.all.success.WithLabelValues(r.name, records).Set(float64(time.Now().UnixMilli()) / 1000)
}

func (r receiverMetrics) failed(records string) { r.all.failed.WithLabelValues(r.name, records).Inc() }

func (r receiverMetrics) drop(why Reason, n int) {
	if n > 0 {
		r.all.dropped.WithLabelValues(r.name, string(why)).Add(float64(n))
	}
}
