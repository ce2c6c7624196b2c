package privatelink

import (
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// What an answer of others tells on the side of names of ours would lead around the endpoint: their addresses, the
// address hints of HTTPS and SVCB records, and keys for Encrypted ClientHello (ech), with which the name of a connection
// couldn't be read (RFC 9460, RFC 9848). None of it is passed on.

// sides is one message on its way to a client. What is found of a name is kept: a message may name the same one
// thousands of times.
type sides struct {
	d       *downstream
	m       *dns.Msg
	own     map[string]bool // ours, by the name as it is written
	lead    map[string]bool // leads, the same way
	aliases [2]*aliasTable  // of Answer and Extra, nil until needed
}

// withoutHints returns m without what it tells of names of ours on the side. The message given may be shared
// and stays as it is.
func (d *downstream) withoutHints(m *dns.Msg) *dns.Msg {
	s := &sides{d: d, m: m}
	answer, in := s.strip(m.Answer)
	ns, on := s.strip(m.Ns)
	extra, with := s.strip(m.Extra)
	if !in && !on && !with {
		return m
	}
	c := *m
	c.Answer, c.Ns, c.Extra, c.AuthenticatedData = answer, ns, extra, false
	return &c
}

// strip returns the records of a section of the message that may pass, and whether any was changed or left out. The
// slice and the records given stay as they are.
func (s *sides) strip(rrs []dns.RR) (kept []dns.RR, changed bool) {
	for i, rr := range rrs {
		var with dns.RR
		switch h := rr.Header(); h.Rrtype {
		case dns.TypeHTTPS, dns.TypeSVCB:
			if !s.ours(origin(h.Name)) {
				with = s.withoutAddresses(rr)
			}
		case dns.TypeA, dns.TypeAAAA:
			if !s.ours(h.Name) {
				with = rr
			}
		default:
			with = rr
		}
		if !changed && with != rr {
			kept, changed = append(kept, rrs[:i]...), true
		}
		if changed && with != nil {
			kept = append(kept, with)
		}
	}
	if !changed {
		return rrs, false
	}
	return kept, true
}

// origin returns the name that a record of a service is about: without the labels in front that say port and
// scheme, as in _8443._https.www.example.com (RFC 9460 section 9.1).
func origin(owner string) string {
	for strings.HasPrefix(owner, "_") {
		_, rest, ok := strings.Cut(owner, ".")
		if !ok || rest == "" {
			break
		}
		owner = rest
	}
	return owner
}

// withoutAddresses returns an HTTPS or SVCB record without address hints and ech if it leads to a name of
// ours; nil if it can't do without them (RFC 9460 section 8).
func (s *sides) withoutAddresses(rr dns.RR) dns.RR {
	svcb, ok := rr.(*dns.SVCB)
	if https, is := rr.(*dns.HTTPS); is {
		svcb, ok = &https.SVCB, true
	}
	if !ok {
		return nil // in a form that nobody here can read
	}
	if !slices.ContainsFunc(svcb.Value, isHint) || !s.leads(svcb.Target) {
		return rr
	}
	var values []dns.SVCBKeyValue
	for _, kv := range svcb.Value {
		if isHint(kv) {
			continue
		}
		if must, is := kv.(*dns.SVCBMandatory); is && slices.ContainsFunc(must.Code, isHintKey) {
			return nil
		}
		values = append(values, kv)
	}
	c := dns.Copy(rr)
	switch c := c.(type) {
	case *dns.HTTPS:
		c.Value = values
	case *dns.SVCB:
		c.Value = values
	}
	return c
}

func isHint(kv dns.SVCBKeyValue) bool { return isHintKey(kv.Key()) }

func isHintKey(key dns.SVCBKey) bool {
	return key == dns.SVCB_IPV4HINT || key == dns.SVCB_IPV6HINT || key == dns.SVCB_ECHCONFIG
}

// leads reports whether a name is ours, or leads to one by the aliases in the message.
func (s *sides) leads(fqdn string) bool {
	yes, known := s.lead[fqdn]
	if !known {
		if s.lead == nil {
			s.lead = make(map[string]bool)
			s.aliases = [2]*aliasTable{aliasesOf(s.m.Answer), aliasesOf(s.m.Extra)}
		}
		yes = s.follow(fqdn)
		s.lead[fqdn] = yes
	}
	return yes
}

// follow is leads, not remembered.
func (s *sides) follow(fqdn string) bool {
	for range link.MaxAliases {
		if s.ours(fqdn) {
			return true
		}
		to, ok := s.aliases[0].of(fqdn)
		if !ok {
			to, ok = s.aliases[1].of(fqdn)
		}
		if !ok {
			return false
		}
		fqdn = to
	}
	return true // nobody can tell
}

// ours reports whether a name is answered by us in the view of the query.
func (s *sides) ours(fqdn string) bool {
	yes, known := s.own[fqdn]
	if !known {
		var buf [maxName]byte
		kind := s.d.p.find(s.d.q.gen, s.d.q.view, Canonical(buf[:0], fqdn)).kind
		yes = (kind == foundName || kind == foundDenied) &&
			!slices.ContainsFunc(s.d.others, func(name string) bool { return strings.EqualFold(name, fqdn) })
		if s.own == nil {
			s.own = make(map[string]bool)
		}
		s.own[fqdn] = yes
	}
	return yes
}
