package control

import (
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-link/postern/internal/tcptest"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/hello/rawhello"
	"github.com/postern-link/postern/proxy"
)

// twoTargets holds for flows of a service with more than one target.
type twoTargets struct{}

func (twoTargets) Holds(f policy.Facts) (bool, error) { return len(f.Service.Targets) > 1, nil }
func (twoTargets) Uses() policy.Uses                  { return 0 }
func (twoTargets) String() string                     { return "crowded" }

// granting are tenants of which contoso's grant can be taken away.
type granting struct{ atomic.Pointer[tenants] }

func (g *granting) Tenants() []Tenant { return *g.Load() }

func (g *granting) SubscriptionOwner(sub string) (Tenant, bool) {
	return g.Load().SubscriptionOwner(sub)
}

// carried is a world whose flows are carried by a real proxy.
type carried struct {
	*world
	proxy  *proxy.Proxy
	now    atomic.Pointer[link.Snapshot]
	rules  atomic.Pointer[policy.Policy]
	grants granting
	target netip.AddrPort
}

const (
	agreePort = 7001
	agreeName = "db.contoso.example"
)

// newCarried has service svc and endpoint ep of it, and a bystander of each kind, all approved.
func newCarried(t *testing.T, edit func(*link.Service)) *carried {
	t.Helper()
	w := &carried{target: sink(t)}
	w.grants.Store(grantedTo("127.7.0.0/16"))
	w.now.Store(link.Empty())
	w.proxy = proxy.New(proxy.Config{Snapshot: w.now.Load, Policy: w.rules.Load})
	t.Cleanup(func() { w.proxy.Close() })
	w.world = newWorld(t, func(c *Config) {
		c.Tenants, c.Policy, c.Ground, c.Now = &w.grants, w.rules.Load, w.proxy.Ground, time.Now
		c.Flows = func(yield func(Flow) bool) {
			for f := range w.proxy.List() {
				if !yield(Flow{ID: f.ID, Endpoint: f.Endpoint, Service: f.Service, LinkID: f.LinkID, Standing: f.Standing}) {
					return
				}
			}
		}
	})
	net := link.Network{ID: netF, Prefixes: []netip.Prefix{netip.MustParsePrefix("127.8.0.0/16")}, Egress: []string{"*"},
		Subnets: []link.Subnet{{Name: "pe", Prefixes: []netip.Prefix{netip.MustParsePrefix("127.8.1.0/24")}}}}
	w.ok(w.putNetworkAs(op(Owner, subF), net))
	for id, at := range map[link.ID]string{svcC: "127.8.1.4", other: "127.8.1.5"} {
		v := service(id)
		v.Port, v.Targets, v.AutoApprove = agreePort, []link.Target{{Addr: w.target}}, []link.Party{link.Anyone}
		if id == svcC && edit != nil {
			edit(&v)
		}
		w.ok(w.putServiceAs(op(Owner, subC), v))
		w.ok(w.ask(op(Owner, subF), endpointOf(id), Ask{Endpoint: link.Endpoint{Network: netF, Subnet: "pe", Service: id, Address: netip.MustParseAddr(at)}}))
	}
	w.now.Store(w.state())
	next, err := w.proxy.Prepare(w.now.Load(), proxy.Settings{ProbeInterval: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	next.Commit()
	return w
}

func endpointOf(service link.ID) link.ID {
	if service == svcC {
		return endF
	}
	return subF + "/rg/beside"
}

func grantedTo(prefixes ...string) *tenants {
	all := ourTenants()
	for i := range all {
		switch all[i].Name {
		case "contoso":
			all[i].Targets = nil
			for _, p := range prefixes {
				all[i].Targets = append(all[i].Targets, netip.MustParsePrefix(p))
			}
		case "fabrikam":
			all[i].Networks = []netip.Prefix{netip.MustParsePrefix("127.8.0.0/16")}
		}
	}
	return &all
}

// sink is a target that reads until the test ends.
func sink(t *testing.T) netip.AddrPort {
	t.Helper()
	return tcptest.Serve(t, "127.7.0.4:0", func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }).Addr
}

// open opens a flow that sends first, and waits until it is established.
func (w *carried) open(at string, first []byte) {
	w.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 8, 0, 9)}, Timeout: 20 * time.Second}
	c, err := d.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr(at), agreePort).String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	if _, err := c.Write(first); err != nil {
		w.t.Fatal(err)
	}
	w.await("the flow is established", func() bool {
		for f := range w.proxy.List() {
			if f.Local.Addr().String() == at && f.State == proxy.FlowEstablished {
				return true
			}
		}
		return false
	})
}

