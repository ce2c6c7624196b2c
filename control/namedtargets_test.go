package control

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/postern-link/postern/link"
)

// named is a manifest with a service of two names and an endpoint of another tenant at it, which is approved.
func named(t *testing.T) (*world, Manifest) {
	t.Helper()
	w := furnished(t)
	m := Manifest{Subscription: subC, Group: "rg", Services: []ManifestService{{
		Name: "svc", Port: 443, Visible: []string{"*"}, Within: []string{"203.0.113.0/24"},
		Targets: []string{"203.0.113.9:443", "a.contoso.example:443", "b.contoso.example:443"},
	}}}
	if _, err := w.Apply(t.Context(), op(Owner, subC), m); err != nil {
		t.Fatal(err)
	}
	w.ok(w.ask(op(Owner, subF), endF, manual()))
	w.ok(w.Decide(t.Context(), op(Approver, subC), decision(link.Approved)))
	return w, m
}

// TestPlanNamesOfTargets: a plan says that names, their weights or where they may lead change, and that connections have to be
// approved again where names may lead further; applied it changes that, and then nothing is left.
func TestPlanNamesOfTargets(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*ManifestService)
		fields []string
		again  bool // to be approved
	}{
		"nothing":        {func(*ManifestService) {}, nil, false},
		"another order":  {func(m *ManifestService) { m.Targets = append(m.Targets[1:], m.Targets[0]) }, nil, false},
		"another name":   {func(m *ManifestService) { m.Targets[1] = "c.contoso.example:443" }, []string{"targetNames"}, true},
		"another port":   {func(m *ManifestService) { m.Targets[1] = "a.contoso.example:444" }, []string{"targetNames"}, true},
		"a name more":    {func(m *ManifestService) { m.Targets = append(m.Targets, "c.contoso.example:443") }, []string{"targetNames"}, true},
		"a name less":    {func(m *ManifestService) { m.Targets = m.Targets[:2] }, []string{"targetNames"}, false},
		"a weight":       {func(m *ManifestService) { m.Weights = map[string]int{"a.contoso.example:443": 0} }, []string{"nameWeights"}, false},
		"within less":    {func(m *ManifestService) { m.Within = []string{"203.0.113.0/25"} }, []string{"within"}, false},
		"within more":    {func(m *ManifestService) { m.Within = []string{"203.0.112.0/23"} }, []string{"within"}, true},
		"within nothing": {func(m *ManifestService) { m.Within = nil }, []string{"within"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, m := named(t)
			// Who writes and may not approve: else what they write stays approved.
			writes := Op{Caller: as(Provider, subC)}
			m.Services = slices.Clone(m.Services)
			m.Services[0].Targets = slices.Clone(m.Services[0].Targets)
			tt.change(&m.Services[0])
			p, err := w.Plan(t.Context(), writes, m)
			if err != nil {
				t.Fatal(err)
			}
			check := func(p Plan) {
				t.Helper()
				var fields []string
				again := false
				for _, c := range p.Changes {
					switch c.Object {
					case object(link.KindService, svcC):
						fields = c.Fields
					case object(link.KindEndpoint, endF):
						again = slices.Contains(c.Fields, "connection")
					default:
						t.Errorf("%+v", c)
					}
				}
				if !slices.Equal(fields, tt.fields) || again != tt.again {
					t.Errorf("%v, approved again %v: %+v", fields, again, p.Changes)
				}
			}
			check(p)
			if p, err = w.Apply(t.Context(), writes, m); err != nil {
				t.Fatal(err)
			}
			check(p)
			if state := w.connection(endF).State; (state == link.Pending) != tt.again {
				t.Errorf("the connection is %s", state)
			}
			if p, err = w.Plan(t.Context(), writes, m); err != nil || len(p.Changes) > 0 {
				t.Errorf("afterwards: %+v, %v", p.Changes, err)
			}
		})
	}
}

// TestNamesOfTenants: what names of a tenant's service lead to is judged as what the tenant writes down: within opens nothing,
// what the tenant was granted is theirs, and the backend of another tenant isn't.
func TestNamesOfTenants(t *testing.T) {
	t.Parallel()
	w := furnished(t)
	apply := func(o Op, sub string, v ManifestService) *link.Service {
		t.Helper()
		if _, err := w.Apply(t.Context(), o, Manifest{Subscription: sub, Group: "g", Services: []ManifestService{v}}); err != nil {
			t.Fatal(err)
		}
		return w.state().Service(link.ID(sub + "/g/" + v.Name))
	}
	apply(op(Owner, subF), subF, ManifestService{Name: "theirs", Port: 443, Targets: []string{"203.0.113.77:443"}})
	all := []string{"127.0.0.0/8", "169.254.0.0/16", "10.0.0.0/8", "203.0.113.0/24", "2001:db8::/32"}
	tenants := apply(op(Owner, subC), subC, ManifestService{Name: "db", Port: 443, Targets: []string{"db.contoso.example:443"}, Within: all})
	operators := apply(op(Owner, subOp), subOp, ManifestService{Name: "db", Port: 443, Targets: []string{"db.op.example:443"}, Within: all})
	for at, want := range map[string]struct{ tenant, operator string }{
		"127.0.0.1:443":          {"loopback", ""},
		"127.7.0.1:443":          {"", ""}, // granted
		"[::ffff:127.0.0.1]:443": {"loopback", ""},
		"169.254.169.254:80":     {"link-local, with the metadata service of clouds", "link-local, with the metadata service of clouds"},
		"10.1.0.9:443":           {link.TargetIsForeign, ""},
		"203.0.113.77:443":       {link.TargetIsAnothers, ""},
		"203.0.113.10:2379":      {"port 2379 is that of the state", ""},
		"203.0.113.10:443":       {"", ""},
		"198.51.100.1:443":       {link.TargetIsOutside, link.TargetIsOutside},
	} {
		to := netip.MustParseAddrPort(at)
		to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
		s := w.state()
		if why := s.Refuses(tenants, to, link.Ground{}); why != want.tenant {
			t.Errorf("%s: of the tenant %q, want %q", at, why, want.tenant)
		}
		if why := s.Refuses(operators, to, link.Ground{}); why != want.operator {
			t.Errorf("%s: of the operator %q, want %q", at, why, want.operator)
		}
	}
}

// TestUsageOfNames: names count as targets.
func TestUsageOfNames(t *testing.T) {
	t.Parallel()
	w, _ := named(t)
	all, err := w.Usage(as(Owner, subC), subC)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(u Usage) bool { return u.Name == "targetsPerService" && u.Object == "service "+string(svcC) })
	if i < 0 || all[i].Current != 3 {
		t.Errorf("%+v", all)
	}
}
