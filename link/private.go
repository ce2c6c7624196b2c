package link

import (
	"encoding/json"
	"fmt"
	"strings"
)

// ZoneGroup is the private zones that an endpoint's names are answered in.
type ZoneGroup struct {
	Name    string       `json:"name"`
	Configs []ZoneConfig `json:"configs,omitempty"`
}

// MaxZoneConfigs bounds the zones of a group.
const MaxZoneConfigs = 5

// ZoneConfig is one zone of a group, under a name of its own.
type ZoneConfig struct {
	Name string `json:"name"`
	Zone ID     `json:"zone"`
}

// PrivateZone is a DNS zone that a consumer made and linked to networks, whose clients then get its
// records: those that were made in it ([RecordSet]) and those of the endpoints with the zone in their
// group. Not to be confused with the rows of [Zones], which say how a public name is spelt in private.
type PrivateZone struct {
	ID     ID     `json:"id"`
	Tenant string `json:"tenant,omitempty"`
	Facet
	Name  Name       `json:"name"` // the apex
	Links []ZoneLink `json:"links,omitempty"`
}

// What a zone has as its SOA record where nobody has written one, times in seconds: no host is named that would have to exist (RFC 6303
// section 3). A secondary looks for changes as often as a resolver, and a zone that isn't given to it any more is gone after a day.
const (
	SOAMailbox = "nobody.invalid."
	SOATTL     = 10
	SOARefresh = 10
	SOARetry   = 10
	SOAExpire  = 24 * 60 * 60
	SOAMinimum = 10 // how long an answer without data may be kept: what Azure's private zones have
)

// SOA returns the record set of type SOA that the zone has where nobody has written one. The serial is DNS's to give.
func (z *PrivateZone) SOA() *RecordSet {
	return &RecordSet{Zone: z.ID, Type: "SOA", Name: Apex, TTL: SOATTL,
		Data: []string{fmt.Sprintf("%s. %s 1 %d %d %d %d", z.Name, SOAMailbox, SOARefresh, SOARetry, SOAExpire, SOAMinimum)}}
}

// Kind implements [Object].
func (*PrivateZone) Kind() Kind { return KindZone }

// Key implements [Object].
func (z *PrivateZone) Key() string { return string(z.ID) }

// ZoneLink gives a zone to the clients of a network.
type ZoneLink struct {
	Name    string `json:"name"` // lower case, a segment of an ID
	Network ID     `json:"network"`
	// Redirect: a name of the zone that has no record is passed on instead of denied
	// (resolutionPolicy NxDomainRedirect).
	Redirect bool            `json:"redirect,omitempty"`
	API      json.RawMessage `json:"api,omitempty"` // see [Facet]
}

// RecordSet is the records of one name and type in a private zone.
type RecordSet struct {
	Zone ID     `json:"zone"`
	Type string `json:"type"` // A AAAA CNAME MX PTR SOA SRV TXT
	Name string `json:"name"` // relative to the zone, lower case; "@" is the apex, "*" a wildcard
	Facet
	TTL  uint32   `json:"ttl"`            // seconds
	Data []string `json:"data,omitempty"` // of each record, as in a zone file (RFC 1035 section 5.1)
}

// Kind implements [Object].
func (*RecordSet) Kind() Kind { return KindRecord }

// Key implements [Object].
func (r *RecordSet) Key() string { return RecordKey(r.Zone, r.Type, r.Name) }

// RecordKey returns the key of the record set of a name and type in a zone.
func RecordKey(zone ID, rtype, name string) string {
	return string(zone) + "/" + strings.ToLower(rtype) + "/" + name
}

// Document is an object of the control API that means nothing to the domain: a resource group, a load
// balancer.
type Document struct {
	Type   string `json:"type"` // lower case letters
	ID     ID     `json:"id"`
	Tenant string `json:"tenant,omitempty"`
	Facet
}

// Kind implements [Object].
func (*Document) Kind() Kind { return KindDocument }

// Key implements [Object].
func (d *Document) Key() string { return DocumentKey(d.Type, d.ID) }

// DocumentKey returns the key of the document of a type and ID.
func DocumentKey(typ string, id ID) string { return fmt.Sprintf("%s:%s", typ, id) }
