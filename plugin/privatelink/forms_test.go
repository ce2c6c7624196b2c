package privatelink

import (
	"testing"

	"github.com/miekg/dns"
)

// X22, E22: an IPv6 address that stands for an IPv4 client has the view of that client only where it is the
// IPv4-mapped one of a socket; as the subnet of a trusted resolver it has none.
func TestFormsOfClient(t *testing.T) {
	const ours, public = "10.200.0.5", "203.0.113.1"
	s := world(t)
	for name, form := range map[string]struct{ address, want string }{
		"IPv4 itself":     {"10.1.0.9", ours},
		"IPv4-mapped":     {"::ffff:10.1.0.9", ours},
		"IPv4-compatible": {"::10.1.0.9", public},
		"NAT64":           {"64:ff9b::10.1.0.9", public},
		"local NAT64":     {"64:ff9b:1::10.1.0.9", public},
		"6to4":            {"2002:a01:9::1", public},
		"Teredo":          {"2001:0:c000:201::f5fe:fff6", public},
		"ISATAP":          {"2001:db8::5efe:10.1.0.9", public},
	} {
		t.Run(name, func(t *testing.T) {
			srv := newServer(t, s)
			srv.ecsFrom = prefixes("10.2.0.53/32")
			answer := func(from string, r *dns.Msg) string {
				m, _ := srv.ask(t, from, r)
				return m.Answer[0].(*dns.A).A.String()
			}
			if got := answer(form.address, question("contoso."+sqlZone+" A")); got != form.want {
				t.Errorf("a client: answer %s, want %s", got, form.want)
			}
			bits, want := "/128", public
			if name == "IPv4 itself" {
				bits, want = "/32", ours
			}
			if got := answer("10.2.0.53", withSubnet(question("contoso."+sqlZone+" A"), form.address+bits)); got != want {
				t.Errorf("a client subnet: answer %s, want %s", got, want)
			}
		})
	}
}
