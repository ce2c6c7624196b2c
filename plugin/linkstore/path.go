package linkstore

import (
	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
)

// StatePath returns the absolute path of the state file that a Corefile names: for programs that work
// on the state without starting a server. tokens are the words of the directive as Caddy's parser
// gives them, none where the Corefile doesn't have it; file is the name of the Corefile, for errors.
func StatePath(file string, tokens []caddyfile.Token) (string, error) {
	c := &caddy.Controller{Dispenser: caddyfile.NewDispenserTokens(file, tokens)}
	var s settings
	for c.Next() {
		if _, err := block.Parse(c, directive(&s)); err != nil {
			return "", err
		}
	}
	return handover.StatePath(s.path)
}
