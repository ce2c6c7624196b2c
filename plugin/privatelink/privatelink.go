// Package privatelink is the DNS side of Postern as a CoreDNS plugin: it answers the names that have
// an endpoint in the client's network, from the newest snapshot, and passes everything else on.
//
// What is answered is a function of the snapshot and of what the data plane observes; nothing is
// stored. Where it can't know (no snapshot yet, one without the network of the server block, or one that
// is too old for the name), it fails and passes nothing on: the next plugin would give the public address.
package privatelink

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/coredns/coredns/plugin/transfer"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// name is the name of the directive.
const name = "privatelink"

// Privatelink is the handler of one server block. Its fields are set before the first query and not
// changed afterwards.
type Privatelink struct {
	Next plugin.Handler

	// Snapshot returns the newest snapshot, nil while there is none. Published reports whether a
	// target of a service has ever answered, Healthy whether one answers now.
	Snapshot  func() *link.Snapshot
	Published func(service link.ID) bool
	Healthy   func(service link.ID) bool
	// HealthyAt is Healthy for an endpoint at a site.
	HealthyAt func(service link.ID, site string) bool
	// Turn is what the order of several addresses follows from; nil: it is always the same.
	Turn func() uint64
	// Stale says why the snapshot is too old to answer from: for a service that demands strict
	// freshness, or for all others. "" is fresh enough, which it always is for the latter where it is
	// for the former.
	Stale func(strict bool) (why string)

	// Zones is the table of privatelink zones.
	Zones *link.Zones
	// Forwards: a plugin behind this one asks other servers, so that recursion is available.
	Forwards bool
	// Transfers is the plugin that says who may have a zone transfer, nil where nobody may.
	Transfers *transfer.Transfer
	// Upstream looks after what is passed on to other servers, nil where no plugin behind this one asks any.
	Upstream *Upstream
	// Tells: a plugin behind this one asks with [ClientOf] who a query is from.
	Tells bool

	settings
	stats   *counters
	current atomic.Pointer[generation]
	noted   *Privatelink // that this one takes notes for, see [note]; else nil

	// Of a reload, see [turnover]: the one that the block came with and the one that it goes with, nil where there is none, and handlers with the settings of others.
	before, after atomic.Pointer[turnover]
	likes         sync.Map // of *Privatelink by *Privatelink
	zone          string   // of the block
	places        []string // where it is asked: transport, host, port and view
}

// settings is what the block of the directive says.
type settings struct {
	ttl     uint32               // of positive answers, in seconds
	network link.ID              // of all clients; "" finds it by the client's address
	ecsFrom []netip.Prefix       // resolvers whose client subnet option is believed
	miss    policy               // of a zone with a live endpoint that missIn doesn't name
	missIn  map[link.Name]policy // by zone
	ptr     bool                 // answer for the addresses of endpoints
}

// defaults returns the settings of an empty block.
func defaults() settings {
	return settings{ttl: 10, miss: missPass, missIn: make(map[link.Name]policy), ptr: true}
}

// Name implements [plugin.Handler].
func (p *Privatelink) Name() string { return name }

// query is one question on its way through the plugin.
type query struct {
	w      dns.ResponseWriter
	r      *dns.Msg
	gen    *generation
	view   view
	server string // the listener, for the counters
	hops   int    // how often an alias of a linked zone has led to the next plugin
	old    bool   // the snapshot is too old for some names
	note   *note  // nil: the answer is not to be given again, see [query.unnoted]
}

// ServeDNS implements [plugin.Handler].
func (p *Privatelink) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if len(r.Question) != 1 || manyOPT(r) { // RFC 9619, RFC 6891 section 6.1.1
		return dns.RcodeFormatError, nil
	}
	if opt := r.IsEdns0(); opt != nil && opt.UDPSize() > maxUDP {
		opt.SetUDPSize(maxUDP) // also for answers of others (D08)
	}
	q := query{w: w, r: r, server: metrics.WithServer(ctx), note: noteOf(ctx)}
	if p.Upstream.isProbe(r.Question[0].Name) {
		return p.failFor(&q, leadsBack)
	}
	if q.note != nil {
		ctx = context.WithValue(ctx, noteKey{}, (*note)(nil)) // plugins behind may ask this server for the client
	}
	s := p.Snapshot()
	if s == nil {
		return p.fail(&q, noState)
	}
	by, s, settled := p.by(s, r.Question[0].Name)
	switch {
	case by == nil:
		return p.fail(&q, notYet)
	case !settled:
		p, q.note = by, nil
	case q.note != nil:
		p = p.noting(q.note)
	}
	q.gen, q.old = p.generation(s), p.Stale(true) != ""
	q.view = p.viewOf(q.gen, w, r)
	if q.view.absent {
		return p.fail(&q, "network "+string(p.network)+" of this server is not in the state")
	}
	if !q.view.found {
		if isTransfer(r.Question[0].Qtype) {
			return p.transferredByOthers(ctx, &q)
		}
		return p.pass(ctx, &q)
	}
	if q.note != nil {
		q.begin(q.note)
	}
	var buf [maxName]byte
	asked := Canonical(buf[:0], r.Question[0].Name)
	f := p.find(q.gen, q.view, asked)
	if p.Transfers != nil && ofZone(r.Question[0]) && (f.kind == foundNothing || f.kind == foundMiss) && len(asked) > 0 && string(p.Zones.Zone(asked)) == string(asked) {
		f = finding{kind: foundApex, zone: link.Name(asked)}
	}
	if q.old {
		if why := p.untrusted(&q, f, asked); why != "" {
			return p.fail(&q, why)
		}
	}
	return p.answer(ctx, &q, f)
}

