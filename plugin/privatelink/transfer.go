package privatelink

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"

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
	v := &zoneView{p: p, q: q, gen: q.gen, network: q.view.network, zone: zone}
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
		if serial != 0 && int32(v.gen.serial-serial) <= 0 {
			for sets := range v.sets() {
				ch <- sets
				return
			}
		}
		var first []dns.RR
		for set := range v.sets() {
			if first == nil {
				first = set
			}
			ch <- set
		}
		ch <- first
	}()
	return ch, nil
}

// sets yields the record sets of the zone: SOA, NS, and the others in order of their names. They follow from the
// snapshot alone, as the serial does: what was observed of targets isn't in them. Patterns are wildcards.
func (v *zoneView) sets() iter.Seq[[]dns.RR] {
	return func(yield func([]dns.RR) bool) {
		always := func(link.ID) bool { return true }
		p := &Privatelink{Published: always, Healthy: always, HealthyAt: func(link.ID, string) bool { return true }, Zones: v.p.Zones, settings: v.p.settings, stats: v.p.stats}
		apex := p.find(v.gen, view{network: v.network}, []byte(v.zone))
		own := apexSet(v.zone, v.gen.serial)
		if apex.kind == foundApex && apex.set != nil {
			own = apex.set
		}
		if !yield(own.other[dns.TypeSOA]) || !yield(own.other[dns.TypeNS]) || !own.each(yield) {
			return
		}
		for _, name := range slices.SortedFunc(maps.Keys(v.names()), compareNames) {
			if f := p.find(v.gen, view{network: v.network}, []byte(name)); f.kind == foundName && !f.set.each(yield) {
				return
			}
		}
	}
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

// names returns the names below the apex that the zone has in the view, in canonical form.
func (v *zoneView) names() map[string]bool {
	s, all := v.gen.snapshot, map[string]bool{}
	linked, _, ok := s.LinkedZone(v.network, []byte(v.zone))
	whole := ok && linked.Name == v.zone
	add := func(name link.Name) {
		if _, in := strings.CutSuffix(string(name), "."+string(v.zone)); !in {
			return
		}
		if z, _, ok := s.LinkedZone(v.network, []byte(name)); ok && z.Name == v.zone || !ok && !whole {
			all[string(name)] = true
		}
	}
	for e := range s.EndpointsIn(v.network) {
		service := s.Service(e.Service)
		if service == nil || !e.Connection.Live() {
			continue
		}
		for _, n := range service.Names {
			switch {
			case whole:
				add(n.Private)
				add(n.Public)
			case n.Zone == v.zone:
				add(n.Private)
			}
		}
	}
	if whole {
		for r := range s.RecordSets(linked.ID, "") {
			add(link.Name(linked.Full(r.Name)))
		}
		for name, e := range s.GroupedIn(linked.ID) {
			if e.Connection.Live() {
				add(link.Name(linked.Full(name)))
			}
		}
	}
	return all
}

// compareNames orders names as DNSSEC does, by their labels from the right (RFC 4034 section 6.1).
func compareNames(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	slices.Reverse(x)
	slices.Reverse(y)
	return slices.Compare(x, y)
}
