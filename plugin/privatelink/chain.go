package privatelink

import (
	"context"
	"slices"
	"strings"

	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// downstream is the writer that the next plugin answers to. Where its answer leads to a name of ours,
// what follows is ours: the address that others have for the name is the public one.
type downstream struct {
	dns.ResponseWriter
	ctx    context.Context // of the query, which the answer of the next plugin may lead back here
	p      *Privatelink
	q      *query
	result result   // for the counters
	others []string // names that weren't ours when they were looked up for this message, and so aren't in all of it
}

// WriteMsg implements [dns.ResponseWriter].
func (d *downstream) WriteMsg(m *dns.Msg) error {
	if d.q.view.found {
		next, beyond := d.continued(m)
		if beyond != nil {
			return d.goOn(m, *beyond)
		}
		if next == m {
			next = d.withoutHints(m) // what is continued has our records and no others
			if d.q.r.Question[0].Qtype != dns.TypeDS && d.mayBecomeOurs() {
				next = keptFor(next, negativeTTL)
			}
		}
		m = next
	}
	if d.q.view.ecs != nil {
		if d.q.view.parts {
			m = keptFor(m, 0) // some resolvers keep it for the whole subnet, whatever the scope is
		}
		m = d.scoped(m)
	}
	return d.ResponseWriter.WriteMsg(m)
}

// Write implements [dns.ResponseWriter] for plugins that pack their answers themselves.
func (d *downstream) Write(b []byte) (int, error) {
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		return 0, err
	}
	if err := d.WriteMsg(m); err != nil {
		return 0, err
	}
	return len(b), nil
}

// continued returns m, or where its chain of aliases comes to a name of ours, the chain up to there
// and our records. Where ours are aliases that lead to others again, beyond says so. The message given may be
// shared and stays as it is.
func (d *downstream) continued(m *dns.Msg) (_ *dns.Msg, beyond *chase) {
	question := d.q.r.Question[0]
	at := question.Name
	if question.Qclass == dns.ClassINET && question.Qtype == dns.TypeDS {
		if _, alias := aliasOf(m.Answer, at); alias == nil || d.known(at) {
			return d.delegation(m, alias), nil
		}
	}
	if question.Qclass != dns.ClassINET || len(m.Answer) == 0 {
		return m, nil
	}
	var first [maxName]byte
	if link.IsProof(Canonical(first[:0], at)) {
		return m, nil // also what proves a domain by an alias
	}
	var chain []dns.RR
	for n := 0; ; n++ {
		var buf [maxName]byte
		name := Canonical(buf[:0], at) // at first the question's, which wasn't ours when it was passed on: a target may have answered since
		f := d.p.find(d.q.gen, d.q.view, name)
		if d.q.old {
			if why := d.p.untrusted(d.q, f, name); why != "" {
				return d.failed(notReady(why)), nil
			}
		}
		switch {
		case f.kind == foundMiss && f.policy == missRefuse:
			d.p.stats.miss(d.q.server, d.p.Zones.Template([]byte(f.zone)), f.policy)
			return d.refused(), nil
		case f.kind == foundName && f.set.target != "" && !wantsAlias(question.Qtype):
			c := d.p.chase(d.q, chain, f)
			switch {
			case c.why != nil:
				return d.failed(c.why), nil
			case c.out != "":
				return nil, &c
			}
			if c.end.kind == foundMiss && c.end.policy == missRefuse {
				return d.refused(), nil
			}
			return d.cut(m, c.chain, c.end), nil
		case f.kind != foundNothing && (f.kind != foundMiss || f.policy != missPass):
			return d.cut(m, chain, f), nil
		}
		d.others = append(d.others, at)
		with, alias := aliasOf(m.Answer, at)
		if alias == nil {
			return m, nil
		}
		if n == link.MaxAliases { // nobody knows where they lead
			return d.failed(tooManyAliases), nil
		}
		chain = append(chain, signed(with, m.Answer)...)
		at = alias.Target
	}
}

// mayBecomeOurs reports whether the name of the question, or one that its aliases lead to, is a service's: an endpoint that is approved next
// is to be seen as soon as if nothing had been answered before.
func (d *downstream) mayBecomeOurs() bool {
	s := d.q.gen.snapshot
	for _, fqdn := range slices.Concat(d.others, []string{d.q.r.Question[0].Name}) {
		var buf [maxName]byte
		name := Canonical(buf[:0], fqdn)
		if d.q.gen.answerFor(d.q.view.network, name) != nil || s.IsSuffix(name) || s.IsOther(name) {
			return true
		}
	}
	return false
}

// keptFor returns m with times to live of no more than so many seconds. The message given may be shared and stays as it is.
func keptFor(m *dns.Msg, seconds uint32) *dns.Msg {
	c := m.Copy()
	for _, section := range [...][]dns.RR{c.Answer, c.Ns, c.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				h.Ttl = min(h.Ttl, seconds)
			}
		}
	}
	return c
}

