package coremain

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/plugin/pkg/transport"
)

// ownPorts: no port of a service is one that something else of this Corefile listens on where endpoints
// do. Routed endpoints are listened for on all addresses of the machine, which leaves the port to nobody
// else; those that are bound by themselves stand only against a listener for all addresses. Without
// this rule the start would end with an address that is in use, and not say by what.
func ownPorts(c *corefile) *problem {
	proxy, perAddress := dataPlane(c)
	if !proxy {
		return nil
	}
	busy := otherListeners(c)
	services := map[string]servicePort{}
	for _, words := range allUses(c, "linkservice") {
		if args := arguments(words); len(args) > 0 {
			if s, ok := portOf(words); ok {
				services[strings.ToLower(args[0].Text)] = s
			}
		}
	}
	for _, words := range allUses(c, "linkendpoint") {
		for _, name := range property(words, "service") {
			service, ok := services[strings.ToLower(name.Text)]
			if !ok {
				continue // linkendpoint says it better
			}
			for _, at := range places(c, words) {
				everywhere := !perAddress && !at.Addr().IsLoopback()
				for _, b := range busy {
					if b.speaks(service.protocol) && b.port == service.port && b.port != "0" && b.against(at.Addr(), everywhere) {
						return service.taken(c, b, everywhere)
					}
				}
			}
		}
	}
	return nil
}

// dataPlane reports whether there is one, and whether it binds each endpoint address by itself.
func dataPlane(c *corefile) (there, perAddress bool) {
	for _, words := range allUses(c, "linkproxy") {
		there = true
		perAddress = perAddress || hasWord(property(words, "listen"), "address")
	}
	return there, perAddress
}

// servicePort is the port of a service, and the word that says it.
type servicePort struct {
	at       caddyfile.Token
	port     string
	protocol string // "tcp" or "udp"
}

// portOf returns the port that endpoints of a linkservice have: its own, or that of its targets.
func portOf(words []caddyfile.Token) (servicePort, bool) {
	protocol := "tcp"
	for _, t := range property(words, "protocol") {
		protocol = t.Text
	}
	for _, t := range property(words, "port") {
		return servicePort{t, t.Text, protocol}, true
	}
	for _, t := range property(words, "target") {
		if _, port, err := net.SplitHostPort(t.Text); err == nil {
			return servicePort{t, port, protocol}, true
		}
	}
	return servicePort{}, false
}

// places returns where an endpoint is or may come to be: its address, else the pools of its network.
func places(c *corefile, endpoint []caddyfile.Token) (found []netip.Prefix) {
	for _, t := range property(endpoint, "address") {
		if addr, err := netip.ParseAddr(t.Text); err == nil {
			addr = addr.Unmap()
			return []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}
		}
	}
	for _, network := range property(endpoint, "network") {
		for _, words := range allUses(c, "linknetwork") {
			if args := arguments(words); len(args) == 0 || !strings.EqualFold(args[0].Text, network.Text) {
				continue
			}
			for _, t := range property(words, "endpoints") {
				if p, err := netip.ParsePrefix(t.Text); err == nil {
					found = append(found, p)
				}
			}
		}
	}
	return found
}

// taken is the problem that the port of the service is taken by another listener.
func (s servicePort) taken(c *corefile, b busyPort, everywhere bool) *problem {
	text := fmt.Sprintf("%s listens on port %s on all addresses; give the service another port, or that an address of its own", b.what, s.port)
	if everywhere {
		text = fmt.Sprintf("%s listens on port %s, and routed endpoints are listened for on all addresses; give the service another port, or say \"listen address\" in linkproxy%s",
			b.what, s.port, b.hint())
	}
	return &problem{fileOf(c, s.at), s.at.Line, "linkservice", text}
}

// busyPort is a port that something else than endpoints listens on.
type busyPort struct {
	what string // such as: server block ".:53" at Corefile:1
	port string
	host string // "" and unspecified addresses are all, what is no address is one that is not known here
	udp  bool   // not on TCP alone
}

// speaks reports whether the port is taken in a protocol.
func (b busyPort) speaks(protocol string) bool {
	return protocol != "udp" || b.udp
}

// against reports whether the listener can't be open beside one for an endpoint address, or for all
// addresses of its family. The same address twice is for another rule, [ownAddresses].
func (b busyPort) against(addr netip.Addr, everywhere bool) bool {
	if b.host == "" || b.host == "::" {
		return true // Go takes both families there
	}
	host, err := netip.ParseAddr(b.host)
	if err != nil {
		return everywhere
	}
	return (everywhere || host.IsUnspecified()) && host.Unmap().Is4() == addr.Is4()
}

// hint says what must happen to the listener too, so that endpoints can be bound by themselves.
func (b busyPort) hint() string {
	if addr, err := netip.ParseAddr(b.host); b.host == "" || err == nil && addr.IsUnspecified() {
		return " and give that an address of its own"
	}
	return ""
}

// hostPorts are the ports of the directives that listen beside DNS where none is written.
var hostPorts = map[string]string{"prometheus": "9153", "pprof": "6053", "health": "8080", "ready": "8181"}

// otherListeners returns what listens beside the endpoints: the server blocks, on TCP and but for TLS and HTTPS on UDP, and
// the directives of CoreDNS, on TCP.
func otherListeners(c *corefile) (found []busyPort) {
	lines := c.keyLines()
	for i, b := range c.blocks {
		for j, key := range b.Keys {
			zones, err := keyZones(key)
			if err != nil || len(zones) == 0 {
				continue
			}
			_, at, _ := strings.Cut(zones[0], "://")
			_, port, _ := net.SplitHostPort(at)
			what := fmt.Sprintf("server block %s at %s:%d", quote(key), c.path, lines[i][j])
			udp := strings.HasPrefix(zones[0], transport.DNS+"://")
			for _, host := range boundTo(b) {
				found = append(found, busyPort{what, port, host, udp})
			}
		}
		for _, name := range []string{"prometheus", "pprof", "health", "ready", "linkapi"} {
			for _, l := range listeners(b, name) {
				port := hostPorts[name]
				if _, written, err := net.SplitHostPort(l.text); err == nil {
					port = written
				}
				host := l.host
				if host == "localhost" {
					host = "127.0.0.1"
				}
				found = append(found, busyPort{fmt.Sprintf("%s at %s:%d", name, fileOf(c, l.at), l.at.Line), port, host, false})
			}
		}
	}
	return found
}

// boundTo returns what a server block is bound to, as it is written: addresses and interfaces, or "" for all.
func boundTo(b caddyfile.ServerBlock) (hosts []string) {
	for _, words := range uses(b.Tokens["bind"], "bind") {
		for _, t := range arguments(words) {
			hosts = append(hosts, t.Text)
		}
	}
	if len(hosts) == 0 {
		return []string{""}
	}
	return hosts
}

// allUses returns the uses of a directive in all server blocks.
func allUses(c *corefile, name string) (found [][]caddyfile.Token) {
	for _, b := range c.blocks {
		found = append(found, uses(b.Tokens[name], name)...)
	}
	return found
}
