package control

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// TestDryRunHoldsNobodyUp: other operations go on while the flows are looked through that a plan would cut.
func TestDryRunHoldsNobodyUp(t *testing.T) {
	var other func()
	asked := 0
	w := connected(t, func(c *Config) {
		c.Flows = func(func(Flow) bool) {
			if asked++; asked == 1 {
				other()
			}
		}
	})
	other = func() { w.ok(w.Decide(t.Context(), op(Approver, subC), decision(link.Rejected))) }
	m := Manifest{Subscription: subC, Group: "g", Networks: []ManifestNetwork{{Name: "own", Prefixes: []string{"10.3.0.0/16"}}}}
	if _, err := w.Plan(t.Context(), op(Owner, subC), m); err != nil {
		t.Error(err)
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

// TestPlanNamesTheCut: a plan lists the live flows that the change ends, by each kind that a manifest says,
// and none that goes on; and so does what was done, though they have ended by then. TestPlanAndProxyAgree has what happens.
func TestPlanNamesTheCut(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Manifest)
		cut    int
	}{
		"nothing":            {func(*Manifest) {}, 0},
		"another target":     {func(m *Manifest) { m.Services[0].Targets = []string{"203.0.113.10:443"} }, 1},
		"a target more":      {func(m *Manifest) { m.Services[0].Targets = append(m.Services[0].Targets, "203.0.113.10:443") }, 0},
		"allow-list without": {func(m *Manifest) { m.Endpoints[0].Allow = []string{"10.3.0.10/32"} }, 1},
		"allow-list with":    {func(m *Manifest) { m.Endpoints[0].Allow = []string{"10.3.0.9/32"} }, 0},
		"endpoint deleted":   {func(m *Manifest) { m.Endpoints, m.Prune = nil, true }, 1},
		"another port":       {func(m *Manifest) { m.Services[0].Port = 8443 }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var flows []Flow
			w := newWorld(t, func(c *Config) {
				c.Flows = func(yield func(Flow) bool) {
					for _, f := range flows {
						is := f.Standing
						is.At = time.Now()
						if _, goesOn := (*policy.Policy)(nil).Stands(c.Snapshot(), is, link.Ground{}); goesOn && !yield(f) {
							return // the data plane has ended what the newest state doesn't allow
						}
					}
				}
			})
			m := Manifest{Subscription: subC, Group: "g",
				Networks:  []ManifestNetwork{{Name: "own", Prefixes: []string{"10.3.0.0/16"}, Subnets: map[string]string{"pe": "10.3.1.0/24"}}},
				Services:  []ManifestService{{Name: "db", Port: 443, Targets: []string{"203.0.113.9:443"}, Visible: []string{"*"}}},
				Endpoints: []ManifestEndpoint{{Name: "pe", Network: "own", Subnet: "pe", Service: "db"}}}
			if _, err := w.Apply(t.Context(), op(Owner, subC), m); err != nil {
				t.Fatal(err)
			}
			e := w.state().Endpoint("c1/g/pe")
			if !e.Connection.Live() {
				t.Fatal("not approved")
			}
			flows = []Flow{{ID: "1", Endpoint: e.ID, Service: e.Service, LinkID: e.Connection.LinkID,
				Source: netip.MustParseAddrPort("10.3.0.9:40000"), Local: netip.AddrPortFrom(e.Address, 443),
				Target: netip.MustParseAddrPort("203.0.113.9:443")}}
			flows[0].Standing = policy.Standing{
				Request: policy.Request{Source: flows[0].Source, Local: flows[0].Local},
				Service: e.Service, LinkID: e.Connection.LinkID, Target: flows[0].Target,
			}
			tt.change(&m)
			for _, step := range []struct {
				name string
				do   func(context.Context, Op, Manifest) (Plan, error)
			}{{"plan", w.Plan}, {"apply", w.Apply}} {
				p, err := step.do(t.Context(), op(Owner, subC), m)
				if err != nil {
					t.Fatal(err)
				}
				if len(p.Cut) != tt.cut {
					t.Errorf("%s: %d flows, want %d: %+v", step.name, len(p.Cut), tt.cut, p)
				}
			}
		})
	}
}
