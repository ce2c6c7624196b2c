package control

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
)

// A provider and a consumer read the same decision, each its own half of it.
func TestAuditScopes(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	m := Manifest{Subscription: subC, Group: "g", Services: []ManifestService{{
		Name: "db", Names: []string{"db.contoso.example"}, Port: 443, Targets: []string{"203.0.113.9:443"}, Visible: []string{"*"}}}}
	if _, err := w.Apply(ctx, op(Owner, subC), m); err != nil {
		t.Fatal(err)
	}
	alias := w.state().Service("c1/g/db").Alias
	m = Manifest{Subscription: subF, Group: "g",
		Networks:  []ManifestNetwork{{Name: "corp", Prefixes: []string{"10.1.0.0/16"}, Subnets: map[string]string{"pe": "10.1.1.0/24"}, Egress: []string{"*"}}},
		Endpoints: []ManifestEndpoint{{Name: "pe", Network: "corp", Subnet: "pe", Service: alias, Message: "please"}}}
	p, err := w.Apply(ctx, op(Owner, subF), m)
	if err != nil || len(p.Changes) != 2 || len(p.Begin) != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	if again, err := w.Apply(ctx, op(Owner, subF), m); err != nil || len(again.Changes) != 0 {
		t.Fatalf("applied again: %+v, %v", again, err)
	}
	w.ok(w.Decide(ctx, op(Owner, subC), Decision{Endpoint: "f1/g/pe", Service: "c1/g/db", State: link.Approved, Reason: "ticket"}))
	address := w.state().Endpoint("f1/g/pe").Address.String()
	text := func(sub string, role Role) string {
		all, err := w.Audit(ctx, as(role, sub), AuditQuery{Subscription: sub})
		if err != nil || len(all) == 0 {
			t.Fatalf("%s: %d entries, %v", sub, len(all), err)
		}
		var b strings.Builder
		for _, e := range all {
			b.WriteString(e.Actor + " " + e.From + " " + e.Action + " " + e.Object + " " + strings.Join(e.Changes, " ") + " " + strings.Join(e.Scopes, " ") + " ")
			for _, d := range e.Diffs {
				b.WriteString(d.Object + string(d.Before) + string(d.After))
			}
		}
		return b.String()
	}
	provider, consumer := text(subC, Reader), text(subF, Reader)
	for _, secret := range []string{address, "10.1.0.0/16", "network/f1", "owner@f1"} {
		if strings.Contains(provider, secret) {
			t.Errorf("the provider reads %q of the consumer: %s", secret, provider)
		}
	}
	for _, secret := range []string{"203.0.113.9", "owner@c1", "service/c1/g/db:"} {
		if strings.Contains(consumer, secret) {
			t.Errorf("the consumer reads %q of the provider: %s", secret, consumer)
		}
	}
	if !strings.Contains(consumer, byProvider) || !strings.Contains(consumer, address) || !strings.Contains(provider, "owner@c1") || !strings.Contains(provider, "endpoint/f1/g/pe") {
		t.Errorf("somebody misses their own half:\n%s\n%s", provider, consumer)
	}
	// What isn't shown can't be asked for.
	if all, _ := w.Audit(ctx, as(Reader, subF), AuditQuery{Subscription: subF, Actor: "owner@c1"}); len(all) != 0 {
		t.Errorf("found by the actor that isn't shown: %+v", all)
	}
	for _, q := range []AuditQuery{{}, {Subscription: subC}, {Subscription: "nosuch"}} {
		if all, err := w.Audit(ctx, as(Owner, subF), q); len(all) > 0 || !errors.Is(err, ErrForbidden) && !errors.Is(err, ErrNoSubscription) {
			t.Errorf("%+v: %d entries, %v", q, len(all), err)
		}
	}
	whole, err := w.Audit(ctx, as(Reader, subOp), AuditQuery{})
	if err != nil || len(whole) != len(w.audit(1)) {
		t.Errorf("the operator reads %d entries, %v", len(whole), err)
	}
	if last, err := w.Audit(ctx, as(Reader, subOp), AuditQuery{Limit: 1}); err != nil || len(last) != 1 || last[0].Action != "connection.approve" {
		t.Errorf("the newest is %+v, %v", last, err)
	}
	w.explains(t)
}

