package handover

import (
	"path/filepath"
	"slices"

	"github.com/postern-link/postern/export"
	"github.com/postern-link/postern/node"
	"github.com/postern-link/postern/plugin/internal/block"
)

// exports are the receivers of a Corefile, in its order, and where each stands.
type exports struct {
	all []export.Config
	at  map[string]block.Position
}

// AddExport adds a receiver. Without a file for its position it has one beside the state.
func (d *Draft) AddExport(at block.Position, c export.Config) error {
	if first, twice := d.exports.at[c.Name]; twice {
		return at.Errorf("receiver %s is given already at %s", c.Name, first)
	}
	for _, other := range d.exports.all {
		if c.Position != "" && c.Position == other.Position {
			return at.Property("position").Errorf("%s has receiver %s already, at %s; each needs one of its own", c.Position, other.Name, d.exports.at[other.Name].Property("position"))
		}
	}
	if d.exports.at == nil {
		d.exports.at = make(map[string]block.Position)
	}
	d.exports.at[c.Name] = at
	d.exports.all = append(d.exports.all, c)
	return nil
}

// placed returns them with all their files, for a state at a place.
func (x *exports) placed(p Place) []export.Config {
	all := slices.Clone(x.all)
	for i := range all {
		if c := &all[i]; c.Audit && c.Position == "" {
			c.Position = ExportPosition(p, c.Name)
		}
	}
	return all
}

// ExportPosition returns the path of a receiver's position where the Corefile says nothing: beside the state file, or where that would be.
func ExportPosition(p Place, receiver string) string {
	file := p.Bolt
	if p.Shared() {
		own, err := PlaceOf(Store{})
		if err != nil { // no working directory: it is told when the file is opened
			own = node.Place{Bolt: "postern.db"}
		}
		file = own.Bolt
	}
	return filepath.Join(filepath.Dir(file), "export-"+receiver+".position")
}
