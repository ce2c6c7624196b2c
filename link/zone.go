package link

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// ZonesVersion is the month of the table that [DefaultZones] returns.
const ZonesVersion = "2026-11"

// The published list of private DNS zones and public suffixes, one row a sub-resource. A row without
// a private zone says that names of the suffix have none.
//
//go:embed zones.csv
var zonesCSV string

// Zones is the table of privatelink zones: which private zone belongs to which public suffix.
// Immutable; the zero value knows no zone. [DefaultZones] is the table that ships with Postern.
//
// A private zone or public suffix of the shipped table may be a template: "{region}" stands for one
// label, whatever the word in the braces.
type Zones struct {
	rules []zoneRule // those added last come first
	root  *zoneNode  // the private zones, by labels from the right
}

// zoneRule is one row of the table. Labels are kept from the left; "" is a placeholder.
type zoneRule struct {
	private, public []string // private: nil where the suffix has no zone
	// The private zone is before + marker + after. For privatelink.database.windows.net the marker is
	// "privatelink" and after is database.windows.net, what the public names of the zone end in.
	before []string
	marker string // "" where the zone has no such shape
	after  []string
	added  bool // by With
}

// zoneNode is a step in the tree of private zones.
type zoneNode struct {
	literal map[string]*zoneNode
	any     *zoneNode // the step of a placeholder
	zone    Name      // the zone that ends here, if it is no template
	as      string    // the zone that ends here as the table writes it; "" where none does
}

// DefaultZones returns the table that ships with Postern.
func DefaultZones() *Zones { return defaultZones() }

var defaultZones = sync.OnceValue(func() *Zones {
	z, err := parseZones(zonesCSV)
	if err != nil {
		panic("link: the embedded zone table: " + err.Error()) // a test reads it at build time
	}
	return z
})

// parseZones reads the table in the form of zones.csv: the last two of five columns are the private
// zone and the public suffix.
func parseZones(text string) (*Zones, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.FieldsPerRecord = 5
	rows, err := r.ReadAll()
	if err != nil {
		return nil, err
	}
	z := &Zones{root: new(zoneNode)}
	seen := make(map[[2]string]bool)
	for _, row := range rows[min(1, len(rows)):] {
		pair := [2]string{row[3], row[4]}
		if seen[pair] {
			continue
		}
		seen[pair] = true
		rule, err := newZoneRule(row[3], row[4])
		if err != nil {
			return nil, err
		}
		z.add(rule)
	}
	return z, nil
}

// newZoneRule reads one private zone and one public suffix, either of which may be a template.
func newZoneRule(private, public string) (zoneRule, error) {
	pub, pubNames, err := templateLabels(public)
	if err != nil {
		return zoneRule{}, err
	}
	if private == "" {
		return zoneRule{public: pub}, nil
	}
	priv, privNames, err := templateLabels(private)
	if err != nil {
		return zoneRule{}, err
	}
	// A leading placeholder that the public suffix doesn't have can't be filled from a public name. The
	// rest is a zone of the table too, so the names of the narrower one are found in that.
	for len(priv) > 0 && priv[0] == "" && !slices.Contains(pubNames, privNames[0]) {
		priv, privNames = priv[1:], privNames[1:]
	}
	rule := zoneRule{private: priv, public: pub}
	if i := slices.IndexFunc(priv, func(l string) bool { return strings.HasPrefix(l, "privatelink") }); i >= 0 {
		rule.before, rule.marker, rule.after = priv[:i], priv[i], priv[i+1:]
	} else if n := len(priv) - len(pub); n > 0 && slices.Equal(priv[n:], pub) {
		rule.before, rule.marker, rule.after = nil, strings.Join(priv[:n], "."), pub
	}
	return rule, nil
}

