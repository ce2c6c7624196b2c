package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

// TestStaleDecision is A05 and A20: an approval of what has changed since it was looked at changes nothing.
func TestStaleDecision(t *testing.T) {
	provider := op(Approver, subC)
	sentinel := errors.New("not what I saw")
	tests := map[string]struct {
		meanwhile func(*world)
		approve   func(link.LinkID) Decision
		err       error
	}{
		"link ID of an earlier request": {
			func(w *world) {
				w.ok(w.Disconnect(w.t.Context(), provider, decision("")))
				w.ok(w.AskAgain(w.t.Context(), op(Owner, subF), endF, ""))
			},
			func(id link.LinkID) Decision {
				return Decision{Endpoint: endF, Service: svcC, LinkID: id, State: link.Approved}
			},
			link.ErrStale,
		},
		"endpoint made anew under the same name": {
			func(w *world) {
				w.ok(w.EditEndpoint(w.t.Context(), op(Owner, subF), endF, func(*link.Snapshot, *link.Endpoint) (*Ask, error) { return nil, nil }))
				w.ok(w.ask(op(Owner, subF), endF, manual()))
			},
			func(id link.LinkID) Decision {
				return Decision{Endpoint: endF, Service: svcC, LinkID: id, State: link.Approved}
			},
			link.ErrStale,
		},
		"endpoint made anew for another service": {
			func(w *world) {
				w.ok(w.putServiceAs(op(Owner, subC), service(other)))
				w.ok(w.EditEndpoint(w.t.Context(), op(Owner, subF), endF, func(*link.Snapshot, *link.Endpoint) (*Ask, error) { return nil, nil }))
				a := manual()
				a.Endpoint.Service = other
				w.ok(w.ask(op(Owner, subF), endF, a))
			},
			func(link.LinkID) Decision { return decision(link.Approved) },
			link.ErrNotFound,
		},
		"a condition that doesn't hold": {
			func(*world) {},
			func(link.LinkID) Decision {
				d := decision(link.Approved)
				d.If = func(*link.Snapshot, *link.Endpoint) error { return fmt.Errorf("%w: %w", ErrPrecondition, sentinel) }
				return d
			},
			sentinel,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := connected(t)
			seen := w.connection(endF).LinkID
			tt.meanwhile(w)
			before := w.state()
			_, err := w.Decide(t.Context(), provider, tt.approve(seen))
			w.refused(before, err, tt.err)
			if k := w.connection(endF); k.State != link.Pending {
				t.Errorf("%+v", k)
			}
		})
	}
}

// TestSameRequestTwice is A06: what is sent again changes nothing and isn't recorded again, also where its
// condition held only the first time.
func TestSameRequestTwice(t *testing.T) {
	w := furnished(t)
	provider := op(Approver, subC)
	id := w.connection
	first := true
	approve := func() (Result, error) {
		d := decision(link.Approved)
		d.Reason, d.LinkID = "fine", id(endF).LinkID
		d.If = func(*link.Snapshot, *link.Endpoint) error {
			if !first {
				return ErrPrecondition
			}
			return nil
		}
		return w.Decide(t.Context(), provider, d)
	}
	for name, do := range map[string]func() (Result, error){
		"1 network":  func() (Result, error) { return w.putNetworkAs(op(Owner, subF), network(netF, "1")) },
		"2 service":  func() (Result, error) { return w.putServiceAs(op(Owner, subC), service(svcC)) },
		"3 endpoint": func() (Result, error) { return w.ask(op(Owner, subF), endF, manual()) },
		"4 group": func() (Result, error) {
			return w.EditDocument(t.Context(), op(Owner, subF), Connect, "group", subF+"/rg", func(*link.Snapshot, *link.Document) (*link.Document, error) {
				return &link.Document{Facet: link.Facet{API: []byte(`{"a":1}`)}}, nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.ok(do())
			before := w.state().Revision()
			if r := w.ok(do()); r.Changed || r.Created || w.state().Revision() != before {
				t.Errorf("%+v at revision %d, %d before", r, w.state().Revision(), before)
			}
		})
	}
	w.ok(approve())
	first = false
	before := w.state().Revision()
	if r := w.ok(approve()); r.Changed || w.state().Revision() != before {
		t.Errorf("approved twice: %+v", r)
	}
	d := decision(link.Rejected)
	d.If = func(*link.Snapshot, *link.Endpoint) error { return ErrPrecondition }
	if _, err := w.Decide(t.Context(), provider, d); !errors.Is(err, ErrPrecondition) {
		t.Errorf("another decision under a condition that doesn't hold: %v", err)
	}
}

// TestStoreFaults is A17 and S13: what the store refuses isn't done, what landed after all is done once.
func TestStoreFaults(t *testing.T) {
	tests := map[string]struct {
		plan []storetest.Outcome
		err  error
		done bool
	}{
		"refused: the audit record can't be written": {[]storetest.Outcome{storetest.Refuse}, ErrUnavailable, false},
		"unknown, and it didn't land":                {[]storetest.Outcome{storetest.Lost}, store.ErrUnknownOutcome, false},
		"unknown, and it landed":                     {[]storetest.Outcome{storetest.Landed}, nil, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := connected(t)
			before := w.state().Revision()
			w.fault.Plan(tt.plan...)
			r, err := w.Decide(t.Context(), op(Approver, subC), decision(link.Approved))
			if !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if now := w.connection(endF).State; (now == link.Approved) != tt.done || r.Changed != tt.done {
				t.Errorf("%s, %+v", now, r)
			}
			n := 0
			for _, e := range w.audit(before + 1) {
				if e.Action == "connection.approve" && e.Result == "" {
					n++
				}
			}
			if want := map[bool]int{true: 1}[tt.done]; n != want {
				t.Errorf("%d entries, want %d", n, want)
			}
			// And the same again, as a client does.
			w.ok(w.Decide(t.Context(), op(Approver, subC), decision(link.Approved)))
			if k := w.connection(endF); k.State != link.Approved {
				t.Errorf("%+v", k)
			}
		})
	}
}

