package linkexit

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// records parses one record a line.
func records(t testing.TB, list ...string) (rrs []dns.RR) {
	t.Helper()
	for _, l := range list {
		rr, err := dns.NewRR(l)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	return rrs
}

// text is a section without OPT, one record a line.
func text(rrs []dns.RR) string {
	var all []string
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			all = append(all, strings.Join(strings.Fields(rr.String()), " "))
		}
	}
	return strings.Join(all, "\n")
}

// TestForbiddenAddresses is D17 and E23, address by address. The pool of network corp is 203.0.113.128/25.
func TestForbiddenAddresses(t *testing.T) {
	s := &sieve{snapshot: snapshot(t)}
	for _, a := range []string{
		"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.1.1",
		"100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "203.0.113.129",
		"::", "::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::10.0.0.1", "64:ff9b::10.0.0.1",
		"64:ff9b::7f00:1", "64:ff9b:1::1", "2002:a00:1::1", "2002:7f00:1::", "2001:0:a00:1::1", "2001:db8::5efe:10.0.0.1", "64:ff9b::203.0.113.200", "::ffff:203.0.113.200",
	} {
		if !s.forbidden(net.ParseIP(a)) {
			t.Errorf("%s may pass", a)
		}
	}
	for _, a := range []string{"203.0.113.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1", "2606:4700::1111", "64:ff9b::8.8.8.8", "2002:808:808::1", "::ffff:8.8.8.8"} {
		if s.forbidden(net.ParseIP(a)) {
			t.Errorf("%s may not pass", a)
		}
	}
	if !s.forbidden(nil) || !s.forbidden(net.IP{10, 0}) {
		t.Error("what is no address may pass")
	}
}

// TestRebinding: what is left of an answer.
func TestRebinding(t *testing.T) {
	const signed = "www.example.org. 300 IN RRSIG A 8 3 300 20300101000000 20200101000000 1 example.org. AAAA"
	for _, tt := range []struct {
		name, ask        string
		rebind           []string
		answer, extra    []string
		want, additional []string
		filtered         bool // the extended error is there
	}{
		{"outside", "www.example.org A", nil, []string{"www.example.org. 300 IN A 203.0.113.1", signed}, nil, []string{"www.example.org. 300 IN A 203.0.113.1", signed}, nil, false},
		{"all of the inside", "www.example.org A", nil, []string{"www.example.org. 300 IN A 10.0.0.1", signed}, nil, nil, nil, true},
		{"some of the inside", "www.example.org A", nil, []string{"www.example.org. 300 IN A 127.0.0.1", "www.example.org. 300 IN A 203.0.113.1", signed}, nil,
			[]string{"www.example.org. 300 IN A 203.0.113.1"}, nil, false},
		{"AAAA", "www.example.org AAAA", nil, []string{"www.example.org. 300 IN AAAA ::ffff:10.0.0.1"}, nil, nil, nil, true},
		{"chain", "a.example.org A", nil, []string{"a.example.org. 300 IN CNAME b.example.org.", "b.example.org. 300 IN A 169.254.169.254"}, nil,
			[]string{"a.example.org. 300 IN CNAME b.example.org."}, nil, true},
		{"additional", "example.org MX", nil, []string{"example.org. 300 IN MX 1 m.example.org."}, []string{"m.example.org. 300 IN A 192.168.1.1", "n.example.org. 300 IN A 203.0.113.1"},
			[]string{"example.org. 300 IN MX 1 m.example.org."}, []string{"n.example.org. 300 IN A 203.0.113.1"}, true},
		{"hints", "www.example.org HTTPS", nil, []string{"www.example.org. 300 IN HTTPS 1 . alpn=h2 ipv4hint=203.0.113.1,10.0.0.1 ipv6hint=2001:db8::1"}, nil,
			[]string{"www.example.org. 300 IN HTTPS 1 . alpn=h2 ipv6hint=2001:db8::1"}, nil, false},
		{"hints of SVCB", "www.example.org SVCB", nil, []string{"www.example.org. 300 IN SVCB 1 . ipv6hint=fd00::1"}, nil, []string{"www.example.org. 300 IN SVCB 1 ."}, nil, false},
		{"mandatory hints", "www.example.org HTTPS", nil, []string{"www.example.org. 300 IN HTTPS 1 . mandatory=ipv4hint ipv4hint=10.0.0.1"}, nil, nil, nil, true},
		{"exempt", "www.corp.example A", []string{"corp.example"}, []string{"www.corp.example. 300 IN A 10.0.0.1"}, nil, []string{"www.corp.example. 300 IN A 10.0.0.1"}, nil, false},
		{"exempt apex, other case", "CORP.example A", []string{"corp.example"}, []string{"CORP.example. 300 IN A 10.0.0.1"}, nil, []string{"CORP.example. 300 IN A 10.0.0.1"}, nil, false},
		{"beside an exempt zone", "www.mycorp.example A", []string{"corp.example"}, []string{"www.mycorp.example. 300 IN A 10.0.0.1"}, nil, nil, nil, true},
		{"a dot within a label", `evil\.corp.example A`, []string{"corp.example"}, []string{`evil\.corp.example. 300 IN A 10.0.0.1`}, nil, nil, nil, true},
		{"alias into an exempt zone", "www.example.org A", []string{"corp.example"}, []string{"www.example.org. 300 IN CNAME www.corp.example.", "www.corp.example. 300 IN A 10.0.0.1"}, nil,
			[]string{"www.example.org. 300 IN CNAME www.corp.example."}, nil, true},
		{"switched off", "www.example.org A", []string{""}, []string{"www.example.org. 300 IN A 10.0.0.1"}, nil, []string{"www.example.org. 300 IN A 10.0.0.1"}, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, func(s *settings) { open(s); s.rebind = tt.rebind }, nil)
			said := &dns.Msg{Answer: records(t, tt.answer...), Extra: records(t, tt.extra...)}
			before := said.String()
			w.reply = func(r *dns.Msg) *dns.Msg { // as a cache does: the sections are shared
				m := new(dns.Msg).SetReply(r)
				m.AuthenticatedData = true
				m.Answer, m.Extra = said.Answer, said.Extra
				return m
			}
			for _, edns := range []bool{true, false} {
				r := question(tt.ask)
				want := -1
				if edns {
					r.SetEdns0(1232, false)
					if tt.filtered {
						want = int(dns.ExtendedErrorCodeFiltered)
					}
				}
				m := w.ask(t, "corp", "10.1.0.9", r)
				if got, want := text(m.Answer), text(records(t, tt.want...)); got != want || m.Rcode != dns.RcodeSuccess {
					t.Errorf("answer\n%s\nwant\n%s", got, want)
				}
				if got, want := text(m.Extra), text(records(t, tt.additional...)); got != want {
					t.Errorf("additional\n%s\nwant\n%s", got, want)
				}
				if edeOf(m) != want {
					t.Errorf("EDNS %v: extended error %d, want %d", edns, edeOf(m), want)
				}
				if changed := text(m.Answer)+text(m.Extra) != text(said.Answer)+text(said.Extra); m.AuthenticatedData == changed {
					t.Errorf("AD %v", m.AuthenticatedData)
				}
			}
			if said.String() != before {
				t.Error("the message of the next plugin was changed")
			}
		})
	}
}

