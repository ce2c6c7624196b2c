package privatelink

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/transfer"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/handover"
)

// transferred answers AXFR and IXFR of a zone by way of CoreDNS's transfer plugin, which knows who may (RFC 5936,
// RFC 1995). It is asked with the view of the peer: the same zone is another one in another network. Whatever it
// leaves is refused.
func (p *Privatelink) transferred(ctx context.Context, q *query, zone link.Name) (int, error) {
	if p.Transfers == nil || !streams(ctx, q.w) {
		return p.refuse(q, prohibited)
	}
	peer := *p.Transfers
	v := p.zoneView(q, zone)
	peer.Transferers = []transfer.Transferer{v}
	peer.Next = plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
		if v.why != "" {
			return p.fail(q, v.why)
		}
		return p.refuse(q, prohibited)
	})
	w := &transferWriter{ResponseWriter: q.w, result: positive}
	code, err := peer.ServeDNS(ctx, w, q.r)
	if w.written {
		p.stats.answer(q.server, q.view.network, w.result)
	}
	return code, err
}

// transferredByOthers leaves AXFR and IXFR of a zone that isn't ours to the plugins here that have zones, and to the transfer plugin. No other server is asked:
// a secondary of a zone that is linked no more would get the public one.
func (p *Privatelink) transferredByOthers(ctx context.Context, q *query) (int, error) {
	q.unnoted()
	if p.Transfers == nil {
		return p.refuse(q, prohibited)
	}
	result := passed
	peer := *p.Transfers
	peer.Next = plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
		result = refused // and counted
		return p.refuse(q, prohibited)
	})
	code, err := peer.ServeDNS(ctx, q.w, q.r)
	if result == passed {
		p.stats.answer(q.server, q.view.network, result)
	}
	return code, err
}

// ofZone reports whether a question is one by which a secondary asks for a zone, or how new it is. Where zones are transferred, one of the table that
// has no name in the view is an empty one for these: were it none, secondaries would keep what they had in it.
func ofZone(q dns.Question) bool {
	return q.Qclass == dns.ClassINET && (q.Qtype == dns.TypeSOA || isTransfer(q.Qtype))
}

// isTransfer reports whether a type asks for a whole zone.
func isTransfer(qtype uint16) bool { return qtype == dns.TypeAXFR || qtype == dns.TypeIXFR }

// streams reports whether a query came by something that carries an answer of several messages: TCP or TLS, and
// neither UDP nor HTTP.
func streams(ctx context.Context, w dns.ResponseWriter) bool {
	if ctx.Value(dnsserver.HTTPRequestKey{}) != nil {
		return false
	}
	return w.LocalAddr() != nil && w.LocalAddr().Network() == "tcp"
}

// transferWriter notes what the transfer plugin answers.
type transferWriter struct {
	dns.ResponseWriter
	written bool
	result  result
}

// WriteMsg implements [dns.ResponseWriter].
func (w *transferWriter) WriteMsg(m *dns.Msg) error {
	w.written = true
	if m.Rcode == dns.RcodeRefused {
		w.result = refused
	}
	return w.ResponseWriter.WriteMsg(m)
}

// zoneView is one zone as one network sees it. It implements [transfer.Transferer].
type zoneView struct {
	p       *Privatelink
	q       *query
	gen     *generation
	network link.ID
	zone    link.Name
	why     string // the snapshot is too old for a name of the zone, as [Privatelink.untrusted] says it; else ""
}

func (p *Privatelink) zoneView(q *query, zone link.Name) *zoneView {
	return &zoneView{p: p, q: q, gen: q.gen, network: q.view.network, zone: zone}
}

