package privatelink

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// zoned is what a name is in a private zone that is linked to a network, immutable. Which of its sets is
// the answer depends on what the data plane observes.
type zoned struct {
	network link.ID
	name    string // in canonical form

	zone     link.Name
	apex     bool
	redirect bool // what the zone doesn't have is asked elsewhere
	alias    bool // the name is outside of the zone: a public name whose private name is in it
	exists   bool
	size     int        // of what is kept: bytes of record data
	set      *set       // of the zone's record sets; never nil
	groups   []grouping // of endpoints with the zone in their group, by service
}

// grouping is the records of a name with the addresses of a service's endpoints.
type grouping struct {
	service  link.ID
	fallback bool
	addressed
}

// zonedSets is a table as that of the answers of a generation. It is made when the first name of a linked
// zone is asked for.
type zonedSets [sets][ways]atomic.Pointer[zoned]

// findLinked looks a name up in the private zones that are linked to the network. ok is false where they
// have nothing to say about it; a finding of nothing beside a true ok is to be asked elsewhere.
func (p *Privatelink) findLinked(g *generation, v view, asked []byte) (f finding, ok bool) {
	z := g.linkedName(v.network, asked)
	if z == nil {
		return finding{}, false
	}
	if of := p.choose(z.groups); of != nil {
		if of.fallback && !p.Healthy(of.service) {
			return finding{}, true
		}
		return z.found(p.at(v.site, of.service, &of.addressed)), true
	}
	switch {
	case z.exists && (z.set.some() || !z.redirect || len(z.groups) == 0 && !z.alias):
		return z.found(z.set), true
	case z.redirect || z.alias:
		return finding{}, false
	}
	return finding{kind: foundDenied, set: z.set, zone: z.zone}, true
}

// choose returns the group of endpoints that answers for a name: of those that are published the first that is
// healthy, and where none is the first, since the answer stays when all targets are down (D23). Nil where none is published.
func (p *Privatelink) choose(groups []grouping) (chosen *grouping) {
	for i := range groups {
		of := &groups[i]
		if !p.Published(of.service) {
			continue
		}
		if len(groups) == 1 || p.Healthy(of.service) {
			return of
		}
		if chosen == nil {
			chosen = of
		}
	}
	return chosen
}

func (z *zoned) found(s *set) finding {
	if z.apex {
		return finding{kind: foundApex, set: s, zone: z.zone}
	}
	return finding{kind: foundName, set: s, zone: z.zone}
}

// linkedName is zonedFor for a network that may have no linked zones, and any name.
func (g *generation) linkedName(network link.ID, asked []byte) *zoned {
	if len(asked) == 0 || !g.snapshot.MayHaveLinks(network) {
		return nil
	}
	return g.zonedFor(network, asked)
}

// zonedFor returns what a name in canonical form is in the linked zones of a network, nil where it is in
// none.
func (g *generation) zonedFor(network link.ID, asked []byte) *zoned {
	if g.zoned == nil {
		return g.newZoned(network, asked)
	}
	table := g.zoned()
	h := maphash.Bytes(seed, asked) ^ maphash.String(seed, string(network))
	set := &table[h%sets]
	place := &set[h>>32%ways]
	for i := range set {
		z := set[i].Load()
		if z == nil {
			place = &set[i]
			break
		}
		if z.name == string(asked) && z.network == network {
			return z
		}
	}
	z := g.newZoned(network, asked)
	if z != nil && z.small() {
		place.Store(z)
	}
	return z
}

// maxData is how many bytes of record data of a name are kept: as with maxKept, clients choose how many
// names there are under a wildcard.
const maxData = 512

// small reports whether the name may be remembered.
func (z *zoned) small() bool {
	n := 0
	for _, of := range z.groups {
		n += of.all.addresses()
	}
	return n <= maxKept && z.size <= maxData
}

