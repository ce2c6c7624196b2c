package armapi

import (
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
)

// TestServiceMadeAgain: of a service that is made again under its ID a consumer is shown the alias that it has now, once
// it has asked again, and can put the endpoint back as it is.
func TestServiceMadeAgain(t *testing.T) {
	r, provider, consumer := neighbours(t)
	old := provider.publish("db", serviceBody(contosoSub, "10.20.0.5", to.Ptr("*")))
	if _, err := consumer.ask("pe1", endpointBody(fabrikamSub, *old.Properties.Alias, true)); err != nil {
		t.Fatal(err)
	}
	shown := func() (alias, state string) {
		e, err := consumer.endpoints.Get(t.Context(), "rg", "pe1", nil)
		if err != nil {
			t.Fatal(err)
		}
		c := connectionOf(e.PrivateEndpoint).Properties
		return *c.PrivateLinkServiceID, *c.PrivateLinkServiceConnectionState.Status
	}
	r.do("contoso", "DELETE", armPath(contosoSub, "privateLinkServices/db")+"?force=true", nil).want(200)
	now := provider.publish("db", serviceBody(contosoSub, "10.20.0.5", to.Ptr("*")))
	if alias, state := shown(); alias != *old.Properties.Alias || state != "Disconnected" || alias == *now.Properties.Alias {
		t.Errorf("before it asks again: %s %s", alias, state)
	}
	path := groupPath(fabrikamSub, "rg") + "/providers/Postern.Network/privateEndpoints/pe1/askAgain"
	r.do("fabrikam", "POST", path, map[string]string{}).want(200)
	if alias, state := shown(); alias != *now.Properties.Alias || state != "Pending" {
		t.Errorf("after it asked again: %s %s, want %s", alias, state, *now.Properties.Alias)
	}
	if _, err := consumer.ask("pe1", endpointBody(fabrikamSub, *now.Properties.Alias, true)); err != nil {
		t.Errorf("put back: %v", err)
	}
	if alias, state := shown(); alias != *now.Properties.Alias || state != "Pending" {
		t.Errorf("put back: %s %s", alias, state)
	}
}
