package privatelink

import (
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// untrusted says why a name can't be answered from a snapshot that is too old for some: what was
// private may be another's by now, or revoked. "" lets the query go on. A name that has nothing of ours in
// the network passes, as it did when the snapshot was new.
func (p *Privatelink) untrusted(q *query, f finding, asked []byte) (why string) {
	if link.IsProof(asked) {
		return ""
	}
	// Whatever became of its connection and its targets meanwhile: it isn't passed on.
	if len(asked) > 0 {
		if a := q.gen.answerFor(q.view.network, asked); a != nil {
			v := q.gen.snapshot.Service(a.service)
			return p.Stale(v != nil && v.Strict)
		}
	}
	if z := q.gen.linkedName(q.view.network, asked); z != nil && len(z.groups) > 0 {
		for _, of := range z.groups {
			if v := q.gen.snapshot.Service(of.service); v != nil && v.Strict {
				return p.Stale(true)
			}
		}
		return p.Stale(false)
	}
	if f.kind == foundNothing || f.kind == foundMiss && f.policy == missPass {
		return ""
	}
	return p.Stale(false)
}

// failed returns a failure in place of the whole answer.
func (d *downstream) failed(why *dns.EDNS0_EDE) *dns.Msg {
	d.result = servfail
	m := d.p.reply(&query{r: d.q.r}, why)
	m.Authoritative = false
	m.Rcode = dns.RcodeServerFailure
	return m
}
