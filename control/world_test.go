package control

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/bolt"
	"github.com/postern-link/postern/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The subscriptions of the tests: the operator's, those of contoso, who provides, and of fabrikam, who consumes.
const (
	subOp = "op"
	subC  = "c1"
	subC2 = "c2"
	subF  = "f1"
)

// tenants are the ones that every world has.
type tenants []Tenant

func (ts tenants) Tenants() []Tenant { return ts }

func (ts tenants) SubscriptionOwner(sub string) (Tenant, bool) {
	for _, t := range ts {
		for _, s := range t.Subscriptions {
			if s.ID == sub {
				return t, true
			}
		}
	}
	return Tenant{}, false
}

func ourTenants() tenants {
	return tenants{
		{Name: "", ID: "00000000-0000-0000-0000-000000000000", Operator: true, Subscriptions: []Subscription{{ID: subOp}}},
		{Name: "contoso", ID: "aaaaaaaa-0000-0000-0000-00000000C001", Subscriptions: []Subscription{{ID: subC}, {ID: subC2}},
			Domains: []link.Name{"contoso.example"}, Targets: []netip.Prefix{netip.MustParsePrefix("127.7.0.0/16")}},
		{Name: "fabrikam", ID: "bbbbbbbb-0000-0000-0000-00000000F001", Subscriptions: []Subscription{{ID: subF}},
			Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	}
}

// as returns a caller with a role in subscriptions.
func as(role Role, subs ...string) Caller {
	c := Caller{Name: string(role) + "@" + strings.Join(subs, "+"), From: "192.0.2.1:4711"}
	for _, s := range subs {
		c.Grants = append(c.Grants, Grant{s, role})
		if t, ok := ourTenants().SubscriptionOwner(s); ok {
			c.Tenant, c.TenantID, c.Operator = t.Name, t.ID, t.Operator
		}
	}
	return c
}

func op(role Role, subs ...string) Op { return Op{Caller: as(role, subs...)} }

// clock is a time that stands still.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// noTXT is a resolver that finds nothing.
type noTXT struct{}

func (noTXT) LookupTXT(_ context.Context, name string) ([]string, error) {
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// world is a Control over a store in a file, with faults at will.
type world struct {
	*Control
	t     *testing.T
	fault *storetest.Fault
	clock *clock
}

func newWorld(t *testing.T, with ...func(*Config)) *world {
	t.Helper()
	st, err := bolt.Open(filepath.Join(t.TempDir(), "state"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	w := &world{t: t, fault: &storetest.Fault{Store: st}, clock: &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}}
	c := Config{
		Store: w.fault, Tenants: ourTenants(), Resolver: noTXT{}, Node: "n1", Now: w.clock.Now,
		Snapshot: func() *link.Snapshot {
			s, err := st.Load(context.Background())
			if err != nil {
				return nil
			}
			return s
		},
	}
	for _, f := range with {
		f(&c)
	}
	w.Control = New(c)
	return w
}

// state returns the newest snapshot.
func (w *world) state() *link.Snapshot {
	w.t.Helper()
	s, err := w.fault.Load(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// ok fails the test unless an operation was done, and returns its result.
func (w *world) ok(r Result, err error) Result {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// refused fails the test unless the error is want and the state is the one of before, but for the record
// of refusals.
func (w *world) refused(before *link.Snapshot, err, want error) {
	w.t.Helper()
	if !errors.Is(err, want) {
		w.t.Fatalf("got %v, want %v", err, want)
	}
	for _, e := range w.audit(before.Revision() + 1) {
		if e.Result != store.Refused || len(e.Changes) > 0 {
			w.t.Fatalf("refused, and yet: %+v", e)
		}
	}
}

// audit returns the entries from a revision on.
func (w *world) audit(from uint64) []store.Entry {
	w.t.Helper()
	var all []store.Entry
	for e, err := range w.fault.Audit(w.t.Context(), from) {
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// network is one of fabrikam's with a subnet for endpoints.
func network(id link.ID, third string) link.Network {
	p := netip.MustParsePrefix("10." + third + ".0.0/16")
	return link.Network{
		ID: id, Prefixes: []netip.Prefix{p}, Egress: []string{"*"},
		Subnets: []link.Subnet{{Name: "pe", Prefixes: []netip.Prefix{netip.MustParsePrefix("10." + third + ".1.0/24")}}},
	}
}

// service is one of contoso's that everybody sees.
func service(id link.ID) link.Service {
	return link.Service{
		ID: id, Port: 443, Pin: link.PinAddress, ProxyProtocol: link.ProxyOff, Visible: []link.Party{link.Anyone},
		Targets: []link.Target{{Addr: netip.MustParseAddrPort("203.0.113.9:443")}},
	}
}

func (w *world) putNetworkAs(o Op, n link.Network) (Result, error) {
	return w.EditNetwork(w.t.Context(), o, n.ID, func(*link.Snapshot, *link.Network) (*link.Network, error) { return &n, nil })
}

func (w *world) putServiceAs(o Op, v link.Service) (Result, error) {
	return w.EditService(w.t.Context(), o, v.ID, func(*link.Snapshot, *link.Service) (*link.Service, error) { return &v, nil })
}

func (w *world) ask(o Op, id link.ID, a Ask) (Result, error) {
	return w.EditEndpoint(w.t.Context(), o, id, func(*link.Snapshot, *link.Endpoint) (*Ask, error) { return &a, nil })
}

// The objects of a world that is furnished.
const (
	netF  link.ID = subF + "/rg/net"
	svcC  link.ID = subC + "/rg/svc"
	endF  link.ID = subF + "/rg/ep"
	other link.ID = subC + "/rg/other"
)

// furnished returns a world with a network of fabrikam's and a service of contoso's.
func furnished(t *testing.T, with ...func(*Config)) *world {
	t.Helper()
	w := newWorld(t, with...)
	w.ok(w.putNetworkAs(op(Owner, subF), network(netF, "1")))
	w.ok(w.putServiceAs(op(Owner, subC), service(svcC)))
	return w
}

// manual is a request for the service that waits for a decision.
func manual() Ask {
	return Ask{Endpoint: link.Endpoint{Network: netF, Subnet: "pe", Service: svcC}, Manual: true, Message: "please"}
}

// connected returns a furnished world with a connection that is Pending.
func connected(t *testing.T, with ...func(*Config)) *world {
	t.Helper()
	w := furnished(t, with...)
	w.ok(w.ask(op(Owner, subF), endF, manual()))
	return w
}

func (w *world) connection(id link.ID) link.Connection {
	w.t.Helper()
	e := w.state().Endpoint(id)
	if e == nil {
		w.t.Fatalf("no endpoint %s", id)
	}
	return e.Connection
}

func decision(state link.State) Decision {
	return Decision{Endpoint: endF, Service: svcC, State: state}
}
