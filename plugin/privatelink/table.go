package privatelink

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
)

// maxZoneFile bounds a file of zones, in bytes.
const maxZoneFile = 4 << 20

// noZone stands for the private zone of a suffix whose names are to have no private name.
const noZone = "none"

// addedZones is a line that adds to the table of zones: a zone line, or a zones line with the rows of its file.
type addedZones struct {
	at   block.Position
	rows []link.ZoneRow
}

// addZone takes a zone line.
func (d *parsed) addZone(at block.Position, private, public string) error {
	row := link.ZoneRow{Public: fold(public)}
	if private != noZone {
		row.Private = fold(private)
	}
	for _, other := range d.zones {
		if slices.ContainsFunc(other.rows, func(o link.ZoneRow) bool { return o.Private == row.Private && o.Public == row.Public }) {
			return fmt.Errorf("zone %s of %s is given already at %s", private, row.Public, other.at)
		}
	}
	return d.add(at, row)
}

// addFile takes a zones line. The file is read here, so that one that is wrong is refused before anything is changed.
func (d *parsed) addFile(at block.Position, name string) error {
	path, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxZoneFile+1))
	switch {
	case err != nil:
		return err
	case len(text) > maxZoneFile:
		return fmt.Errorf("%s has more than %d bytes", path, maxZoneFile)
	}
	rows, _, err := link.ParseZones(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return d.add(at, rows...)
}

// add tries rows on their own, and keeps them.
func (d *parsed) add(at block.Position, rows ...link.ZoneRow) error {
	if _, err := new(link.Zones).With(rows...); err != nil {
		return block.Plain(err)
	}
	d.zones = append(d.zones, addedZones{at, rows})
	return nil
}

// fold writes a zone or a suffix as the table does: letters are small except in placeholders, and there is no dot at the end.
func fold(s string) string {
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	for i, l := range labels {
		if !strings.HasPrefix(l, "{") {
			labels[i] = strings.ToLower(l)
		}
	}
	return strings.Join(labels, ".")
}

// Table returns z with what the uses of the directive in one server block add: for programs that look at a Corefile without starting a
// server. tokens are the words of the directive as Caddy's parser gives them; file is the name of the Corefile, for errors.
func Table(z *link.Zones, file string, tokens []caddyfile.Token) (*link.Zones, error) {
	d, err := parse(&caddy.Controller{Dispenser: caddyfile.NewDispenserTokens(file, tokens)})
	if err != nil || d == nil {
		return z, err
	}
	for _, added := range d.zones {
		if z, err = z.With(added.rows...); err != nil {
			return nil, added.at.Errorf("%w", block.Plain(err))
		}
	}
	return z, nil
}
