package coremain

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/privatelink"
)

// zones prints the table of privatelink zones, or what it says about names. It reads a Corefile only where one is given.
func zones(args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("postern zones", flag.ContinueOnError)
	f.SetOutput(stderr)
	conf := f.String("conf", "", "Corefile whose zones count too (default: the table that ships with Postern alone)")
	output := f.String("o", "table", "what is printed: table or json")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if *output != "table" && *output != "json" {
		fmt.Fprintf(stderr, "postern zones: -o %s: table and json are allowed\n", quote(*output))
		return 2
	}
	names := make([]link.Name, f.NArg())
	for i, arg := range f.Args() {
		var err error
		if names[i], err = link.ParsePattern(arg); err != nil {
			fmt.Fprintf(stderr, "postern zones: %v\n", err)
			return 2
		}
	}
	table, err := zoneTable(*conf)
	if err != nil {
		return fail(stderr, err)
	}
	if len(names) == 0 {
		err = printZones(stdout, table, *output)
	} else {
		err = printMatches(stdout, table, names, *output)
	}
	if err != nil {
		return fail(stderr, err)
	}
	return 0
}

// zoneTable returns the table with what a Corefile adds, if one is given.
func zoneTable(conf string) (*link.Zones, error) {
	table := link.DefaultZones()
	if conf == "" {
		return table, nil
	}
	if err := Setup(); err != nil {
		return nil, err
	}
	l, err := newLoader(conf)
	if err != nil {
		return nil, err
	}
	_, c, err := l.read()
	if err != nil {
		return nil, err
	}
	for _, b := range c.blocks {
		if tokens := b.Tokens["privatelink"]; len(tokens) > 0 {
			if table, err = privatelink.Table(table, c.path, tokens); err != nil {
				return nil, err
			}
		}
	}
	return table, nil
}

// zoneJSON is a row of the table as programs read it.
type zoneJSON struct {
	Service      string `json:"service,omitempty"`
	Cloud        string `json:"cloud,omitempty"`
	ResourceType string `json:"resourceType,omitempty"`
	Subresource  string `json:"subresource,omitempty"`
	PrivateZone  string `json:"privateZone"` // "": names of the suffix have no private name
	PublicSuffix string `json:"publicSuffix"`
	Added        bool   `json:"added,omitempty"` // by the Corefile
}

func zonesJSON(rows []link.ZoneRow) []zoneJSON {
	all := make([]zoneJSON, len(rows))
	for i, r := range rows {
		all[i] = zoneJSON{r.Service, r.Cloud, r.ResourceType, r.Subresource, r.Private, r.Public, r.Added}
	}
	return all
}

// printZones prints the whole table.
func printZones(w io.Writer, z *link.Zones, output string) error {
	rows := z.Rows()
	if output == "json" {
		return writeJSON(w, struct {
			Version string     `json:"version"`
			Zones   []zoneJSON `json:"zones"`
		}{z.Version(), zonesJSON(rows)})
	}
	fmt.Fprintf(w, "table %s, %s\n", z.Version(), count(len(rows), "row"))
	return writeRows(w, "", rows)
}

// matchJSON is what the table says about a name, as programs read it.
type matchJSON struct {
	Name        link.Name  `json:"name"`
	PrivateName link.Name  `json:"privateName"` // "": it is answered as it is, or is a private name itself
	Zone        link.Name  `json:"zone"`
	Private     bool       `json:"private"` // the name is in the private zone already
	Rows        []zoneJSON `json:"rows"`
	Others      []zoneJSON `json:"others"`
}

// printMatches prints what the table says about names.
func printMatches(w io.Writer, z *link.Zones, names []link.Name, output string) error {
	var all []matchJSON
	for i, name := range names {
		m := z.Match(name)
		if output == "json" {
			all = append(all, matchJSON{name, m.Private, m.Zone, m.Inside, zonesJSON(m.Rows), zonesJSON(m.Others)})
			continue
		}
		if i > 0 {
			fmt.Fprintln(w)
		}
		switch {
		case m.Inside:
			fmt.Fprintf(w, "%s\n  is private already, in the zone %s: a service has the public name\n", name, m.Zone)
		case m.Private != "":
			fmt.Fprintf(w, "%s\n  private name  %s\n  zone          %s\n", name, m.Private, m.Zone)
		case len(m.Rows) > 0:
			fmt.Fprintf(w, "%s\n  has no private name: a service of this name is answered with its addresses\n", name)
		default:
			fmt.Fprintf(w, "%s\n  is covered by no row: a service of this name is answered with its addresses\n", name)
		}
		if err := writeRows(w, "  ", m.Rows); err != nil {
			return err
		}
		if len(m.Others) > 0 {
			fmt.Fprintln(w, "  rows of the suffix that gave way (\"zone PRIVATE NAME\" of privatelink decides otherwise):")
			if err := writeRows(w, "  ", m.Others); err != nil {
				return err
			}
		}
	}
	if output == "json" {
		return writeJSON(w, all)
	}
	return nil
}

// writeRows prints rows in columns. Rows may come from a file of somebody else: what isn't printable is escaped.
func writeRows(w io.Writer, indent string, rows []link.ZoneRow) error {
	if len(rows) == 0 {
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, indent+strings.Join([]string{"PUBLIC SUFFIX", "PRIVATE ZONE", "RESOURCE TYPE", "SUBRESOURCE", "CLOUD", "SERVICE"}, "\t"))
	for _, r := range rows {
		service := r.Service
		if service == "" && r.Added {
			service = "(Corefile)"
		}
		cells := []string{r.Public, r.Private, r.ResourceType, r.Subresource, r.Cloud, service}
		for i, cell := range cells {
			if cells[i] = printable(cell); cell == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(tw, indent+strings.Join(cells, "\t"))
	}
	return tw.Flush()
}

// writeJSON prints a value as JSON.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