// TestRebindingRaw: a plugin that packs its answer itself is watched as well.
func TestRebindingRaw(t *testing.T) {
	w := newWorld(t, open, nil)
	out := new(writer)
	f := &filter{ResponseWriter: out, e: w.Linkexit, q: query{rule: w.rules["corp"], r: question("www.example.org A"), server: "x"}}
	m := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
	m.Response, m.Answer = true, records(t, "www.example.org. 300 IN A 10.0.0.1")
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.Write(packed); n != len(packed) || err != nil || len(out.got) != 1 || len(out.got[0].Answer) != 0 {
		t.Errorf("%d, %v: %v", n, err, out.got)
	}
}

// FuzzAnswer: whatever an upstream says, the client reads no address that is forbidden, in records or hints.
func FuzzAnswer(f *testing.F) {
	for _, list := range [][]string{
		{"a.example. 1 IN A 10.0.0.1", "a.example. 1 IN AAAA ::ffff:127.0.0.1"},
		{"a.example. 1 IN HTTPS 1 . mandatory=ipv4hint,alpn alpn=h2 ipv4hint=10.0.0.1", "a.example. 1 IN SVCB 1 . ipv6hint=fe80::1,2001:db8::1"},
		{"a.example. 1 IN CNAME b.example.", "b.example. 1 IN A 203.0.113.200", "b.example. 1 IN A 203.0.113.1"},
	} {
		m := &dns.Msg{Answer: records(f, list...), Extra: records(f, list...)}
		m.SetEdns0(1232, true)
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	world := snapshot(f)
	f.Fuzz(func(t *testing.T, packed []byte) {
		m := new(dns.Msg)
		if m.Unpack(packed) != nil {
			return
		}
		before := m.String()
		s := &sieve{snapshot: world}
		c := s.message(m)
		if m.String() != before {
			t.Fatal("the message given was changed")
		}
		if c == m && s.dropped > 0 || c != m && s.dropped == 0 {
			t.Fatalf("%d dropped", s.dropped)
		}
		again, err := c.Pack()
		if err != nil {
			return // nobody can read it
		}
		read := new(dns.Msg)
		if err := read.Unpack(again); err != nil {
			return
		}
		bad := func(ip net.IP) bool { // a slow reading of the rule, for the ways in which most are written
			a, ok := netip.AddrFromSlice(ip)
			return !ok || slices.ContainsFunc(link.Forms(a), func(a netip.Addr) bool {
				return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || netip.MustParsePrefix("203.0.113.128/25").Contains(a)
			})
		}
		for _, rr := range slices.Concat(read.Answer, read.Ns, read.Extra) {
			var addresses []net.IP
			var values []dns.SVCBKeyValue
			switch rr := rr.(type) {
			case *dns.A:
				addresses = []net.IP{rr.A}
			case *dns.AAAA:
				addresses = []net.IP{rr.AAAA}
			case *dns.HTTPS:
				values = rr.Value
			case *dns.SVCB:
				values = rr.Value
			}
			for _, kv := range values {
				switch kv := kv.(type) {
				case *dns.SVCBIPv4Hint:
					addresses = append(addresses, kv.Hint...)
				case *dns.SVCBIPv6Hint:
					addresses = append(addresses, kv.Hint...)
				}
			}
			if slices.ContainsFunc(addresses, bad) {
				t.Fatalf("passed: %v", rr)
			}
		}
	})
}
