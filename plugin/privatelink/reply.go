package privatelink

import (
	"slices"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

const (
	// negativeTTL is how long an answer without data may be kept, in seconds. It bounds how long an approval stays unseen.
	negativeTTL = link.SOAMinimum
	// maxUDP is the largest answer by UDP, in bytes (RFC 9715). The client may want less.
	maxUDP = 1232
)

// Why a query is refused or fails (RFC 8914).
var (
	tooManyAliases = &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeOther, ExtraText: "too many aliases"}
	blocked        = &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked, ExtraText: "no endpoint in this network"}
	prohibited     = &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeProhibited, ExtraText: "no zone transfer"}
)

// noState is why queries fail before there is a snapshot.
const noState = "no state yet"

// notYet is why queries fail to a server block whose objects can't be stored.
const notYet = "the objects of the new Corefile are not in force yet"

// notReady is why queries fail: this server can't know what is private. It isn't Stale Answer, which
// marks an answer that is given all the same (RFC 8914 section 4.4).
func notReady(why string) *dns.EDNS0_EDE {
	return &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeNotReady, ExtraText: why}
}

// header returns the header of a record.
func header(owner string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// soa returns the SOA of a zone for which nobody has written one.
func soa(zone link.Name, serial uint32) dns.RR {
	apex := string(zone) + "."
	return &dns.SOA{
		Hdr: header(apex, dns.TypeSOA, link.SOATTL), Ns: apex, Mbox: link.SOAMailbox,
		Serial: serial, Refresh: link.SOARefresh, Retry: link.SOARetry, Expire: link.SOAExpire, Minttl: link.SOAMinimum,
	}
}

// apexSet returns the records of a zone's apex.
func apexSet(zone link.Name, serial uint32) *set {
	own := []dns.RR{soa(zone, serial)}
	apex := string(zone) + "."
	ns := &dns.NS{Hdr: header(apex, dns.TypeNS, negativeTTL), Ns: apex}
	return &set{soa: own, other: map[uint16][]dns.RR{dns.TypeSOA: own, dns.TypeNS: {ns}}}
}

// reply returns an empty answer to the query, ours to give.
func (p *Privatelink) reply(q *query, ede *dns.EDNS0_EDE) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q.r)
	m.Authoritative = true
	m.RecursionAvailable = p.Forwards && q.r.RecursionDesired
	m.CheckingDisabled = false // RFC 4035 section 3.1.6
	q.extend(m, ede)
	return m
}

// extend adds the EDNS options of an answer of ours, to clients that speak EDNS (RFC 6891 section
// 6.1.1). CoreDNS fills in the rest of the OPT record when it makes the answer fit.
func (q *query) extend(m *dns.Msg, ede *dns.EDNS0_EDE) {
	if q.r.IsEdns0() == nil || ede == nil && q.view.ecs == nil {
		return
	}
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	if ede != nil {
		opt.Option = append(opt.Option, ede)
	}
	if q.view.ecs != nil {
		opt.Option = append(opt.Option, q.view.ecs)
	}
	m.Extra = append(m.Extra, opt)
}

// positive answers with the records of a name, or says that the type isn't among them.
func (p *Privatelink) positive(q *query, s *set) (int, error) {
	m := p.reply(q, nil)
	question := q.r.Question[0]
	m.Answer, m.Ns = s.sections(question.Qtype)
	m.Answer = echo(p.turned(m.Answer, question.Qtype), question.Name)
	res := positive
	if len(m.Ns) > 0 {
		res = nodata
	}
	return p.write(q, m, res)
}

// echo returns the records with the owner of the first RRset written as the client wrote it: some
// look for their own spelling. The records given are shared and stay as they are.
func echo(rrs []dns.RR, asked string) []dns.RR {
	if len(rrs) == 0 || rrs[0].Header().Name == asked {
		return rrs
	}
	own := rrs[0].Header().Name
	spelled := make([]dns.RR, len(rrs))
	for i, rr := range rrs {
		if rr.Header().Name == own {
			rr = dns.Copy(rr)
			rr.Header().Name = asked
		}
		spelled[i] = rr
	}
	return spelled
}

// negative answers that there is no data, or no such name, with the SOA that says for how long.
func (p *Privatelink) negative(q *query, rcode int, zone link.Name) (int, error) {
	m := p.reply(q, nil)
	m.Rcode = rcode
	m.Ns = []dns.RR{soa(zone, q.gen.serial)}
	if rcode == dns.RcodeNameError {
		return p.write(q, m, nxdomain)
	}
	return p.write(q, m, nodata)
}

// denied answers that a linked zone doesn't have the name.
func (p *Privatelink) denied(q *query, s *set) (int, error) {
	m := p.reply(q, nil)
	m.Rcode, m.Ns = dns.RcodeNameError, s.soa
	return p.write(q, m, nxdomain)
}

// refuse answers REFUSED.
func (p *Privatelink) refuse(q *query, why *dns.EDNS0_EDE) (int, error) {
	m := p.reply(q, why)
	m.Authoritative = false
	m.Rcode = dns.RcodeRefused
	return p.write(q, m, refused)
}

// notImplemented answers NOTIMP.
func (p *Privatelink) notImplemented(q *query) (int, error) {
	m := p.reply(q, nil)
	m.Authoritative = false
	m.Rcode = dns.RcodeNotImplemented
	return p.write(q, m, refused)
}

// fail answers SERVFAIL: what is private can't be known, and the next plugin would give public addresses.
func (p *Privatelink) fail(q *query, why string) (int, error) { return p.failFor(q, notReady(why)) }

// failFor answers SERVFAIL with an extended error.
func (p *Privatelink) failFor(q *query, why *dns.EDNS0_EDE) (int, error) {
	m := p.reply(q, why)
	m.Authoritative = false
	m.Rcode = dns.RcodeServerFailure
	return p.write(q, m, servfail)
}

// write sends a whole answer. The code says that it is written, whatever its own code is.
func (p *Privatelink) write(q *query, m *dns.Msg, res result) (int, error) {
	p.stats.answer(q.server, q.view.network, res)
	q.note.keep(q, m, res)
	m.Answer, m.Ns, m.Extra = slices.Clip(m.Answer), slices.Clip(m.Ns), slices.Clip(m.Extra) // dnssec appends to what all answers share
	if err := q.w.WriteMsg(m); err != nil {
		return dns.RcodeSuccess, err
	}
	return dns.RcodeSuccess, nil
}
