package linkexit

import (
	"net"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// filter is the writer that the next plugin answers to. It drops the addresses with which a name of
// others would lead a client to where only the inside may lead (rebinding). What privatelink adds to an answer of others is
// added behind it, and isn't looked at.
type filter struct {
	dns.ResponseWriter
	e *Linkexit
	q query
}

// WriteMsg implements [dns.ResponseWriter].
func (f *filter) WriteMsg(m *dns.Msg) error {
	s := &sieve{snapshot: f.q.client.Snapshot}
	c := s.message(m)
	if s.dropped == 0 {
		return f.ResponseWriter.WriteMsg(m)
	}
	f.e.stats.drop(f.q.server, f.q.client.Network, s.dropped)
	f.e.log.dropped(&f.q, s.dropped, s.example.String())
	if !slices.ContainsFunc(c.Answer, isAddress) {
		extend(c, f.q.r, dns.ExtendedErrorCodeFiltered, "address is not one of the outside")
	}
	return f.ResponseWriter.WriteMsg(c)
}

// Write implements [dns.ResponseWriter] for plugins that pack their answers themselves.
func (f *filter) Write(b []byte) (int, error) {
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		return 0, err
	}
	if err := f.WriteMsg(m); err != nil {
		return 0, err
	}
	return len(b), nil
}

// isAddress reports whether a record tells where to connect to.
func isAddress(rr dns.RR) bool {
	switch rr.Header().Rrtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB:
		return true
	}
	return false
}

// sieve takes the records that may not pass out of one message.
type sieve struct {
	snapshot *link.Snapshot
	dropped  int        // records that were dropped or changed
	example  netip.Addr // one of the addresses
	touched  []dns.RR_Header
}

// message returns a message without what may not pass: the one given where nothing is in it, which may be
// shared and stays as it is.
func (s *sieve) message(m *dns.Msg) *dns.Msg {
	answer, ns, extra := s.section(m.Answer), s.section(m.Ns), s.section(m.Extra)
	if s.dropped == 0 {
		return m
	}
	c := *m
	c.Answer, c.Ns, c.Extra = s.unsigned(answer), s.unsigned(ns), s.unsigned(extra)
	c.AuthenticatedData = false
	return &c
}

// section returns the records that may pass.
func (s *sieve) section(rrs []dns.RR) []dns.RR {
	var kept []dns.RR
	changed := false
	for i, rr := range rrs {
		with := s.record(rr)
		if with != rr {
			s.dropped++
			s.touched = append(s.touched, *rr.Header())
			if !changed {
				kept, changed = append(make([]dns.RR, 0, len(rrs)), rrs[:i]...), true
			}
		}
		if changed && with != nil {
			kept = append(kept, with)
		}
	}
	if !changed {
		return rrs
	}
	return kept
}

// unsigned returns records without the signatures of those that were touched.
func (s *sieve) unsigned(rrs []dns.RR) []dns.RR {
	signs := func(rr dns.RR) bool {
		sig, ok := rr.(*dns.RRSIG)
		return ok && slices.ContainsFunc(s.touched, func(h dns.RR_Header) bool {
			return h.Rrtype == sig.TypeCovered && fold(h.Name) == fold(sig.Hdr.Name)
		})
	}
	if !slices.ContainsFunc(rrs, signs) {
		return rrs
	}
	return slices.DeleteFunc(slices.Clone(rrs), signs)
}

// record returns a record, what is left of it, or nil.
func (s *sieve) record(rr dns.RR) dns.RR {
	switch rr := rr.(type) {
	case *dns.A:
		if s.forbidden(rr.A) {
			return nil
		}
	case *dns.AAAA:
		if s.forbidden(rr.AAAA) {
			return nil
		}
	case *dns.HTTPS:
		values, ok := s.hints(rr.Value)
		if !ok {
			return nil
		}
		if len(values) != len(rr.Value) {
			c := *rr
			c.Value = values
			return &c
		}
	case *dns.SVCB:
		values, ok := s.hints(rr.Value)
		if !ok {
			return nil
		}
		if len(values) != len(rr.Value) {
			c := *rr
			c.Value = values
			return &c
		}
	case *dns.RFC3597:
		// An address or hint in a form that the library doesn't read: nobody can tell what it is.
		if isAddress(rr) {
			return nil
		}
	}
	return rr
}

