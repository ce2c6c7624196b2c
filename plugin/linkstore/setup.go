// Package linkstore is the directive that says where the state lives.
package linkstore

import (
	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
)

const name = "linkstore"

func init() { plugin.Register(name, setup) }

func setup(c *caddy.Controller) error {
	draft, err := handover.Of(c)
	if err != nil {
		return err
	}
	for c.Next() {
		at, s, err := parse(c)
		if err != nil {
			return err
		}
		if err := draft.SetStore(at, s); err != nil {
			return err
		}
	}
	return nil
}

// parse reads one use of the directive, whose name c has loaded.
func parse(c *caddy.Controller) (block.Position, handover.Store, error) {
	var s settings
	at, err := block.Parse(c, s.directive())
	if err != nil {
		return at, handover.Store{}, err
	}
	store, err := s.store(at)
	return at, store, err
}

// directive is the table of the directive.
func (s *settings) directive() block.Directive {
	etcd := func(set func([]string) error) func([]string) error {
		return func(args []string) error {
			if s.kind != kindEtcd {
				return errEtcdOnly
			}
			return set(args)
		}
	}
	return block.Directive{
		Name: name, Usage: "bolt [PATH] | etcd ENDPOINT...", Min: 1, Max: block.Any,
		Set: s.setKind,
		Properties: []block.Property{
			{Name: "origin", Usage: "NAME", Min: 1, Max: 1, Set: func(args []string) (err error) {
				s.origin, err = block.ID(args[0])
				return err
			}},
			{Name: "tls", Usage: "[CA] | CERT KEY [CA]", Max: 3, Set: etcd(s.setTLS)},
			{Name: "user", Usage: "NAME PASSWORD_FILE", Min: 2, Max: 2, Set: etcd(s.setUser)},
			{Name: "prefix", Usage: "PATH", Min: 1, Max: 1, Set: etcd(s.setPrefix)},
			{Name: "read_only", Set: etcd(func([]string) error {
				s.etcd.ReadOnly = true
				return nil
			})},
			{Name: "stale", Usage: "best-effort|strict [BOUND]", Min: 1, Max: 2, Set: etcd(s.setStale)},
			{Name: "socket", Usage: "PATH", Min: 1, Max: 1, Set: etcd(func(args []string) (err error) {
				s.etcd.Socket, err = absolute(args[0])
				return err
			})},
		},
	}
}
