package proxy

import (
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/resolve"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	nameAddresses = prometheus.NewDesc("postern_proxy_name_addresses",
		"Addresses that are targets of a service because a name leads there.", []string{"service", "target"}, nil)
	nameRefused = prometheus.NewDesc("postern_proxy_name_addresses_refused",
		"Addresses that a name leads to and that may not be targets of the service.", []string{"service", "target"}, nil)
	nameStale = prometheus.NewDesc("postern_proxy_name_stale_seconds",
		"Time since the name of a target was last found, 0 where the newest lookup has found it.", []string{"service", "target"}, nil)
	nameLookups = prometheus.NewDesc("postern_proxy_name_lookups_total",
		"Lookups of names of targets, by what came of them.", []string{"result"}, nil)
	nameRefusals = prometheus.NewDesc("postern_proxy_name_refused_total",
		"Addresses that a name newly led to and that weren't made targets, by cause.", []string{"cause"}, nil)
)

// Describe implements [prometheus.Collector].
func (n *names) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nameAddresses, nameRefused, nameStale, nameLookups, nameRefusals} {
		to <- d
	}
}

// Collect implements [prometheus.Collector]. It looks when it is asked, so that what is gone has no metric.
func (n *names) Collect(to chan<- prometheus.Metric) {
	for _, o := range resolve.Outcomes() {
		to <- prometheus.MustNewConstMetric(nameLookups, prometheus.CounterValue, float64(n.known.Count(o)), o.String())
	}
	to <- prometheus.MustNewConstMetric(nameRefusals, prometheus.CounterValue, float64(n.refused.Load()), "rule")
	to <- prometheus.MustNewConstMetric(nameRefusals, prometheus.CounterValue, float64(n.over.Load()), "number")
	now := time.Now()
	for id := range n.proxy.health.view.Load().services.all() {
		for _, one := range n.proxy.Names(id) {
			n.collect(to, id, one, now)
		}
	}
}

func (n *names) collect(to chan<- prometheus.Metric, id link.ID, one NameStatus, now time.Time) {
	gauge := func(d *prometheus.Desc, v float64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, string(id), one.Target.String())
	}
	gauge(nameAddresses, float64(len(one.Addrs)))
	gauge(nameRefused, float64(len(one.Refused)))
	switch {
	case !one.Looked:
	case one.Err == nil:
		gauge(nameStale, 0)
	case !one.At.IsZero():
		gauge(nameStale, now.Sub(one.At).Seconds())
	}
}
