// Package linkstore is the directive that says where the state lives.
package linkstore

import (
	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
)

const name = "linkstore"

func init() { plugin.Register(name, setup) }

// settings is what the directive says. Zero values are the defaults.
type settings struct {
	path   string
	origin link.ID
}

func setup(c *caddy.Controller) error {
	draft, err := handover.Of(c)
	if err != nil {
		return err
	}
	for c.Next() {
		var s settings
		at, err := block.Parse(c, directive(&s))
		if err != nil {
			return err
		}
		if err := draft.SetStore(at, s.path, s.origin); err != nil {
			return err
		}
	}
	return nil
}

func directive(s *settings) block.Directive {
	return block.Directive{
		Name: name, Usage: "bolt [PATH]", Min: 1, Max: 2,
		Set: func(args []string) error {
			if _, err := block.Word(args[0], "bolt"); err != nil {
				return err
			}
			if len(args) == 2 {
				s.path = args[1]
			}
			return nil
		},
		Properties: []block.Property{
			{
				Name: "origin", Usage: "NAME", Min: 1, Max: 1,
				Set: func(args []string) (err error) {
					s.origin, err = block.ID(args[0])
					return err
				},
			},
		},
	}
}
