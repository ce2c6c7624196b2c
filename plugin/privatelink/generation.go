package privatelink

import (
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// generation is one snapshot with what was computed from it while it is the newest: the records of
// the names that were asked for. They are immutable and shared by all answers.
type generation struct {
	snapshot *link.Snapshot
	serial   uint32 // of the zones
	ttl      uint32
	answers  sync.Map // *link.Owner: *answer

	prefixes func() []netip.Prefix // of the networks that are found by address, sorted
}

// generation returns that of a snapshot.
func (p *Privatelink) generation(s *link.Snapshot) *generation {
	g := p.current.Load()
	if g != nil && g.snapshot == s {
		return g
	}
	next := &generation{snapshot: s, serial: uint32(s.Revision()), ttl: p.ttl}
	next.prefixes = sync.OnceValue(next.sortedPrefixes)
	// A query that began before the newest snapshot doesn't bring the old one back.
	if (g == nil || g.snapshot.Revision() <= s.Revision()) && p.current.CompareAndSwap(g, next) {
		p.stats.forget(s)
	}
	return next
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

// answer is one name of one network.
type answer struct {
	live     bool // an endpoint's connection is
	fallback bool // the service wants its public address while no target answers
	zone     link.Name
	set      *set // nil for a pattern, whose names are many

	pattern   link.ResourceName
	private   bool
	addresses []netip.Addr
	gen       *generation
}

// answerOf returns the answer for an owner as [link.Snapshot.Owner] found it.
func (g *generation) answerOf(owner *link.Owner, private bool) *answer {
	if a, ok := g.answers.Load(owner); ok {
		return a.(*answer)
	}
	a := &answer{private: private, pattern: owner.Name, gen: g}
	if private {
		a.zone = owner.Name.Zone
	}
	for _, e := range owner.Endpoints {
		if e.Connection.Live() {
			a.live = true
			a.addresses = append(a.addresses, e.Address)
		}
	}
	if v := g.snapshot.Service(owner.Service); v != nil {
		a.fallback = v.FallbackPublic
	}
	if !strings.HasPrefix(string(owner.Name.Public), "*") {
		a.set = a.newSet(owner.Name)
	}
	g.answers.Store(owner, a)
	return a
}

// setFor returns the records of a name that the answer is for.
func (a *answer) setFor(asked []byte) *set {
	if a.set != nil {
		return a.set
	}
	label, _, _ := strings.Cut(string(asked), ".")
	n := a.pattern
	n.Public = link.Name(label) + n.Public[1:]
	if n.Private != "" {
		n.Private = link.Name(label) + n.Private[1:]
	}
	return a.newSet(n)
}

// set is the records of one name: whole sections, ready to be sent.
type set struct {
	alias   []dns.RR // the CNAME, if there is one, that all other sections begin with
	a, aaaa []dns.RR
	other   map[uint16][]dns.RR // sections of other types
	soa     []dns.RR            // the authority section of an answer without data
}

// newSet returns the records of a name with the answer's addresses.
func (a *answer) newSet(n link.ResourceName) *set {
	owner := string(n.Public) + "."
	s := new(set)
	switch {
	case a.private:
		owner = string(n.Private) + "."
	case n.Private != "":
		target := string(n.Private) + "."
		s.alias = []dns.RR{&dns.CNAME{Hdr: header(owner, dns.TypeCNAME, a.gen.ttl), Target: target}}
		owner = target
	}
	s.a, s.aaaa = slices.Clone(s.alias), slices.Clone(s.alias)
	for _, addr := range a.addresses {
		if addr.Is4() {
			s.a = append(s.a, &dns.A{Hdr: header(owner, dns.TypeA, a.gen.ttl), A: addr.AsSlice()})
		} else {
			s.aaaa = append(s.aaaa, &dns.AAAA{Hdr: header(owner, dns.TypeAAAA, a.gen.ttl), AAAA: addr.AsSlice()})
		}
	}
	if n.Private != "" {
		s.soa = []dns.RR{soa(n.Zone, a.gen.serial)}
	} else {
		// In no zone: the name is the apex of its own, for whoever caches that a type is missing.
		s.soa = []dns.RR{soa(n.Public, a.gen.serial)}
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
	for _, t := range [...]uint16{dns.TypeSOA, dns.TypePTR} {
		if rrs := s.other[t]; len(rrs) > 0 {
			return rrs
		}
	}
	return nil
}
