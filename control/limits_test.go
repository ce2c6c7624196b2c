package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// TestLimits: each is refused at creation with its figure, and warned of at 80 percent, once.
func TestLimits(t *testing.T) {
	reg := prometheus.NewRegistry()
	w := newWorld(t, func(c *Config) {
		c.Registerer = reg
		c.Limits = Limits{Networks: 5, Subnets: 2, Services: 5, EndpointsPerNetwork: 4, EndpointsPerService: 3, NAT: 2, Visibility: 2, AutoApproval: 2,
			NamesPerService: 2, TargetsPerService: 2, PendingPerConsumer: 2}
	})
	limit := func(err error, figure int) {
		t.Helper()
		var l *LimitError
		if !errors.As(err, &l) || l.Limit != figure || !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), fmt.Sprint(figure)) {
			t.Errorf("got %v, want the limit of %d", err, figure)
		}
	}
	f, c := op(Owner, subF), op(Owner, subC)
	for i := range 5 {
		w.ok(w.putNetworkAs(f, network(link.ID(fmt.Sprintf("f1/rg/n%d", i)), fmt.Sprint(i+1))))
		w.ok(w.putServiceAs(c, service(link.ID(fmt.Sprintf("c1/rg/s%d", i)))))
		if n, want := testutil.ToFloat64(w.metrics.near.WithLabelValues("networks")), map[bool]float64{true: 1}[i >= 3]; n != want {
			t.Errorf("%d networks: %v warnings", i+1, n)
		}
	}
	_, err := w.putNetworkAs(f, network("f1/rg/n9", "9"))
	limit(err, 5)
	_, err = w.putServiceAs(c, service("c1/rg/s9"))
	limit(err, 5)
	n := network("f1/rg/n0", "1")
	n.Subnets = append(n.Subnets, link.Subnet{Name: "a", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24")}}, link.Subnet{Name: "b", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.3.0/24")}})
	_, err = w.putNetworkAs(f, n)
	limit(err, 2)
	for name, change := range map[string]func(*link.Service){
		"nat":     func(v *link.Service) { v.NAT = addrs("203.0.113.1", "203.0.113.2", "203.0.113.3") },
		"visible": func(v *link.Service) { v.Visible = []link.Party{"a", "b", "c"} },
		"approve": func(v *link.Service) { v.AutoApprove = []link.Party{"a", "b", "c"} },
		"names": func(v *link.Service) {
			v.Names = []link.ResourceName{{Public: "a.contoso.example"}, {Public: "b.contoso.example"}, {Public: "c.contoso.example"}}
		},
		"names of targets": func(v *link.Service) {
			for _, n := range []link.Name{"a.contoso.example", "b.contoso.example"} {
				v.TargetNames = append(v.TargetNames, link.NamePort{Name: n, Port: 443})
			}
		},
		"targets": func(v *link.Service) {
			v.Targets = nil
			for i := range 3 {
				v.Targets = append(v.Targets, link.Target{Addr: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), uint16(i+1))})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := service("c1/rg/s0")
			change(&v)
			_, err := w.putServiceAs(c, v)
			limit(err, 2)
		})
	}

	ask := func(name, svc string, manual bool) error {
		_, err := w.ask(Op{Caller: as(Owner, subF, subC)}, link.ID("f1/rg/"+name), Ask{
			Endpoint: link.Endpoint{Network: "f1/rg/n0", Subnet: "pe", Service: link.ID(svc)}, Manual: manual,
		})
		return err
	}
	for i := range 2 {
		if err := ask(fmt.Sprint("p", i), "c1/rg/s0", true); err != nil {
			t.Fatal(err)
		}
	}
	limit(ask("p2", "c1/rg/s0", true), 2) // waiting
	if err := ask("a0", "c1/rg/s0", false); err != nil {
		t.Error(err) // approved at once: nobody waits
	}
	limit(ask("a1", "c1/rg/s0", false), 3) // of the service
	if err := ask("a2", "c1/rg/s1", false); err != nil {
		t.Error(err)
	}
	limit(ask("a3", "c1/rg/s1", false), 4) // of the network
}

