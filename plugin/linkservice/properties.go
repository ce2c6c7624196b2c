package linkservice

import (
	"fmt"
	"strings"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
)

// maxLimit bounds the number of connections that a limit may name.
const maxLimit = 1_000_000

func directive(s *link.Service) block.Directive {
	return block.Directive{
		Name: name, Usage: "NAME", Min: 1, Max: 1,
		Set: func(args []string) (err error) {
			s.ID, err = block.ID(args[0])
			return err
		},
		Properties: []block.Property{
			{
				Name: "names", Usage: "NAME...", Min: 1, Max: block.Any,
				Set: func(args []string) error {
					names, err := block.List(args, block.Pattern)
					for _, n := range names {
						s.Names = append(s.Names, link.ResourceName{Public: n})
					}
					return err
				},
			},
			{
				Name: "port", Usage: "PORT", Min: 1, Max: 1,
				Set: func(args []string) (err error) {
					s.Port, err = block.Port(args[0])
					return err
				},
			},
			{
				Name: "protocol", Usage: "tcp|udp", Min: 1, Max: 1,
				Set: func(args []string) error {
					if _, err := block.Word(args[0], "tcp", "udp"); err != nil {
						return err
					}
					var err error
					s.Protocol, err = link.ParseProtocol(args[0])
					return err
				},
			},
			{
				Name: "target", Usage: "ADDR:PORT|NAME:PORT... [weight=N]", Min: 1, Max: block.Any, Repeat: true,
				Set: func(args []string) error { return targets(s, args) },
			},
			{
				Name: "within", Usage: "PREFIX...", Min: 1, Max: link.MaxWithin,
				Set: func(args []string) (err error) {
					s.Within, err = block.List(args, block.Prefix)
					return err
				},
			},
			{
				Name: "site", Usage: "NAME PREFIX...", Min: 2, Max: block.Any, Repeat: true,
				Set: func(args []string) (err error) {
					s.Sites, err = block.Site(s.Sites, args)
					return err
				},
			},
			{
				Name: "balance", Usage: "round-robin|least-connections|source-hash", Min: 1, Max: 1,
				Set: func(args []string) (err error) {
					s.Balance, err = block.Word(args[0], link.Balances()...)
					return err
				},
			},
			{
				Name: "probe", Usage: "tcp|tls [NAME]|http PATH [STATUS]", Min: 1, Max: 3,
				Set: func(args []string) (err error) {
					s.Probe, err = probe(args)
					return err
				},
			},
			{
				Name: "max_per_target", Usage: "N [WAITING]", Min: 1, Max: 2,
				Set: func(args []string) (err error) {
					if s.MaxPerTarget, err = block.Int(args[0], 1, link.MaxOfTarget); err != nil {
						return err
					}
					if s.MaxWaiting = s.MaxPerTarget; len(args) == 2 {
						s.MaxWaiting, err = block.Int(args[1], 0, link.MaxOfTarget)
					}
					return err
				},
			},
			{
				Name: "warm", Usage: "N [AGE]", Min: 1, Max: 2,
				Set: func(args []string) (err error) {
					if s.Warm, err = block.Int(args[0], 1, link.MaxWarm); err == nil && len(args) == 2 {
						s.WarmAge, err = block.Duration(args[1], link.MinWarmAge, link.MaxWarmAge)
					}
					return err
				},
			},
			parties("visible", &s.Visible),
			parties("approve", &s.AutoApprove),
			parties("reject", &s.Reject),
			{
				Name: "pin", Usage: "tls|postgres|tds|mysql|address", Min: 1, Max: 1,
				Set: func(args []string) (err error) {
					s.Pin, err = block.Word(args[0], link.Pins()...)
					return err
				},
			},
			{
				Name: "proxy_protocol", Usage: "off|v1|v2|azure|aws|gcp", Min: 1, Max: 1,
				Set: func(args []string) (err error) {
					s.ProxyProtocol, err = block.Word(args[0], link.ProxyOff, link.ProxyV1, link.ProxyV2,
						link.ProxyAzure, link.ProxyAWS, link.ProxyGCP)
					return err
				},
			},
			{
				Name: "nat", Usage: "ADDR...", Min: 1, Max: link.MaxNAT,
				Set: func(args []string) (err error) {
					s.NAT, err = block.List(args, block.Addr)
					return err
				},
			},
			{
				Name: "idle_timeout", Usage: "DURATION", Min: 1, Max: 1,
				Set: func(args []string) (err error) {
					// Of either protocol; that of the service may come below.
					s.IdleTimeout, err = block.Duration(args[0], link.MinUDPIdleTimeout, link.MaxIdleTimeout)
					return err
				},
			},
			{
				Name: "ech", Usage: "allow", Min: 1, Max: 1,
				Set: func(args []string) error {
					_, err := block.Word(args[0], "allow")
					s.ECHOuter = err == nil
					return err
				},
			},
			{
				Name: "fallback", Usage: "public", Min: 1, Max: 1,
				Set: func(args []string) error {
					_, err := block.Word(args[0], "public")
					s.FallbackPublic = err == nil
					return err
				},
			},
			{
				Name: "limit", Usage: "N [N]", Min: 1, Max: 2,
				Set: func(args []string) (err error) {
					if s.MaxConnections, err = block.Int(args[0], 1, maxLimit); err == nil && len(args) == 2 {
						s.MaxPerConsumer, err = block.Int(args[1], 1, s.MaxConnections)
					}
					return err
				},
			},
			{
				Name: "stale", Usage: "strict", Min: 1, Max: 1,
				Set: func(args []string) error {
					_, err := block.Word(args[0], "strict")
					s.Strict = err == nil
					return err
				},
			},
		},
	}
}

// parties is a property that lists who may do something.
func parties(name string, to *[]link.Party) block.Property {
	return block.Property{
		Name: name, Usage: "PARTY...", Min: 1, Max: block.Any,
		Set: func(args []string) (err error) {
			*to, err = block.List(args, party)
			return err
		},
	}
}

// party parses one entry of such a list. Networks are those of the Corefile.
func party(s string) (link.Party, error) {
	p, err := link.ParseParty(s)
	if p == link.Anyone || strings.HasPrefix(string(p), "tenant/") || strings.HasPrefix(string(p), "subscription/") {
		return p, err
	}
	if _, err := block.ID(s); err != nil {
		return "", fmt.Errorf("%s is not a party; write the name of a network, tenant/NAME, subscription/ID or *", block.Quote(s))
	}
	return p, nil
}
