package control

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// operations are all that write, each as it would succeed for an owner of both subscriptions, on objects of
// the subscriptions that it is given: the consumer's and the provider's.
var operations = map[string]struct {
	right    Right
	provider bool // it is the provider's subscription that the right is asked in
	run      func(w *world, o Op, consumer, provider string) (Result, error)
}{
	"write network": {Connect, false, func(w *world, o Op, f, _ string) (Result, error) {
		n := network(link.ID(f+"/rg/net"), "1")
		n.Egress = []string{"tenant/contoso", "*"}
		return w.putNetworkAs(o, n)
	}},
	"delete network": {Connect, false, func(w *world, o Op, f, _ string) (Result, error) {
		return w.EditNetwork(w.t.Context(), o, link.ID(f+"/rg/spare"), func(*link.Snapshot, *link.Network) (*link.Network, error) { return nil, nil })
	}},
	"write service": {Publish, true, func(w *world, o Op, _, c string) (Result, error) {
		v := service(link.ID(c + "/rg/svc"))
		v.MaxConnections = 17
		return w.putServiceAs(o, v)
	}},
	"force delete": {Publish, true, func(w *world, o Op, _, c string) (Result, error) {
		return w.ForceDeleteService(w.t.Context(), o, link.ID(c+"/rg/svc"), func(*link.Snapshot, *link.Service) error { return nil })
	}},
	"ask": {Connect, false, func(w *world, o Op, f, c string) (Result, error) {
		return w.ask(o, link.ID(f+"/rg/new"), Ask{Endpoint: link.Endpoint{Network: link.ID(f + "/rg/net"), Subnet: "pe", Service: link.ID(c + "/rg/svc")}, Manual: true})
	}},
	"delete endpoint": {Connect, false, func(w *world, o Op, f, _ string) (Result, error) {
		return w.EditEndpoint(w.t.Context(), o, link.ID(f+"/rg/ep"), func(*link.Snapshot, *link.Endpoint) (*Ask, error) { return nil, nil })
	}},
	"ask again": {Connect, false, func(w *world, o Op, f, _ string) (Result, error) {
		return w.AskAgain(w.t.Context(), o, link.ID(f+"/rg/gone"), "")
	}},
	"approve": {Approve, true, func(w *world, o Op, f, c string) (Result, error) {
		return w.Decide(w.t.Context(), o, Decision{Endpoint: link.ID(f + "/rg/ep"), Service: link.ID(c + "/rg/svc"), State: link.Approved})
	}},
	"reject": {Approve, true, func(w *world, o Op, f, c string) (Result, error) {
		return w.Decide(w.t.Context(), o, Decision{Endpoint: link.ID(f + "/rg/ep"), Service: link.ID(c + "/rg/svc"), State: link.Rejected})
	}},
	"remove": {Approve, true, func(w *world, o Op, f, c string) (Result, error) {
		return w.Disconnect(w.t.Context(), o, Decision{Endpoint: link.ID(f + "/rg/ep"), Service: link.ID(c + "/rg/svc")})
	}},
	"suspend": {Approve, true, func(w *world, o Op, f, c string) (Result, error) {
		return w.Suspend(w.t.Context(), o, Decision{Endpoint: link.ID(f + "/rg/live"), Service: link.ID(c + "/rg/svc")})
	}},
	"resume": {Approve, true, func(w *world, o Op, f, c string) (Result, error) {
		return w.Resume(w.t.Context(), o, Decision{Endpoint: link.ID(f + "/rg/held"), Service: link.ID(c + "/rg/svc")})
	}},
	"write group": {Publish, true, func(w *world, o Op, _, c string) (Result, error) {
		return w.EditDocument(w.t.Context(), o, Publish, "group", link.ID(c+"/rg"), func(*link.Snapshot, *link.Document) (*link.Document, error) { return &link.Document{}, nil })
	}},
	"write balancer": {Publish, true, func(w *world, o Op, _, c string) (Result, error) {
		return w.EditBalancer(w.t.Context(), o, link.ID(c+"/rg/lb"), func(*link.Snapshot, *link.Document) (*link.Document, []link.Service, error) {
			return &link.Document{}, nil, nil
		})
	}},
}

// crowded is a world in which every operation can succeed once.
func crowded(t *testing.T) *world {
	t.Helper()
	w := connected(t)
	both := Op{Caller: as(Owner, subC, subF)}
	w.ok(w.putNetworkAs(both, network(subF+"/rg/spare", "2")))
	for _, id := range []link.ID{"gone", "live", "held"} {
		a := manual()
		a.Manual = false
		w.ok(w.ask(both, subF+"/rg/"+id, a))
	}
	w.ok(w.Disconnect(t.Context(), both, Decision{Endpoint: subF + "/rg/gone", Service: svcC}))
	w.ok(w.Suspend(t.Context(), both, Decision{Endpoint: subF + "/rg/held", Service: svcC}))
	return w
}

