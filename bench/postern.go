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
 linknetwork consumer %s {
  endpoints %s
 }
`, b.net.dns.Port(), b.net.dns.Addr(), filepath.Join(dir, "state.db"), b.net.clients, b.net.pool)
}

// posternDNS configures one service and one endpoint for each name. All services have the same
// target, so that proxying, if it is on, costs a listener and a probe per service and nothing else.
func (b *bench) posternDNS(dir string, proxying bool) ([]string, error) {
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
	c.WriteString(" privatelink {\n  miss nxdomain\n }\n")
	if proxying {
		c.WriteString(" linkproxy\n")
	}
	c.WriteString("}\n")
	return b.corefile(b.postern, dir, c.String())
}

// posternProxy configures one service with the backend as its targets, no names and no PROXY
// header: what the peers do.
func (b *bench) posternProxy(dir string) ([]string, error) {
	return b.posternBy(dir, "pin address", "")
}