// known reports whether a name is ours, or the apex of a zone of ours.
func (d *downstream) known(fqdn string) bool {
	var buf [maxName]byte
	f := d.p.find(d.q.gen, d.q.view, Canonical(buf[:0], fqdn))
	return f.kind == foundName || f.kind == foundApex
}

// delegation returns the answer for DS. What a validator asks it for is the proof of the public side (see [Privatelink.answer]), that a resolver then has of the
// name for other types too must not be: where the name leads to in public, and that it doesn't exist there (RFC 2308 section 5). Of a name that is
// an alias of the same name here and there the public record stays, with its signature: there is no DS where an alias is.
func (d *downstream) delegation(m *dns.Msg, alias *dns.CNAME) *dns.Msg {
	question := d.q.r.Question[0]
	var buf [maxName]byte
	f := d.p.find(d.q.gen, d.q.view, Canonical(buf[:0], question.Name))
	switch {
	case f.kind == foundApex && alias == nil && m.Rcode == dns.RcodeNameError:
		c := *m
		c.Rcode = dns.RcodeSuccess
		return &c
	case f.kind != foundName && f.kind != foundApex, alias == nil && m.Rcode != dns.RcodeNameError:
		return m
	}
	c := d.cut(m, nil, f)
	if alias == nil || f.kind != foundName || len(f.set.alias) == 0 || !strings.EqualFold(f.set.alias[0].(*dns.CNAME).Target, alias.Target) {
		return c
	}
	c.Authoritative, c.Answer = m.Authoritative, signed([]dns.RR{alias}, m.Answer)
	return c
}

// goOn asks the next plugin for what aliases of ours lead to, after an answer of it, m, has led to them.
func (d *downstream) goOn(m *dns.Msg, beyond chase) error {
	d.result = continued
	code := dns.RcodeServerFailure
	if d.q.hops++; d.q.hops <= maxHops {
		var err error
		if code, err = d.p.passChain(d.ctx, d.q, d.ResponseWriter, beyond); err != nil {
			return err
		}
		if plugin.ClientWrite(code) {
			return nil
		}
	}
	failed := &dns.Msg{MsgHdr: m.MsgHdr, Question: m.Question}
	failed.Rcode, failed.Authoritative, failed.AuthenticatedData = code, false, false
	return d.ResponseWriter.WriteMsg(failed)
}

// cut returns m with the chain and what was found at its end. It keeps nothing else of the answer:
// the rest is about the public address. AA speaks of the first name (RFC 1035 section 4.1.1), so that it stays
// as it was where there is a chain; the code speaks of the last one (RFC 6604 section 3).
func (d *downstream) cut(m *dns.Msg, chain []dns.RR, f finding) *dns.Msg {
	c := &dns.Msg{MsgHdr: m.MsgHdr, Question: m.Question, Answer: chain}
	c.AuthenticatedData, c.Truncated, c.Rcode = false, false, dns.RcodeSuccess
	if opt := m.IsEdns0(); opt != nil {
		c.Extra = []dns.RR{withoutErrors(opt)}
	}
	d.result = continued
	qtype := d.q.r.Question[0].Qtype
	if len(chain) > 0 && (qtype == dns.TypeCNAME || qtype == dns.TypeANY) {
		c.Ns = proofs(chain, m.Ns)
		return c // the alias is all that was asked for
	}
	d.p.finish(c, d.q, f)
	c.Ns = append(c.Ns, proofs(chain, m.Ns)...)
	if len(chain) == 0 {
		c.Authoritative, c.Answer = true, echo(c.Answer, d.q.r.Question[0].Name)
	}
	return c
}

// withoutErrors returns an OPT record without extended errors: they speak of what isn't answered any more.
func withoutErrors(opt *dns.OPT) *dns.OPT {
	c := &dns.OPT{Hdr: opt.Hdr}
	for _, option := range opt.Option {
		if option.Option() != dns.EDNS0EDE {
			c.Option = append(c.Option, option)
		}
	}
	return c
}

// refused returns a refusal in place of the whole answer.
func (d *downstream) refused() *dns.Msg {
	d.result = refused
	m := d.p.reply(&query{r: d.q.r}, blocked)
	m.Authoritative = false
	m.Rcode = dns.RcodeRefused
	return m
}

// scoped returns m with the client subnet that it is for. Without it the resolver would keep the
// answer for all of its clients, those of a network too.
func (d *downstream) scoped(m *dns.Msg) *dns.Msg {
	c := *m
	c.Extra = nil
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	for _, rr := range m.Extra {
		o, ok := rr.(*dns.OPT)
		if !ok {
			c.Extra = append(c.Extra, rr)
			continue
		}
		opt.Hdr = o.Hdr
		for _, option := range o.Option {
			if option.Option() != dns.EDNS0SUBNET {
				opt.Option = append(opt.Option, option)
			}
		}
	}
	opt.Option = append(opt.Option, d.q.view.ecs)
	c.Extra = append(c.Extra, opt)
	return &c
}
