package privatelink_test

import (
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"
)

// TestTransferSettings: where zones are transferred, settings that make their records others are a revision of the state, so that secondaries ask for them.
func TestTransferSettings(t *testing.T) {
	up := startPublic(t)
	corefile := func(property, transfer string) caddy.Input {
		text := strings.NewReplacer("UPSTREAM", up.addr, "PROPERTY", property, "cache 30", transfer).Replace(twoNetworks)
		return caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(text)}
	}
	const to = "transfer {\nto *\n}"
	inst := startInstance(t, corefile("ttl 20", to))
	defer func() { end(t, inst) }()
	ask := func(name string, qtype uint16) dns.RR {
		t.Helper()
		m := dial(t, "127.0.0.1", firstServer(inst).LocalAddr().String()).ask(name, qtype)
		if len(m.Answer) == 0 {
			t.Fatalf("no answer: %v", m)
		}
		return m.Answer[len(m.Answer)-1]
	}
	serial := func() uint32 { return ask("privatelink.database.windows.net.", dns.TypeSOA).(*dns.SOA).Serial }
	last := serial()
	for _, step := range []struct {
		property, transfer string
		address            string
		more               bool
	}{
		{"ttl 20", to, "10.200.0.5", false},
		{"ttl 30", to, "10.200.0.5", true},
		{"network two", to, "10.201.0.5", true},
		{"network two", to, "10.201.0.5", false},
		{"zone privatelink.example.net example.net", to, "10.200.0.5", true},
		{"zone privatelink.example.net example.net", "", "10.200.0.5", true}, // nobody has copies any more, and none are remembered
		{"ttl 40", "", "10.200.0.5", false},
		{"ttl 40", to, "10.200.0.5", true},
	} {
		next, err := inst.Restart(corefile(step.property, step.transfer))
		if err != nil {
			t.Fatal(err)
		}
		inst = next
		if got := ask("contoso.privatelink.database.windows.net.", dns.TypeA).(*dns.A).A.String(); got != step.address {
			t.Errorf("%s: %s, want %s", step.property, got, step.address)
		}
		now := serial()
		if (now > last) != step.more || now < last {
			t.Errorf("%s, %q: serial %d after %d", step.property, step.transfer, now, last)
		}
		last = now
	}
}
