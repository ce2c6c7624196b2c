//go:build linux

package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// posternHead is the beginning of every Corefile: the state in a file that goes with the run, and the
// consumer's network, in which the load generator's addresses are.
func (b *bench) posternHead(dir string) string {
	return fmt.Sprintf(`.:%d {
 bind %s
 linkstore bolt %s
%s`, b.net.dns.Port(), b.net.dns.Addr(), filepath.Join(dir, "state.db"), b.consumer())
}

// consumer declares the network of the load generator.
func (b *bench) consumer() string {
	return fmt.Sprintf(" linknetwork consumer %s {\n  endpoints %s\n }\n", b.net.clients, b.net.pool)
}

// metrics serves them: who operates a node has them on.
func (b *bench) metrics() string {
	return fmt.Sprintf(" prometheus %s:%d\n", b.net.dns.Addr(), metricsPort)
}

// published declares the backend as a service that has these lines too, and its endpoint, and carries flows to it.
func (b *bench) published(lines string) string {
	targets := make([]string, len(b.net.targets))
	for i, t := range b.net.targets {
		targets[i] = t.String()
	}
	return fmt.Sprintf(` linkservice backend {
%s  port %d
  target %s
  approve consumer
 }
 linkendpoint consumer-backend {
  service backend
  network consumer
  address %s
 }
 linkproxy {
  max_flows %d
  max_per_source %[5]d
 }
`, lines, b.net.endpoint.Port(), strings.Join(targets, " "), b.net.endpoint.Addr(), b.flows+300)
}

// posternWith configures a node with the backend as a service that has these lines, and more in the Corefile.
func (b *bench) posternWith(dir, lines, more string) ([]string, error) {
	return b.corefile(b.postern, dir, b.posternHead(dir)+b.metrics()+more+b.published(lines)+" privatelink\n}\n")
}

// posternDNS configures one service and one endpoint for each name. All services have the same
// target, so that proxying, if it is on, costs a listener and a probe per service and nothing else.
func (b *bench) posternDNS(dir, fastpath string, proxying bool) ([]string, error) {
	var c strings.Builder
	c.WriteString(b.posternHead(dir))
	for i := range dnsNames {
		fmt.Fprintf(&c, ` linkservice %[1]s {
  names %[1]s.%[2]s
  port %[5]d
  target %[3]s
  approve consumer
 }
 linkendpoint %[1]s {
  service %[1]s
  network consumer
  address %[4]s
 }
`, label(i), publicZone, b.net.targets[0], b.net.address(i), b.net.endpoint.Port())
	}
	fmt.Fprintf(&c, " privatelink {\n  miss nxdomain\n  fastpath %s\n", fastpath)
	c.WriteString(" }\n")
	if proxying {
		c.WriteString(" linkproxy\n")
	}
	c.WriteString("}\n")
	return b.corefile(b.postern, dir, c.String())
}

// posternProxy configures one service with the backend as its targets, no names and no PROXY
// header: what the peers do.
func (b *bench) posternProxy(dir string) ([]string, error) {
	return b.posternWith(dir, "  pin address\n", "")
}

// posternHeader also tells the targets who the client is.
func (b *bench) posternHeader(dir string) ([]string, error) {
	return b.posternWith(dir, "  pin address\n  proxy_protocol v2\n", "")
}
