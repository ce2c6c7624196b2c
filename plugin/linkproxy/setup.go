// Package linkproxy is the directive that switches the data plane on: the proxy that carries the TCP
// connections made to endpoint addresses.
package linkproxy

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
	"github.com/postern-link/postern/proxy"
)

const name = "linkproxy"

// Where endpoint connections are accepted.
const (
	listenPool    = "pool"    // one listener a port, for all routed endpoint addresses
	listenAddress = "address" // one listener for each endpoint address
)

// The engines.
const (
	engineEpoll    = "epoll"
	enginePortable = "portable"
)

// The largest counts that make sense: Linux has no more descriptors or ports than these for one process.
const (
	maxFlows     = 1 << 20
	maxPerSource = 1 << 20
	maxFastOpen  = 4096 // a usual net.core.somaxconn, which bounds it
)

// maxResolvers bounds the servers for names of targets: each that doesn't answer costs two seconds of every lookup.
const maxResolvers = 8

func init() { plugin.Register(name, setup) }

func setup(c *caddy.Controller) error {
	draft, err := handover.Of(c)
	if err != nil {
		return err
	}
	for c.Next() {
		var s proxy.Settings
		at, err := block.Parse(c, directive(&s))
		if err != nil {
			return err
		}
		if s.MaxFlows != 0 && s.MaxPerSource > s.MaxFlows {
			return at.Property("max_per_source").Errorf("max_per_source %d is more than max_flows %d", s.MaxPerSource, s.MaxFlows)
		}
		if err := draft.SetProxy(at, s); err != nil {
			return err
		}
	}
	return nil
}

func directive(s *proxy.Settings) block.Directive {
	return block.Directive{
		Name: name,
		Properties: []block.Property{
			duration("hello_timeout", &s.HelloTimeout, 100*time.Millisecond, time.Minute),
			duration("dial_timeout", &s.DialTimeout, 100*time.Millisecond, time.Minute),
			drain(s),
			integer("max_flows", &s.MaxFlows, maxFlows),
			integer("max_per_source", &s.MaxPerSource, maxPerSource),
			duration("probe", &s.ProbeInterval, 100*time.Millisecond, 5*time.Minute),
			{
				Name: "proxy_protocol_from", Usage: "PREFIX...", Min: 1, Max: block.Any,
				Set: func(args []string) (err error) {
					s.InboundHeaders, err = block.List(args, block.Prefix)
					return err
				},
			},
			{
				Name: "resolver", Usage: "ADDR[:PORT]...", Min: 1, Max: maxResolvers,
				Set: func(args []string) (err error) {
					s.Resolvers, err = block.List(args, resolver)
					return err
				},
			},
			{
				Name: "listen", Usage: "pool|address", Min: 1, Max: 1,
				Set: func(args []string) error {
					word, err := block.Word(args[0], listenPool, listenAddress)
					s.PerAddress = word == listenAddress
					return err
				},
			},
			{
				Name: "engine", Usage: "epoll|portable", Min: 1, Max: 1,
				Set: func(args []string) error {
					word, err := block.Word(args[0], engineEpoll, enginePortable)
					if word == engineEpoll && !proxy.HasEpoll {
						return errors.New("this build has none")
					}
					s.Portable = word == enginePortable
					return err
				},
			},
			{
				Name: "fast_open", Usage: "N", Min: 1, Max: 1,
				Set: func(args []string) (err error) {
					s.FastOpen, err = block.Int(args[0], 1, maxFastOpen)
					return err
				},
			},
		},
	}
}

// resolver parses a server for names of targets.
func resolver(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		s = netip.AddrPortFrom(a, 53).String()
	}
	ap, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		return ap, fmt.Errorf("%s is not an address of a DNS server; one looks like 10.0.0.53, 10.0.0.53:5353 or [fd00::53]:53", block.Quote(s))
	case ap.Port() == 0:
		return ap, fmt.Errorf("%s has port 0; 1 to 65535 is allowed", block.Quote(s))
	case ap.Addr().IsUnspecified() || ap.Addr().IsMulticast():
		return ap, fmt.Errorf("%s is not an address to ask", ap)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// drain is how long live flows may go on at the end, and after another process has taken the place of this one.
func drain(s *proxy.Settings) block.Property {
	return block.Property{
		Name: "drain", Usage: "DURATION [UPGRADE]", Min: 1, Max: 2,
		Set: func(args []string) (err error) {
			if s.DrainTimeout, err = block.Duration(args[0], 100*time.Millisecond, 10*time.Minute); err != nil || len(args) == 1 {
				return err
			}
			s.LeaveTimeout, err = block.Duration(args[1], 100*time.Millisecond, 7*24*time.Hour)
			return err
		},
	}
}

func duration(name string, to *time.Duration, least, most time.Duration) block.Property {
	return block.Property{
		Name: name, Usage: "DURATION", Min: 1, Max: 1,
		Set: func(args []string) (err error) {
			*to, err = block.Duration(args[0], least, most)
			return err
		},
	}
}

func integer(name string, to *int, most int) block.Property {
	return block.Property{
		Name: name, Usage: "N", Min: 1, Max: 1,
		Set: func(args []string) (err error) {
			*to, err = block.Int(args[0], 1, most)
			return err
		},
	}
}
