package main

import (
	"crypto/sha256"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/external"
	"github.com/postern-link/postern/policy/policyplugin"
)

// TestMain: the binary of the tests is the launcher and the program.
func TestMain(m *testing.M) {
	external.Launch()
	if os.Getenv(policyplugin.Handshake.MagicCookieKey) != "" {
		main()
	}
	os.Exit(m.Run())
}

// TestFlows runs the program as a node does, in its sandbox.
func TestFlows(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := external.Start(t.Context(), external.Config{Name: "rego", Path: path, Checksum: sha256.Sum256(body)}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, tc := range []struct {
		name                          string
		source, tenant, service, host string
		rule                          string // "": allowed
	}{
		{name: "nothing against it", source: "10.1.0.10", tenant: "contoso", service: "sql"},
		{"people and payments", "10.1.0.10", "contoso", "payments-db", "", "policy rego: people don't reach payments"},
		{name: "machines and payments", source: "10.2.0.10", tenant: "contoso", service: "payments-db"},
		{"another tenant", "10.2.0.10", "fabrikam", "payments-db", "", "policy rego: fabrikam is not a tenant of service payments-db"},
		{"several reasons", "fd00:1::5", "fabrikam", "payments-db", "", "policy rego: fabrikam is not a tenant of service payments-db; people don't reach payments"},
		{"test name", "10.1.0.10", "contoso", "sql", "db.test.example", "policy rego: test names are for test services"},
		{name: "test name of a test service", source: "10.1.0.10", tenant: "contoso", service: "test-sql", host: "db.test.example"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := p.Authorize(t.Context(), policy.Question{
				Request: policy.Request{
					Source: netip.AddrPortFrom(netip.MustParseAddr(tc.source), 40000), Local: netip.MustParseAddrPort("10.200.0.5:1433"),
					Judged: true, Name: link.Name(tc.host),
				},
				Verdict: policy.Verdict{
					Allow: true, Endpoint: &link.Endpoint{ID: "e", Tenant: tc.tenant, Address: netip.MustParseAddr("10.200.0.5")},
					Service: &link.Service{ID: link.ID(tc.service), Port: 1433},
				},
			})
			if a.Allow != (tc.rule == "") || !a.Allow && a.Rule != tc.rule {
				t.Errorf("%+v", a)
			}
		})
	}
}

// TestRulesFailClosed: rules that say nothing, nonsense or fail allow nothing, and those that reach out don't compile.
func TestRulesFailClosed(t *testing.T) {
	for name, rule := range map[string]string{
		"nothing":   `other := 1`,
		"no object": `verdict := true`,
		"not bool":  `verdict := {"allow": "yes"}`,
		"misspelt":  `verdict := {"allow": true, "secs": 60}`,
		"for ever":  `verdict := {"allow": true, "seconds": 301}`,
		"fraction":  `verdict := {"allow": true, "seconds": 0.5}`,
		"fails":     `verdict := {"allow": to_number(input.source) == 1}`,
		"no allow":  `verdict := {"seconds": 60}`,
	} {
		t.Run(name, func(t *testing.T) {
			f, err := newFlows(t.Context(), "package postern.flows\n"+rule, []byte("{}"))
			if err != nil {
				t.Fatal(err)
			}
			v, err := f.Authorize(t.Context(), &policyplugin.Flow{Source: netip.MustParseAddrPort("10.1.0.10:1")})
			if v.Allow || err == nil && name != "no allow" {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
	_, err := newFlows(t.Context(), "package postern.flows\nverdict := http.send({\"method\": \"get\", \"url\": input.name})", []byte("{}"))
	if err == nil || !strings.Contains(err.Error(), "http.send") {
		t.Errorf("a rule that asks the web: %v", err)
	}
}