// manyOPT reports whether a query has more than one OPT record, wherever they are.
func manyOPT(r *dns.Msg) bool {
	n := 0
	for _, section := range [...][]dns.RR{r.Answer, r.Ns, r.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype == dns.TypeOPT {
				n++
			}
		}
	}
	return n > 1
}

// answer writes what was found, or passes the query on.
func (p *Privatelink) answer(ctx context.Context, q *query, f finding) (int, error) {
	question := q.r.Question[0]
	if f.kind == foundNothing && f.zone == "" {
		if isTransfer(question.Qtype) {
			return p.transferredByOthers(ctx, q)
		}
		return p.pass(ctx, q)
	}
	switch {
	case question.Qclass != dns.ClassINET:
		return p.refuse(q, nil)
	case q.r.Opcode != dns.OpcodeQuery:
		return p.notImplemented(q)
	case isTransfer(question.Qtype):
		if f.kind == foundApex {
			return p.transferred(ctx, q, f.zone)
		}
		return p.refuse(q, prohibited) // the zones list addresses of the inside
	}
	switch f.kind {
	case foundName:
		if question.Qtype == dns.TypeDS && (f.zone == "" || len(f.set.alias) > 0 && f.set.target == "") {
			return p.pass(ctx, q) // a public name, in a zone of others: see below
		}
		if f.set.target != "" && !wantsAlias(question.Qtype) {
			return p.follow(ctx, q, f)
		}
		return p.positive(q, f.set)
	case foundDenied:
		return p.denied(q, f.set)
	case foundApex:
		if question.Qtype == dns.TypeDS {
			// DS belongs to the parent (RFC 4035 section 3.1.4.1). A validator that gets our unsigned
			// "no data" for it can't prove that the zone is unsigned, and fails.
			return p.pass(ctx, q)
		}
		if p.Transfers != nil {
			q.unnoted() // its serial depends on all of the zone
			return p.positive(q, p.zoneView(q, f.zone).apex(f))
		}
		if f.set != nil {
			return p.positive(q, f.set)
		}
		return p.positive(q, apexSet(f.zone, q.gen.serial))
	case foundEmpty:
		return p.negative(q, dns.RcodeSuccess, f.zone)
	case foundMiss:
		q.note.miss(p.stats.miss(q.server, p.Zones.Template([]byte(f.zone)), f.policy))
		switch f.policy {
		case missNXDomain:
			return p.negative(q, dns.RcodeNameError, f.zone)
		case missRefuse:
			return p.refuse(q, blocked)
		}
	}
	return p.pass(ctx, q)
}

// undesired is a writer to a client that has desired no recursion.
type undesired struct{ dns.ResponseWriter }

// WriteMsg implements [dns.ResponseWriter]. The message given may be shared and stays as it is.
func (w *undesired) WriteMsg(m *dns.Msg) error {
	c := *m
	c.RecursionDesired = false // as in the query (RFC 1035 section 4.1.1)
	return w.ResponseWriter.WriteMsg(&c)
}

// pass lets the next plugin answer. Within a view its answer is watched: it may lead to a name of ours.
func (p *Privatelink) pass(ctx context.Context, q *query) (int, error) {
	q.unnoted()
	d := &downstream{ResponseWriter: q.w, ctx: ctx, p: p, q: q, result: passed}
	w := q.w
	if q.view.found || q.view.ecs != nil {
		w = d
	}
	code, why, err := p.onward(ctx, q, w, q.r)
	if why != nil {
		return p.failFor(q, why)
	}
	p.stats.answer(q.server, q.view.network, d.result)
	return code, err
}

// onward has the next plugin answer r, which is what q has become. Why not is not nil where nothing was answered.
func (p *Privatelink) onward(ctx context.Context, q *query, w dns.ResponseWriter, r *dns.Msg) (code int, why *dns.EDNS0_EDE, err error) {
	switch why = p.Upstream.enter(r.Question[0].Name, q.view.network); why {
	case nil:
		defer p.Upstream.leave(q.view.network)
	case tooMany:
		// In a context that is over already, forward asks nobody, while cache and all that has its answers here give them.
		over, end := context.WithCancel(ctx)
		end()
		ctx = over
	default:
		return 0, why, nil
	}
	if p.Forwards && !r.RecursionDesired {
		w, r = &undesired{w}, r.Copy() // what a resolver without recursion says of it, a referral, cache would give to others
		r.RecursionDesired = true
	}
	code, err = plugin.NextOrFailure(p.Name(), p.Next, p.telling(ctx, q), w, r)
	if why != nil && (code == dns.RcodeServerFailure || code == dns.RcodeRefused && err != nil) { // REFUSED: max_concurrent of forward
		return code, why, nil // the error would say that a context is over
	}
	return code, nil, err
}