// hints returns the parameters of an HTTPS or SVCB record without a list of hints that has a forbidden
// address. Ok is false where the record can't do without it (RFC 9460 section 8).
func (s *sieve) hints(values []dns.SVCBKeyValue) (kept []dns.SVCBKeyValue, ok bool) {
	bad := func(kv dns.SVCBKeyValue) bool {
		switch kv := kv.(type) {
		case *dns.SVCBIPv4Hint:
			return slices.ContainsFunc(kv.Hint, s.forbidden)
		case *dns.SVCBIPv6Hint:
			return slices.ContainsFunc(kv.Hint, s.forbidden)
		}
		return false
	}
	if !slices.ContainsFunc(values, bad) {
		return values, true
	}
	var gone []dns.SVCBKey
	for _, kv := range values {
		if bad(kv) {
			gone = append(gone, kv.Key())
		} else {
			kept = append(kept, kv)
		}
	}
	for _, kv := range kept {
		if m, is := kv.(*dns.SVCBMandatory); is && slices.ContainsFunc(gone, func(k dns.SVCBKey) bool { return slices.Contains(m.Code, k) }) {
			return nil, false
		}
	}
	return kept, true
}

// forbidden reports whether no name of others may lead to an address. One that is none is forbidden.
func (s *sieve) forbidden(ip net.IP) bool {
	a, ok := netip.AddrFromSlice(ip)
	if ok {
		ok = !slices.ContainsFunc(link.Forms(a), s.inside)
	}
	if !ok {
		s.example = a.Unmap()
	}
	return !ok
}

// inside reports whether an address is of no use outside, or one of ours.
func (s *sieve) inside(a netip.Addr) bool {
	if slices.ContainsFunc(notOutside, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return true
	}
	if s.snapshot == nil {
		return false
	}
	pool, _ := s.snapshot.PoolOf(a)
	return pool != nil || s.snapshot.EndpointAt(a) != nil
}

// notOutside are the addresses that are never reached through the internet (RFC 6890 and its registries), and one
// that should not be.
var notOutside = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),        // this host: connects to itself on most systems
	netip.MustParsePrefix("10.0.0.0/8"),       // private, RFC 1918
	netip.MustParsePrefix("100.64.0.0/10"),    // shared, RFC 6598; metadata of a cloud in it
	netip.MustParsePrefix("127.0.0.0/8"),      // loopback
	netip.MustParsePrefix("168.63.129.16/32"), // Azure's platform, public by number alone
	netip.MustParsePrefix("169.254.0.0/16"),   // link-local, RFC 3927; metadata of most clouds in it
	netip.MustParsePrefix("172.16.0.0/12"),    // private, RFC 1918
	netip.MustParsePrefix("192.0.0.0/24"),     // protocol assignments; metadata of a cloud in it
	netip.MustParsePrefix("192.168.0.0/16"),   // private, RFC 1918
	netip.MustParsePrefix("198.18.0.0/15"),    // benchmarks, RFC 2544
	netip.MustParsePrefix("224.0.0.0/4"),      // multicast
	netip.MustParsePrefix("240.0.0.0/4"),      // reserved, broadcast
	netip.MustParsePrefix("::/128"),           // unspecified
	netip.MustParsePrefix("::1/128"),          // loopback
	netip.MustParsePrefix("64:ff9b:1::/48"),   // NAT64 of a site, RFC 8215
	netip.MustParsePrefix("100::/64"),         // discard, RFC 6666
	netip.MustParsePrefix("fc00::/7"),         // private, RFC 4193; metadata of a cloud in it
	netip.MustParsePrefix("fe80::/10"),        // link-local
	netip.MustParsePrefix("fec0::/10"),        // site-local, RFC 3879
	netip.MustParsePrefix("ff00::/8"),         // multicast
}
