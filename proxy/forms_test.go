package proxy

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/pires/go-proxyproto"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// X22, E22: the source of a PROXY header counts as any other. What the header says in IPv6 of an IPv4 client is in
// the lists of that client only where it is IPv4-mapped, and is denied by what denies the client in every form.
func TestInboundForms(t *testing.T) {
	everywhere := link.PutNetwork{Network: link.Network{
		ID: "corp", Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		Pools: []netip.Prefix{netip.MustParsePrefix("127.77.0.0/16")}, Egress: []string{"*"},
	}}
	denies := &policy.Policy{Sets: []policy.Set{{Name: "p", Default: policy.DefaultAllow, Rules: []policy.Rule{
		{Name: "r", Conditions: policy.Conditions{Sources: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}},
	}}}}
	for _, test := range []struct {
		name, source    string
		member, refused bool // of the list that has 10.1.2.3, and by the rule that denies it
	}{
		{"IPv4-mapped", "::ffff:10.1.2.3", true, true},
		{"IPv4-compatible", "::10.1.2.3", false, true},
		{"NAT64", "64:ff9b::10.1.2.3", false, true},
		{"local NAT64", "64:ff9b:1::10.1.2.3", false, true},
		{"6to4", "2002:a01:203::1", false, true},
		{"Teredo", "2001:0:c000:201::f5fe:fdfc", false, true},
		{"ISATAP", "2001:db8::5efe:10.1.2.3", false, true},
		{"of another client", "64:ff9b::10.2.2.3", false, false},
	} {
		ask := func(t *testing.T, p *policy.Policy, reason policy.Reason, allow ...string) {
			w := newWorld(t, Settings{InboundHeaders: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}},
				everywhere, service("svc", 7001, echo(t)), endpoint("e", "svc", nextAddr(t), allow...))
			w.rules.Store(p)
			w.proxy.Review()
			h := proxyproto.Header{Version: 2, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv6,
				SourceAddr:      &net.TCPAddr{IP: net.ParseIP(test.source), Port: 99},
				DestinationAddr: &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 7001}}
			b, err := h.Format()
			if err != nil {
				t.Fatal(err)
			}
			c := dial(t, w.first())
			c.Write(append(b, "through"...))
			if reason != "" {
				checkRefused(t, w, c, reason)
				return
			}
			got := make([]byte, len("through"))
			if _, err := io.ReadFull(c, got); string(got) != "through" {
				t.Errorf("echo %q, error %v", got, err)
			}
		}
		either := func(refused bool, reason policy.Reason) policy.Reason {
			if refused {
				return reason
			}
			return ""
		}
		t.Run("allow-list "+test.name, func(t *testing.T) {
			ask(t, nil, either(!test.member, policy.SourceDenied), "10.1.0.0/16")
		})
		t.Run("deny rule "+test.name, func(t *testing.T) {
			ask(t, denies, either(test.refused, policy.PolicyDenied))
		})
	}
}

// X22: no socket of ours is of both families, so that no IPv4 client arrives mapped.
func TestListenersOfOneFamily(t *testing.T) {
	l, err := open(netip.MustParseAddrPort("[::]:0"))
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	defer l.close()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	if c, err := net.Dial("tcp6", netip.AddrPortFrom(netip.IPv6Loopback(), port).String()); err != nil {
		t.Errorf("by IPv6: %v", err)
	} else {
		c.Close()
	}
	// The port of IPv4 is free beside it.
	beside, err := open(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
	if err != nil {
		t.Fatalf("a socket for [::] takes IPv4 too: %v", err)
	}
	beside.close()
	if c, err := net.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String()); err == nil {
		c.Close()
		t.Error("a socket for [::] takes an IPv4 client")
	}
}
