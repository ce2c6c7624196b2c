//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The servers of the DNS tests alone.
const (
	serverNSD          = "NSD"
	serverKnot         = "Knot"
	serverUnbound      = "Unbound local-data"
	serverEcho         = "echo"
	serverPosternChain = "Postern, plugins"
	serverPosternOff   = "Postern, fastpath off"
)

// dnsServers returns the servers of a test that can be run. A peer that isn't installed is left out.
func (b *bench) dnsServers(t dnsTest) map[string]server {
	servers := map[string]server{
		serverFile:  {serverFile, b.coreFile},
		serverHosts: {serverHosts, b.coreHosts},
		serverEcho: {serverEcho, func(string) ([]string, error) {
			return []string{b.self, "-role", "echo", b.net.dns.String()}, nil
		}},
	}
	for name, peer := range map[string]struct {
		program string
		command func(dir string, t dnsTest) ([]string, error)
	}{serverNSD: {"nsd", b.nsd}, serverKnot: {"knotd", b.knot}, serverUnbound: {"unbound", b.unbound}} {
		if b.has(peer.program) {
			servers[name] = server{name, func(dir string) ([]string, error) { return peer.command(dir, t) }}
		} else if t.name == dnsTests()[0].name {
			fmt.Fprintf(os.Stderr, "%s isn't installed: left out\n", peer.program)
		}
	}
	if b.postern != "" {
		for name, of := range map[string]struct {
			fastpath string
			proxying bool
		}{serverPostern: {"on", false}, serverPosternChain: {"plugins", false}, serverPosternOff: {"off", false}, serverPosternProxy: {"on", true}} {
			servers[name] = server{name, func(dir string) ([]string, error) {
				if t.many {
					return b.posternMany(dir, of.fastpath)
				}
				return b.posternDNS(dir, of.fastpath, of.proxying)
			}}
		}
	}
	return servers
}

// workers is how many a peer has.
func (t dnsTest) workers() int {
	if t.wide {
		return 2
	}
	return 1
}

// zone returns the zone that the questions of a test are in, and its file.
func (t dnsTest) zone() (name, file string) {
	if t.public {
		return publicZone, "public.zone"
	}
	return privateZone, "private.zone"
}

// nsd configures NSD with the zone of the test.
func (b *bench) nsd(dir string, t dnsTest) ([]string, error) {
	if err := b.zoneFiles(dir, t); err != nil {
		return nil, err
	}
	zone, file := t.zone()
	path, err := config(dir, "nsd.conf", fmt.Sprintf(`server:
  ip-address: %[1]s@%[2]d
  server-count: %[3]d
  username: ""
  chroot: ""
  zonesdir: "%[4]s"
  database: ""
  pidfile: "%[4]s/nsd.pid"
  xfrdfile: "%[4]s/xfrd.state"
  xfrdir: "%[4]s"
  zonelistfile: "%[4]s/zone.list"
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: "%[5]s"
  zonefile: "%[6]s"
`, b.net.dns.Addr(), b.net.dns.Port(), t.workers(), dir, zone, file))
	return []string{"nsd", "-d", "-c", path}, err
}

// knot configures Knot with the zone of the test.
func (b *bench) knot(dir string, t dnsTest) ([]string, error) {
	if err := b.zoneFiles(dir, t); err != nil {
		return nil, err
	}
	zone, file := t.zone()
	path, err := config(dir, "knot.conf", fmt.Sprintf(`server:
    rundir: "%[4]s"
    user: root:root
    listen: %[1]s@%[2]d
    udp-workers: %[3]d
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: warning
database:
    storage: "%[4]s"
template:
  - id: default
    storage: "%[4]s"
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
zone:
  - domain: %[5]s
    file: "%[6]s"
`, b.net.dns.Addr(), b.net.dns.Port(), t.workers(), dir, zone, file))
	return []string{"knotd", "-c", path}, err
}

// unbound configures Unbound with the privatelink names as local data.
func (b *bench) unbound(dir string, t dnsTest) ([]string, error) {
	var data strings.Builder
	for i := range dnsNames {
		fmt.Fprintf(&data, "  local-data: \"%s.%s. 10 A %s\"\n", label(i), privateZone, b.net.address(i))
	}
	path, err := config(dir, "unbound.conf", fmt.Sprintf(`server:
  interface: %s@%d
  access-control: 0.0.0.0/0 allow
  num-threads: %d
  module-config: "iterator"
  username: ""
  chroot: ""
  directory: "%s"
  pidfile: ""
  use-syslog: no
  local-zone: "%s." static
%sremote-control:
  control-enable: no
`, b.net.dns.Addr(), b.net.dns.Port(), t.workers(), dir, privateZone, data.String()))
	return []string{"unbound", "-d", "-p", "-c", path}, err
}

// zoneFiles writes one zone file per zone, with the names of a test.
func (b *bench) zoneFiles(dir string, t dnsTest) error {
	const head = "@ 3600 IN SOA ns.%[1]s. admin.%[1]s. 1 3600 1200 604800 10\n@ 3600 IN NS ns.%[1]s.\n"
	var private, public strings.Builder
	fmt.Fprintf(&private, "$TTL 10\n"+head, privateZone)
	fmt.Fprintf(&public, "$TTL 10\n"+head, publicZone)
	for i := range t.names() {
		fmt.Fprintf(&private, "%s A %s\n", label(i), b.net.addressOf(t, i))
		fmt.Fprintf(&public, "%[1]s CNAME %[1]s.privatelink\n%[1]s.privatelink A %[2]s\n", label(i), b.net.addressOf(t, i))
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "private.zone"), []byte(private.String()), 0o644),
		os.WriteFile(filepath.Join(dir, "public.zone"), []byte(public.String()), 0o644),
	)
}

// coreFile configures CoreDNS with one zone file per zone.
func (b *bench) coreFile(dir string) ([]string, error) {
	if err := b.zoneFiles(dir, dnsTest{}); err != nil {
		return nil, err
	}
	return b.corefile(b.coredns, dir, fmt.Sprintf("%s:%d {\n bind %s\n file %s/private.zone\n}\n%s:%d {\n bind %s\n file %s/public.zone\n}\n",
		privateZone, b.net.dns.Port(), b.net.dns.Addr(), dir, publicZone, b.net.dns.Port(), b.net.dns.Addr(), dir))
}

// coreHosts configures CoreDNS with a hosts file.
func (b *bench) coreHosts(dir string) ([]string, error) {
	var hosts strings.Builder
	for i := range dnsNames {
		fmt.Fprintf(&hosts, "%s %s.%s\n", b.net.address(i), label(i), privateZone)
	}
	if err := os.WriteFile(dir+"/hosts", []byte(hosts.String()), 0o644); err != nil {
		return nil, err
	}
	return b.corefile(b.coredns, dir, fmt.Sprintf("%s:%d {\n bind %s\n hosts %s/hosts\n}\n",
		privateZone, b.net.dns.Port(), b.net.dns.Addr(), dir))
}

func (b *bench) corefile(program, dir, text string) ([]string, error) {
	path, err := config(dir, "Corefile", text)
	return []string{program, "-conf", path}, err
}
