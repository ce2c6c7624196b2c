package privatelink

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/coredns/coredns/plugin/pkg/edns"
	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/postern-link/postern/plugin/privatelink/fastpath"
)

// reason is why a server block or an address of it has no fast path, short enough for a metric; the text says more.
type reason struct {
	word, text string
	sockets    bool // the plugins can answer each query on the fast path's sockets
}

// harmless are the handlers in front of privatelink that do nothing to an answer but count it or report its failure.
var harmless = []string{"prometheus", "errors"}

// blockReason says why a server block can't do without its plugins; nil where it can. decorated says that a plugin wants to see
// what the server writes.
func blockReason(config *dnsserver.Config, keys int, decorated bool) *reason {
	switch {
	case !fastpath.Supported():
		return &reason{word: "system", text: "it needs Linux"}
	case config.Transport != transport.DNS:
		return &reason{word: "transport", text: "the block serves no plain DNS"}
	case config.Zone != "." || keys != 1:
		return &reason{word: "zone", text: "the block is not that of the zone . alone"}
	case config.ProxyProtoConnPolicy != nil:
		return &reason{word: "proxyproto", text: "proxyproto reads the datagrams first"}
	case len(config.TsigSecret) > 0:
		return &reason{word: "tsig", text: "tsig signs the answers"}
	case config.ViewName != "" || len(config.FilterFuncs) > 0:
		return &reason{word: "view", text: "view chooses among server blocks"}
	case decorated:
		return &reason{word: "shed", text: "shed writes the answers"}
	}
	if err := fastpath.Usable(); err != nil {
		return &reason{word: "system", text: "the kernel takes no filter: " + err.Error()}
	}
	for _, h := range config.Handlers() {
		switch {
		case h.Name() == name:
			return nil
		case !slices.Contains(harmless, h.Name()):
			return &reason{word: "plugin", text: h.Name() + " stands in front and would not see what is answered", sockets: true}
		}
	}
	return &reason{word: "plugin", text: "privatelink is not in the chain"} // not reached: it has just been put there
}

// addressReason says why an address of a server block can't have a fast path.
func addressReason(config *dnsserver.Config, host string, others []*dnsserver.Config) (netip.AddrPort, *reason) {
	addr, err := netip.ParseAddr(host)
	wild := isWild(host)
	if wild {
		addr, err = fastpath.Wildcard(), nil // as the socket of each is
	}
	port, bad := strconv.ParseUint(config.Port, 10, 16)
	if err != nil || bad != nil || port == 0 || addr.Is4In6() {
		return netip.AddrPort{}, &reason{word: "address", text: "the address or the port is not a plain one"}
	}
	for _, o := range others {
		if o.Port == config.Port && o.Transport == config.Transport && (slices.Contains(o.ListenHosts, host) || wild && slices.ContainsFunc(o.ListenHosts, isWild)) {
			return netip.AddrPort{}, &reason{word: "block", text: "another server block has the address as well"}
		}
	}
	return netip.AddrPortFrom(addr, uint16(port)), nil
}

// isWild reports whether a block that binds to host listens on all addresses.
func isWild(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.IsUnspecified()
}

// configs returns those of all other server blocks of the Corefile that c read. CoreDNS has no list of them, so they are asked for
// by their places in the file.
func configs(c *caddy.Controller, file caddy.Input) ([]*dnsserver.Config, error) {
	blocks, err := caddyfile.Parse(file.Path(), bytes.NewReader(file.Body()), nil)
	if err != nil {
		return nil, err
	}
	var all []*dnsserver.Config
	for i, b := range blocks {
		for j := range b.Keys {
			if i != c.ServerBlockIndex {
				at := *c
				at.ServerBlockIndex, at.ServerBlockKeyIndex = i, j
				all = append(all, dnsserver.GetConfig(&at))
			}
		}
	}
	return all, nil
}

// newFast returns what serves an address of a server block, which the block calls host. If there is a reason why no answer is given again,
// its plugins answer each query.
func newFast(p *Privatelink, config *dnsserver.Config, host string, at netip.AddrPort, why *reason) (*fast, error) {
	f := &fast{p: p, at: at, sockets: max(1, config.NumSockets), why: why}
	// A server of our own with the plugins of the block: CoreDNS makes one for each of its sockets in the same way.
	var err error
	if f.server, err = dnsserver.NewServer(serverName(config, host), []*dnsserver.Config{config}); err != nil {
		return nil, err
	}
	f.ctx = context.WithValue(context.WithValue(context.Background(), dnsserver.Key{}, f.server), dnsserver.LoopKey{}, 0)
	f.target = fastpath.NewTarget(f)
	f.target.Always = why != nil
	f.target.NoSubnets = len(p.ecsFrom) > 0 && p.network == ""
	for _, code := range fastpath.Options {
		f.target.NoOptions = f.target.NoOptions || edns.SupportedOption(code)
	}
	if m, ok := config.Handler("prometheus").(*metrics.Metrics); ok && m.Next != nil {
		f.counted = m.Next.Name()
	}
	return f, nil
}

// serverName is what CoreDNS calls the server of an address.
func serverName(config *dnsserver.Config, host string) string {
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.String()
	}
	return fmt.Sprintf("%s://%s", config.Transport, net.JoinHostPort(host, config.Port))
}
