package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
)

// TestLifeOfAConnection walks through every state with the two who have never met.
func TestLifeOfAConnection(t *testing.T) {
	w := furnished(t)
	ctx, consumer, provider := t.Context(), op(Consumer, subF), op(Approver, subC)
	alias := w.state().Service(svcC).Alias

	r := w.ok(w.ask(consumer, endF, Ask{Endpoint: link.Endpoint{Network: netF, Subnet: "pe"}, Alias: strings.ToUpper(alias), Manual: true, Message: "please"}))
	if !r.Created || !r.Changed {
		t.Errorf("a new endpoint: %+v", r)
	}
	first := w.connection(endF)
	address := w.state().Endpoint(endF).Address
	if first.State != link.Pending || first.Message != "please" || !address.IsValid() {
		t.Fatalf("asked: %+v at %s", first, address)
	}

	approve := decision(link.Approved)
	approve.Reason = "known"
	w.ok(w.Decide(ctx, provider, approve))
	if k := w.connection(endF); k.State != link.Approved || k.Decision.Actor != provider.Caller.Name || k.Decision.Reason != "known" {
		t.Errorf("approved: %+v", k)
	}
	w.ok(w.Suspend(ctx, provider, decision("")))
	if k := w.connection(endF); k.Suspended == nil || k.Live() {
		t.Errorf("suspended: %+v", k)
	}
	w.ok(w.Resume(ctx, provider, decision("")))
	if k := w.connection(endF); !k.Live() || k.LinkID != first.LinkID {
		t.Errorf("resumed: %+v", k)
	}
	w.ok(w.Decide(ctx, provider, decision(link.Rejected)))
	w.ok(w.Decide(ctx, provider, decision(link.Approved)))
	w.ok(w.Disconnect(ctx, provider, decision("")))
	if k := w.connection(endF); k.State != link.Disconnected || k.LinkID != 0 {
		t.Errorf("removed: %+v", k)
	}
	if r := w.ok(w.Disconnect(ctx, provider, decision(""))); r.Changed {
		t.Error("removed twice")
	}
	// The consumer's client sends what it had: that doesn't connect again.
	if r := w.ok(w.ask(consumer, endF, Ask{Endpoint: link.Endpoint{Network: netF, Subnet: "pe"}, Alias: alias, Manual: true})); r.Changed || w.connection(endF).State != link.Disconnected {
		t.Errorf("asked with PUT after Disconnected: %+v", w.connection(endF))
	}
	w.ok(w.AskAgain(ctx, consumer, endF, "again"))
	if k := w.connection(endF); k.State != link.Pending || k.LinkID == first.LinkID || k.Message != "again" || w.state().Endpoint(endF).Address != address {
		t.Errorf("asked again: %+v", k)
	}
	w.ok(w.EditEndpoint(ctx, consumer, endF, func(*link.Snapshot, *link.Endpoint) (*Ask, error) { return nil, nil }))
	if w.state().Endpoint(endF) != nil {
		t.Error("the endpoint is there still")
	}
	if r := w.ok(w.EditEndpoint(ctx, consumer, endF, func(*link.Snapshot, *link.Endpoint) (*Ask, error) { return nil, nil })); r.Changed {
		t.Error("deleted twice")
	}
	for _, e := range w.audit(1) {
		if strings.HasPrefix(e.Action, "connection.") && !slices.Equal(e.Scopes, []string{subC, subF}) {
			t.Errorf("%s concerns %v", e.Action, e.Scopes)
		}
	}
}