func (g *generation) newZoned(network link.ID, asked []byte) *zoned {
	zone, redirect, ok := g.snapshot.LinkedZone(network, asked)
	if !ok {
		return g.newAlias(network, asked)
	}
	name := link.Name(asked)
	relative, _ := zone.Relative(name)
	z := &zoned{network: network, name: string(asked), zone: zone.Name, apex: relative == link.Apex, redirect: redirect}
	source, far := relative, false
	z.exists = g.exists(network, zone, relative)
	if !z.exists && bytes.IndexByte(asked, escaped) < 0 {
		source, far = g.wildcard(network, zone, relative)
		_, z.exists = first(g.snapshot.RecordSetsAt(zone.ID, source))
		z.exists = z.exists || !far && g.snapshot.ExistsIn(zone.ID, source)
	}
	owner := string(asked) + "."
	z.set = g.newZoneSet(zone, owner, z.apex)
	if !z.exists {
		return z
	}
	for r := range g.snapshot.RecordSetsAt(zone.ID, source) {
		z.set.add(owner, r)
		for _, data := range r.Data {
			z.size += len(data)
		}
	}
	if !far { // the pattern of an endpoint's name stands for one label
		z.groups = g.groupings(zone, source, func(addresses []netip.Addr) *set {
			return z.set.withAddresses(owner, g.ttl, addresses)
		})
	}
	return z
}

// wildcard returns the only one that can stand for a name that doesn't exist in a zone: that at the closest
// encloser (RFC 4592 section 3.3.1). far reports whether it would stand for more than one label.
func (g *generation) wildcard(network link.ID, zone *link.PrivateZone, relative string) (source string, far bool) {
	for rest := relative; ; far = true {
		_, above, ok := strings.Cut(rest, ".")
		if !ok {
			return "*", far
		}
		if g.exists(network, zone, above) {
			return "*." + above, far
		}
		rest = above
	}
}

// first returns the first value of seq.
func first[V any](seq iter.Seq[V]) (v V, ok bool) {
	for v := range seq {
		return v, true
	}
	return v, false
}

// exists reports whether a relative name exists in a zone as a network sees it: endpoints of the network
// have names there, whatever zones are linked.
func (g *generation) exists(network link.ID, zone *link.PrivateZone, relative string) bool {
	return g.snapshot.ExistsIn(zone.ID, relative) || g.snapshot.OwnsBelow(network, []byte(zone.Full(relative)))
}

// newAlias returns the public name of endpoints whose private name is in a linked zone and its group: an
// alias of that, as for the endpoints of the network itself. Nil where there is none.
func (g *generation) newAlias(network link.ID, asked []byte) *zoned {
	private, ok := g.snapshot.GroupedAlias(link.Name(asked))
	if !ok {
		return nil
	}
	zone, redirect, ok := g.snapshot.LinkedZone(network, []byte(private))
	if !ok {
		return nil
	}
	relative, _ := zone.Relative(private)
	z := &zoned{network: network, name: string(asked), zone: zone.Name, redirect: redirect, alias: true}
	z.set = g.newZoneSet(zone, string(asked)+".", false)
	build := func(addresses []netip.Addr) *set {
		s := g.newSet(link.ResourceName{Public: link.Name(asked), Private: private, Zone: zone.Name}, false, addresses)
		s.soa = z.set.soa
		return s
	}
	z.groups = g.groupings(zone, relative, build)
	if _, rest, cut := strings.Cut(relative, "."); len(z.groups) == 0 {
		pattern := "*"
		if cut {
			pattern += "." + rest
		}
		z.groups = g.groupings(zone, pattern, build)
	}
	if len(z.groups) == 0 {
		return nil
	}
	return z
}

