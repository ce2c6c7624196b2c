package privatelink

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// aliasOf returns the CNAME of a name, and the records that say so: itself, behind the DNAME that it comes from
// where there is one. Servers send the CNAME along with a DNAME (RFC 6672 section 3.1); where one didn't, it is made
// here. Nil where the name is no alias.
func aliasOf(rrs []dns.RR, owner string) (records []dns.RR, alias *dns.CNAME) {
	var above *dns.DNAME
	for _, rr := range rrs {
		switch rr := rr.(type) {
		case *dns.CNAME:
			if alias == nil && strings.EqualFold(rr.Hdr.Name, owner) {
				alias = rr
			}
		case *dns.DNAME:
			// The nearest one: below a DNAME there is no other (RFC 6672 section 2.4).
			if below(owner, rr.Hdr.Name) && (above == nil || len(rr.Hdr.Name) > len(above.Hdr.Name)) {
				above = rr
			}
		}
	}
	if above != nil {
		records = append(records, above)
		if alias == nil {
			alias = substitute(above, owner)
		}
	}
	if alias == nil {
		return nil, nil
	}
	return append(records, alias), alias
}

// signed returns records of a section, each with the signatures over it that the section has: without them a validator takes the alias for forged (RFC 4035
// section 5).
func signed(rrs, section []dns.RR) (all []dns.RR) {
	for _, rr := range rrs {
		all = append(all, rr)
		for _, other := range section {
			if sig, ok := other.(*dns.RRSIG); ok && sig.TypeCovered == rr.Header().Rrtype && strings.EqualFold(sig.Hdr.Name, rr.Header().Name) {
				all = append(all, sig)
			}
		}
	}
	return all
}

// proofs returns the records of an authority section that prove, for aliases made from wildcards, that nothing closer exists (RFC 4035 section 5.3.4): the denials of the zones
// that have signed those.
func proofs(chain, authority []dns.RR) (all []dns.RR) {
	for _, rr := range chain {
		sig, ok := rr.(*dns.RRSIG)
		if !ok || int(sig.Labels) >= dns.CountLabel(sig.Hdr.Name) {
			continue
		}
		for _, rr := range authority {
			denial := rr.Header().Rrtype
			if over, ok := rr.(*dns.RRSIG); ok {
				denial = over.TypeCovered
			}
			if (denial == dns.TypeNSEC || denial == dns.TypeNSEC3) && dns.IsSubDomain(sig.SignerName, rr.Header().Name) && !slices.Contains(all, rr) {
				all = append(all, rr)
			}
		}
	}
	return all
}

// aliasTable has the CNAMEs and DNAMEs of a section by their owner, for many questions of what [aliasOf] tells.
type aliasTable struct {
	cname map[string]*dns.CNAME // by owner in lower case; of several the first
	dname map[string]*dns.DNAME
}

// aliasesOf returns the aliases of a section.
func aliasesOf(rrs []dns.RR) *aliasTable {
	a := &aliasTable{make(map[string]*dns.CNAME), make(map[string]*dns.DNAME)}
	for _, rr := range rrs {
		switch rr := rr.(type) {
		case *dns.CNAME:
			if owner := strings.ToLower(rr.Hdr.Name); a.cname[owner] == nil {
				a.cname[owner] = rr
			}
		case *dns.DNAME:
			if owner := strings.ToLower(rr.Hdr.Name); a.dname[owner] == nil {
				a.dname[owner] = rr
			}
		}
	}
	return a
}

// of returns where the alias of a name leads; ok is false where it is none.
func (a *aliasTable) of(owner string) (to string, ok bool) {
	lower := strings.ToLower(owner)
	if alias := a.cname[lower]; alias != nil {
		return alias.Target, true
	}
	if len(a.dname) == 0 || owner == "." {
		return "", false
	}
	for off, end := dns.NextLabel(lower, 0); ; off, end = dns.NextLabel(lower, off) {
		above := lower[off:]
		if end {
			above = "."
		}
		if d := a.dname[above]; d != nil { // the nearest one
			if alias := substitute(d, owner); alias != nil {
				return alias.Target, true
			}
			return "", false
		}
		if end {
			return "", false
		}
	}
}

// below reports whether a name is strictly below another one.
func below(name, above string) bool {
	if above == "." {
		return name != "."
	}
	n := len(name) - len(above)
	return n > 1 && name[n-1] == '.' && strings.EqualFold(name[n:], above) && dns.IsSubDomain(above, name)
}

// substitute returns the CNAME that a DNAME makes of a name below its owner, nil where the name would be too long
// (RFC 6672 section 2.2).
func substitute(d *dns.DNAME, name string) *dns.CNAME {
	target := strings.TrimSuffix(name, ".")
	if d.Hdr.Name != "." {
		target = name[:len(name)-len(d.Hdr.Name)-1]
	}
	if d.Target != "." {
		target += "." + d.Target
	} else {
		target += "."
	}
	if _, ok := dns.IsDomainName(target); !ok {
		return nil
	}
	return &dns.CNAME{Hdr: header(name, dns.TypeCNAME, d.Hdr.Ttl), Target: target}
}
