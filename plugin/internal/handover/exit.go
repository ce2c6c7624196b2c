package handover

import "github.com/postern-link/postern/link"

// Exit is what judges the names of others, before they are asked elsewhere.
type Exit interface {
	// Explain says what becomes of a question for the address of a name, and by which rule, as far as that doesn't depend on what its client
	// has asked before. The network is "" for a client in none.
	Explain(network link.ID, asked link.Name) (result, rule string)
}

// AddExit adds that of a server block.
func (d *Draft) AddExit(e Exit) { d.exits = append(d.exits, e) }

// Exits returns those of all server blocks, in their order. For use once the Corefile is read.
func (d *Draft) Exits() []Exit { return d.exits }
