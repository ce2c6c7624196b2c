package cel

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// dear are expressions that cost about as much as one may, by what they do most.
func dear() map[string]string {
	many := func(n int, term string) string { return strings.Repeat(term+" || ", n) + "false" }
	return map[string]string{
		"matches":   `(name + name + name + name + name + name + name).matches('([a-z]|[a-y])*b(a|b)*c(a|b)*d(a|b)*e(a|b)*f(a|b)*g(a|b)*h(a|b)*$')`,
		"contains":  many(6, `(name + name).contains(name + 'b')`),
		"add":       many(30, `(name + name + name) == 'x'`),
		"addresses": many(60, `cidr('10.9.0.0/16').containsIP(source)`),
		"parse":     many(40, `(isIP(name) && ip(name).isLoopback())`),
		"time":      many(100, `time.getHours('Europe/Berlin') == 25`),
		"list":      `name in ['` + strings.Repeat(`a','`, 600) + `b']`,
	}
}

func BenchmarkDear(b *testing.B) {
	for name, text := range dear() {
		b.Run(name, func(b *testing.B) {
			e, err := Compile(text)
			if err != nil {
				b.Fatal(err)
			}
			f := flow()
			f.Name = link.Name(strings.Repeat("a", 253))
			for b.Loop() {
				if _, err := e.Holds(f); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(e.(*expression).cost), "cost")
		})
	}
}

// BenchmarkRules asks all rules of a policy about a flow that none of them matches: simple ones, and the dearest
// that one policy may have.
func BenchmarkRules(b *testing.B) {
	s := state(b)
	ask := policy.Request{Source: netip.MustParseAddrPort("10.1.2.3:40000"), Local: netip.MustParseAddrPort("10.200.0.5:443"),
		Judged: true, Name: link.Name(strings.Repeat("a", 63) + strings.Repeat("."+strings.Repeat("a", 62), 3) + ".example"), At: flow().At}
	run := func(name string, n int, text string) {
		b.Run(name, func(b *testing.B) {
			e, err := Compile(text)
			if err != nil {
				b.Fatal(err)
			}
			set := policy.Set{Name: "p", Default: policy.DefaultAllow}
			for i := range n {
				set.Rules = append(set.Rules, policy.Rule{Name: fmt.Sprint(i), Conditions: policy.Conditions{When: []policy.Expression{e}}})
			}
			p := &policy.Policy{Sets: []policy.Set{set}}
			b.ReportAllocs()
			for b.Loop() {
				if v := p.Decide(s, ask); !v.Allow {
					b.Fatal(v.Reason, v.Rule)
				}
			}
		})
	}
	run("1", 1, `cidr('10.9.0.0/16').containsIP(source)`)
	run("100", 100, `cidr('10.9.0.0/16').containsIP(source)`)
	for name, text := range dear() {
		e, err := Compile(text)
		if err != nil {
			b.Fatal(err)
		}
		run("dearest/"+name, min(1000, int(MaxTotal/e.(*expression).cost)), text)
	}
}

// state is one with an endpoint of a service, 10.200.0.5:443, that no name is pinned for.
func state(t testing.TB) *link.Snapshot {
	t.Helper()
	prefix := netip.MustParsePrefix
	s, _, err := link.Empty().Apply(flow().At,
		link.PutNetwork{Network: link.Network{ID: "corp", Prefixes: []netip.Prefix{prefix("10.1.0.0/16")}, Pools: []netip.Prefix{prefix("10.200.0.0/24")}, Egress: []string{"*"}}},
		link.PutService{Service: link.Service{ID: "v", Alias: "v.0123456789abcdef0123456789abcdef.postern", Port: 443, Pin: link.PinTLS, ProxyProtocol: link.ProxyOff,
			Names:   []link.ResourceName{{Public: "*." + link.Name(strings.Repeat("a", 62)+strings.Repeat("."+strings.Repeat("a", 62), 2)+".example")}},
			Targets: []link.Target{{Addr: netip.MustParseAddrPort("192.0.2.1:443")}}, Visible: []link.Party{link.Anyone}, AutoApprove: []link.Party{link.Anyone}}},
		link.PutEndpoint{Endpoint: link.Endpoint{ID: "e", Network: "corp", Service: "v", Address: netip.MustParseAddr("10.200.0.5")}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
