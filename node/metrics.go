package node

import (
	"fmt"

	"github.com/postern-link/postern/link"
	"github.com/prometheus/client_golang/prometheus"
)

// collector counts what the newest snapshot holds, when it is asked.
type collector struct {
	snapshot  func() *link.Snapshot
	revision  *prometheus.Desc
	networks  *prometheus.Desc
	services  *prometheus.Desc
	endpoints *prometheus.Desc
}

func registerMetrics(r prometheus.Registerer, snapshot func() *link.Snapshot) (*collector, error) {
	if r == nil {
		return nil, nil
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("postern", "state", name), help, labels, nil)
	}
	c := &collector{
		snapshot:  snapshot,
		revision:  desc("revision", "Number of commits that led to the state in force."),
		networks:  desc("networks", "Number of networks."),
		services:  desc("services", "Number of services."),
		endpoints: desc("endpoints", "Number of endpoints by the state of their connection; suspended ones are not among the Approved.", "state"),
	}
	if err := r.Register(c); err != nil {
		return nil, fmt.Errorf("metrics of the state: %w", err)
	}
	return c, nil
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.revision
	ch <- c.networks
	ch <- c.services
	ch <- c.endpoints
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.snapshot()
	if s == nil {
		return
	}
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	states := map[string]int{string(link.Pending): 0, string(link.Approved): 0, string(link.Rejected): 0, string(link.Disconnected): 0, "Suspended": 0}
	networks, services := 0, 0
	for e := range s.Endpoints() {
		if e.Connection.Suspended != nil {
			states["Suspended"]++
		} else {
			states[string(e.Connection.State)]++
		}
	}
	for range s.Networks() {
		networks++
	}
	for range s.Services() {
		services++
	}
	gauge(c.revision, int(s.Revision()))
	gauge(c.networks, networks)
	gauge(c.services, services)
	for state, n := range states {
		gauge(c.endpoints, n, state)
	}
}
