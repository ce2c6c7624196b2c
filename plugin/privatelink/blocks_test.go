package privatelink_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/internal/dnstest"
	"github.com/postern-link/postern/internal/freeport"
)

// viewBlock is a server block that CoreDNS's view has for one client, of a network whose clients no address finds: networks overlap.
const viewBlock = `.:PORT {
    bind 127.0.0.1
    view NAME {
        expr incidr(client_ip(), 'CLIENT/32')
    }
    linknetwork NAME 10.1.0.0/16 {
        endpoints POOL.0/24
        by_listener
    }
    linkservice sql-NAME {
        names contoso.database.windows.net
        target 10.20.0.4:1433
        approve NAME
    }
    linkendpoint sql-NAME {
        service sql-NAME
        network NAME
        address POOL.5
    }
    linkservice own-NAME {
        names NAME.database.windows.net
        target 10.20.0.4:1433
        approve NAME
    }
    linkendpoint own-NAME {
        service own-NAME
        network NAME
        address POOL.6
    }
    privatelink {
        network NAME
    }
    LINES
    forward . UPSTREAM {
        prefer_udp
    }
}
`

// TestServerBlocksByView: of two server blocks at one address, the view that a client is of decides whose network it is answered for,
// by UDP and by TCP, in turn and at once, also for an alias of others that leads to a name of both, and whatever their caches have
// (D13). Who is of no view is refused, or has the answers of a block without a view, in which nothing is private.
func TestServerBlocksByView(t *testing.T) {
	const custom = "www.custom.example."
	for _, tt := range []struct{ name, lines, rest string }{
		{"alone", "", ""},
		{"cache", "cache 30", ""},
		{"cache, and a block for the rest", "cache 30",
			".:PORT {\n    bind 127.0.0.1\n    privatelink\n    cache 30\n    forward . UPSTREAM\n}\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var leaked, aliases atomic.Int64
			up := dnstest.Serve(t, func(w dns.ResponseWriter, r *dns.Msg) {
				m := new(dns.Msg).SetReply(r)
				switch name := r.Question[0].Name; {
				case name == custom:
					aliases.Add(1)
					m.Answer = dnstest.Records(t, custom+" 300 IN CNAME "+publicName, publicName+" 300 IN A 203.0.113.1")
				case strings.HasPrefix(name, "contoso."):
					leaked.Add(1)
					fallthrough
				case strings.HasSuffix(name, ".net."):
					m.Answer = dnstest.Records(t, name+" 300 IN A 203.0.113.1")
				}
				_ = w.WriteMsg(m)
			})
			of := func(view, client, pool string) string {
				return strings.NewReplacer("NAME", view, "CLIENT", client, "POOL", pool, "LINES", tt.lines).Replace(viewBlock)
			}
			corefile := of("one", "127.0.0.1", "10.200.0") + of("two", "127.0.0.2", "10.201.0") + tt.rest
			// A port of its own, where a fast path would be if there were one.
			udp, tcp := start(t, strings.NewReplacer("PORT", fmt.Sprint(freeport.Get(t)), "UPSTREAM", up).Replace(corefile))

			names := []string{publicName, privateName, custom, "one.database.windows.net.", "two.database.windows.net."}
			rest := "203.0.113.1"
			if tt.rest == "" {
				rest = fmt.Sprint(dns.RcodeRefused)
			}
			want := map[string][]string{ // by client, as names
				"127.0.0.1": {"10.200.0.5", "10.200.0.5", "10.200.0.5", "10.200.0.6", "203.0.113.1"},
				"127.0.0.2": {"10.201.0.5", "10.201.0.5", "10.201.0.5", "203.0.113.1", "10.201.0.6"},
				"127.0.0.3": {rest, rest, rest, rest, rest},
			}
			var all []asker
			for from, want := range want {
				all = append(all, asker{"UDP from " + from, want, dialBy(t, "udp", from, udp).exchange},
					asker{"TCP from " + from, want, dialBy(t, "tcp", from, tcp).exchange})
			}
			eachItsOwn(t, names, all)

			// Nobody asks others for what is private, but for those who are of no view; a cache has an alias once for each view.
			wantLeaked, wantAliases := int64(0), int64(2)
			if tt.rest != "" {
				wantLeaked, wantAliases = 2, 3
			}
			if n := leaked.Load(); n != wantLeaked {
				t.Errorf("the upstream was asked %d times for the private names, want %d", n, wantLeaked)
			}
			if n := aliases.Load(); tt.lines != "" && n != wantAliases {
				t.Errorf("the upstream was asked %d times for the alias, want %d", n, wantAliases)
			}
		})
	}
}
