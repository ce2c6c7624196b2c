package node

import (
	"fmt"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/prometheus/client_golang/prometheus"
)

// collector counts what the newest snapshot holds, when it is asked.
type collector struct {
	node      *Node
	age       *prometheus.Desc
	freshness *prometheus.Desc
	revision  *prometheus.Desc
	networks  *prometheus.Desc
	services  *prometheus.Desc
	endpoints *prometheus.Desc
	missing   *prometheus.Desc
}

func registerMetrics(n *Node) (*collector, error) {
	if n.register == nil {
		return nil, nil
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("postern", "state", name), help, labels, nil)
	}
	c := &collector{
		node:      n,
		age:       desc("age_seconds", "Time since the store last confirmed that the state in force is the newest."),
		freshness: desc("freshness", "1 for what the age of the state means, 0 for all else.", "level"),
		revision:  desc("revision", "Number of commits that led to the state in force."),
		networks:  desc("networks", "Number of networks."),
		services:  desc("services", "Number of services."),
		endpoints: desc("endpoints", "Number of endpoints by the state of their connection; suspended ones are not among the Approved.", "state"),
		missing: prometheus.NewDesc(prometheus.BuildFQName("postern", "policy", "missing_objects"),
			"Number of endpoints, services and networks that rules name and the state in force doesn't have.", nil, nil),
	}
	if err := n.register.Register(c); err != nil {
		return nil, fmt.Errorf("metrics of the state: %w", err)
	}
	return c, nil
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.age
	ch <- c.freshness
	ch <- c.revision
	ch <- c.networks
	ch <- c.services
	ch <- c.endpoints
	ch <- c.missing
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	s, f := c.node.Snapshot(), c.node.Freshness()
	level := f.Level(false)
	if s == nil {
		level = max(level, policy.Stale) // nothing is carried or answered
	}
	ch <- prometheus.MustNewConstMetric(c.age, prometheus.GaugeValue, f.Age.Seconds())
	for _, l := range policy.Levels() {
		is := 0
		if l == level {
			is = 1
		}
		gauge(c.freshness, is, l.String())
	}
	if s == nil {
		return
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
	if p := c.node.Policy(); p != nil {
		gauge(c.missing, len(p.Missing(s)))
	}
	for state, n := range states {
		gauge(c.endpoints, n, state)
	}
}
