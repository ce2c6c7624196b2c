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
	if d.exports.at == nil {
		d.exports.at = make(map[string]block.Position)
	}
	d.exports.at[c.Name] = at
	d.exports.all = append(d.exports.all, c)
	return nil
}

// placed returns them with all their files, for a state at a place. Two receivers have no file of a position in common: what one has would be taken
// for what the other has.
func (x *exports) placed(p Place) ([]export.Config, error) {
	all := slices.Clone(x.all)
	owner := make(map[string]string)
	for i := range all {
		c := &all[i]
		if !c.Audit {
			continue
		}
		if c.Position == "" {
			c.Position = ExportPosition(p, c.Name)
		}
		file := resolved(c.Position)
		for _, taken := range []string{file, export.Unfinished(file)} {
			if other, ok := owner[taken]; ok {
				return nil, x.at[c.Name].Property("position").Errorf("%s is where receiver %s has its position, at %s; each needs a file of its own", c.Position, other, x.at[other].Property("position"))
			}
		}
		owner[file], owner[export.Unfinished(file)] = c.Name, c.Name
	}
	return all, nil
}

// resolved returns a path without symbolic links in its directory, which may not be there yet.
func resolved(path string) string {
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return filepath.Clean(path)
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
