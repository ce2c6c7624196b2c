package privatelink

import (
	"context"
	"net/netip"
	"testing"

	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// FuzzServeDNS sends whatever unpacks: no panic, one answer at most, and no name of ours is passed on.
func FuzzServeDNS(f *testing.F) {
	for _, ask := range []string{
		"contoso.database.windows.net A", "Contoso." + sqlZone + " HTTPS", sqlZone + " DS", sqlZone + " AXFR", "nobody." + sqlZone + " ANY",
		"shop.azurewebsites.net AAAA", "5.0.200.10.in-addr.arpa PTR", reverseName("fd00:200::6") + " PTR", ". NS", `a\.b.` + sqlZone + " A",
		"c.privatelink.x.kusto.windows.net A", "fallback.database.windows.net A",
	} {
		packed, err := withSubnet(question(ask), "10.1.5.0/24").Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed, true, uint8(0))
		f.Add(packed[:len(packed)/2], false, uint8(1))
	}
	srv := newServer(f, world(f))
	srv.ecsFrom = prefixes("10.2.0.0/16")
	srv.up.reply = func(r *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(r)
		m.Answer = []dns.RR{&dns.CNAME{Hdr: header(r.Question[0].Name, dns.TypeCNAME, 300), Target: "contoso." + sqlZone}}
		return m
	}
	policies := []policy{missPass, missNXDomain, missRefuse}
	f.Fuzz(func(t *testing.T, packed []byte, trusted bool, choice uint8) {
		r := new(dns.Msg)
		if r.Unpack(packed) != nil || len(r.Question) == 0 {
			return // the core answers those
		}
		srv.up.asked, srv.miss = nil, policies[int(choice)%len(policies)]
		client := corp
		if trusted {
			client = lab
		}
		asked := r.Question[0]
		w := &writer{ResponseWriter: test.ResponseWriter{RemoteIP: client}}
		if _, err := srv.ServeDNS(context.Background(), request.NewScrubWriter(r, w), r); err != nil {
			t.Fatal(err)
		}
		if len(w.got) > 1 {
			t.Fatalf("%d answers", len(w.got))
		}
		if len(r.Question) == 1 && len(w.got) == 0 {
			t.Fatal("no answer")
		}
		for _, m := range w.got {
			if _, err := m.Pack(); err != nil {
				t.Fatalf("%v: %v", err, m)
			}
		}
		if trusted {
			return // the view follows the option
		}
		g := srv.generation(srv.snapshot)
		if srv.find(g, view{network: "corp"}, Canonical(nil, asked.Name)).kind == foundName && len(srv.up.asked) > 0 {
			t.Errorf("%v was passed on", asked)
		}
	})
}

// FuzzReverse compares with the names that addresses have.
func FuzzReverse(f *testing.F) {
	f.Add("5.0.200.10.in-addr.arpa", []byte{10, 200, 0, 5})
	f.Add("05.0.200.10.in-addr.arpa", []byte{0xfd, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6})
	f.Fuzz(func(t *testing.T, name string, raw []byte) {
		if addr, ok := link.ParseReverse([]byte(name)); ok {
			if back := reverseName(addr.String()); back != name+"." && string(Canonical(nil, name)) == name {
				t.Errorf("%q is %s, whose name is %q", name, addr, back)
			}
		}
		addr, ok := netip.AddrFromSlice(raw)
		if !ok || addr.Is4In6() {
			return
		}
		name = reverseName(addr.String())
		if got, ok := link.ParseReverse([]byte(name[:len(name)-1])); !ok || got != addr {
			t.Errorf("%s: %q is read as %s", addr, name, got)
		}
	})
}