// Transfer implements [transfer.Transferer]. Who has the serial already, or a later one, gets the SOA alone (RFC
// 1995 section 2); others get the whole zone.
func (v *zoneView) Transfer(zone string, serial uint32) (<-chan []dns.RR, error) {
	if !strings.EqualFold(zone, string(v.zone)+".") {
		return nil, transfer.ErrNotAuthoritative
	}
	if v.q.old {
		for name := range v.names() {
			asked := []byte(name)
			if v.why = v.p.untrusted(v.q, v.p.find(v.gen, view{network: v.network}, asked), asked); v.why != "" {
				return nil, transfer.ErrNotAuthoritative // a query for the name fails, and so does the zone
			}
		}
	}
	ch := make(chan []dns.RR)
	go func() {
		defer close(ch) // the plugin reads to the end, whatever becomes of its client
		defer func() {
			if e := recover(); e != nil { // the transfer ends without its last SOA; nobody else recovers here
				handover.NewLogger(name).Error("a zone transfer failed", "zone", zone, "error", e)
			}
		}()
		own := v.apex(v.p.find(v.gen, view{network: v.network}, []byte(v.zone)))
		if ch <- own.other[dns.TypeSOA]; serial != 0 && int32(own.other[dns.TypeSOA][0].(*dns.SOA).Serial-serial) <= 0 {
			return
		}
		for set := range v.sets(own) {
			ch <- set
		}
		ch <- own.other[dns.TypeSOA]
	}()
	return ch, nil
}

// apex returns the records of the zone's apex, of what was found there, with the serial of now.
func (v *zoneView) apex(f finding) *set {
	// Before the records are read: what is published meanwhile is in them under a serial that is too old, and comes once more.
	serial := v.serial()
	if f.set == nil {
		return apexSet(v.zone, serial)
	}
	c := *f.set
	c.soa, c.other = numbered(c.soa, serial), maps.Clone(c.other)
	c.other[dns.TypeSOA] = numbered(c.other[dns.TypeSOA], serial)
	return &c
}

// numbered returns SOA records with another serial.
func numbered(soas []dns.RR, serial uint32) []dns.RR {
	all := make([]dns.RR, len(soas))
	for i, rr := range soas {
		own := *rr.(*dns.SOA)
		own.Serial = serial
		all[i] = &own
	}
	return all
}

// sets yields the record sets of the zone but the SOA: NS, the others of the apex, and those below in order of their names. They are what is
// published; what else was observed of targets isn't in them, for the serial doesn't tell it. Patterns are wildcards: what a wildcard would stand for in a
// secondary and doesn't here exists with other records (RFC 4592 section 2.2.1), a zone below by its delegation.
func (v *zoneView) sets(own *set) iter.Seq[[]dns.RR] {
	return func(yield func([]dns.RR) bool) {
		always := func(link.ID) bool { return true }
		p := &Privatelink{Published: v.p.Published, Healthy: always, HealthyAt: func(link.ID, string) bool { return true }, Zones: v.p.Zones, settings: v.p.settings, stats: v.p.stats}
		if !yield(own.other[dns.TypeNS]) || !own.each(yield) {
			return
		}
		all, cuts := map[link.Name]bool{}, map[link.Name]bool{}
		for apex := range v.below() {
			all[apex] = true
			if f := p.find(v.gen, view{network: v.network}, []byte(apex)); f.kind == foundApex {
				cuts[apex] = true
			}
		}
		for name := range v.names() {
			all[name] = true
		}
		wild := map[link.Name]bool{}
		for _, name := range slices.SortedFunc(maps.Keys(all), compareNames) { // a wildcard comes before what it could stand for
			owner, more := string(name)+".", true
			f := p.find(v.gen, view{network: v.network}, []byte(name))
			switch {
			case f.kind == foundName && f.set.some():
				wild[name] = name[0] == '*'
				more = f.set.each(yield)
			case cuts[name]:
				more = v.above(name, cuts, "") || yield([]dns.RR{&dns.NS{Hdr: header(owner, dns.TypeNS, link.SOATTL), Ns: owner}})
			case v.above(name, wild, "*."):
				more = yield([]dns.RR{&dns.TXT{Hdr: header(owner, dns.TypeTXT, link.SOATTL), Txt: []string{noWildcard}}})
			}
			if !more {
				return
			}
		}
	}
}

