package linkstore

import (
	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/postern-link/postern/plugin/internal/handover"
)

// Place returns where the state lives that a Corefile names: for programs that work on the state
// without starting a server. tokens are the words of the directive as Caddy's parser gives them, none
// where the Corefile doesn't have it; file is the name of the Corefile, for errors.
func Place(file string, tokens []caddyfile.Token) (handover.Place, error) {
	c := &caddy.Controller{Dispenser: caddyfile.NewDispenserTokens(file, tokens)}
	var s handover.Store
	for c.Next() {
		var err error
		if _, s, err = parse(c); err != nil {
			return handover.Place{}, err
		}
	}
	return handover.PlaceOf(s)
}