// TestRolesAndOperations: which role may do what, in the subscription that it is in.
func TestRolesAndOperations(t *testing.T) {
	for name, o := range operations {
		for _, role := range []Role{Owner, Consumer, Provider, Approver, Reader, "invented"} {
			t.Run(fmt.Sprintf("%s as %s", name, role), func(t *testing.T) {
				w := crowded(t)
				sub := subF
				if o.provider {
					sub = subC
				}
				before := w.state()
				r, err := o.run(w, op(role, sub), subF, subC)
				switch rights := role.Rights(); {
				case rights&o.right != 0:
					if err != nil || !r.Changed {
						t.Errorf("%+v, %v", r.Changed, err)
					}
				case rights != 0:
					w.refused(before, err, ErrForbidden)
				default:
					w.refused(before, err, ErrNoSubscription)
				}
			})
		}
	}
}

// TestForeignObjectsAreNotThere is A03: every operation on the objects of another tenant, as on objects that
// don't exist: the same error in the same words.
func TestForeignObjectsAreNotThere(t *testing.T) {
	for name, o := range operations {
		t.Run(name, func(t *testing.T) {
			w := crowded(t)
			before := w.state()
			// A stranger has every right, in a subscription of its own.
			stranger := op(Owner, subC2)
			_, there := o.run(w, stranger, subF, subC)
			w.refused(before, there, ErrNoSubscription)
			_, absent := o.run(w, stranger, "f9", "c9")
			w.refused(before, absent, ErrNoSubscription)
			words := strings.NewReplacer("f9", subF, "c9", subC).Replace(absent.Error())
			if words != there.Error() {
				t.Errorf("there: %v\nabsent: %v", there, absent)
			}
		})
	}
}

// TestReferencesToForeignObjects is A25: an operation of one's own that refers to what another has.
func TestReferencesToForeignObjects(t *testing.T) {
	mine := Owner
	tests := map[string]struct {
		op  Op
		ask Ask
		err error
	}{
		"network of another": {op(mine, subC), Ask{Endpoint: link.Endpoint{Network: netF, Subnet: "pe", Service: svcC}, Manual: true}, ErrReference},
		"network of nobody":  {op(mine, subC), Ask{Endpoint: link.Endpoint{Network: "f1/rg/none", Service: svcC}, Manual: true}, ErrReference},
		"network that the caller may only read": {
			Op{Caller: Caller{Name: "x", Grants: []Grant{{subC, Owner}, {subF, Reader}}}},
			Ask{Endpoint: link.Endpoint{Network: netF, Subnet: "pe", Service: svcC}, Manual: true}, ErrLinkedForbidden,
		},
		"subnet of nobody": {op(mine, subF), Ask{Endpoint: link.Endpoint{Network: netF, Subnet: "none", Service: svcC}, Manual: true}, ErrReference},
		"zone of another": {op(mine, subF), Ask{Endpoint: link.Endpoint{Network: netF, Subnet: "pe", Service: svcC,
			Zones: &link.ZoneGroup{Name: "g", Configs: []link.ZoneConfig{{Name: "z", Zone: subC + "/rg/contoso.example"}}}}, Manual: true}, ErrReference},
		"service of nobody": {op(mine, subF), Ask{Endpoint: link.Endpoint{Network: netF, Subnet: "pe", Service: "c1/rg/none"}, Manual: true}, ErrNoService},
		"no service":        {op(mine, subF), Ask{Endpoint: link.Endpoint{Network: netF, Subnet: "pe"}, Manual: true}, ErrNoService},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := furnished(t)
			w.ok(w.EditZone(t.Context(), op(Owner, subC), subC+"/rg/contoso.example", func(*link.Snapshot, *link.PrivateZone) (*link.PrivateZone, error) {
				return &link.PrivateZone{Name: "contoso.example"}, nil
			}))
			before := w.state()
			sub := tt.op.Caller.Grants[0].Subscription
			_, err := w.ask(tt.op, link.ID(sub+"/rg/ep"), tt.ask)
			w.refused(before, err, tt.err)
		})
	}
}

