package privatelink

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// What is remembered is bounded in records too: under a pattern, clients make as many names as they like,
// and a service may have many endpoints in a network. The answers are whole all the same.
func TestRememberedIsBounded(t *testing.T) {
	for name, tt := range map[string]struct{ endpoints, names, kept int }{
		"few endpoints":               {maxKept, 100, 100},
		"few endpoints, many names":   {2, 3 * sets * ways, sets * ways},
		"many endpoints":              {maxKept + 1, 100, 0},
		"many endpoints and families": {180, 100, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var changes []link.Change
			for i := range tt.endpoints - 1 { // the world has one
				address := netip.AddrFrom4([4]byte{10, 200, 0, byte(70 + i)}).String()
				if i%2 == 1 {
					address = fmt.Sprintf("fd00:200::%x", 0x100+i)
				}
				changes = append(changes, to("apps", "corp", address))
			}
			s := world(t)
			if len(changes) > 0 {
				s = apply(t, s, changes...)
			}
			srv := newServer(t, s)
			g := srv.generation(s)
			for i := range tt.names {
				asked := fmt.Sprintf("x%d.azurewebsites.net", i)
				f := srv.find(g, view{network: "corp"}, []byte(asked))
				if f.kind != foundName || f.set.addresses() != tt.endpoints || f.set.alias[0].(*dns.CNAME).Target != fmt.Sprintf("x%d.privatelink.azurewebsites.net.", i) {
					t.Fatalf("%s: %+v", asked, f)
				}
			}
			kept, records := 0, 0
			for i := range g.answers {
				for j := range g.answers[i] {
					if a := g.answers[i][j].Load(); a != nil {
						kept, records = kept+1, records+a.all.addresses()
						if !strings.HasSuffix(a.name, ".azurewebsites.net") {
							t.Errorf("%s is remembered", a.name)
						}
					}
				}
			}
			if kept > tt.kept || kept < tt.kept/2 || records > sets*ways*maxKept {
				t.Errorf("%d names with %d addresses are remembered, want %d names", kept, records, tt.kept)
			}
		})
	}
}
