package privatelink

import (
	"fmt"
	"testing"

	"github.com/postern-link/postern/link"
)

// BenchmarkLinked answers 1,000 names of a linked zone, names by its wildcard, and, beside it, the names
// of an endpoint of the network itself.
func BenchmarkLinked(b *testing.B) {
	s := apply(b, link.Empty(),
		link.PutNetwork{Network: link.Network{ID: "corp", Prefixes: prefixes("10.1.0.0/16"), Pools: prefixes("10.200.0.0/16")}},
		zone(corpZone, "corp"), record(corpZone, "A", "*.w", "10.20.0.1"),
		link.PutService{Service: service("sql", "contoso.database.windows.net")}, to("sql", "corp", "10.200.0.5"))
	var names, wild []string
	for i := range benchNames {
		s = apply(b, s, record(corpZone, "A", fmt.Sprint("host", i), "10.20.0.7"))
		names = append(names, fmt.Sprintf("host%d.corp.example A", i))
		wild = append(wild, fmt.Sprintf("host%d.w.corp.example A", i))
	}
	srv := newServer(b, s)
	b.Run("record", func(b *testing.B) { ask(b, srv, names) })
	b.Run("wildcard", func(b *testing.B) { ask(b, srv, wild) })
	b.Run("endpoint", func(b *testing.B) { ask(b, srv, []string{"contoso.database.windows.net A"}) })
}

// BenchmarkPass lets names of others pass, in a network without linked zones and in one with.
func BenchmarkPass(b *testing.B) {
	s := apply(b, link.Empty(),
		link.PutNetwork{Network: link.Network{ID: "corp", Prefixes: prefixes("10.1.0.0/16"), Pools: prefixes("10.200.0.0/16")}})
	b.Run("no zones", func(b *testing.B) { ask(b, newServer(b, s), []string{"www.example.org A"}) })
	s = apply(b, s, zone(corpZone, "corp"))
	b.Run("linked", func(b *testing.B) { ask(b, newServer(b, s), []string{"www.example.org A"}) })
}
