package link

// Zones is the table of privatelink zones: which private zone belongs to which public suffix.
// Immutable; the zero value knows no zone. [DefaultZones] is the table that ships with Postern.
type Zones struct{}

// DefaultZones returns the table that ships with Postern.
func DefaultZones() *Zones { panic("unfinished") }

// With returns a table in which private is the zone of the public suffix, before all others.
func (z *Zones) With(private, public Name) *Zones { panic("unfinished") }

// Resource returns the resource name of a public name: with its private name and zone, both empty
// where no zone covers it. The longest public suffix wins.
func (z *Zones) Resource(public Name) ResourceName { panic("unfinished") }

// Zone returns the apex of the private zone that a canonical name is in or is: "" where there is none.
// No allocation.
func (z *Zones) Zone(name []byte) Name { panic("unfinished") }
