package armapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// TestConcurrentAddresses (S14, A11, trap 9): requests at once never get one address twice, and as many
// get one as there are.
func TestConcurrentAddresses(t *testing.T) {
	_, provider, consumer := neighbours(t)
	if err := consumer.putSubnet(t.Context(), "corp", subnetBody("small", "10.1.2.0/27")); err != nil {
		t.Fatal(err)
	}
	pls := provider.publish("db", serviceBody(contosoSub, "10.20.0.4", to.Ptr("*")))
	const clients, room = 50, 32 - 5
	body := endpointBody(fabrikamSub, *pls.Properties.Alias, true)
	body.Properties.Subnet.ID = to.Ptr(armPath(fabrikamSub, "virtualNetworks/corp/subnets/small"))
	var wait sync.WaitGroup
	errs := make([]error, clients)
	for i := range clients {
		wait.Go(func() { _, errs[i] = consumer.ask(fmt.Sprint("pe", i), body) })
	}
	wait.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
			continue
		}
		refused(t, err, 400, "SubnetIsFull")
	}
	addresses := map[string]int{}
	for _, page := range all(t, consumer.interfaces.NewListAllPager(nil)) {
		for _, n := range page.Value {
			addresses[*n.Properties.IPConfigurations[0].Properties.PrivateIPAddress]++
		}
	}
	if made != room || len(addresses) != room {
		t.Errorf("%d requests were served with %d addresses, want %d", made, len(addresses), room)
	}
}

// TestContendedConnection (A07): many clients approve, reject, remove and ask again at once. No answer is a
// fault of ours, and the audit tells one history: what each change found is what the one before it left.
func TestContendedConnection(t *testing.T) {
	r, provider, consumer := neighbours(t)
	ctx := t.Context()
	pls := provider.publish("db", serviceBody(contosoSub, "10.20.0.4", to.Ptr("*")))
	e, err := consumer.ask("pe1", endpointBody(fabrikamSub, *pls.Properties.Alias, true))
	if err != nil {
		t.Fatal(err)
	}
	nicID := *e.Properties.NetworkInterfaces[0].ID
	name := "pe1." + nicID[len(nicID)-36:]
	caller, err := r.directory.Authenticate(ctx, credential("fabrikam"))
	if err != nil {
		t.Fatal(err)
	}
	put := func(status string) error {
		_, err := provider.services.UpdatePrivateEndpointConnection(ctx, "rg", "db", name, approval(status), nil)
		return err
	}
	acts := []func() error{
		func() error { return put("Approved") },
		func() error { return put("Rejected") },
		func() error {
			_, err := provider.services.BeginDeletePrivateEndpointConnection(ctx, "rg", "db", name, nil)
			return err
		},
		func() error {
			_, err := r.control.AskAgain(ctx, control.Op{Caller: caller}, fabrikamSub+"/rg/pe1", "")
			if errors.Is(err, link.ErrConflict) { // it isn't Disconnected
				return nil
			}
			return err
		},
	}
	var wait sync.WaitGroup
	for i := range 100 {
		wait.Go(func() {
			err := acts[i%len(acts)]()
			var answered *azcore.ResponseError
			if err == nil || errors.As(err, &answered) && slices.Contains([]int{http.StatusNotFound, http.StatusPreconditionFailed}, answered.StatusCode) {
				return
			}
			t.Errorf("client %d: %v", i, err)
		})
	}
	wait.Wait()

	object := "endpoint/" + fabrikamSub + "/rg/pe1"
	var revision uint64
	var last json.RawMessage
	changes := 0
	for entry, err := range r.store.Audit(ctx, 1) {
		if err != nil {
			t.Fatal(err)
		}
		if entry.Revision <= revision {
			t.Errorf("revision %d after %d", entry.Revision, revision)
		}
		revision = entry.Revision
		for _, d := range entry.Diffs {
			if d.Object != object {
				continue
			}
			if changes++; string(d.Before) != string(last) {
				t.Errorf("revision %d found\n%s, the one before it left\n%s", entry.Revision, d.Before, last)
			}
			last = d.After
		}
	}
	s, err := r.store.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if now, err := json.Marshal(s.Endpoint(fabrikamSub + "/rg/pe1")); err != nil || string(now) != string(last) || changes < 2 {
		t.Errorf("%d changes lead to\n%s, the state is\n%s", changes, last, now)
	}
}