// TestWhoIsApproved is section 6 of the wire contract, the states of a connection: who asks how, and what
// comes of it.
func TestWhoIsApproved(t *testing.T) {
	both := Op{Caller: as(Owner, subC, subF)}
	tests := map[string]struct {
		op     Op
		manual bool
		lists  func(*link.Service)
		state  link.State
		err    error
		reason string
	}{
		"manual, nobody says more":           {op: op(Consumer, subF), manual: true, state: link.Pending},
		"manual, caller may approve":         {op: both, manual: true, state: link.Pending},
		"automatic, caller may approve":      {op: both, state: link.Approved, reason: "Auto Approved"},
		"automatic, caller may not approve":  {op: op(Owner, subF), err: ErrLinkedForbidden},
		"automatic, caller may only read it": {op: Op{Caller: Caller{Name: "x", Grants: []Grant{{subF, Owner}, {subC, Reader}}}}, err: ErrLinkedForbidden},
		"automatic, on the approval list": {op: op(Owner, subF), state: link.Approved, lists: func(v *link.Service) {
			v.AutoApprove = []link.Party{"subscription/" + subF}
		}},
		"manual, on the approval list": {op: op(Owner, subF), manual: true, state: link.Approved, lists: func(v *link.Service) {
			v.AutoApprove = []link.Party{"tenant/fabrikam"}
		}},
		"automatic, another on the approval list": {op: op(Owner, subF), err: ErrLinkedForbidden, lists: func(v *link.Service) {
			v.AutoApprove = []link.Party{"subscription/" + subC2}
		}},
		"over the limit of the service (list)": {op: op(Owner, subF), state: link.Pending, reason: "limit of 1", lists: func(v *link.Service) {
			v.AutoApprove, v.MaxConnections = []link.Party{link.Anyone}, 1
		}},
		"over the limit of the service (right)":   {op: both, state: link.Pending, reason: "limit of 1", lists: func(v *link.Service) { v.MaxConnections = 1 }},
		"over the limit per consumer":             {op: both, state: link.Pending, reason: "limit of 1", lists: func(v *link.Service) { v.MaxPerConsumer = 1 }},
		"invisible":                               {op: op(Owner, subF), manual: true, err: ErrNoService, lists: func(v *link.Service) { v.Visible = nil }},
		"invisible, but the caller may read it":   {op: Op{Caller: Caller{Name: "x", Grants: []Grant{{subF, Owner}, {subC, Reader}}}}, manual: true, state: link.Pending, lists: func(v *link.Service) { v.Visible = nil }},
		"invisible, but the caller may approve":   {op: both, state: link.Approved, lists: func(v *link.Service) { v.Visible = nil }},
		"visible to another subscription":         {op: op(Owner, subF), manual: true, err: ErrNoService, lists: func(v *link.Service) { v.Visible = []link.Party{"subscription/" + subC2} }},
		"on the reject list, though also visible": {op: op(Owner, subF), manual: true, err: ErrNoService, lists: func(v *link.Service) { v.Reject = []link.Party{netPartyF} }},
		"on the reject list and may read it":      {op: both, manual: true, err: ErrNoService, lists: func(v *link.Service) { v.Reject = []link.Party{netPartyF} }},
	}
	for name, tt := range tests {
		for _, byAlias := range []bool{false, true} { // both ways are judged alike
			t.Run(fmt.Sprintf("%s, alias %v", name, byAlias), func(t *testing.T) {
				w := furnished(t)
				v := service(svcC)
				if tt.lists != nil {
					tt.lists(&v)
				}
				w.ok(w.putServiceAs(op(Owner, subC), v))
				if v.MaxConnections+v.MaxPerConsumer > 0 { // somebody has the only one
					first := manual()
					first.Manual = false
					w.ok(w.ask(both, subF+"/rg/first", first))
				}
				before := w.state()
				a := manual()
				a.Manual = tt.manual
				if byAlias {
					a.Alias, a.Endpoint.Service = before.Service(svcC).Alias, ""
				}
				_, err := w.ask(tt.op, endF, a)
				if tt.err != nil {
					w.refused(before, err, tt.err)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if k := w.connection(endF); k.State != tt.state || !strings.Contains(k.Decision.Reason, tt.reason) {
					t.Errorf("%+v, want %s %q", k, tt.state, tt.reason)
				}
			})
		}
	}
}

const netPartyF = link.Party(netF)

// TestStatesAndDecisions: what each decision does in each state.
func TestStatesAndDecisions(t *testing.T) {
	provider := op(Approver, subC)
	into := map[string]func(*world){
		"Pending":      func(*world) {},
		"Approved":     func(w *world) { w.ok(w.Decide(w.t.Context(), provider, decision(link.Approved))) },
		"Rejected":     func(w *world) { w.ok(w.Decide(w.t.Context(), provider, decision(link.Rejected))) },
		"Disconnected": func(w *world) { w.ok(w.Disconnect(w.t.Context(), provider, decision(""))) },
		"Suspended": func(w *world) {
			w.ok(w.Decide(w.t.Context(), provider, decision(link.Approved)))
			w.ok(w.Suspend(w.t.Context(), provider, decision("")))
		},
	}
	does := map[string]func(*world) (Result, error){
		"approve": func(w *world) (Result, error) { return w.Decide(w.t.Context(), provider, decision(link.Approved)) },
		"reject":  func(w *world) (Result, error) { return w.Decide(w.t.Context(), provider, decision(link.Rejected)) },
		"remove":  func(w *world) (Result, error) { return w.Disconnect(w.t.Context(), provider, decision("")) },
		"suspend": func(w *world) (Result, error) { return w.Suspend(w.t.Context(), provider, decision("")) },
		"resume":  func(w *world) (Result, error) { return w.Resume(w.t.Context(), provider, decision("")) },
		"again":   func(w *world) (Result, error) { return w.AskAgain(w.t.Context(), op(Consumer, subF), endF, "") },
		"invent": func(w *world) (Result, error) {
			return w.Decide(w.t.Context(), provider, decision(link.Disconnected))
		},
	}
	const same = "" // nothing changes
	tests := []struct {
		from, do, to string
		err          error
	}{
		{"Pending", "approve", "Approved", nil},
		{"Pending", "reject", "Rejected", nil},
		{"Pending", "remove", "Disconnected", nil},
		{"Pending", "suspend", "Pending", link.ErrConflict},
		{"Pending", "resume", same, nil},
		{"Pending", "again", "Pending", link.ErrConflict},
		{"Pending", "invent", "Pending", link.ErrInvalid},
		{"Approved", "approve", same, nil},
		{"Approved", "reject", "Rejected", nil},
		{"Approved", "remove", "Disconnected", nil},
		{"Approved", "suspend", "Suspended", nil},
		{"Approved", "resume", same, nil},
		{"Approved", "again", "Approved", link.ErrConflict},
		{"Rejected", "approve", "Approved", nil},
		{"Rejected", "reject", same, nil},
		{"Rejected", "remove", "Disconnected", nil},
		{"Rejected", "suspend", "Rejected", link.ErrConflict},
		{"Rejected", "again", "Rejected", link.ErrConflict},
		{"Suspended", "approve", same, nil},
		{"Suspended", "reject", "Rejected", nil},
		{"Suspended", "remove", "Disconnected", nil},
		{"Suspended", "suspend", same, nil},
		{"Suspended", "resume", "Approved", nil},
		{"Disconnected", "approve", "Disconnected", link.ErrNotFound},
		{"Disconnected", "reject", "Disconnected", link.ErrNotFound},
		{"Disconnected", "remove", same, nil},
		{"Disconnected", "suspend", "Disconnected", link.ErrNotFound},
		{"Disconnected", "resume", "Disconnected", link.ErrNotFound},
		{"Disconnected", "again", "Pending", nil},
	}
	for _, tt := range tests {
		t.Run(tt.from+" "+tt.do, func(t *testing.T) {
			w := connected(t)
			into[tt.from](w)
			before := w.state()
			r, err := does[tt.do](w)
			if !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			k := w.connection(endF)
			now := string(k.State)
			if k.Suspended != nil {
				now = "Suspended"
			}
			want := tt.to
			if want == same {
				want = tt.from
				if r.Changed || w.state().Revision() != before.Revision() {
					t.Errorf("something was committed: %+v", w.audit(before.Revision()+1))
				}
			}
			if now != want {
				t.Errorf("%s, want %s", now, want)
			}
		})
	}
}