// groupings returns the records of each service whose live endpoints have a name in a zone.
func (g *generation) groupings(zone *link.PrivateZone, relative string, build func([]netip.Addr) *set) []grouping {
	var services []link.ID
	endpoints := map[link.ID][]*link.Endpoint{}
	for e := range g.snapshot.Grouped(zone.ID, relative) {
		if !e.Connection.Live() {
			continue
		}
		if endpoints[e.Service] == nil {
			services = append(services, e.Service)
		}
		endpoints[e.Service] = append(endpoints[e.Service], e)
	}
	slices.Sort(services)
	var all []grouping
	for _, id := range services {
		v := g.snapshot.Service(id)
		all = append(all, grouping{service: id, fallback: v != nil && v.FallbackPublic, addressed: g.addressedBy(endpoints[id], build)})
	}
	return all
}

// newZoneSet returns the records that a name has by being in a zone: at the apex, SOA and NS.
func (g *generation) newZoneSet(zone *link.PrivateZone, owner string, apex bool) *set {
	own := soa(zone.Name, g.serial).(*dns.SOA)
	if r := g.snapshot.RecordSet(zone.ID, "SOA", link.Apex); r != nil {
		for _, rr := range recordsOf(string(zone.Name)+".", r) {
			if given, ok := rr.(*dns.SOA); ok {
				given.Serial = g.serial
				own = given
			}
		}
	}
	// The lower of its two times counts, and ours bounds how long a new endpoint stays unseen (RFC 2308 section 5).
	negative := *own
	negative.Hdr.Ttl = min(negativeTTL, own.Minttl, own.Hdr.Ttl)
	s := &set{soa: []dns.RR{&negative}}
	if apex {
		ns := &dns.NS{Hdr: header(owner, dns.TypeNS, negativeTTL), Ns: owner}
		s.other = map[uint16][]dns.RR{dns.TypeSOA: {own}, dns.TypeNS: {ns}}
	}
	return s
}

// add puts a record set of a zone into a set that nobody else has yet.
func (s *set) add(owner string, r *link.RecordSet) {
	rrs := recordsOf(owner, r)
	if len(rrs) == 0 {
		return
	}
	switch rrtype := rrs[0].Header().Rrtype; rrtype {
	case dns.TypeA:
		s.a = rrs
	case dns.TypeAAAA:
		s.aaaa = rrs
	case dns.TypeCNAME:
		s.alias, s.a, s.aaaa = rrs, rrs, rrs
		s.target = rrs[0].(*dns.CNAME).Target
	case dns.TypeSOA: // newZoneSet has it
	default:
		if s.other == nil {
			s.other = map[uint16][]dns.RR{}
		}
		s.other[rrtype] = rrs
	}
}

// some reports whether the set has a record.
func (s *set) some() bool { return len(s.alias)+len(s.a)+len(s.aaaa)+len(s.other) > 0 }

// withAddresses returns the set with the addresses of endpoints in place of its own of the same family, and
// of an alias.
func (s *set) withAddresses(owner string, ttl uint32, addresses []netip.Addr) *set {
	with := *s
	if with.target != "" {
		with.alias, with.a, with.aaaa, with.target = nil, nil, nil, ""
	}
	var a, aaaa []dns.RR
	for _, addr := range addresses {
		if addr.Is4() {
			a = append(a, &dns.A{Hdr: header(owner, dns.TypeA, ttl), A: addr.AsSlice()})
		} else {
			aaaa = append(aaaa, &dns.AAAA{Hdr: header(owner, dns.TypeAAAA, ttl), AAAA: addr.AsSlice()})
		}
	}
	if len(a) > 0 {
		with.a = a
	}
	if len(aaaa) > 0 {
		with.aaaa = aaaa
	}
	return &with
}

// recordsOf returns the records of a set, with an owner of their own: that of a wildcard is the name asked for.
func recordsOf(owner string, r *link.RecordSet) []dns.RR {
	var rrs []dns.RR
	for _, data := range r.Data {
		rr, err := dns.NewRR(fmt.Sprintf(". %d IN %s %s", r.TTL, r.Type, data))
		if err != nil || rr == nil {
			continue // not reached with what link accepts: see FuzzRecord
		}
		rr.Header().Name = owner
		rrs = append(rrs, rr)
	}
	return rrs
}
