package control

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
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
	for what, err := range map[string]error{ // in the operator's tenant, but not an owner in its subscription
		"the whole audit": second(w.Audit(ctx, as(Reader, subOp), AuditQuery{})),
		"the raw audit":   second(w.AuditLines(ctx, as(Approver, subOp), 1)),
		"a backup":        second(w.Backup(as(Provider, subOp))),
		"another's owner": second(w.Backup(Caller{Name: "x", Operator: true, Grants: []Grant{{subOp, Reader}, {subF, Owner}}})),
		"no operator":     second(w.Backup(Caller{Name: "x", Tenant: "fabrikam", Grants: []Grant{{subOp, Owner}}})),
	} {
		if !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := w.Backup(as(Owner, subOp)); err != nil {
		t.Error(err)
	}
	if _, err := w.Status(as(Reader, subOp)); err != nil {
		t.Error(err)
	}
	whole, err := w.Audit(ctx, as(Owner, subOp), AuditQuery{})
	if err != nil || len(whole) != len(w.audit(1)) {
		t.Errorf("the operator reads %d entries, %v", len(whole), err)
	}
	if last, err := w.Audit(ctx, as(Owner, subOp), AuditQuery{Limit: 1}); err != nil || len(last) != 1 || last[0].Action != "connection.approve" {
		t.Errorf("the newest is %+v, %v", last, err)
	}
	w.explains(t)
}

func second[V any](_ V, err error) error { return err }

// TestAliasIsAllAConsumerReads: who asked for a service by its alias isn't told in which subscription its
// provider has it, by nothing that can be read; who has a role there is.
func TestAliasIsAllAConsumerReads(t *testing.T) {
	var flow Flow
	w := newWorld(t, func(c *Config) { c.Flows = func(yield func(Flow) bool) { yield(flow) } })
	ctx := t.Context()
	v := service(svcC)
	v.Names = []link.ResourceName{{Public: "db.contoso.example"}}
	w.ok(w.putNetworkAs(op(Owner, subF), network(netF, "1")))
	w.ok(w.putServiceAs(op(Owner, subC), v))
	alias := w.state().Service(svcC).Alias
	a := manual()
	a.Endpoint.Service, a.Alias = "", alias
	w.ok(w.ask(op(Owner, subF), endF, a))
	e := w.state().Endpoint(endF)
	flow = Flow{ID: "1", Endpoint: endF, Service: svcC}
	read := func(caller Caller) string {
		var all []any
		x, err := w.Explain(ctx, caller, subF, netip.MustParseAddr("10.1.0.9"), "db.contoso.example", 0)
		all = append(all, x, err)
		u, err := w.Usage(caller, subF)
		all = append(all, u, err)
		entries, err := w.Audit(ctx, caller, AuditQuery{Subscription: subF})
		all = append(all, entries, err)
		flows, err := w.Flows(ctx, caller, subF)
		all = append(all, slices.Collect(flows), err)
		text, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got := read(as(Owner, subF)); strings.Contains(got, string(svcC)) || strings.Contains(got, subC+"/") || strings.Count(got, alias) < 4 {
		t.Errorf("the consumer reads %s", got)
	}
	both := as(Owner, subF)
	both.Grants = append(both.Grants, Grant{subC, Reader})
	if got := read(both); strings.Count(got, string(svcC)) < 4 || strings.Contains(got, alias) {
		t.Errorf("who has a role at the service reads %s", got)
	}
	w.ok(w.Disconnect(ctx, op(Owner, subC), Decision{Endpoint: endF, LinkID: e.Connection.LinkID, Service: svcC}))
	w.ok(w.ForceDeleteService(ctx, op(Owner, subC), svcC, func(*link.Snapshot, *link.Service) error { return nil }))
	flow = Flow{}
	if got := read(as(Owner, subF)); strings.Contains(got, string(svcC)) || strings.Contains(got, subC+"/") {
		t.Errorf("after the service has gone the consumer reads %s", got)
	}
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
	flows[0].Standing = policy.Standing{Request: policy.Request{Source: flows[0].Source, Local: flows[0].Local},
		Service: e.Service, LinkID: e.Connection.LinkID, Target: flows[0].Target}
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

// What a person made with a single command isn't pruned, also not after a manifest, and the audit calls it by its own name.
func TestOnce(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	file := Manifest{Subscription: subC, Group: "g", Networks: []ManifestNetwork{{Name: "filed", Prefixes: []string{"10.3.0.0/16"}}}}
	if _, err := w.Apply(ctx, op(Owner, subC), file); err != nil {
		t.Fatal(err)
	}
	hand := Manifest{Subscription: subC, Group: "g", Once: true, Networks: []ManifestNetwork{{Name: "hand", Prefixes: []string{"10.4.0.0/16"}}}}
	if _, err := w.Apply(ctx, op(Owner, subC), hand); err != nil {
		t.Fatal(err)
	}
	if last, err := w.Audit(ctx, as(Owner, subC), AuditQuery{Subscription: subC, Limit: 1}); err != nil || len(last) != 1 || last[0].Action != "network.put" || last[0].Object != "network/c1/g/hand" {
		t.Errorf("the audit has %+v, %v", last, err)
	}
	none := Manifest{Subscription: subC, Group: "g", Prune: true}
	if _, err := w.Apply(ctx, op(Owner, subC), none); err != nil {
		t.Fatal(err)
	}
	if s := w.state(); s.Network("c1/g/filed") != nil || s.Network("c1/g/hand") == nil {
		t.Errorf("pruned: the file's is there: %v, the one made by hand: %v", s.Network("c1/g/filed") != nil, s.Network("c1/g/hand") != nil)
	}
	hand.Prune = true
	if _, err := w.Apply(ctx, op(Owner, subC), hand); !errors.Is(err, link.ErrInvalid) {
		t.Errorf("once and prune: %v", err)
	}
}

// What is wrong with a manifest is said in words of the manifest.
func TestManifestWords(t *testing.T) {
	w := newWorld(t)
	for want, m := range map[string]Manifest{
		`"10.1.0.0" isn't a prefix`:       {Networks: []ManifestNetwork{{Name: "a", Prefixes: []string{"10.1.0.0"}}}},
		`"db.example" isn't ADDRESS:PORT`: {Services: []ManifestService{{Name: "a", Port: 443, Targets: []string{"db.example"}}}},
		`"10.1" isn't an address`:         {Endpoints: []ManifestEndpoint{{Name: "a", Network: "n", Service: "s", Address: "10.1"}}},
	} {
		m.Subscription, m.Group = subC, "g"
		if _, err := w.Plan(t.Context(), op(Owner, subC), m); !errors.Is(err, link.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
