package linkexit

import (
	"github.com/miekg/dns"
)

// reason is why a query goes no further, or that it does.
type reason uint8

const (
	passed   reason = iota
	unjudged        // no rule is for the client
	closed
	unlisted
	rrtype
	length
	rate
	txt
	distinct
	class
	opcode
	transfer
	reasons
)

// noEDE: the code says all.
const noEDE = 0xffff

// kinds say what each reason is called and what the client is answered. The extended errors are those of RFC 8914
// section 4: Blocked is about the name, Prohibited about the client.
var kinds = [reasons]struct {
	name  string // as metrics and log have it
	rcode int
	ede   uint16
	text  string
}{
	passed:   {"", dns.RcodeSuccess, noEDE, ""},
	unjudged: {"unjudged", dns.RcodeSuccess, noEDE, ""},
	closed:   {"closed", dns.RcodeRefused, dns.ExtendedErrorCodeBlocked, "only private names are answered"},
	unlisted: {"not_listed", dns.RcodeRefused, dns.ExtendedErrorCodeBlocked, "name is not on the list"},
	rrtype:   {"type", dns.RcodeRefused, dns.ExtendedErrorCodeProhibited, "type is not allowed"},
	length:   {"length", dns.RcodeNameError, dns.ExtendedErrorCodeBlocked, "name is too long"},
	rate:     {"rate", dns.RcodeRefused, dns.ExtendedErrorCodeProhibited, "too many queries"},
	txt:      {"txt", dns.RcodeRefused, dns.ExtendedErrorCodeProhibited, "too many TXT queries"},
	distinct: {"names", dns.RcodeRefused, dns.ExtendedErrorCodeProhibited, "too many names below one domain"},
	class:    {"class", dns.RcodeRefused, dns.ExtendedErrorCodeProhibited, "class is not allowed"},
	opcode:   {"opcode", dns.RcodeNotImplemented, noEDE, ""},
	transfer: {"transfer", dns.RcodeRefused, dns.ExtendedErrorCodeProhibited, "no zone transfer"},
}

// String returns the reason as metrics and log have it.
func (r reason) String() string { return kinds[r].name }

// verdict returns the verdict as metrics and log have it.
func (r reason) verdict() string {
	if r <= unjudged {
		return "passed"
	}
	return "refused"
}

// refuse answers what goes no further. The code that it returns says that the answer is written.
func (e *Linkexit) refuse(w dns.ResponseWriter, q *query, why reason) (int, error) {
	kind := &kinds[why]
	m := new(dns.Msg)
	m.SetReply(q.r)
	m.Rcode = kind.rcode
	m.RecursionAvailable = e.Forwards && q.r.RecursionDesired
	m.CheckingDisabled = false
	if kind.ede != noEDE {
		extend(m, q.r, kind.ede, kind.text)
	}
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// extend adds an extended error to an answer, for clients that speak EDNS (RFC 6891 section 6.1.1). An OPT record
// that the answer has may be shared and stays as it is.
func extend(m, r *dns.Msg, code uint16, text string) {
	if r.IsEdns0() == nil {
		return
	}
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	var extra []dns.RR
	for _, rr := range m.Extra {
		if o, ok := rr.(*dns.OPT); ok {
			opt.Hdr = o.Hdr
			opt.Option = append(opt.Option, o.Option...)
			continue
		}
		extra = append(extra, rr)
	}
	opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: code, ExtraText: text})
	m.Extra = append(extra, opt)
}