// TestOneMayNotApproveForAnother is A04: the consumer its own request, a provider for a service that isn't
// the one that is asked for.
func TestOneMayNotApproveForAnother(t *testing.T) {
	w := connected(t)
	w.ok(w.putServiceAs(op(Owner, subC2), service(subC2+"/rg/theirs")))
	before := w.state()
	_, err := w.Decide(t.Context(), op(Owner, subF), decision(link.Approved))
	w.refused(before, err, ErrNoSubscription)
	_, err = w.Decide(t.Context(), op(Owner, subC2), Decision{Endpoint: endF, Service: subC2 + "/rg/theirs", State: link.Approved})
	w.refused(before, err, link.ErrNotFound)
	_, err = w.Decide(t.Context(), op(Provider, subC), decision(link.Approved))
	w.refused(before, err, ErrForbidden)
	if k := w.connection(endF); k.State != link.Pending {
		t.Errorf("%+v", k)
	}
}

// TestInvisibleIsAbsent is A10: neither the answer nor the audit tell an invisible service from none.
func TestInvisibleIsAbsent(t *testing.T) {
	w := furnished(t)
	v := service(svcC)
	v.Visible = []link.Party{"subscription/" + subC2}
	w.ok(w.putServiceAs(op(Owner, subC), v))
	alias := w.state().Service(svcC).Alias
	guess := strings.Replace(alias, "svc.", "svc.0", 1)[:len(alias)]

	before := w.state()
	said := map[string]string{}
	for name, a := range map[string]Ask{
		alias:           {Alias: alias},
		guess:           {Alias: guess},
		string(svcC):    {Endpoint: link.Endpoint{Service: svcC}},
		subC + "/rg/no": {Endpoint: link.Endpoint{Service: subC + "/rg/no"}},
	} {
		a.Manual, a.Endpoint.Network, a.Endpoint.Subnet = true, netF, "pe"
		_, err := w.ask(op(Owner, subF), endF, a)
		w.refused(before, err, ErrNoService)
		said[name] = strings.ReplaceAll(err.Error(), name, "IT")
	}
	for name, words := range said {
		if words != said[guess] {
			t.Errorf("%s: %q, a guess: %q", name, words, said[guess])
		}
	}
	for name := range map[string]bool{alias: true, guess: true} {
		if _, err := w.VisibleService(as(Reader, subF), subF, name); !errors.Is(err, ErrNoService) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, e := range w.audit(before.Revision() + 1) {
		if len(e.Scopes) != 1 || e.Scopes[0] != subF || e.Result != store.Refused {
			t.Errorf("entry %+v", e)
		}
	}
	if got, err := w.VisibleService(as(Reader, subC2), subC2, alias); err != nil || got.ID != svcC {
		t.Errorf("visible: %v, %v", got, err)
	}
	if got, err := w.VisibleService(as(Reader, subC), subC, alias); err != nil || got.ID != svcC {
		t.Errorf("its own subscription: %v, %v", got, err)
	}
	if _, err := w.VisibleService(as(Reader, subF), subC, alias); !errors.Is(err, ErrNoSubscription) {
		t.Errorf("from a foreign subscription: %v", err)
	}
}

// TestVisibleToOneNetwork: a list that names a network speaks of its subscription too, unless the network
// is on the reject list.
func TestVisibleToOneNetwork(t *testing.T) {
	w := furnished(t)
	v := service(svcC)
	v.Visible = []link.Party{netPartyF}
	w.ok(w.putServiceAs(op(Owner, subC), v))
	alias := w.state().Service(svcC).Alias
	if _, err := w.VisibleService(as(Reader, subF), subF, alias); err != nil {
		t.Errorf("one network sees it: %v", err)
	}
	v.Reject = v.Visible
	w.ok(w.putServiceAs(op(Owner, subC), v))
	if _, err := w.VisibleService(as(Reader, subF), subF, alias); !errors.Is(err, ErrNoService) {
		t.Errorf("rejected: %v", err)
	}
	v.Visible, v.Reject = []link.Party{link.Anyone}, []link.Party{"tenant/fabrikam"}
	w.ok(w.putServiceAs(op(Owner, subC), v))
	if _, err := w.VisibleService(as(Reader, subF), subF, alias); !errors.Is(err, ErrNoService) {
		t.Errorf("its tenant rejected: %v", err)
	}
}

// TestGuessingIsLimited is A10: who asks for what isn't there may not do so without end, nor see a difference.
func TestGuessingIsLimited(t *testing.T) {
	w := furnished(t)
	alias := w.state().Service(svcC).Alias
	guesser := as(Reader, subF)
	for i := range missesPerMinute {
		if _, err := w.VisibleService(guesser, subF, fmt.Sprint("guess", i)); !errors.Is(err, ErrNoService) {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"guess", alias} {
		if _, err := w.VisibleService(guesser, subF, name); !errors.Is(err, ErrOften) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.VisibleService(as(Owner, subF), subF, alias); err != nil {
		t.Errorf("another caller: %v", err)
	}
	w.clock.advance(61e9)
	if _, err := w.VisibleService(guesser, subF, alias); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}
