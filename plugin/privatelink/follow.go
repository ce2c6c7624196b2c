package privatelink

import (
	"context"
	"slices"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// maxHops is how often a chain of aliases may lead from our zones to the next plugin.
const maxHops = 4

// chase is where the aliases of linked zones lead.
type chase struct {
	chain []dns.RR       // the aliases
	end   finding        // what the last one is
	out   string         // the last one where it is not ours, else ""
	why   *dns.EDNS0_EDE // nobody can know where they lead; else nil
}

// chase follows the aliases of linked zones from f, which is one, and adds them to a chain.
func (p *Privatelink) chase(q *query, chain []dns.RR, f finding) chase {
	for range link.MaxAliases {
		chain = append(chain, f.set.alias...)
		var buf [maxName]byte
		name := Canonical(buf[:0], f.set.target)
		next := p.find(q.gen, q.view, name)
		if q.old {
			if why := p.untrusted(q, next, name); why != "" {
				return chase{why: notReady(why)}
			}
		}
		switch {
		case next.kind == foundName && next.set.target != "":
			f = next
			continue
		case next.kind == foundNothing, next.kind == foundMiss && next.policy == missPass:
			return chase{chain: chain, out: f.set.target}
		}
		return chase{chain: chain, end: next}
	}
	return chase{why: tooManyAliases}
}

// wantsAlias reports whether an alias itself answers a question of the type.
func wantsAlias(qtype uint16) bool { return qtype == dns.TypeCNAME || qtype == dns.TypeANY }

// follow answers with an alias of a linked zone and what it leads to, here or at the next plugin.
func (p *Privatelink) follow(ctx context.Context, q *query, f finding) (int, error) {
	q.unnoted() // it depends on all that is on the way
	c := p.chase(q, nil, f)
	if c.why != nil {
		return p.failFor(q, c.why)
	}
	if c.out != "" && p.Next != nil {
		q.hops++
		return p.passChain(ctx, q, q.w, c)
	}
	if c.end.kind == foundMiss && c.end.policy == missRefuse {
		return p.refuse(q, blocked)
	}
	m := p.reply(q, nil)
	m.Answer = c.chain
	p.finish(m, q, c.end)
	m.Answer = echo(m.Answer, q.r.Question[0].Name)
	switch {
	case m.Rcode == dns.RcodeNameError:
		return p.write(q, m, nxdomain)
	case len(m.Ns) > 0:
		return p.write(q, m, nodata)
	}
	return p.write(q, m, positive)
}

// finish completes a message whose answer is a chain of aliases by what the last one is.
func (p *Privatelink) finish(m *dns.Msg, q *query, end finding) {
	switch {
	case end.kind == foundNothing: // and no plugin to ask
		return
	case end.set != nil && end.kind != foundDenied:
		answer, authority := end.set.sections(q.r.Question[0].Qtype)
		m.Answer, m.Ns = append(m.Answer, p.turned(answer, q.r.Question[0].Qtype)...), slices.Clip(authority)
		return
	case end.kind == foundDenied:
		m.Rcode, m.Ns = dns.RcodeNameError, slices.Clip(end.set.soa)
		return
	case end.kind == foundMiss:
		p.stats.miss(q.server, p.Zones.Template([]byte(end.zone)), end.policy)
		m.Rcode = dns.RcodeNameError
	}
	m.Ns = []dns.RR{soa(end.zone, q.gen.serial)}
}

// passChain asks the next plugin for the last alias of a chain and answers with both to w.
func (p *Privatelink) passChain(ctx context.Context, q *query, w dns.ResponseWriter, c chase) (int, error) {
	next := *q
	next.r = q.r.Copy()
	next.r.Question[0].Name = c.out
	d := &downstream{ResponseWriter: &headed{w, q, c.chain}, ctx: ctx, p: p, q: &next}
	code, why, err := p.onward(ctx, q, d, next.r)
	if why != nil {
		return p.failFor(&query{w: w, r: q.r, gen: q.gen, view: q.view, server: q.server}, why)
	}
	p.stats.answer(q.server, q.view.network, continued)
	return code, err
}

// headed is a writer that puts a chain of aliases before the answer for the last of them.
type headed struct {
	dns.ResponseWriter
	q     *query // as it was asked
	chain []dns.RR
}

// WriteMsg implements [dns.ResponseWriter]. AA is set: it speaks of the first name (RFC 1035 section
// 4.1.1). The code speaks of the last one (RFC 6604 section 3).
func (h *headed) WriteMsg(m *dns.Msg) error {
	c := *m
	c.Question = h.q.r.Question
	c.Answer = echo(append(append([]dns.RR(nil), h.chain...), m.Answer...), h.q.r.Question[0].Name)
	c.Authoritative, c.AuthenticatedData = true, false
	return h.ResponseWriter.WriteMsg(&c)
}
