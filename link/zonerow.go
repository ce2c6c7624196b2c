package link

import (
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// The published list of private DNS zones and public suffixes, one row a sub-resource, in the form that [ParseZones] reads.
//
//go:embed zones.csv
var zonesCSV string

// ZoneRow is one row of the table of zones.
type ZoneRow struct {
	Service      string // the product; "" in a row that doesn't say
	Cloud        string // such as "US Gov"; "" is the public one, or not said
	ResourceType string // such as Microsoft.Sql/servers; "" where the row doesn't say
	Subresource  string // the same for the sub-resource (group ID) of an endpoint
	Private      string // the private zone, may be a template; "": names of the suffix have no private name
	Public       string // the public suffix, may be a template
	Added        bool   // by [Zones.With]
}

// maxZoneRows bounds a table.
const maxZoneRows = 10000

// zoneColumns are the columns of a table, as its first row names them.
var zoneColumns = []string{"service", "resource_type", "subresource", "private_zone", "public_zone"}

// versionMark begins the line of a table that says its version.
const versionMark = "# version: "

// DefaultZones returns the table that ships with Postern.
func DefaultZones() *Zones { return defaultZones() }

var defaultZones = sync.OnceValue(func() *Zones {
	rows, version, err := ParseZones(zonesCSV)
	if err != nil {
		panic("link: the embedded zone table: " + err.Error()) // a test reads it at build time
	}
	z, err := new(Zones).with(version, rows)
	if err != nil {
		panic("link: the embedded zone table: " + err.Error())
	}
	return z
})

// ParseZones reads rows in the form of zones.csv: lines that begin with "#" are comments, and one that begins with "# version: " says
// what version the table is ("" without one); the first row names the five columns service, resource_type, subresource, private_zone,
// public_zone; the cloud stands in brackets behind the service. The error wraps [ErrInvalid] and says the line.
func ParseZones(text string) (rows []ZoneRow, version string, err error) {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, versionMark); ok && version == "" {
			version = strings.TrimSpace(v)
		}
	}
	r := csv.NewReader(strings.NewReader(text))
	r.Comment, r.FieldsPerRecord = '#', len(zoneColumns)
	for first := true; ; first = false {
		fields, err := r.Read()
		switch {
		case errors.Is(err, io.EOF) && first:
			return nil, "", fmt.Errorf("%w: the table is empty; its first row is %s", ErrInvalid, strings.Join(zoneColumns, ","))
		case errors.Is(err, io.EOF):
			return rows, version, nil
		case err != nil:
			return nil, "", fmt.Errorf("%w: %w", ErrInvalid, err)
		case first && !slices.Equal(fields, zoneColumns):
			return nil, "", fmt.Errorf("%w: the first row is %s", ErrInvalid, strings.Join(zoneColumns, ","))
		case first:
			continue
		}
		row := ZoneRow{Service: fields[0], ResourceType: fields[1], Subresource: fields[2], Private: fields[3], Public: fields[4]}
		if service, cloud, ok := strings.Cut(strings.TrimSuffix(row.Service, "]"), " ["); ok {
			row.Service, row.Cloud = service, cloud
		}
		line, _ := r.FieldPos(0)
		if _, err := newZoneRule(row); err != nil {
			return nil, "", fmt.Errorf("line %d: %w", line, err)
		}
		if rows = append(rows, row); len(rows) > maxZoneRows {
			return nil, "", fmt.Errorf("%w: more than %d rows", ErrInvalid, maxZoneRows)
		}
	}
}

// newZoneRule reads what a row says. The error wraps [ErrInvalid].
func newZoneRule(row ZoneRow) (zoneRule, error) {
	rule := zoneRule{pair: [2]string{row.Private, row.Public}, added: row.Added}
	pub, pubWords, err := templateLabels(row.Public)
	if err != nil {
		return rule, err
	}
	if rule.public = pub; row.Private == "" {
		return rule, nil
	}
	priv, privWords, err := templateLabels(row.Private)
	if err != nil {
		return rule, err
	}
	if endsIn(pub, priv) {
		return rule, fmt.Errorf("%w: the public suffix %s is inside the private zone %s, so no name could have a private one", ErrInvalid, row.Public, row.Private)
	}
	// A leading placeholder that the public suffix doesn't have can't be filled from a public name. The
	// rest is a zone of the table too, so the names of the narrower one are found in that.
	for priv[0] == "" && !slices.Contains(pubWords, privWords[0]) {
		priv, privWords = priv[1:], privWords[1:]
	}
	rule.private = priv
	rule.divide(privWords, pubWords)
	rule.fill(privWords, pubWords)
	if rule.marker == "" && rule.from == nil {
		return rule, fmt.Errorf("%w: zone %q has a placeholder that %q doesn't have, so no name could have a private one", ErrInvalid, clip(row.Private), clip(row.Public))
	}
	return rule, nil
}

// divide finds the marker of the private zone: the label that stands for the private link, with what is before and behind it
// as in the public names.
func (r *zoneRule) divide(privWords, pubWords []string) {
	begin, end := 0, 0
	if i := slices.IndexFunc(r.private, func(l string) bool { return strings.HasPrefix(l, "privatelink") }); i >= 0 {
		begin, end = i, i+1
	} else if n := len(r.private) - len(r.public); n > 0 && slices.Equal(r.private[n:], r.public) {
		begin, end = 0, n
	}
	if begin == end || slices.Contains(r.private[begin:end], "") {
		return
	}
	// Labels of the zone take the place of those of the suffix, counted from the right: words must agree.
	words := slices.Concat(privWords[:begin], privWords[end:])
	for i, j := len(words)-1, len(pubWords)-1; i >= 0 && j >= 0; i, j = i-1, j-1 {
		if words[i] != "" && pubWords[j] != "" && words[i] != pubWords[j] {
			return
		}
	}
	r.before, r.marker, r.after = r.private[:begin], strings.Join(r.private[begin:end], "."), r.private[end:]
}