// noWildcard is the text of a name that is there to keep a wildcard from standing for it.
const noWildcard = "nothing is known of this name"

// below yields the apexes of other zones that may be below this one: those that are linked, and those of the table and of services.
func (v *zoneView) below() iter.Seq[link.Name] {
	return func(yield func(link.Name) bool) {
		s := v.gen.snapshot
		for id := range s.ZonesOf(v.network) {
			if apex := s.Zone(id).Name; v.over(apex) && !yield(apex) {
				return
			}
		}
		if v.linked() != nil {
			return // such names are its own
		}
		for _, row := range v.p.Zones.Rows() {
			if apex := link.Name(row.Private); v.over(apex) && !strings.Contains(row.Private, "{") && !yield(apex) {
				return
			}
		}
		for e := range s.EndpointsIn(v.network) {
			service := s.Service(e.Service)
			if service == nil {
				continue
			}
			for _, n := range service.Names {
				if v.over(n.Zone) && !yield(n.Zone) {
					return
				}
			}
		}
	}
}

// over reports whether a name is below the zone's apex.
func (v *zoneView) over(name link.Name) bool {
	return strings.HasSuffix(string(name), "."+string(v.zone))
}

// above reports whether one of the names that a name is below, with what is put before it, is one of those given.
func (v *zoneView) above(name link.Name, of map[link.Name]bool, before link.Name) bool {
	for v.over(name) {
		if name = name.Parent(); of[before+name] {
			return true
		}
	}
	return false
}

// each yields the record sets of a name but SOA and NS of an apex, in order of their types.
func (s *set) each(yield func([]dns.RR) bool) bool {
	if len(s.alias) > 0 {
		return yield(s.alias) // and nothing beside it
	}
	for _, rrs := range [][]dns.RR{s.a, s.aaaa} {
		if len(rrs) > 0 && !yield(rrs) {
			return false
		}
	}
	for _, rrtype := range slices.Sorted(maps.Keys(s.other)) {
		if rrtype != dns.TypeSOA && rrtype != dns.TypeNS && !yield(s.other[rrtype]) {
			return false
		}
	}
	return true
}

// names yields the names below the apex that the zone has in the view, in canonical form, each at least once: also those of services that aren't
// published and, where no zone is linked, of connections that aren't in force.
func (v *zoneView) names() iter.Seq[link.Name] {
	return func(yield func(link.Name) bool) {
		s, linked := v.gen.snapshot, v.linked()
		for e := range s.EndpointsIn(v.network) {
			if name, ok := v.reverse(e); ok && !yield(name) {
				return
			}
			if linked != nil && !e.Connection.Live() {
				continue // a wildcard of the zone stands for it
			}
			for name := range v.namesOf(e.Service) {
				if !yield(name) {
					return
				}
			}
		}
		if linked == nil {
			return
		}
		for r := range s.RecordSets(linked.ID, "") {
			if name := link.Name(linked.Full(r.Name)); v.has(name) && !yield(name) {
				return
			}
		}
		for relative, e := range s.GroupedIn(linked.ID) {
			if name := link.Name(linked.Full(relative)); e.Connection.Live() && v.has(name) && !yield(name) {
				return
			}
		}
	}
}

// reverse returns the reverse name of a live endpoint, if the zone has it.
func (v *zoneView) reverse(e *link.Endpoint) (name link.Name, ok bool) {
	if !strings.HasSuffix(string(v.zone), ".arpa") || !e.Connection.Live() {
		return "", false
	}
	fqdn, err := dns.ReverseAddr(e.Address.String())
	name = link.Name(strings.TrimSuffix(fqdn, "."))
	return name, err == nil && v.has(name)
}

// namesOf yields the names of a service that the zone has.
func (v *zoneView) namesOf(id link.ID) iter.Seq[link.Name] {
	return func(yield func(link.Name) bool) {
		service := v.gen.snapshot.Service(id)
		if service == nil {
			return
		}
		whole := v.linked() != nil
		for _, n := range service.Names {
			if (whole || n.Zone == v.zone) && v.has(n.Private) && !yield(n.Private) || whole && v.has(n.Public) && !yield(n.Public) {
				return
			}
		}
	}
}