// TestDryRun decides and leaves no trace.
func TestDryRun(t *testing.T) {
	w := connected(t)
	before := w.state().Revision()
	o := op(Approver, subC)
	o.DryRun = true
	r := w.ok(w.Decide(t.Context(), o, decision(link.Approved)))
	if !r.Changed || r.Snapshot.Endpoint(endF).Connection.State != link.Approved {
		t.Errorf("it would be: %+v", r)
	}
	if s, err := w.View(as(Reader, subF), subF); err != nil || s.Revision() != before || w.state().Revision() != before {
		t.Errorf("a trace: %v, %v", s.Revision(), err)
	}
}

// TestReadsWhatWasWritten: who wrote sees it at once, whenever the node installs it.
func TestReadsWhatWasWritten(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Snapshot = func() *link.Snapshot { return nil } })
	if _, err := w.View(as(Owner, subF), subF); !errors.Is(err, ErrUnavailable) {
		t.Errorf("before the first snapshot: %v", err)
	}
	w.ok(w.putNetworkAs(op(Owner, subF), network(netF, "1")))
	if s, err := w.View(as(Reader, subF), subF); err != nil || s.Network(netF) == nil {
		t.Errorf("after the write: %v", err)
	}
}

// TestConcurrentDecisions is A07 in small: whoever decides at once, each commit is one decision, made on the
// state of the commit before it.
func TestConcurrentDecisions(t *testing.T) {
	w := connected(t)
	from := w.state().Revision()
	var wait sync.WaitGroup
	for i := range 24 {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			o := op(Approver, subC)
			o.Caller.Name = fmt.Sprint("approver", i)
			var err error
			switch i % 4 {
			case 0:
				_, err = w.Decide(ctx, o, decision(link.Approved))
			case 1:
				_, err = w.Decide(ctx, o, decision(link.Rejected))
			case 2:
				_, err = w.Disconnect(ctx, o, decision(""))
			case 3:
				_, err = w.AskAgain(ctx, op(Consumer, subF), endF, "")
			}
			if err != nil && !errors.Is(err, link.ErrNotFound) && !errors.Is(err, link.ErrConflict) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	// The record is a history: each entry starts where the one before it ended.
	states := []link.State{link.Pending}
	for i, e := range w.audit(from + 1) {
		if e.Revision != from+1+uint64(i) {
			t.Fatalf("revision %d at place %d after %d", e.Revision, i, from)
		}
		if e.Result == store.Refused {
			continue
		}
		now := map[string]link.State{
			"connection.approve": link.Approved, "connection.reject": link.Rejected,
			"connection.remove": link.Disconnected, "endpoint.ask-again": link.Pending,
		}[e.Action]
		last := states[len(states)-1]
		legal := map[link.State][]link.State{
			link.Pending:      {link.Approved, link.Rejected, link.Disconnected},
			link.Approved:     {link.Rejected, link.Disconnected},
			link.Rejected:     {link.Approved, link.Disconnected},
			link.Disconnected: {link.Pending},
		}
		if !slices.Contains(legal[last], now) {
			t.Errorf("%s after %s", e.Action, last)
		}
		states = append(states, now)
	}
	if now := w.connection(endF).State; now != states[len(states)-1] {
		t.Errorf("the state is %s, the record ends with %s", now, states[len(states)-1])
	}
	if len(states) < 2 {
		t.Error("nobody won")
	}
}

// TestRefusalsAreRecorded: who, from where, what, on what and why; a flood costs a bounded number of entries
// and is summed up.
func TestRefusalsAreRecorded(t *testing.T) {
	w := connected(t)
	from := w.state().Revision() + 1
	for range 50 {
		if _, err := w.Decide(t.Context(), op(Reader, subC), decision(link.Approved)); !errors.Is(err, ErrForbidden) {
			t.Fatal(err)
		}
	}
	entries := w.audit(from)
	if len(entries) != 1 {
		t.Fatalf("%d entries for the same refusal", len(entries))
	}
	e := entries[0]
	if e.Result != store.Refused || e.Actor != "reader@c1" || e.From != "192.0.2.1:4711" || e.Action != "connection.approve" ||
		e.Object != "endpoint/f1/rg/ep" || !strings.Contains(e.Reason, "forbidden") || !slices.Equal(e.Scopes, []string{subC}) {
		t.Errorf("%+v", e)
	}

	// One caller with many objects, then many callers of the same tenant.
	for i := range 200 {
		d := decision(link.Approved)
		d.Endpoint = link.ID(fmt.Sprintf("f1/rg/e%d", i))
		_, _ = w.Decide(t.Context(), op(Reader, subC), d)
	}
	if n := len(w.audit(from)); n != refusalsPerActor {
		t.Errorf("%d entries of one actor, want %d", n, refusalsPerActor)
	}
	for i := range 200 {
		o := op(Reader, subC)
		o.Caller.Name = fmt.Sprint("reader", i)
		_, _ = w.Decide(t.Context(), o, decision(link.Approved))
	}
	if n := len(w.audit(from)); n != refusalsPerTenant {
		t.Errorf("%d entries of one tenant, want %d", n, refusalsPerTenant)
	}
	// Which crowds out nobody else.
	if _, err := w.Decide(t.Context(), op(Owner, subF), decision(link.Approved)); err == nil {
		t.Fatal("not refused")
	}
	entries = w.audit(from)
	if last := entries[len(entries)-1]; len(entries) != refusalsPerTenant+1 || last.Actor != "owner@f1" || last.Tenant != "fabrikam" {
		t.Errorf("%d entries, the last %+v", len(entries), last)
	}
	from += uint64(len(entries))
	w.clock.advance(refusalWindow)
	w.flushRefusals(t.Context())
	w.flushRefusals(t.Context())
	entries = w.audit(from)
	count, actors := 0, map[string]bool{}
	for _, e := range entries {
		n := 0
		if _, err := fmt.Sscan(e.Reason, &n); err != nil || e.Action != actionSummary || e.Tenant != "contoso" || !slices.Equal(e.Scopes, []string{subC}) || actors[e.Actor] {
			t.Errorf("%+v", e)
		}
		count, actors[e.Actor] = count+n, true
	}
	if count != 450-refusalsPerTenant || !actors["reader@c1"] || !actors["reader199"] && !actors["others"] || len(entries) != summedActors+1 {
		t.Errorf("%d summaries of %d refusals", len(entries), count)
	}
	from += uint64(len(entries))
	_, _ = w.Decide(t.Context(), op(Reader, subC), decision(link.Approved))
	if n := len(w.audit(from)); n != 1 {
		t.Errorf("a new minute: %d entries", n)
	}
}

// TestAttemptsOfOthers: a tenant reads that somebody of another one was refused something of its own, and no
// word that an attacker has chosen. The operator reads all.
func TestAttemptsOfOthers(t *testing.T) {
	w := connected(t)
	stranger := op(Owner, subF)
	stranger.Caller.Name = "call <evil.example>"
	try := func() {
		d := decision(link.Approved)
		d.Endpoint = "f1/rg/evil.example"
		if _, err := w.Decide(t.Context(), stranger, d); !errors.Is(err, ErrNoSubscription) {
			t.Fatal(err)
		}
	}
	try()
	for range 3 {
		try()
	}
	w.clock.advance(refusalWindow)
	w.flushRefusals(t.Context())
	read := func(caller Caller, q AuditQuery) (refused []store.Entry) {
		all, err := w.Audit(t.Context(), caller, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if e.Result == store.Refused {
				refused = append(refused, e)
			}
		}
		return refused
	}
	got := read(as(Reader, subC), AuditQuery{Subscription: subC, Actor: byOther})
	if len(got) != 2 || got[0].Action != "connection.approve" || got[0].Object != "endpoint" || got[0].Reason != ErrNoSubscription.Error() ||
		got[1].Action != actionSummary || !strings.HasPrefix(got[1].Reason, "3 more") {
		t.Errorf("%+v", got)
	}
	for _, e := range got {
		if text := fmt.Sprintf("%+v", e); strings.Contains(text, "evil") || strings.Contains(text, "fabrikam") || strings.Contains(text, "192.0.2.1") || e.Actor != byOther {
			t.Errorf("the tenant reads %s", text)
		}
	}
	if got := read(as(Reader, subC), AuditQuery{Subscription: subC, Actor: stranger.Caller.Name}); len(got) != 0 {
		t.Errorf("found by the actor that isn't shown: %+v", got)
	}
	if got := read(as(Owner, subOp), AuditQuery{Actor: stranger.Caller.Name}); len(got) != 2 || got[0].Object != "endpoint/f1/rg/evil.example" || got[0].Tenant != "fabrikam" || got[0].From == "" {
		t.Errorf("the operator reads %+v", got)
	}
}

// TestForeignRefusalsAreSafe: what a caller made up stays out of the scopes and of terminals.
func TestForeignRefusalsAreSafe(t *testing.T) {
	w := furnished(t)
	from := w.state().Revision() + 1
	o := op(Owner, subC2)
	o.Caller.Name = "evil\x1b[2J\u202e"
	_, err := w.putNetworkAs(o, network("zz/rg/net", "3"))
	if !errors.Is(err, ErrNoSubscription) {
		t.Fatal(err)
	}
	entries := w.audit(from)
	if len(entries) != 1 || len(entries[0].Scopes) != 0 || strings.ContainsAny(entries[0].Actor, "\x1b\u202e") {
		t.Errorf("%+v", entries)
	}
}

// TestRefusalWithoutRecord: a store that takes nothing doesn't keep answers waiting, and metrics say so.
func TestRefusalWithoutRecord(t *testing.T) {
	reg := prometheus.NewRegistry()
	w := connected(t, func(c *Config) { c.Registerer = reg })
	w.fault.Plan(storetest.Refuse)
	for i := range 5 {
		d := decision(link.Approved)
		d.Endpoint = link.ID(fmt.Sprintf("f1/rg/e%d", i))
		if _, err := w.Decide(t.Context(), op(Reader, subC), d); !errors.Is(err, ErrForbidden) {
			t.Fatal(err)
		}
	}
	if n := testutil.ToFloat64(w.metrics.unwritten); n != 5 {
		t.Errorf("%v unwritten", n)
	}
	if n := testutil.ToFloat64(w.metrics.operations.WithLabelValues("connection.approve", "refused")); n != 5 {
		t.Errorf("%v counted", n)
	}
	// A Corefile that is loaded anew makes another Control of the same registry.
	again := New(Config{Store: w.fault, Snapshot: func() *link.Snapshot { return nil }, Tenants: ourTenants(), Registerer: reg})
	if n := testutil.ToFloat64(again.metrics.unwritten); n != 5 {
		t.Errorf("%v after a reload", n)
	}
}

// TestWordsOfCallers: what doesn't print is refused where it would be kept.
func TestWordsOfCallers(t *testing.T) {
	w := furnished(t)
	for name, words := range map[string]string{
		"escape": "a\x1b[31m", "direction": "abc\u202egnp", "not UTF-8": "\xff", "long": strings.Repeat("a", maxMessage+1), "zero": "a\x00b",
	} {
		t.Run(name, func(t *testing.T) {
			a := manual()
			a.Message = words
			if _, err := w.ask(op(Owner, subF), endF, a); !errors.Is(err, link.ErrInvalid) {
				t.Errorf("message: %v", err)
			}
			o := op(Owner, subF)
			o.Reason = words
			if _, err := w.ask(o, endF, manual()); !errors.Is(err, link.ErrInvalid) {
				t.Errorf("reason: %v", err)
			}
		})
	}
	a := manual()
	a.Message = "<script>alert(1)</script> {{.}} Grüße 端点" // A13: kept as it is, inert where it is shown
	w.ok(w.ask(op(Owner, subF), endF, a))
	if k := w.connection(endF); k.Message != a.Message {
		t.Errorf("%q", k.Message)
	}
}
