package policy

import (
	"net/netip"
	"testing"

	"github.com/postern-link/postern/link"
)

// otherForms are what a gateway or host may take for 10.1.2.3, which is in the network corp of base and in the
// allow-list of sql-corp.
var otherForms = map[string]string{
	"IPv4-mapped":     "::ffff:10.1.2.3",
	"IPv4-compatible": "::10.1.2.3",
	"NAT64":           "64:ff9b::10.1.2.3",
	"local NAT64":     "64:ff9b:1::10.1.2.3",
	"6to4":            "2002:a01:203::1",
	"Teredo":          "2001:0:c000:201::f5fe:fdfc", // the bits of the client turned over
	"ISATAP":          "2001:db8::5efe:10.1.2.3",
}

// X22, E22: what stands for an IPv4 address is no member of the lists that the address is in, and is denied by
// what denies the address.
func TestFormsOfSource(t *testing.T) {
	s := base(t)
	from := func(p string) Conditions { return Conditions{Sources: []netip.Prefix{netip.MustParsePrefix(p)}} }
	find := func(allow bool, list string, client netip.AddrPort) bool {
		set := Set{Name: "p", Rules: []Rule{{Name: "r", Allow: allow, Conditions: from(list)}}, Default: DefaultAllow}
		if allow {
			set.Default = DefaultDeny
		}
		e := s.Endpoint("sql-corp")
		return set.find(Verdict{Allow: true, Endpoint: e, Service: s.Service(e.Service)}, Request{Source: client, At: at}).Allow
	}
	for name, address := range otherForms {
		t.Run(name, func(t *testing.T) {
			client := netip.AddrPortFrom(netip.MustParseAddr(address), 40000)
			for local, what := range map[string]string{"10.200.0.5:1433": "the allow-list", "10.200.0.6:443": "the network"} {
				if v := Decide(s, Request{Source: client, Local: netip.MustParseAddrPort(local)}); v.Allow || v.Reason != SourceDenied {
					t.Errorf("%s: %+v", what, v)
				}
			}
			if find(true, "10.1.0.0/16", client) {
				t.Error("a rule that allows 10.1.0.0/16 lets it in")
			}
			if find(false, "10.1.0.0/16", client) {
				t.Error("a rule that denies 10.1.0.0/16 lets it in")
			}
			if !find(false, "10.2.0.0/16", client) {
				t.Error("a rule that denies 10.2.0.0/16 keeps it out")
			}
		})
	}
	if four := netip.MustParseAddrPort("10.1.2.3:40000"); !find(true, "10.1.0.0/16", four) || find(false, "10.1.0.0/16", four) {
		t.Error("and 10.1.2.3 itself")
	}
	if len(link.Forms(netip.MustParseAddr("fd00:1::1"))) != 1 {
		t.Error("an address that stands for no other has another form")
	}
}
