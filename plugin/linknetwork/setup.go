// Package linknetwork is the directive that declares a network: a consumer's address space.
package linknetwork

import (
	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
)

const name = "linknetwork"

func init() { plugin.Register(name, setup) }

func setup(c *caddy.Controller) error {
	draft, err := handover.Of(c)
	if err != nil {
		return err
	}
	for c.Next() {
		var n link.Network
		at, err := block.Parse(c, directive(&n))
		if err != nil {
			return err
		}
		if err := draft.AddNetwork(at, n); err != nil {
			return err
		}
	}
	return nil
}

func directive(n *link.Network) block.Directive {
	return block.Directive{
		Name: name, Usage: "NAME PREFIX...", Min: 2, Max: block.Any,
		Set: func(args []string) (err error) {
			if n.ID, err = block.ID(args[0]); err != nil {
				return err
			}
			n.Prefixes, err = block.List(args[1:], block.Prefix)
			return err
		},
		Properties: []block.Property{
			{
				Name: "endpoints", Usage: "POOL...", Min: 1, Max: block.Any,
				Set: func(args []string) (err error) {
					n.Pools, err = block.List(args, block.Prefix)
					return err
				},
			},
			{
				Name: "egress", Usage: "DESTINATION...", Min: 1, Max: block.Any,
				Set: func(args []string) (err error) {
					n.Egress, err = block.List(args, destination)
					return err
				},
			},
			{
				Name: "site", Usage: "NAME PREFIX...", Min: 2, Max: block.Any, Repeat: true,
				Set: func(args []string) (err error) {
					n.Sites, err = block.Site(n.Sites, args)
					return err
				},
			},
			{
				Name: "by_listener",
				Set: func([]string) error {
					n.ByListener = true
					return nil
				},
			},
		},
	}
}

// destination parses one entry of an egress list.
func destination(s string) (string, error) {
	p, err := link.ParseParty(s)
	return string(p), err
}
