package proxy

import (
	"net/netip"

	"github.com/postern-link/postern/link"
	"github.com/prometheus/client_golang/prometheus"
)

// natPorts tells how many ports of the NAT addresses live flows and connections that are ready have, and how many there are. Ports of connections that ended
// here first aren't free for a minute more, by TIME_WAIT, and aren't told: the kernel takes them again where the target
// remembers time stamps (RFC 6191). It looks when it is asked, as spread does.
type natPorts struct{ proxy *Proxy }

var (
	natUsed = prometheus.NewDesc("postern_proxy_nat_ports_used",
		"Ports of a NAT address of a service that live connections to a target have.", []string{"service", "address", "target"}, nil)
	natTotal = prometheus.NewDesc("postern_proxy_nat_ports",
		"Ports that each NAT address has for connections to one target: net.ipv4.ip_local_port_range.", nil, nil)
)

// natUse is what a port is used for.
type natUse struct {
	service link.ID
	from    netip.Addr
	to      netip.AddrPort
}

// Describe implements [prometheus.Collector].
func (n natPorts) Describe(to chan<- *prometheus.Desc) {
	to <- natUsed
	to <- natTotal
}

// Collect implements [prometheus.Collector].
func (n natPorts) Collect(to chan<- prometheus.Metric) {
	used, any := n.unused()
	if !any {
		return
	}
	for _, f := range n.proxy.live.all() {
		if use, ok := f.natUse(); ok {
			if _, known := used[use]; known { // others are of a service that has changed since
				used[use]++
			}
		}
	}
	n.proxy.warm.sources(func(use natUse) {
		if _, known := used[use]; known {
			used[use]++
		}
	})
	for use, ports := range used {
		to <- prometheus.MustNewConstMetric(natUsed, prometheus.GaugeValue, float64(ports), string(use.service), use.from.String(), use.to.String())
	}
	if total := localPorts(); total > 0 {
		to <- prometheus.MustNewConstMetric(natTotal, prometheus.GaugeValue, float64(total))
	}
}

// unused returns each address and target of each service that has NAT addresses, and whether there is any.
func (n natPorts) unused() (used map[natUse]int, any bool) {
	s := n.proxy.snapshot()
	if s == nil {
		return nil, false
	}
	used = make(map[natUse]int)
	for service := range s.Services() {
		for _, from := range service.NAT {
			for to := range n.proxy.health.addresses(service) {
				if to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port()); from.Is4() == to.Addr().Is4() {
					used[natUse{service.ID, from, to}] = 0
				}
			}
		}
	}
	return used, len(used) > 0
}

// natUse returns what the flow uses a port of a NAT address for; false for none.
func (f *flow) natUse() (natUse, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.protocol != link.TCP || f.target == nil || f.verdict.Service == nil || len(f.verdict.Service.NAT) == 0 {
		return natUse{}, false
	}
	from := localAddress(f.target)
	return natUse{f.verdict.Service.ID, from, netip.AddrPortFrom(f.address.Addr().Unmap(), f.address.Port())}, from.IsValid()
}
