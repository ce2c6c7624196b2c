package privatelink

import (
	"bytes"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// generation is one snapshot with what was computed from it while it is the newest: the records of
// the names that were asked for. They are immutable and shared by all answers.
type generation struct {
	snapshot *link.Snapshot
	serial   uint32 // of the zones, see [serialOf]
	waits    *waits // of zones that are transferred
	ttl      uint32
	answers  *[sets][ways]atomic.Pointer[answer] // nil: it remembers no names
	zoned    func() *zonedSets                   // of names in linked zones; nil as answers
	views    func() map[siteKey]string           // the names of those that sites make

	prefixes func() []netip.Prefix // of the networks that are found by address, sorted
}

// generation returns that of a snapshot.
func (p *Privatelink) generation(s *link.Snapshot) *generation {
	if p.noted != nil {
		p = p.noted
	}
	g := p.current.Load()
	if g != nil && g.snapshot == s {
		return g
	}
	next := &generation{snapshot: s, serial: serialOf(s), waits: new(waits), ttl: p.ttl, answers: new([sets][ways]atomic.Pointer[answer])}
	next.prefixes = sync.OnceValue(next.sortedPrefixes)
	next.views = sync.OnceValue(next.namedViews)
	next.zoned = sync.OnceValue(func() *zonedSets { return new(zonedSets) })
	// A query that began before the newest snapshot doesn't bring the old one back.
	if (g == nil || g.snapshot.Revision() <= s.Revision()) && p.current.CompareAndSwap(g, next) {
		p.stats.forget(s)
	}
	return next
}

// traced returns the generation for a query of a view, of which t notes all that is read of the snapshot. It remembers no names: what
// was read for them once isn't read again. The view itself isn't noted: who gives the answer again finds it anew.
func (g *generation) traced(t *link.Trace, v view) *generation {
	c := &generation{snapshot: g.snapshot.Traced(t), serial: g.serial, waits: g.waits, ttl: g.ttl, views: g.views, prefixes: g.prefixes}
	c.snapshot.SitesOf(v.network) // also a network that goes and comes again has counters of its own
	return c
}

// sortedPrefixes returns the client prefixes in order of address and length.
func (g *generation) sortedPrefixes() []netip.Prefix {
	var all []netip.Prefix
	for n := range g.snapshot.Networks() {
		if !n.ByListener {
			all = append(all, n.Prefixes...)
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return all
}

// answer is one name of one network, immutable.
type answer struct {
	network link.ID
	name    string // in canonical form

	service  link.ID
	live     bool // an endpoint's connection is
	fallback bool // the service wants its public address while no target answers
	pattern  bool // it isn't one name of the service, but one of those that a pattern stands for
	zone     link.Name
	addressed
}

// A generation remembers up to sets * ways names. The hash of a name gives its set, where it takes the
// place of another when all ways are taken: the memory is bounded, whatever is asked for, and no reader waits.
// A name with more addresses than maxKept isn't remembered: under a pattern clients choose how many names
// there are, and each has records of its own.
const (
	sets    = 1 << 11
	ways    = 4
	maxKept = 8
)

// answerFor returns the answer for a name in canonical form, nil where no endpoint has it.
func (g *generation) answerFor(network link.ID, asked []byte) *answer {
	if g.answers == nil {
		return g.findAnswer(network, asked)
	}
	h := maphash.Bytes(seed, asked) ^ maphash.String(seed, string(network))
	set := &g.answers[h%sets]
	place := &set[h>>32%ways]
	for i := range set {
		a := set[i].Load()
		if a == nil {
			place = &set[i]
			break
		}
		if a.name == string(asked) && a.network == network {
			return a
		}
	}
	a := g.findAnswer(network, asked)
	if a != nil && a.all.addresses() <= maxKept {
		place.Store(a)
	}
	return a
}

// findAnswer is answerFor without what is remembered.
func (g *generation) findAnswer(network link.ID, asked []byte) *answer {
	if bytes.IndexByte(asked, escaped) >= 0 {
		return nil // no name of ours has such a label, and no pattern stands for it
	}
	owner, private, ok := g.snapshot.Owner(network, asked)
	if !ok {
		return nil
	}
	return g.newAnswer(network, string(asked), owner, private)
}

var seed = maphash.MakeSeed()

// newAnswer returns the answer for a name and its owner as [link.Snapshot.Owner] found it.
func (g *generation) newAnswer(network link.ID, asked string, owner link.Owner, private bool) *answer {
	a := &answer{network: network, name: asked, service: owner.Service, pattern: strings.HasPrefix(string(owner.Name.Public), "*")}
	var live []*link.Endpoint
	for e := range g.snapshot.EndpointsFor(network, owner.Service) {
		if e.Connection.Live() {
			live = append(live, e)
		}
	}
	if v := g.snapshot.Service(owner.Service); v != nil {
		a.fallback = v.FallbackPublic
	}
	if private {
		a.zone = owner.Name.Zone
	}
	a.live = len(live) > 0
	name := spell(owner.Name, asked)
	a.addressed = g.addressedBy(live, func(addresses []netip.Addr) *set { return g.newSet(name, private, addresses) })
	return a
}

// spell returns a resource name, or for a pattern the one that it stands for: that of the asked name.
func spell(n link.ResourceName, asked string) link.ResourceName {
	if !strings.HasPrefix(string(n.Public), "*") {
		return n
	}
	label, _, _ := strings.Cut(asked, ".")
	n.Public = link.Name(label) + n.Public[1:]
	if n.Private != "" {
		n.Private = link.Name(label) + n.Private[1:]
	}
	return n
}

// set is the records of one name: whole sections, ready to be sent.
type set struct {
	alias   []dns.RR // the CNAME, if there is one, that all other sections begin with
	target  string   // of the alias where what it leads to isn't in the other sections, else ""
	a, aaaa []dns.RR
	other   map[uint16][]dns.RR // sections of other types
	soa     []dns.RR            // the authority section of an answer without data
}

// addresses returns how many addresses the name has.
func (s *set) addresses() int { return len(s.a) + len(s.aaaa) - 2*len(s.alias) }

// newSet returns the records of a name, or of its private form, with its addresses.
func (g *generation) newSet(n link.ResourceName, private bool, addresses []netip.Addr) *set {
	owner := string(n.Public) + "."
	s := new(set)
	switch {
	case private:
		owner = string(n.Private) + "."
	case n.Private != "":
		target := string(n.Private) + "."
		s.alias = []dns.RR{&dns.CNAME{Hdr: header(owner, dns.TypeCNAME, g.ttl), Target: target}}
		owner = target
	}
	s.a, s.aaaa = slices.Clone(s.alias), slices.Clone(s.alias)
	for _, addr := range addresses {
		if addr.Is4() {
			s.a = append(s.a, &dns.A{Hdr: header(owner, dns.TypeA, g.ttl), A: addr.AsSlice()})
		} else {
			s.aaaa = append(s.aaaa, &dns.AAAA{Hdr: header(owner, dns.TypeAAAA, g.ttl), AAAA: addr.AsSlice()})
		}
	}
	if n.Private != "" {
		s.soa = []dns.RR{soa(n.Zone, g.serial)}
	} else {
		// In no zone: the name is the apex of its own, for whoever caches that a type is missing.
		s.soa = []dns.RR{soa(n.Public, g.serial)}
		s.other = map[uint16][]dns.RR{dns.TypeSOA: s.soa}
	}
	return s
}

// sections returns the answer and the authority section for a type.
func (s *set) sections(qtype uint16) (answer, authority []dns.RR) {
	switch qtype {
	case dns.TypeA:
		answer = s.a
	case dns.TypeAAAA:
		answer = s.aaaa
	case dns.TypeCNAME:
		if len(s.alias) > 0 {
			return s.alias, nil
		}
	case dns.TypeANY:
		return s.one(), nil
	default:
		answer = s.other[qtype]
	}
	if len(answer) > len(s.alias) {
		return answer, nil
	}
	return s.alias, s.soa
}

// one returns one RRset: what RFC 8482 section 4.1 has for ANY.
func (s *set) one() []dns.RR {
	switch {
	case len(s.alias) > 0:
		return s.alias
	case len(s.a) > 0:
		return s.a
	case len(s.aaaa) > 0:
		return s.aaaa
	}
	for _, t := range [...]uint16{dns.TypeSOA, dns.TypePTR, dns.TypeMX, dns.TypeSRV, dns.TypeTXT} {
		if rrs := s.other[t]; len(rrs) > 0 {
			return rrs
		}
	}
	return nil
}
