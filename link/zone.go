package link

import (
	"slices"
	"strings"
)

// Zones is the table of privatelink zones: which private zone belongs to which public suffix.
// Immutable; the zero value knows no zone. [DefaultZones] is the table that ships with Postern.
//
// A private zone or public suffix may be a template: "{region}" stands for one label. Where more than one row covers a
// name, the first of these decides: the longest public suffix; the one with the fewest placeholders; what [Zones.With] added,
// the last first; the private zone that has most labels in common with the name; "privatelink." and the suffix before others; the order of
// the table. No suffix belongs to two clouds, so that the suffix says which cloud it is (docs/decisions/0036-zone-table.md).
type Zones struct {
	version string
	rows    []ZoneRow  // those added last come first
	rules   []zoneRule // in the order of rows, one for each pair of zone and suffix
	root    *zoneNode  // the private zones, by labels from the right
}

// zoneRule is what one or several rows say. Labels are kept from the left; "" is a placeholder.
type zoneRule struct {
	pair            [2]string // private and public as the table writes them
	private, public []string  // private: nil where the suffix has no zone
	// from says for each label of private that is a placeholder which label of public fills it; nil where one can't be filled.
	from []int
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

// Resource returns the resource name of a public name: with its private name and zone, both empty
// where no zone covers it. A name that is a public suffix, that lies in a private zone, or whose private name
// would be too long, has none; but an added row whose suffix is a whole name says where that name goes.
func (z *Zones) Resource(public Name) ResourceName {
	res, _ := z.resource(public)
	return res
}

// resource is Resource, and returns the rule that decided, nil where none did.
func (z *Zones) resource(public Name) (ResourceName, *zoneRule) {
	res := ResourceName{Public: public}
	if public == "" || z.Zone([]byte(public)) != "" {
		return res, nil
	}
	labels := strings.Split(string(public), ".")
	for _, r := range z.rulesFor(labels) {
		whole := slices.Equal(labels, r.public)
		if len(r.private) == 0 || whole && !r.added {
			return res, r
		}
		private, zone := r.privateName(labels)
		if _, common := r.underMarker(labels); whole && common == nil && private == zone {
			private = Name(labels[0]) + "." + zone // the whole suffix was taken for the zone's
		}
		if private == "" || private == zone || z.Zone([]byte(private)) != zone {
			if whole {
				return res, r
			}
			continue // such as contoso.database.windows.net under {prefix}.database.windows.net
		}
		if _, err := ParsePattern(string(private)); err == nil {
			res.Private, res.Zone = private, zone
			return res, r
		}
	}
	return res, nil
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
// a.privatelink.vaultcore.azure.net. Placeholders are filled with the labels of the same word.
func (r *zoneRule) underZone(labels []string) (host, apex []string) {
	cut := len(labels) - len(r.public)
	if r.from == nil || cut < 0 {
		return nil, nil
	}
	apex = slices.Clone(r.private)
	for i, l := range apex {
		if l == "" {
			apex[i] = labels[cut+r.from[i]]
		}
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
	if n.as = writeZone(zone); !slices.Contains(zone, "") {
		n.zone = Name(n.as)
	}
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
