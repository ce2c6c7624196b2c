// Package linkexit judges what leaves by DNS: every query that privatelink passes on, and every answer that
// comes back. It stands right behind privatelink, which knows who asks, and before the cache: what is
// refused here is asked nowhere and learns nothing from what others have asked.
//
// A client can write into a question: its name and its type, and in EDNS options. The name is
// held to a list or to limits, types are refused, options don't go on. What comes back loses the
// addresses that only somebody who rebinds a name would give.
package linkexit

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/privatelink"
)

// name is the name of the directive.
const name = "linkexit"

// Linkexit is the handler of one server block. Its fields are set before the first query and not changed
// afterwards.
type Linkexit struct {
	Next plugin.Handler

	// Forwards: a plugin behind this one asks other servers, so that recursion is available.
	Forwards bool

	rules    map[link.ID]*rule // of the networks that the block names
	other    *rule             // of all other clients; nil: they aren't judged
	stats    *counters
	log      *journal
	start    time.Time // what the clock of the limits counts from
	revision atomic.Uint64
}

// rule is one directive with what it has counted.
type rule struct {
	settings
	at    block.Position
	rates *rates // of all queries; nil is no limit
	texts *rates // of TXT queries; nil is no limit
	names *names // nil is no limit
	keys  keys
}

// Name implements [plugin.Handler].
func (e *Linkexit) Name() string { return name }

// ServeDNS implements [plugin.Handler].
func (e *Linkexit) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	client, ok := privatelink.ClientOf(ctx)
	if !ok || len(r.Question) != 1 {
		return dns.RcodeServerFailure, nil // nobody knows who asks: setup doesn't let this happen
	}
	return e.serve(ctx, client, w, r)
}

// serve judges a query of a client.
func (e *Linkexit) serve(ctx context.Context, client privatelink.Client, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	e.follow(client.Snapshot)
	q := query{client: client, r: r, name: fold(r.Question[0].Name), server: metrics.WithServer(ctx)}
	if q.rule = e.ruleFor(client.Network); q.rule == nil {
		e.stats.query(q.server, client.Network, unjudged)
		return plugin.NextOrFailure(e.Name(), e.Next, ctx, w, r)
	}
	v := q.rule.judge(&q, int64(time.Since(e.start)))
	e.stats.query(q.server, client.Network, v.reason)
	e.log.verdict(&q, v)
	if v.reason != passed {
		return e.refuse(w, &q, v.reason)
	}
	if !exempt(q.rule.rebind, q.name) {
		w = &filter{ResponseWriter: w, e: e, q: q}
	}
	return plugin.NextOrFailure(e.Name(), e.Next, ctx, w, plain(r))
}

// query is one question on its way out.
type query struct {
	client privatelink.Client
	rule   *rule
	r      *dns.Msg
	name   string // that is asked for, as fold returns it
	server string // the listener, for the counters
}

// ruleFor returns the rule for clients of a network, nil where there is none.
func (e *Linkexit) ruleFor(network link.ID) *rule {
	if r := e.rules[network]; r != nil {
		return r
	}
	return e.other
}

// follow forgets the counters of networks that a newer snapshot doesn't have.
func (e *Linkexit) follow(s *link.Snapshot) {
	if s == nil {
		return
	}
	seen := e.revision.Load()
	if now := s.Revision(); now > seen && e.revision.CompareAndSwap(seen, now) {
		e.stats.forget(s)
	}
}

// verdict is what becomes of a query, and why.
type verdict struct {
	reason reason
	domain string // that the names were counted of, else ""
	quiet  bool   // the client was refused for this in the same window already
}

// judge decides on a query. The time is in nanoseconds, of a clock that only goes forward. Only what
// is passed on counts for the limits.
func (rule *rule) judge(q *query, now int64) verdict {
	if why := rule.allows(q); why != passed {
		return verdict{reason: why}
	}
	return rule.count(q, q.r.Question[0].Qtype, now)
}

// allows decides on the question alone.
func (rule *rule) allows(q *query) reason {
	question := q.r.Question[0]
	switch {
	case q.r.Opcode != dns.OpcodeQuery:
		return opcode // the core lets NOTIFY through, which forward would send on
	case question.Qclass != dns.ClassINET:
		return class
	case question.Qtype == dns.TypeAXFR || question.Qtype == dns.TypeIXFR:
		return transfer
	case rule.mode == modeClosed:
		return closed
	case rule.refuse.has(question.Qtype):
		return rrtype
	case rule.mode == modeList && !rule.list.has(q.name):
		return unlisted
	case rule.length > 0 && len(q.name) > rule.length:
		return length
	}
	return passed
}

// count holds a query to the limits of its client.
func (rule *rule) count(q *query, qtype uint16, now int64) verdict {
	if rule.rates == nil && rule.names == nil && (rule.texts == nil || qtype != dns.TypeTXT) {
		return verdict{}
	}
	client := rule.keys.client(q.client)
	if rule.texts != nil && qtype == dns.TypeTXT {
		if ok, first := rule.texts.take(client, now); !ok {
			return verdict{reason: txt, quiet: !first}
		}
	}
	if rule.rates != nil {
		if ok, first := rule.rates.take(client, now); !ok {
			return verdict{reason: rate, quiet: !first}
		}
	}
	if rule.names != nil {
		domain := registered(q.name)
		if ok, first := rule.names.take(rule.keys.pair(client, domain), rule.keys.name(q.name), now); !ok {
			return verdict{reason: distinct, domain: domain, quiet: !first}
		}
	}
	return verdict{}
}

// plain returns the query without what a client can write into it beside the question: records and EDNS
// options, which are for the next hop alone (RFC 6891 section 6.1.1) and would carry kilobytes to it. The query
// given stays as it is.
func plain(r *dns.Msg) *dns.Msg {
	opt := r.IsEdns0()
	records := len(r.Extra)
	if opt != nil {
		records--
	}
	if len(r.Answer) == 0 && len(r.Ns) == 0 && records == 0 && (opt == nil || len(opt.Option) == 0) {
		return r
	}
	c := *r
	c.Answer, c.Ns, c.Extra = nil, nil, nil
	if opt != nil {
		bare := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		bare.SetUDPSize(opt.UDPSize())
		bare.SetDo(opt.Do())
		c.Extra = []dns.RR{bare}
	}
	return &c
}