// templateLabels cuts a template into labels, "" for a placeholder, and the placeholders' words.
func templateLabels(s string) (labels, words []string, err error) {
	for label := range strings.SplitSeq(s, ".") {
		word := ""
		if strings.HasPrefix(label, "{") && strings.HasSuffix(label, "}") {
			word, label = label, ""
		} else if n, err := ParseName(label); err != nil || string(n) != label {
			return nil, nil, fmt.Errorf("%w: zone %q: label %q", ErrInvalid, s, label)
		}
		labels, words = append(labels, label), append(words, word)
	}
	return labels, words, nil
}

// With returns a table in which private is the zone of the public suffix, before all others of the
// same suffix.
func (z *Zones) With(private, public Name) *Zones {
	rule, err := newZoneRule(string(private), string(public))
	if err != nil {
		return z // not reached with names that were parsed
	}
	rule.added = true
	w := &Zones{root: new(zoneNode)}
	w.add(rule)
	for _, r := range z.rules {
		w.add(r)
	}
	return w
}

// add makes a rule the last of the table.
func (z *Zones) add(r zoneRule) {
	z.rules = append(z.rules, r)
	if len(r.private) > 0 {
		z.root.add(r.private)
	}
}

// Resource returns the resource name of a public name: with its private name and zone, both empty
// where no zone covers it. The longest public suffix wins. A name that is a public suffix, that lies
// in a private zone, or whose private name would be too long, has none.
func (z *Zones) Resource(public Name) ResourceName {
	res := ResourceName{Public: public}
	if public == "" || z.Zone([]byte(public)) != "" {
		return res
	}
	labels := strings.Split(string(public), ".")
	for _, r := range z.rulesFor(labels) {
		if len(r.private) == 0 || slices.Equal(labels, r.public) {
			return res
		}
		private, zone := r.privateName(labels)
		if private == "" || private == zone || z.Zone([]byte(private)) != zone {
			continue // such as contoso.database.windows.net under {prefix}.database.windows.net
		}
		if _, err := ParsePattern(string(private)); err == nil {
			res.Private, res.Zone = private, zone
			return res
		}
	}
	return res
}

// rulesFor returns the rules whose public suffix the labels end in, the best first.
func (z *Zones) rulesFor(labels []string) []*zoneRule {
	var found []*zoneRule
	for i := range z.rules {
		if r := &z.rules[i]; endsIn(labels, r.public) {
			found = append(found, r)
		}
	}
	slices.SortStableFunc(found, func(a, b *zoneRule) int {
		if n := len(b.public) - len(a.public); n != 0 {
			return n
		}
		if n := literals(b.public) - literals(a.public); n != 0 {
			return n
		}
		switch {
		case a.added && b.added:
			return 0 // the last one added is the first of the table
		case a.added:
			return -1
		case b.added:
			return 1
		}
		return b.fit(labels) - a.fit(labels)
	})
	return found
}

// fit says how well the private zone fits a name, among rules of one public suffix: by the number of
// labels that it shares with the name, and then whether it is just "privatelink." and the suffix.
func (r *zoneRule) fit(labels []string) int {
	if r.marker == "" || !endsIn(labels, r.after) {
		return 0
	}
	n := 2 * len(r.after)
	if r.marker == "privatelink" {
		n++
	}
	return n
}

// privateName returns the private name of a public name that ends in r.public, and its zone.
func (r *zoneRule) privateName(labels []string) (private, zone Name) {
	host, apex := r.underMarker(labels)
	if apex == nil {
		host, apex = r.underZone(labels)
	}
	if apex == nil {
		return "", ""
	}
	zone = Name(strings.Join(apex, "."))
	if len(host) == 0 {
		return zone, zone
	}
	return Name(strings.Join(host, ".")) + "." + zone, zone
}

// underMarker puts the marker between what the name and the zone share and the rest:
// a.b.batch.azure.com is a.b.privatelink.batch.azure.com. Nil where they share nothing.
func (r *zoneRule) underMarker(labels []string) (host, apex []string) {
	if r.marker == "" || !endsIn(labels, r.after) {
		return nil, nil
	}
	cut := len(labels) - len(r.after)
	if !endsIn(labels[:cut], r.before) {
		return nil, nil
	}
	before := cut - len(r.before)
	apex = append(append(slices.Clone(labels[before:cut]), r.marker), labels[cut:]...)
	return labels[:before], apex
}

