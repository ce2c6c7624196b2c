package privatelink

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// What an answer of others tells on the side of names of ours would lead around the endpoint: their addresses, the
// address hints of HTTPS and SVCB records, and keys for Encrypted ClientHello (ech), with which the name of a connection
// couldn't be read (RFC 9460, RFC 9848). None of it is passed on.

// withoutHints returns m without what it tells of names of ours on the side. The message given may be shared
// and stays as it is.
func (d *downstream) withoutHints(m *dns.Msg) *dns.Msg {
	answer, in := d.strip(m, m.Answer)
	ns, on := d.strip(m, m.Ns)
	extra, with := d.strip(m, m.Extra)
	if !in && !on && !with {
		return m
	}
	c := *m
	c.Answer, c.Ns, c.Extra, c.AuthenticatedData = answer, ns, extra, false
	return &c
}

// strip returns the records of a section of m that may pass, and whether any was changed or left out. The slice and
// the records given stay as they are.
func (d *downstream) strip(m *dns.Msg, rrs []dns.RR) (kept []dns.RR, changed bool) {
	for i, rr := range rrs {
		var with dns.RR
		switch h := rr.Header(); h.Rrtype {
		case dns.TypeHTTPS, dns.TypeSVCB:
			if !d.ours(origin(h.Name)) {
				with = d.withoutAddresses(m, rr)
			}
		case dns.TypeA, dns.TypeAAAA:
			if !d.ours(h.Name) {
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
func (d *downstream) withoutAddresses(m *dns.Msg, rr dns.RR) dns.RR {
	svcb, ok := rr.(*dns.SVCB)
	if https, is := rr.(*dns.HTTPS); is {
		svcb, ok = &https.SVCB, true
	}
	if !ok {
		return nil // in a form that nobody here can read
	}
	if !slices.ContainsFunc(svcb.Value, isHint) || !d.leads(m, svcb.Target) {
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

// leads reports whether a name is ours, or leads to one by the aliases in a message.
func (d *downstream) leads(m *dns.Msg, fqdn string) bool {
	for range maxChain {
		if d.ours(fqdn) {
			return true
		}
		_, alias := aliasOf(m.Answer, fqdn)
		if alias == nil {
			_, alias = aliasOf(m.Extra, fqdn)
		}
		if alias == nil {
			return false
		}
		fqdn = alias.Target
	}
	return true // nobody can tell
}

// ours reports whether a name is answered by us in the view of the query.
func (d *downstream) ours(fqdn string) bool {
	var buf [maxName]byte
	kind := d.p.find(d.q.gen, d.q.view.network, Canonical(buf[:0], fqdn)).kind
	return kind == foundName || kind == foundDenied
}
