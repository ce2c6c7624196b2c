package armapi

import (
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v9"
)

// connectionOf returns the consumer's half.
func connectionOf(e armnetwork.PrivateEndpoint) *armnetwork.PrivateLinkServiceConnection {
	return append(e.Properties.ManualPrivateLinkServiceConnections, e.Properties.PrivateLinkServiceConnections...)[0]
}

func stateIs(t *testing.T, got *armnetwork.PrivateLinkServiceConnectionState, status, description string) {
	t.Helper()
	if *got.Status != status || *got.Description != description || *got.ActionsRequired != "None" {
		t.Errorf("state %s %q %q, want %s %q", *got.Status, *got.Description, *got.ActionsRequired, status, description)
	}
}

// TestLifeOfAConnection takes two tenants who have never met through it, with Azure's SDK.
func TestLifeOfAConnection(t *testing.T) {
	r, provider, consumer := neighbours(t)
	ctx := t.Context()
	pls := provider.publish("db", serviceBody(contosoSub, "10.20.0.4", to.Ptr("*")))
	if !strings.HasSuffix(*pls.Properties.Alias, ".azure.privatelinkservice") || *pls.Properties.ProvisioningState != "Succeeded" {
		t.Fatalf("service %+v", pls.Properties)
	}

	// Asked for by alias: Pending, with an address and an interface, and nothing else.
	e, err := consumer.ask("pe1", endpointBody(fabrikamSub, *pls.Properties.Alias, true))
	if err != nil {
		t.Fatal(err)
	}
	c := connectionOf(e)
	stateIs(t, c.Properties.PrivateLinkServiceConnectionState, "Pending", "Awaiting approval")
	if *c.Properties.PrivateLinkServiceID != *pls.Properties.Alias || *c.Properties.RequestMessage != "let us in" || len(e.Properties.CustomDNSConfigs) != 0 {
		t.Errorf("connection %+v, DNS %v", c.Properties, e.Properties.CustomDNSConfigs)
	}
	nicID := *e.Properties.NetworkInterfaces[0].ID
	nic, err := consumer.interfaces.Get(ctx, "rg", nicID[strings.LastIndex(nicID, "/")+1:], nil)
	if err != nil {
		t.Fatal(err)
	}
	if a := *nic.Properties.IPConfigurations[0].Properties.PrivateIPAddress; a != "10.1.1.4" || *nic.Properties.PrivateEndpoint.ID != *e.ID {
		t.Errorf("interface %s has %s", nicID, a)
	}

	// The provider sees it in the list and in the service.
	pages := all(t, provider.services.NewListPrivateEndpointConnectionsPager("rg", "db", nil))
	if len(pages) != 1 || len(pages[0].Value) != 1 {
		t.Fatalf("connections %+v", pages)
	}
	conn := pages[0].Value[0]
	stateIs(t, conn.Properties.PrivateLinkServiceConnectionState, "Pending", "let us in")
	if !strings.HasPrefix(*conn.Name, "pe1.") || *conn.Properties.PrivateEndpoint.ID != *e.ID || *conn.Properties.LinkIdentifier == "0" {
		t.Errorf("connection %+v", conn)
	}

	// Approved, with what was read sent back: get, change, put.
	decide := func(status, text string) (armnetwork.PrivateEndpointConnection, error) {
		got, err := provider.services.UpdatePrivateEndpointConnection(ctx, "rg", "db", *conn.Name, armnetwork.PrivateEndpointConnection{
			Properties: &armnetwork.PrivateEndpointConnectionProperties{PrivateLinkServiceConnectionState: &armnetwork.PrivateLinkServiceConnectionState{Status: &status, Description: &text}}}, nil)
		return got.PrivateEndpointConnection, err
	}
	conn.Properties.PrivateLinkServiceConnectionState = &armnetwork.PrivateLinkServiceConnectionState{Status: to.Ptr("Approved"), Description: to.Ptr("fine")}
	got, err := provider.services.UpdatePrivateEndpointConnection(with(ctx, "If-Match", *conn.Etag), "rg", "db", *conn.Name, *conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	stateIs(t, got.Properties.PrivateLinkServiceConnectionState, "Approved", "fine")
	// A06: the same again, because the first answer was lost, has the same result.
	same, err := provider.services.UpdatePrivateEndpointConnection(with(ctx, "If-Match", *conn.Etag), "rg", "db", *conn.Name, *conn, nil)
	if err != nil || *same.Etag != *got.Etag {
		t.Errorf("approved twice: %v, %v", same.Etag, err)
	}
	// A05: another decision with that If-Match is about a state that has changed.
	other := *conn
	other.Properties = &armnetwork.PrivateEndpointConnectionProperties{PrivateLinkServiceConnectionState: &armnetwork.PrivateLinkServiceConnectionState{Status: to.Ptr("Rejected")}}
	_, err = provider.services.UpdatePrivateEndpointConnection(with(ctx, "If-Match", *conn.Etag), "rg", "db", *conn.Name, other, nil)
	refused(t, err, 412, "PreconditionFailed")
	view, err := consumer.endpoints.Get(ctx, "rg", "pe1", nil)
	if err != nil {
		t.Fatal(err)
	}
	stateIs(t, connectionOf(view.PrivateEndpoint).Properties.PrivateLinkServiceConnectionState, "Approved", "fine")
	if dns := view.Properties.CustomDNSConfigs; len(dns) != 1 || *dns[0].Fqdn != "db.contoso.example" || *dns[0].IPAddresses[0] != "10.1.1.4" {
		t.Errorf("DNS of the approved endpoint: %+v", dns)
	}

	// Rejected after all, and approved again: the same connection.
	decided, err := decide("Rejected", "")
	if err != nil {
		t.Fatal(err)
	}
	stateIs(t, decided.Properties.PrivateLinkServiceConnectionState, "Rejected", "")
	if decided, err = decide("Approved", ""); err != nil || *decided.Properties.LinkIdentifier != *conn.Properties.LinkIdentifier {
		t.Fatalf("%+v, %v", decided.Properties, err)
	}
	_, err = decide("Disconnected", "")
	refused(t, err, 400, "InvalidRequestFormat")

	// The service can't go while it has connections.
	_, err = done[armnetwork.PrivateLinkServicesClientDeleteResponse](ctx)(provider.services.BeginDelete(ctx, "rg", "db", nil))
	refused(t, err, 400, "PrivateLinkServiceWithPrivateEndpointConnectionsCannotBeDeleted")
	if err == nil || !strings.Contains(err.Error(), "1 private endpoint connection.") {
		t.Errorf("%v", err)
	}

	// Removed: gone for the provider, Disconnected for the consumer, who puts again and stays so.
	for range 2 {
		if _, err := done[armnetwork.PrivateLinkServicesClientDeletePrivateEndpointConnectionResponse](ctx)(provider.services.BeginDeletePrivateEndpointConnection(ctx, "rg", "db", *conn.Name, nil)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = provider.services.GetPrivateEndpointConnection(ctx, "rg", "db", *conn.Name, nil)
	refused(t, err, 404, "ResourceNotFound")
	_, err = decide("Approved", "")
	refused(t, err, 404, "ResourceNotFound")
	view, err = consumer.endpoints.Get(ctx, "rg", "pe1", nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := consumer.ask("pe1", view.PrivateEndpoint)
	if err != nil || *connectionOf(again).Properties.PrivateLinkServiceConnectionState.Status != "Disconnected" || *again.Etag != *view.Etag {
		t.Fatalf("%+v, %v", again.Properties, err)
	}

	// Asked again: a new link ID under the same name. A decision on the old one is refused (A20).
	endpoint := r.control
	caller, err := r.directory.Authenticate(ctx, credential("fabrikam"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := endpoint.AskAgain(ctx, opOf(caller), fabrikamSub+"/rg/pe1", "please"); err != nil {
		t.Fatal(err)
	}
	_, err = provider.services.UpdatePrivateEndpointConnection(ctx, "rg", "db", *conn.Name, *conn, nil)
	refused(t, err, 412, "PreconditionFailed")
	if now, err := provider.services.GetPrivateEndpointConnection(ctx, "rg", "db", *conn.Name, nil); err != nil || *now.Properties.LinkIdentifier == *conn.Properties.LinkIdentifier || *now.Properties.PrivateLinkServiceConnectionState.Status != "Pending" {
		t.Errorf("after asking again: %+v, %v", now.Properties, err)
	}

	// The endpoint goes, and with it all that was made with it.
	for range 2 {
		if _, err := done[armnetwork.PrivateEndpointsClientDeleteResponse](ctx)(consumer.endpoints.BeginDelete(ctx, "rg", "pe1", nil)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = consumer.interfaces.Get(ctx, "rg", nicID[strings.LastIndex(nicID, "/")+1:], nil)
	refused(t, err, 404, "ResourceNotFound")
	for range 2 {
		if _, err := done[armnetwork.PrivateLinkServicesClientDeleteResponse](ctx)(provider.services.BeginDelete(ctx, "rg", "db", nil)); err != nil {
			t.Fatal(err)
		}
	}
}