// underZone puts what is left of the public suffix under the zone: a.vault.azure.net is
// a.privatelink.vaultcore.azure.net. Placeholders are filled in their order from the right.
func (r *zoneRule) underZone(labels []string) (host, apex []string) {
	cut := len(labels) - len(r.public)
	apex = slices.Clone(r.private)
	from := len(r.public)
	for i := len(apex) - 1; i >= 0; i-- {
		if apex[i] != "" {
			continue
		}
		for from--; from >= 0 && r.public[from] != ""; {
			from--
		}
		if from < 0 {
			return nil, nil
		}
		apex[i] = labels[cut+from]
	}
	return labels[:cut], apex
}

// endsIn reports whether labels end in those of a template.
func endsIn(labels, template []string) bool {
	n := len(labels) - len(template)
	if n < 0 {
		return false
	}
	for i, t := range template {
		if l := labels[n+i]; l != t && (t != "" || l == "*") {
			return false
		}
	}
	return true
}

func literals(template []string) (n int) {
	for _, l := range template {
		if l != "" {
			n++
		}
	}
	return n
}

// add makes the labels of a zone a path of the tree.
func (n *zoneNode) add(zone []string) {
	for _, l := range slices.Backward(zone) {
		n = n.child(l)
	}
	if n.as = strings.Join(zone, "."); !slices.Contains(zone, "") {
		n.zone = Name(n.as)
		return
	}
	labels := slices.Clone(zone)
	for i, l := range labels {
		if l == "" {
			labels[i] = "*"
		}
	}
	n.as = strings.Join(labels, ".")
}

// child returns the step of a label, which it makes if need be.
func (n *zoneNode) child(label string) *zoneNode {
	if label == "" {
		if n.any == nil {
			n.any = new(zoneNode)
		}
		return n.any
	}
	c := n.literal[label]
	if c == nil {
		c = new(zoneNode)
		if n.literal == nil {
			n.literal = make(map[string]*zoneNode)
		}
		n.literal[label] = c
	}
	return c
}

// Zone returns the apex of the private zone that a canonical name is in or is, the longest one: ""
// where there is none. It allocates only for an apex that a template stands for.
func (z *Zones) Zone(name []byte) Name {
	begin, node := z.find(name)
	switch {
	case node == nil:
		return ""
	case node.zone != "":
		return node.zone
	}
	return Name(name[begin:])
}

// Template returns the zone that [Zones.Zone] finds as the table has it: with "*" for each label that
// may be any. There are only so many, however many names are asked for. It doesn't allocate.
func (z *Zones) Template(name []byte) string {
	if _, node := z.find(name); node != nil {
		return node.as
	}
	return ""
}

// find returns where the apex of the longest zone begins, and the step that it ends at.
func (z *Zones) find(name []byte) (begin int, node *zoneNode) {
	if z.root == nil {
		return 0, nil
	}
	begin = len(name) + 1
	z.root.find(name, len(name), &begin, &node)
	return begin, node
}

// find looks for the longest zone among the labels of name left of end, which is at a dot or at the
// end of the name. It leaves where the apex begins and the step that it ends at.
func (n *zoneNode) find(name []byte, end int, apex *int, best **zoneNode) {
	if end < 0 {
		return
	}
	begin := end
	for begin > 0 && name[begin-1] != '.' {
		begin--
	}
	label := name[begin:end]
	if len(label) == 0 {
		return
	}
	if c := n.literal[string(label)]; c != nil {
		c.take(name, begin, apex, best)
	}
	if n.any != nil && string(label) != "*" {
		n.any.take(name, begin, apex, best)
	}
}

// take is the arrival at a step whose label begins at begin.
func (n *zoneNode) take(name []byte, begin int, apex *int, best **zoneNode) {
	if n.as != "" && begin < *apex {
		*apex, *best = begin, n
	}
	n.find(name, begin-1, apex, best)
}
