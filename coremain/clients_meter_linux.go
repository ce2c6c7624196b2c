package coremain

import (
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/prometheus/client_golang/prometheus"
)

// clientMeter tells monitoring what became of clients of DNS by TCP.
type clientMeter struct {
	bySource, byAll prometheus.Counter
	pauses          prometheus.Counter
	now             prometheus.Gauge
}

func newClientMeter() *clientMeter {
	ended := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "postern", Subsystem: "dns", Name: "clients_ended_total",
		Help: "Counter of connections of clients of DNS that were ended because their source had too many, or all had."}, []string{"reason"})
	m := &clientMeter{
		bySource: ended.WithLabelValues("source"), byAll: ended.WithLabelValues("all"),
		pauses: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "postern", Subsystem: "dns", Name: "source_pauses_total",
			Help: "Counter of times that new connections of a source were dropped for a while, because it had connected too fast."}),
		now: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "postern", Subsystem: "dns", Name: "sources_paused",
			Help: "Number of sources whose new connections are dropped."}),
	}
	for _, c := range []prometheus.Collector{ended, m.pauses, m.now} {
		if err := prometheus.Register(c); err != nil { // as in a test, which has several
			clog.Debugf("metrics of clients of DNS: %v", err)
		}
	}
	return m
}

// ended counts a connection that was ended; ofSource: its source had more than its share.
func (m *clientMeter) ended(ofSource bool) {
	if ofSource {
		m.bySource.Inc()
		return
	}
	m.byAll.Inc()
}

func (m *clientMeter) paused(n int) { m.pauses.Add(float64(n)) }

func (m *clientMeter) silent(n int) { m.now.Set(float64(n)) }
