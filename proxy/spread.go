package proxy

import (
	"time"

	"github.com/postern-link/postern/proxy/targets"
	"github.com/prometheus/client_golang/prometheus"
)

// spread tells of the targets of probed services what isn't told as it happens. It looks when it is asked, so that flows
// needn't count, and that what is gone has no metric.
type spread struct{ proxy *Proxy }

var (
	targetFlows = prometheus.NewDesc("postern_proxy_target_flows",
		"Flows that have a place at the target of a service, those that are being connected included.", []string{"service", "target"}, nil)
	targetEjected = prometheus.NewDesc("postern_proxy_target_ejected",
		"Whether the target of a service gets no flows for now because some went wrong there.", []string{"service", "target"}, nil)
	waitingFlows = prometheus.NewDesc("postern_proxy_waiting_flows",
		"Flows that wait for a place at a target of a service with max_per_target.", []string{"service"}, nil)
)

// Describe implements [prometheus.Collector].
func (s spread) Describe(to chan<- *prometheus.Desc) {
	to <- targetFlows
	to <- targetEjected
	to <- waitingFlows
}

// Collect implements [prometheus.Collector].
func (s spread) Collect(to chan<- prometheus.Metric) {
	now := time.Now()
	for id, one := range s.proxy.health.view.Load().services.all() {
		if len(one.targets) == 0 && !one.unasked {
			continue // no live connection: there is nothing to tell
		}
		var all []targets.Status // sent when the set isn't held any more
		waiting, bounded := one.set.Look(now, func(t targets.Status) { all = append(all, t) })
		for _, t := range all {
			out := 0.0
			if t.Ejected {
				out = 1
			}
			to <- prometheus.MustNewConstMetric(targetFlows, prometheus.GaugeValue, float64(t.Flows), string(id), t.Addr.String())
			to <- prometheus.MustNewConstMetric(targetEjected, prometheus.GaugeValue, out, string(id), t.Addr.String())
		}
		if bounded {
			to <- prometheus.MustNewConstMetric(waitingFlows, prometheus.GaugeValue, float64(waiting), string(id))
		}
	}
}
