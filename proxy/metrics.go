package proxy

import (
	"errors"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/datagram"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counters of a proxy. Labels are bounded: reasons are a closed list, services and
// targets are removed with their object.
type metrics struct {
	registerer       prometheus.Registerer // may be nil
	tcp, udp         flowMetrics
	acceptErrors     prometheus.Counter
	listenerFailures prometheus.Counter
	logDropped       prometheus.Counter
	flowsLimit       prometheus.Gauge
	memoryLimit      prometheus.Gauge
	memoryShort      prometheus.Gauge
	dialSeconds      prometheus.Histogram
	targetUp         *prometheus.GaugeVec
	all              []prometheus.Collector
}

// flowMetrics are those of the flows of a protocol.
type flowMetrics struct {
	ended, refused     map[policy.Reason]prometheus.Counter
	toTarget, toClient prometheus.Counter
}

// of returns the metrics of the flows of a protocol.
func (m *metrics) of(p link.Protocol) *flowMetrics {
	if p == link.UDP {
		return &m.udp
	}
	return &m.tcp
}

func newMetrics(r prometheus.Registerer, active func(link.Protocol) int, rules *ruleCounters, counts *datagram.Counts, others ...prometheus.Collector) *metrics {
	name := func(n, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "postern", Subsystem: "proxy", Name: n, Help: help}
	}
	counter := func(n, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts(name(n, help)))
	}
	gauge := func(n, help string) prometheus.Gauge { return prometheus.NewGauge(prometheus.GaugeOpts(name(n, help))) }
	m := &metrics{
		flowsLimit:       gauge("flows_limit", "Flows that there may be at once: max_flows."),
		memoryLimit:      gauge("memory_limit_bytes", "Memory that the process may use, 0 where that isn't known."),
		memoryShort:      gauge("memory_short", "Whether new flows are refused because memory is short."),
		registerer:       r,
		acceptErrors:     counter("accept_errors_total", "Errors of accepting a connection."),
		listenerFailures: counter("listener_failures_total", "Listeners that could not be opened, tries counted."),
		logDropped:       counter("log_dropped_total", "Log lines that were dropped because the log was too slow."),
		dialSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "postern", Subsystem: "proxy", Name: "dial_seconds",
			Help:    "Time until a flow was connected to a target, failed tries included.",
			Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		targetUp: prometheus.NewGaugeVec(prometheus.GaugeOpts(
			name("target_up", "Whether the target of a service answers.")), []string{"service", "target"}),
	}
	ended := prometheus.NewCounterVec(prometheus.CounterOpts(
		name("flows_total", "Flows that ended after they were established, by protocol and reason.")), []string{"protocol", "reason"})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts(
		name("refused_total", "Flows that ended before they were established, by protocol and reason.")), []string{"protocol", "reason"})
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts(
		name("bytes_total", "Payload bytes carried, by protocol and direction.")), []string{"protocol", "direction"})
	for _, p := range protocols {
		of := m.of(p)
		of.ended, of.refused = make(map[policy.Reason]prometheus.Counter), make(map[policy.Reason]prometheus.Counter)
		for _, reason := range policy.Reasons() {
			of.ended[reason] = ended.WithLabelValues(p.String(), string(reason))
			of.refused[reason] = refused.WithLabelValues(p.String(), string(reason))
		}
		of.toTarget, of.toClient = bytes.WithLabelValues(p.String(), "to_target"), bytes.WithLabelValues(p.String(), "to_client")
		flows := name("flows_active", "Live flows, by protocol.")
		flows.ConstLabels = prometheus.Labels{"protocol": p.String()}
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts(flows), func() float64 { return float64(active(p)) }))
	}
	m.all = append(m.all, m.flowsLimit, m.memoryLimit, m.memoryShort, ended, refused, bytes, m.acceptErrors, m.listenerFailures, m.logDropped, m.dialSeconds, m.targetUp, rules.deniedBy, rules.trial)
	m.addDatagrams(counts)
	m.all = append(m.all, others...)
	m.register()
	return m
}

// register registers the metrics. Those that another proxy of the process has registered already
// are left out: two proxies in one process are a matter of tests.
func (m *metrics) register() {
	if m.registerer == nil {
		return
	}
	registered := m.all[:0]
	for _, c := range m.all {
		err := m.registerer.Register(c)
		if already := (prometheus.AlreadyRegisteredError{}); errors.As(err, &already) {
			continue
		}
		registered = append(registered, c)
	}
	m.all = registered
}

func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
}

// addDatagrams adds what a relay has moved and dropped.
func (m *metrics) addDatagrams(counts *datagram.Counts) {
	counter := func(name, help, label, value string, n func() int64) {
		c := prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "postern", Subsystem: "proxy", Name: name, Help: help, ConstLabels: prometheus.Labels{label: value},
		}, func() float64 { return float64(n()) })
		m.all = append(m.all, c)
	}
	counter("datagrams_total", "Datagrams carried, by direction.", "direction", "to_target", counts.ToTarget.Load)
	counter("datagrams_total", "Datagrams carried, by direction.", "direction", "to_client", counts.ToClient.Load)
	for _, d := range datagram.Drops() {
		counter("datagrams_dropped_total", "Datagrams of flows that were dropped, by reason.", "reason", d.String(), func() int64 { return counts.Dropped(d) })
	}
}

// setUp says whether a target answers; forget removes it.
func (m *metrics) setUp(service link.ID, target string, up bool) {
	v := 0.0
	if up {
		v = 1
	}
	m.targetUp.WithLabelValues(string(service), target).Set(v)
}

func (m *metrics) forget(service link.ID, target string) {
	m.targetUp.DeleteLabelValues(string(service), target)
}