func addrs(all ...string) []netip.Addr {
	var list []netip.Addr
	for _, s := range all {
		list = append(list, netip.MustParseAddr(s))
	}
	return list
}

// TestExpiry: requests that nobody decides on end, once, on however many nodes.
func TestExpiry(t *testing.T) {
	w := connected(t, func(c *Config) { c.Expiry = 24 * time.Hour })
	w.clock.advance(time.Hour)
	w.ok(w.ask(op(Owner, subF), subF+"/rg/late", manual()))
	w.ok(w.ask(op(Owner, subF), subF+"/rg/live", manual()))
	w.ok(w.Decide(t.Context(), op(Owner, subC), Decision{Endpoint: subF + "/rg/live", Service: svcC, State: link.Approved}))
	other := New(w.config)
	w.clock.advance(23*time.Hour - 1)
	w.expire(t.Context())
	if k := w.connection(endF); k.State != link.Pending {
		t.Fatalf("too early: %+v", k)
	}
	w.clock.advance(1)
	before := w.state().Revision()
	stale := w.state().Endpoint(endF)
	w.expire(t.Context())
	other.expire(t.Context())
	if err := other.expireOne(t.Context(), stale); err != nil {
		t.Error(err)
	}
	if k := w.connection(endF); k.State != link.Disconnected || k.Decision.Rule != "expired" {
		t.Errorf("%+v", k)
	}
	entries := w.audit(before + 1)
	if len(entries) != 1 || entries[0].Action != "connection.expire" || len(entries[0].Scopes) != 2 {
		t.Errorf("%+v", entries)
	}
	w.clock.advance(time.Hour)
	w.expire(t.Context())
	if k := w.connection(subF + "/rg/late"); k.State != link.Disconnected {
		t.Errorf("%+v", k)
	}
	if k := w.connection(subF + "/rg/live"); k.State != link.Approved {
		t.Errorf("%+v", k)
	}
	w.ok(w.AskAgain(t.Context(), op(Owner, subF), endF, "once more"))
}

// TestRun looks at once, and ends with its context.
func TestRun(t *testing.T) {
	w := connected(t, func(c *Config) { c.Expiry = time.Hour })
	w.clock.advance(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { w.Run(ctx) })
	for s := range w.fault.Watch(ctx) {
		if s.Endpoint(endF).Connection.State == link.Disconnected {
			break
		}
	}
	cancel()
	wait.Wait()
	if k := w.connection(endF); k.State != link.Disconnected {
		t.Errorf("%+v", k)
	}
}

// TestDeclaredObjects is C18: what a Corefile declares is changed there alone; decisions on its connections
// are ordinary state. It is in the operator's first subscription.
func TestDeclaredObjects(t *testing.T) {
	w := furnished(t)
	origin := link.Origin{Declaration: "host", File: "Corefile", Line: 7}
	declared := service("declared")
	declared.Origin, declared.Alias = origin, "declared.alias"
	if _, err := store.Update(t.Context(), w.fault, func(*link.Snapshot) (store.Entry, []link.Change, error) {
		return store.Entry{At: w.clock.Now(), Action: "declare"}, []link.Change{link.Declare{Declaration: "host", Services: []link.Service{declared}}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	before := w.state()
	changed := service("declared")
	changed.MaxConnections = 3
	_, err := w.putServiceAs(op(Owner, subOp), changed)
	w.refused(before, err, link.ErrConflict)
	if !strings.Contains(err.Error(), "Corefile:7") {
		t.Errorf("it names no place: %v", err)
	}
	_, err = w.putServiceAs(op(Owner, subC), changed)
	w.refused(before, err, ErrNoSubscription)

	a := manual()
	a.Endpoint.Service = "declared"
	w.ok(w.ask(op(Owner, subF), endF, a))
	d := Decision{Endpoint: endF, Service: "declared", State: link.Approved}
	if _, err := w.Decide(t.Context(), op(Owner, subC), d); !errors.Is(err, ErrNoSubscription) {
		t.Errorf("another's decision: %v", err)
	}
	w.ok(w.Decide(t.Context(), op(Approver, subOp), d))
	if k := w.connection(endF); k.State != link.Approved {
		t.Errorf("%+v", k)
	}
}
