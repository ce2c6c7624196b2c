package armapi

import (
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
)

// TestSameDecisionReworded (A06): the same decision with another description is stored, on both sides at once, as one
// entry of the audit; the same with the same, or with what the API itself put there, changes nothing.
func TestSameDecisionReworded(t *testing.T) {
	r, provider, consumer := neighbours(t)
	pls := provider.publish("db", serviceBody(contosoSub, "10.20.0.5", to.Ptr("*")))
	e, err := consumer.ask("pe1", endpointBody(fabrikamSub, *pls.Properties.Alias, true))
	if err != nil {
		t.Fatal(err)
	}
	nic := *e.Properties.NetworkInterfaces[0].ID
	path := armPath(contosoSub, "privateLinkServices/db/privateEndpointConnections/pe1."+nic[strings.LastIndex(nic, ".")+1:])
	revision := func() uint64 {
		s, err := r.store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Revision()
	}
	for _, tt := range []struct {
		name, who, status, description string
		more                           string // properties
		entries                        uint64
		shown                          string
	}{
		{"first", "contoso", "Approved", "ticket 7", "", 1, "ticket 7"},
		{"same", "contoso", "Approved", "ticket 7", "", 0, "ticket 7"},
		{"same by another", "contoso-approver", "Approved", "ticket 7", "", 0, "ticket 7"},
		{"other words", "contoso-approver", "Approved", "ticket 8", "", 1, "ticket 8"},
		{"other words again", "contoso-approver", "Approved", "ticket 8", "", 0, "ticket 8"},
		{"no words", "contoso", "Approved", "", "", 0, "ticket 8"},
		{"lasting", "contoso", "Approved", "", `,"lasting":true`, 1, "ticket 8"},
		{"rejected", "contoso", "Rejected", "over", "", 1, "over"},
		{"rejected in other words", "contoso", "Rejected", "really", "", 1, "really"},
	} {
		before := revision()
		var got serviceConnection
		r.do(tt.who, "PUT", path, `{"properties":{"privateLinkServiceConnectionState":{"status":"`+tt.status+`","description":"`+tt.description+`"}`+tt.more+`}}`).want(200).into(&got)
		if n := revision() - before; n != tt.entries || got.Properties.State.Description != tt.shown {
			t.Errorf("%s: %d entries, want %d; %+v, want %q", tt.name, n, tt.entries, got.Properties.State, tt.shown)
		}
		mine, err := consumer.endpoints.Get(t.Context(), "rg", "pe1", nil)
		if err != nil {
			t.Fatal(err)
		}
		stateIs(t, connectionOf(mine.PrivateEndpoint).Properties.PrivateLinkServiceConnectionState, tt.status, tt.shown)
	}

	// What a rule has approved isn't a person's decision because somebody put it back as it was read.
	r.do("contoso", "PUT", armPath(contosoSub, "privateLinkServices/auto"), `{"location":"local","properties":{"destinationIPAddress":"10.20.0.6",
		"visibility":{"subscriptions":["*"]},"autoApproval":{"subscriptions":["*"]},"ipConfigurations":[{"name":"nat"}]}}`).want(201)
	if _, err := consumer.ask("pe2", endpointBody(fabrikamSub, armPath(contosoSub, "privateLinkServices/auto"), true)); err != nil {
		t.Fatal(err)
	}
	var list struct{ Value []serviceConnection }
	r.do("contoso", "GET", armPath(contosoSub, "privateLinkServices/auto/privateEndpointConnections"), nil).want(200).into(&list)
	before := revision()
	r.do("contoso", "PUT", list.Value[0].ID, list.Value[0]).want(200)
	if revision() != before || list.Value[0].Properties.State.Description != autoApproved {
		t.Errorf("put back as it was read, %+v has made %d entries", list.Value[0].Properties.State, revision()-before)
	}
}
