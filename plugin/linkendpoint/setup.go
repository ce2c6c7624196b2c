// Package linkendpoint is the directive that declares an endpoint: an address in a consumer's network
// that stands for one service.
package linkendpoint

import (
	"fmt"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
)

const name = "linkendpoint"

// maxMessage bounds the words to the provider, in bytes: what Azure allows.
const maxMessage = 140

func init() { plugin.Register(name, setup) }

func setup(c *caddy.Controller) error {
	draft, err := handover.Of(c)
	if err != nil {
		return err
	}
	for c.Next() {
		var d link.DeclaredEndpoint
		at, err := block.Parse(c, directive(&d))
		if err != nil {
			return err
		}
		for _, p := range []string{"service", "network"} {
			if !at.Has(p) {
				return at.Errorf("endpoint %s has no %s; add the line %q", d.Endpoint.ID, p, p+" NAME")
			}
		}
		if err := draft.AddEndpoint(at, d.Endpoint, d.Message); err != nil {
			return err
		}
	}
	return nil
}

func directive(d *link.DeclaredEndpoint) block.Directive {
	e := &d.Endpoint
	return block.Directive{
		Name: name, Usage: "NAME", Min: 1, Max: 1,
		Set: func(args []string) (err error) {
			e.ID, err = block.ID(args[0])
			return err
		},
		Properties: []block.Property{
			{
				Name: "service", Usage: "NAME", Min: 1, Max: 1,
				Set: func(args []string) (err error) {
					e.Service, err = block.ID(args[0])
					return err
				},
			},
			{
				Name: "network", Usage: "NAME", Min: 1, Max: 1,
				Set: func(args []string) (err error) {
					e.Network, err = block.ID(args[0])
					return err
				},
			},
			{
				Name: "address", Usage: "ADDR", Min: 1, Max: 1,
				Set: func(args []string) (err error) {
					e.Address, err = block.Addr(args[0])
					return err
				},
			},
			{
				Name: "allow", Usage: "PREFIX...", Min: 1, Max: block.Any,
				Set: func(args []string) (err error) {
					e.Allow, err = block.List(args, block.Prefix)
					return err
				},
			},
			{
				Name: "message", Usage: "TEXT", Min: 1, Max: 1,
				Set: func(args []string) error {
					d.Message = args[0]
					if len(d.Message) > maxMessage {
						return fmt.Errorf("the text has %d bytes; %d are allowed", len(d.Message), maxMessage)
					}
					return nil
				},
			},
		},
	}
}