// explains: a caller is told of clients in its own networks, and nothing of the provider's targets.
func (w *world) explains(t *testing.T) {
	t.Helper()
	for _, tt := range []struct {
		name    string
		caller  Caller
		sub     string
		network link.ID
		targets bool
	}{
		{"consumer", as(Reader, subF), subF, "f1/g/corp", false},
		{"provider", as(Reader, subC), subC, "", false},
		{"operator", as(Reader, subOp), subOp, "f1/g/corp", true},
	} {
		x, err := w.Explain(t.Context(), tt.caller, tt.sub, netip.MustParseAddr("10.1.0.9"), "db.contoso.example", 0)
		if err != nil || x.Network != tt.network || x.Allowed != (tt.network != "") {
			t.Errorf("%s: %+v, %v", tt.name, x, err)
		}
		said := false
		for _, s := range x.Steps {
			said = said || strings.Contains(s.Rule, "203.0.113.9")
		}
		if said != tt.targets {
			t.Errorf("%s is told the targets: %v", tt.name, said)
		}
	}
	if _, err := w.Explain(t.Context(), as(Owner, subF), subC, netip.MustParseAddr("10.1.0.9"), "db.contoso.example", 0); !errors.Is(err, ErrNoSubscription) {
		t.Errorf("a foreign subscription: %v", err)
	}
}

// A plan changes nothing, is refused as the operation itself would be, and names the flows that it would cut.
func TestPlan(t *testing.T) {
	var flows []Flow
	w := newWorld(t, func(c *Config) {
		c.Flows = func(yield func(Flow) bool) {
			for _, f := range flows {
				if !yield(f) {
					return
				}
			}
		}
	})
	ctx := t.Context()
	m := Manifest{Subscription: subC, Group: "g",
		Networks:  []ManifestNetwork{{Name: "own", Prefixes: []string{"10.3.0.0/16"}, Subnets: map[string]string{"pe": "10.3.1.0/24"}}},
		Services:  []ManifestService{{Name: "db", Port: 443, Targets: []string{"203.0.113.9:443"}, Visible: []string{"*"}}},
		Endpoints: []ManifestEndpoint{{Name: "pe", Network: "own", Subnet: "pe", Service: "db"}}}
	before := w.state().Revision()
	if p, err := w.Plan(ctx, op(Owner, subC), m); err != nil || len(p.Changes) != 3 || w.state().Revision() != before {
		t.Fatalf("%+v, %v, revision %d", p, err, w.state().Revision())
	}
	for _, tt := range []struct {
		role Role
		sub  string
		want error
	}{{Provider, subC, ErrForbidden}, {Reader, subC, ErrForbidden}, {Owner, subF, ErrNoSubscription}} {
		if _, err := w.Plan(ctx, op(tt.role, tt.sub), m); !errors.Is(err, tt.want) {
			t.Errorf("%s of %s: %v, want %v", tt.role, tt.sub, err, tt.want)
		}
	}
	if _, err := w.Apply(ctx, op(Owner, subC), m); err != nil {
		t.Fatal(err)
	}
	e := w.state().Endpoint("c1/g/pe")
	flows = []Flow{{ID: "1", Endpoint: e.ID, Service: e.Service, LinkID: e.Connection.LinkID, Source: netip.MustParseAddrPort("10.3.0.9:40000"),
		Local: netip.AddrPortFrom(e.Address, 443), Target: netip.MustParseAddrPort("203.0.113.9:443")}}
	m.Endpoints = nil
	if p, err := w.Plan(ctx, op(Owner, subC), m); err != nil || len(p.Changes) != 0 || len(p.Cut) != 0 {
		t.Errorf("what isn't named is left alone: %+v, %v", p, err)
	}
	m.Prune = true
	p, err := w.Plan(ctx, op(Owner, subC), m)
	if err != nil || len(p.Changes) != 1 || p.Changes[0].Verb != "deleted" || len(p.Cut) != 1 {
		t.Errorf("pruned: %+v, %v", p, err)
	}
}
