package privatelink_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/internal/freeport"
)

// TestReloadBlocks: in a reload that gives server blocks others beside them, another order, more addresses or a zone less, a client has the answers of its own block all
// the time, though queries hold the old servers back.
func TestReloadBlocks(t *testing.T) {
	const name = "contoso.database.windows.net."
	var objects strings.Builder
	for i, n := range []string{"a", "b", "c"} {
		fmt.Fprintf(&objects, "linknetwork %s 10.%d.0.0/16 {\nby_listener\nendpoints 10.200.%d.0/24\n}\nlinkendpoint sql-%s {\nservice sql\nnetwork %s\naddress 10.200.%d.5\n}\n", n, i+1, i+1, n, n, i+1)
	}
	block := func(zone, hosts, view, properties string) string {
		if view != "" {
			view = fmt.Sprintf("view %s {\nexpr incidr(client_ip(), '127.%d.0.0/16')\n}", view, view[0]-'a'+1)
		}
		return fmt.Sprintf("%s:PORT {\nbind %s\n%s\nprivatelink {\n%s\n}\nforward . UPSTREAM {\nmax_fails 0\nprefer_udp\n}\n}\n", zone, hosts, view, properties)
	}
	a, b, c := block(".", "127.0.0.1", "a", "network a"), block(".", "127.0.0.1", "b", "network b"), block(".", "127.0.0.1", "c", "network c")
	for _, tt := range []struct {
		name, before, after string
		clients             map[string]string // what they are answered all the time
		late                map[string]string // what they are answered in the end
	}{
		{"views", a + b, c + b + a, map[string]string{"127.1.0.9": "10.200.1.5", "127.2.0.9": "10.200.2.5"}, map[string]string{"127.3.0.9": "10.200.3.5"}},
		{"a view changes", a + b, a + block(".", "127.0.0.1", "b", "network c"), map[string]string{"127.1.0.9": "10.200.1.5"}, map[string]string{"127.2.0.9": "10.200.3.5"}},
		{"addresses", block(".", "127.0.0.1", "", "network a"), block(".", "127.0.0.2 127.0.0.1", "", "network a\nttl 11"), map[string]string{"127.1.0.9": "10.200.1.5"}, nil},
		{"zones", block(".", "127.0.0.1", "", "network a"), block("windows.net", "127.0.0.1", "", "network a\nttl 11") + block("org", "127.0.0.1", "", "network b"),
			map[string]string{"127.1.0.9": "10.200.1.5"}, nil},
		{"a zone before the others", block(".", "127.0.0.1", "", "network a"), block("example.org:PORT .", "127.0.0.1", "", "network a\nttl 11"), map[string]string{"127.1.0.9": "10.200.1.5"}, nil},
		{"one of two", block(".", "127.0.0.1", "", "network a") + block(".", "127.0.0.2", "", "network b"), block(".", "127.0.0.1 127.0.0.2", "", "network b"),
			nil, map[string]string{"127.1.0.9": "10.200.2.5"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			upstream := startHolder(t)
			port := freeport.Get(t)
			at := fmt.Sprintf("127.0.0.1:%d", port)
			corefile := func(blocks string) caddy.Input {
				text := fmt.Sprintf("%s.:0 {\nbind 127.0.0.1\n%slinkservice sql {\nnames contoso.database.windows.net\ntarget 10.20.0.4:1433\napprove *\n}\n}\n",
					strings.NewReplacer("PORT", fmt.Sprint(port), "UPSTREAM", upstream.conn.LocalAddr().String()).Replace(blocks), objects.String())
				return caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(text)}
			}
			instance := startInstance(t, corefile(tt.before))
			defer func() { end(t, instance) }()
			hold(t, at)
			select {
			case <-upstream.asked:
			case <-time.After(10 * time.Second):
				t.Fatal("the upstream isn't asked")
			}
			over, held := make(chan error, 1), time.After(500*time.Millisecond)
			go func() {
				next, err := instance.Restart(corefile(tt.after))
				if err == nil {
					instance = next
				}
				over <- err
			}()
			ask := func(from string) string {
				m := dial(t, from, at).ask(name, dns.TypeA)
				if len(m.Answer) == 0 {
					return dns.RcodeToString[m.Rcode]
				}
				return m.Answer[len(m.Answer)-1].(*dns.A).A.String()
			}
			for done := false; !done; {
				for from, want := range tt.clients {
					if got := ask(from); got != want {
						t.Fatalf("%s gets %s, want %s", from, got, want)
					}
				}
				select {
				case <-held:
					upstream.release()
				case err := <-over:
					if err != nil {
						t.Fatal(err)
					}
					done = true
				default:
				}
			}
			for deadline, all := time.Now().Add(10*time.Second), false; !all; {
				all = true
				for from, want := range tt.late {
					switch got := ask(from); {
					case got == want:
					case got != "SERVFAIL" && got != "REFUSED" || time.Now().After(deadline):
						t.Fatalf("%s gets %s, want %s", from, got, want)
					default:
						all = false
					}
				}
			}
		})
	}
}