// has reports whether a name is below the apex and in no other linked zone.
func (v *zoneView) has(name link.Name) bool {
	if !v.over(name) {
		return false
	}
	z, _, ok := v.gen.snapshot.LinkedZone(v.network, []byte(name))
	return ok && z.Name == v.zone || !ok && v.linked() == nil
}

// linked returns the private zone that the zone is, nil where it is none.
func (v *zoneView) linked() *link.PrivateZone {
	if z, _, ok := v.gen.snapshot.LinkedZone(v.network, []byte(v.zone)); ok && z.Name == v.zone {
		return z
	}
	return nil
}

// liveIn yields the services that endpoints are connected to.
func liveIn(endpoints iter.Seq[*link.Endpoint]) iter.Seq[link.ID] {
	return func(yield func(link.ID) bool) {
		for e := range endpoints {
			if e.Connection.Live() && !yield(e.Service) {
				return
			}
		}
	}
}

// perRevision is how many serials a revision of the state has: one for a zone of which all is published, and the ones before it for how many
// services still wait for that, which only ever become fewer. So a serial tells the same at each node and after a restart.
const perRevision = 64

// serialOf returns the serial of zones that wait for no service. A secondary takes no zone whose serial is lower than its own, so a state that a backup was
// restored into has none that another one had.
func serialOf(s *link.Snapshot) uint32 { return uint32(s.Age() * perRevision) }

// serial returns that of the zone as it is now.
func (v *zoneView) serial() uint32 {
	return v.gen.serial - uint32(min(v.gen.waits.count(v), perRevision-1))
}

// waits is the services that had endpoints, but weren't published, when it was first asked in a generation, without those that are by now. So that
// it costs an attacker's query little, all endpoints are looked at once.
type waits struct {
	mu sync.Mutex
	of map[waitsKey][]link.ID
}

// waitsKey is a network, for its endpoints, or a private zone, for those in its groups.
type waitsKey struct{ network, zone link.ID }

// count returns how many services a zone still waits for.
func (w *waits) count(v *zoneView) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	waiting := map[link.ID]bool{}
	for _, id := range w.now(v.p, waitsKey{network: v.network}, liveIn(v.gen.snapshot.EndpointsIn(v.network))) {
		for range v.namesOf(id) {
			waiting[id] = true
		}
		for e := range v.gen.snapshot.EndpointsFor(v.network, id) {
			if _, has := v.reverse(e); has {
				waiting[id] = true
			}
		}
	}
	if linked := v.linked(); linked != nil {
		grouped := func(yield func(*link.Endpoint) bool) {
			for _, e := range v.gen.snapshot.GroupedIn(linked.ID) {
				if !yield(e) {
					return
				}
			}
		}
		for _, id := range w.now(v.p, waitsKey{zone: linked.ID}, liveIn(grouped)) {
			waiting[id] = true
		}
	}
	return len(waiting)
}

// now returns those of the services that aren't published. It reads them where it hasn't before. The caller holds mu.
func (w *waits) now(p *Privatelink, key waitsKey, services iter.Seq[link.ID]) []link.ID {
	waiting, ok := w.of[key]
	if !ok {
		for id := range services {
			if !p.Published(id) {
				waiting = append(waiting, id)
			}
		}
		slices.Sort(waiting)
		waiting = slices.Compact(waiting)
	}
	waiting = slices.DeleteFunc(waiting, p.Published)
	if w.of == nil {
		w.of = make(map[waitsKey][]link.ID)
	}
	w.of[key] = waiting
	return waiting
}

// compareNames orders names as DNSSEC does, by their labels from the right (RFC 4034 section 6.1).
func compareNames(a, b link.Name) int {
	x, y := strings.Split(string(a), "."), strings.Split(string(b), ".")
	slices.Reverse(x)
	slices.Reverse(y)
	return slices.Compare(x, y)
}