// fill finds the label of the suffix that fills each placeholder of the zone.
func (r *zoneRule) fill(privWords, pubWords []string) {
	from := make([]int, len(privWords))
	for i, word := range privWords {
		if word == "" {
			continue
		}
		if from[i] = slices.Index(pubWords, word); from[i] < 0 {
			return
		}
	}
	r.from = from
}

// templateLabels cuts a template into labels, "" for a placeholder, and the placeholders' words.
func templateLabels(s string) (labels, words []string, err error) {
	for label := range strings.SplitSeq(s, ".") {
		word := ""
		if inner, ok := strings.CutPrefix(label, "{"); ok && strings.HasSuffix(inner, "}") {
			word, label = label, ""
			if inner = strings.TrimSuffix(inner, "}"); inner == "" || strings.ContainsFunc(inner, notLetter) || slices.Contains(words, word) {
				return nil, nil, fmt.Errorf("%w: zone %q: a placeholder is a word of letters in braces, each of which stands there once", ErrInvalid, clip(s))
			}
		} else if n, err := ParseName(label); err != nil || string(n) != label {
			return nil, nil, fmt.Errorf("%w: zone %q: label %q; labels are made of small letters, digits and '-', or are a placeholder such as {region}", ErrInvalid, clip(s), clip(label))
		}
		labels, words = append(labels, label), append(words, word)
	}
	if labels[len(labels)-1] == "" || len(s) > 253 {
		return nil, nil, fmt.Errorf("%w: zone %q: the last label is no placeholder, and 253 bytes are allowed", ErrInvalid, clip(s))
	}
	return labels, words, nil
}

func notLetter(c rune) bool { return (c|0x20 < 'a' || c|0x20 > 'z') }

// With returns a table in which the rows go before all others of the same suffix, the last of them first. A row whose Private is
// empty takes the private names of its suffix away. The error wraps [ErrInvalid].
func (z *Zones) With(rows ...ZoneRow) (*Zones, error) {
	rows = slices.Clone(rows)
	slices.Reverse(rows)
	for i := range rows {
		rows[i].Added = true
	}
	return z.with(z.version, rows)
}

// with returns a table with rows before those of z.
func (z *Zones) with(version string, rows []ZoneRow) (*Zones, error) {
	all := &Zones{version: version, root: new(zoneNode), rows: slices.Concat(rows, z.rows)}
	seen := make(map[[2]string]bool)
	add := func(r zoneRule) {
		if !seen[r.pair] { // rows of several resource types share a zone
			seen[r.pair] = true
			all.add(r)
		}
	}
	for _, row := range rows {
		r, err := newZoneRule(row)
		if err != nil {
			return nil, err
		}
		add(r)
	}
	for _, r := range z.rules {
		add(r)
	}
	return all, nil
}

// Version returns the version of the table that ships with Postern, the month that it was made in, also where rows were added.
func (z *Zones) Version() string { return z.version }

// Rows returns the rows, those added first, the last of them at the beginning.
func (z *Zones) Rows() []ZoneRow { return slices.Clone(z.rows) }

// ZoneMatch is what the table says about a name.
type ZoneMatch struct {
	ResourceName           // Private and Zone are "" where the name is answered as it is
	Inside       bool      // the name is in the private zone Zone already, or is it
	Rows         []ZoneRow // those that say so
	Others       []ZoneRow // those whose suffix covers the name too, and that gave way
}

// Match returns what the table says about a name, public or private, and which rows say it.
func (z *Zones) Match(name Name) ZoneMatch {
	if begin, node := z.find([]byte(name)); node != nil {
		m := ZoneMatch{ResourceName: ResourceName{Public: name, Zone: name[begin:]}, Inside: true}
		for _, r := range z.rules {
			if len(r.private) > 0 && writeZone(r.private) == node.as {
				m.Rows = append(m.Rows, z.rowsOf(r.pair)...)
			}
		}
		return m
	}
	res, rule := z.resource(name)
	m := ZoneMatch{ResourceName: res}
	rules := z.rulesFor(strings.Split(string(name), "."))
	won := slices.Index(rules, rule)
	if won < 0 {
		return m
	}
	m.Rows = z.rowsOf(rule.pair)
	for _, r := range rules[won+1:] { // those before it have no private name for the name
		m.Others = append(m.Others, z.rowsOf(r.pair)...)
	}
	return m
}

// rowsOf returns the rows of one zone and suffix.
func (z *Zones) rowsOf(pair [2]string) (rows []ZoneRow) {
	for _, r := range z.rows {
		if r.Private == pair[0] && r.Public == pair[1] {
			rows = append(rows, r)
		}
	}
	return rows
}

// writeZone returns labels as the tree names a zone: "*" for a placeholder.
func writeZone(labels []string) string {
	written := slices.Clone(labels)
	for i, l := range written {
		if l == "" {
			written[i] = "*"
		}
	}
	return strings.Join(written, ".")
}

// add makes a rule the last of the table.
func (z *Zones) add(r zoneRule) {
	z.rules = append(z.rules, r)
	if len(r.private) > 0 {
		z.root.add(r.private)
	}
}
