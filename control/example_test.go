package control_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/bolt"
)

// tenants are two that have a subscription each.
type tenants struct{}

func (tenants) Tenants() []control.Tenant {
	return []control.Tenant{
		{Name: "contoso", ID: "6f1e…", Subscriptions: []control.Subscription{{ID: "sub-c"}}, Domains: []link.Name{"contoso.example"}},
		{Name: "fabrikam", ID: "90ab…", Subscriptions: []control.Subscription{{ID: "sub-f"}}},
	}
}

func (t tenants) SubscriptionOwner(sub string) (control.Tenant, bool) {
	for _, tenant := range t.Tenants() {
		if tenant.Subscriptions[0].ID == sub {
			return tenant, true
		}
	}
	return control.Tenant{}, false
}

// A provider publishes, a consumer asks, the provider approves, and cuts.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "postern")
	check(err)
	defer os.RemoveAll(dir)
	state, err := bolt.Open(filepath.Join(dir, "state"), bolt.Options{})
	check(err)
	defer state.Close()
	c := control.New(control.Config{
		Store: state, Tenants: tenants{},
		Snapshot: func() *link.Snapshot { s, _ := state.Load(ctx); return s },
	})
	provider := control.Op{Caller: control.Caller{Name: "pat", Grants: []control.Grant{{Subscription: "sub-c", Role: control.Owner}}}}
	consumer := control.Op{Caller: control.Caller{Name: "kim", Grants: []control.Grant{{Subscription: "sub-f", Role: control.Consumer}}}}

	// An edit gets the object as it is at the commit, and says how it shall be.
	_, err = c.EditService(ctx, provider, "sub-c/rg/sql", func(_ *link.Snapshot, old *link.Service) (*link.Service, error) {
		if old != nil {
			return nil, control.ErrPrecondition
		}
		return &link.Service{
			Names: []link.ResourceName{{Public: "sql.contoso.example"}}, Pin: link.PinTLS,
			Port: 1433, Targets: []link.Target{{Addr: netip.MustParseAddrPort("203.0.113.4:1433")}},
			ProxyProtocol: link.ProxyAzure, Visible: []link.Party{link.Anyone},
		}, nil
	})
	check(err)
	s, err := c.View(provider.Caller, "sub-c")
	check(err)
	alias := s.Service("sub-c/rg/sql").Alias // what the provider gives to the consumer

	_, err = c.EditNetwork(ctx, consumer, "sub-f/rg/corp", func(*link.Snapshot, *link.Network) (*link.Network, error) {
		return &link.Network{
			Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
			Subnets:  []link.Subnet{{Name: "pe", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.9.0/24")}}},
			Egress:   []string{"tenant/contoso"},
		}, nil
	})
	check(err)
	r, err := c.EditEndpoint(ctx, consumer, "sub-f/rg/sql", func(*link.Snapshot, *link.Endpoint) (*control.Ask, error) {
		return &control.Ask{
			Endpoint: link.Endpoint{Network: "sub-f/rg/corp", Subnet: "pe"}, Alias: alias,
			Manual: true, Message: "for the shop",
		}, nil
	})
	check(err)
	e := r.Snapshot.Endpoint("sub-f/rg/sql")
	fmt.Println(e.Address, e.Connection.State, e.Connection.Message)

	d := control.Decision{Endpoint: e.ID, Service: e.Service, LinkID: e.Connection.LinkID, State: link.Approved, Reason: "known"}
	_, err = c.Decide(ctx, consumer, d)
	fmt.Println(err)
	r, err = c.Decide(ctx, provider, d)
	check(err)
	fmt.Println(r.Snapshot.Endpoint(e.ID).Connection.State)
	r, err = c.Disconnect(ctx, provider, d)
	check(err)
	fmt.Println(r.Snapshot.Endpoint(e.ID).Connection.State)

	for entry, err := range state.Audit(ctx, 1) {
		check(err)
		if entry.Result == store.Refused {
			fmt.Print("refused: ")
		}
		fmt.Println(entry.Actor, entry.Action, entry.Object)
	}
	// Output:
	// 10.1.9.4 Pending for the shop
	// subscription not found: sub-c
	// Approved
	// Disconnected
	// pat service.put service/sub-c/rg/sql
	// kim network.put network/sub-f/rg/corp
	// kim endpoint.put endpoint/sub-f/rg/sql
	// refused: kim connection.approve endpoint/sub-f/rg/sql
	// pat connection.approve endpoint/sub-f/rg/sql
	// pat connection.remove endpoint/sub-f/rg/sql
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