func (w *carried) await(what string, holds func() bool) {
	w.t.Helper()
	for late := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			w.t.Fatalf("never happened: %s", what)
		}
	}
}

// standing returns the IDs of the flows that haven't been ended.
func (w *carried) standing() map[string]bool {
	all := map[string]bool{}
	for f := range w.proxy.List() {
		if f.State != proxy.FlowEnding {
			all[f.ID] = true
		}
	}
	return all
}

// edited puts the service with an edit.
func (w *carried) edited(o Op, edit func(*link.Service)) (Result, error) {
	return w.EditService(w.t.Context(), o, svcC, func(_ *link.Snapshot, old *link.Service) (*link.Service, error) {
		v := *old
		edit(&v)
		return &v, nil
	})
}

// TestPlanAndProxyAgree: what a dry run says that a change would cut is what the data plane cuts when it is made
// (A18, A19, X32), and nothing else.
func TestPlanAndProxyAgree(t *testing.T) {
	plain, named := []byte("!"), rawhello.Records(rawhello.New(agreeName).Message())
	outer := rawhello.Records(rawhello.New(agreeName).Add(rawhello.ECH()).Message())
	pinned := func(v *link.Service) {
		v.Pin, v.Names = link.PinTLS, []link.ResourceName{{Public: agreeName}, {Public: "more.contoso.example"}}
	}
	ech := func(v *link.Service) { pinned(v); v.ECHOuter = true }
	decide := func(do func(*carried, Op, Decision) (Result, error)) func(*carried, Op) (Result, error) {
		return func(w *carried, o Op) (Result, error) { return do(w, o, decision(link.Rejected)) }
	}
	edit := func(edit func(*carried, *link.Service)) func(*carried, Op) (Result, error) {
		return func(w *carried, o Op) (Result, error) {
			return w.edited(o, func(v *link.Service) { edit(w, v) })
		}
	}
	ask := func(allow string) func(*carried, Op) (Result, error) {
		return func(w *carried, o Op) (Result, error) {
			e := link.Endpoint{Network: netF, Subnet: "pe", Service: svcC, Allow: []netip.Prefix{netip.MustParsePrefix(allow)}}
			return w.ask(Op{Caller: as(Owner, subF), DryRun: o.DryRun}, endF, Ask{Endpoint: e, Manual: true})
		}
	}
	another := func(w *carried) link.Target {
		return link.Target{Addr: netip.AddrPortFrom(netip.MustParseAddr("127.7.0.5"), w.target.Port())}
	}
	forNetwork := func(edit func(*link.Network)) func(*carried, Op) (Result, error) {
		return func(w *carried, o Op) (Result, error) {
			n := *w.state().Network(netF)
			edit(&n)
			return w.putNetworkAs(Op{Caller: as(Owner, subF), DryRun: o.DryRun}, n)
		}
	}
	for name, tt := range map[string]struct {
		service func(*link.Service)
		first   []byte
		change  func(*carried, Op) (Result, error)
		cut     int
	}{
		"reject":  {nil, plain, decide(func(w *carried, o Op, d Decision) (Result, error) { return w.Decide(t.Context(), o, d) }), 1},
		"remove":  {nil, plain, decide(func(w *carried, o Op, d Decision) (Result, error) { return w.Disconnect(t.Context(), o, d) }), 1},
		"suspend": {nil, plain, decide(func(w *carried, o Op, d Decision) (Result, error) { return w.Suspend(t.Context(), o, d) }), 1},
		"endpoint deleted": {nil, plain, func(w *carried, o Op) (Result, error) {
			return w.EditEndpoint(t.Context(), Op{Caller: as(Owner, subF), DryRun: o.DryRun}, endF, func(*link.Snapshot, *link.Endpoint) (*Ask, error) { return nil, nil })
		}, 1},
		"service deleted": {nil, plain, func(w *carried, o Op) (Result, error) {
			return w.ForceDeleteService(t.Context(), o, svcC, func(*link.Snapshot, *link.Service) error { return nil })
		}, 1},
		"allow edited without":  {nil, plain, ask("127.8.0.10/32"), 1},
		"allow edited with":     {nil, plain, ask("127.8.0.9/32"), 0},
		"target removed":        {nil, plain, edit(func(w *carried, v *link.Service) { v.Targets = []link.Target{another(w)} }), 1},
		"target's right lost":   {nil, plain, edit(func(w *carried, v *link.Service) { w.grants.Store(grantedTo()); v.MaxConnections = 7 }), 1},
		"name removed":          {pinned, named, edit(func(_ *carried, v *link.Service) { v.Names = v.Names[1:] }), 1},
		"another name removed":  {pinned, named, edit(func(_ *carried, v *link.Service) { v.Names = v.Names[:1] }), 0},
		"pin changed":           {nil, plain, edit(func(_ *carried, v *link.Service) { pinned(v) }), 1},
		"ech forbidden":         {ech, outer, edit(func(_ *carried, v *link.Service) { v.ECHOuter = false }), 1},
		"ech forbidden to none": {ech, named, edit(func(_ *carried, v *link.Service) { v.ECHOuter = false }), 0},
		"egress narrowed":       {nil, plain, forNetwork(func(n *link.Network) { n.Egress = []string{"tenant/nobody"} }), 2},
		"client's prefix gone":  {nil, plain, forNetwork(func(n *link.Network) { n.Prefixes = []netip.Prefix{netip.MustParsePrefix("127.8.1.0/24")} }), 2},
		"policy":                {nil, plain, edit(func(w *carried, v *link.Service) { v.Targets = append(slices.Clone(v.Targets), another(w)) }), 1},
		"a limit":               {nil, plain, edit(func(_ *carried, v *link.Service) { v.MaxPerConsumer = 1 }), 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCarried(t, tt.service)
			w.rules.Store(&policy.Policy{Sets: []policy.Set{{Name: "p", Default: policy.DefaultAllow,
				Rules: []policy.Rule{{Name: "crowded", Conditions: policy.Conditions{When: []policy.Expression{twoTargets{}}}}}}}})
			w.open("127.8.1.4", tt.first)
			w.open("127.8.1.5", plain)
			before := w.standing()
			o := op(Owner, subC)
			o.DryRun = true
			r, err := tt.change(w, o)
			w.ok(r, err)
			p, err := w.PlanOf(as(Owner, subOp), subOp, r)
			if err != nil {
				t.Fatal(err)
			}
			o.DryRun = false
			w.ok(tt.change(w, o))
			w.now.Store(w.state())
			w.proxy.Update(w.now.Load())
			said := map[string]bool{}
			for _, f := range p.Cut {
				said[f.ID] = true
				delete(before, f.ID)
			}
			w.await("the data plane has cut what the plan says", func() bool { return maps.Equal(w.standing(), before) })
			if len(said) != tt.cut {
				t.Errorf("%d flows are cut, want %d", len(said), tt.cut)
			}
			w.proxy.Review() // whatever rules say in the background they have said twice
			if !maps.Equal(w.standing(), before) {
				t.Error("the data plane has cut more")
			}
		})
	}
}
