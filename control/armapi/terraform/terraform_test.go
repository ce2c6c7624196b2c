package terraform

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-azure-helpers/resourcemanager/commonids"
	"github.com/hashicorp/go-azure-sdk/resource-manager/network/2025-05-01/networkinterfaces"
	"github.com/hashicorp/go-azure-sdk/resource-manager/network/2025-05-01/privatednszonegroups"
	"github.com/hashicorp/go-azure-sdk/resource-manager/network/2025-05-01/privateendpoints"
	"github.com/hashicorp/go-azure-sdk/resource-manager/network/2025-05-01/privatelinkservices"
	"github.com/hashicorp/go-azure-sdk/resource-manager/network/2025-05-01/virtualnetworks"
	"github.com/hashicorp/go-azure-sdk/resource-manager/privatedns/2024-06-01/privatezones"
	"github.com/hashicorp/go-azure-sdk/resource-manager/resources/2025-04-01/resourcegroups"
	"github.com/hashicorp/go-azure-sdk/sdk/auth"
	"github.com/hashicorp/go-azure-sdk/sdk/client/resourcemanager"
	"github.com/hashicorp/go-azure-sdk/sdk/environments"

	"github.com/postern-link/postern/control/armapi"
	"github.com/postern-link/postern/control/internal/controltest"
)

const (
	sub      = "0b000000-0000-4000-8000-000000000001"
	tenant   = "0b000000-0000-4000-8000-0000000000ff"
	clientID = "0b000000-0000-4000-8000-0000000000cc"
	secret   = "pcs_GLsx3uIqLZkv7m1GnM2rC8mB7tS0cYb6o9dWQxJfE4I"
	group    = "Site"
)

// identities has one tenant, whose owner signs in as Terraform's provider does.
func identities() string {
	sum := sha256.Sum256([]byte(secret))
	return `{"tenants":[{"name":"contoso","id":"` + tenant + `","subscriptions":[{"id":"` + sub + `","name":"Contoso"}],"domains":["contoso.example"]}],
		"identities":[{"name":"terraform","tenant":"contoso","roles":[{"subscription":"*","role":"owner"}],
			"client":{"id":"` + clientID + `","secrets":[{"sha256":"` + hex.EncodeToString(sum[:]) + `"}]}}]}`
}

// start returns the URL of an API over TLS whose certificate this process trusts: the SDK has no setting
// for that, nor has Terraform.
func start(t *testing.T) string {
	t.Helper()
	w := controltest.Start(t, identities(), nil, nil)
	api, err := armapi.New(armapi.Config{Control: w.Control, Directory: w.Directory})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(api)
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file) // read once, when the process first verifies a certificate
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	return server.URL
}

// from reads a body of the SDK's from JSON: its own types are pointers to pointers.
func from[T any](t *testing.T, text string, args ...any) (v T) {
	t.Helper()
	if err := json.Unmarshal(fmt.Appendf(nil, text, args...), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// clients are those of a plan that makes a service and an endpoint of it.
type clients struct {
	groups     *resourcegroups.ResourceGroupsClient
	networks   *virtualnetworks.VirtualNetworksClient
	services   *privatelinkservices.PrivateLinkServicesClient
	endpoints  *privateendpoints.PrivateEndpointsClient
	interfaces *networkinterfaces.NetworkInterfacesClient
	zones      *privatezones.PrivateZonesClient
	zoneGroups *privatednszonegroups.PrivateDnsZoneGroupsClient
}

// signIn does what the provider does before it plans: discovery at metadata_host, then the client
// credentials grant.
func signIn(t *testing.T, url string) *clients {
	t.Helper()
	ctx := t.Context()
	env, err := environments.FromEndpoint(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	authorizer, err := auth.NewAuthorizerFromCredentials(ctx, auth.Credentials{Environment: *env, TenantID: tenant, ClientID: clientID,
		EnableAuthenticatingUsingClientSecret: true, ClientSecret: secret}, env.ResourceManager)
	if err != nil {
		t.Fatal(err)
	}
	c := &clients{}
	c.groups = made(t, resourcegroups.NewResourceGroupsClientWithBaseURI, env, authorizer, func(c *resourcegroups.ResourceGroupsClient) *resourcemanager.Client { return c.Client })
	c.networks = made(t, virtualnetworks.NewVirtualNetworksClientWithBaseURI, env, authorizer, func(c *virtualnetworks.VirtualNetworksClient) *resourcemanager.Client { return c.Client })
	c.services = made(t, privatelinkservices.NewPrivateLinkServicesClientWithBaseURI, env, authorizer, func(c *privatelinkservices.PrivateLinkServicesClient) *resourcemanager.Client { return c.Client })
	c.endpoints = made(t, privateendpoints.NewPrivateEndpointsClientWithBaseURI, env, authorizer, func(c *privateendpoints.PrivateEndpointsClient) *resourcemanager.Client { return c.Client })
	c.interfaces = made(t, networkinterfaces.NewNetworkInterfacesClientWithBaseURI, env, authorizer, func(c *networkinterfaces.NetworkInterfacesClient) *resourcemanager.Client { return c.Client })
	c.zones = made(t, privatezones.NewPrivateZonesClientWithBaseURI, env, authorizer, func(c *privatezones.PrivateZonesClient) *resourcemanager.Client { return c.Client })
	c.zoneGroups = made(t, privatednszonegroups.NewPrivateDnsZoneGroupsClientWithBaseURI, env, authorizer, func(c *privatednszonegroups.PrivateDnsZoneGroupsClient) *resourcemanager.Client { return c.Client })
	return c
}

// made returns a client that is signed in.
func made[C any](t *testing.T, create func(environments.Api) (*C, error), env *environments.Environment, a auth.Authorizer, base func(*C) *resourcemanager.Client) *C {
	t.Helper()
	c, err := create(env.ResourceManager)
	if err != nil {
		t.Fatal(err)
	}
	base(c).Client.SetAuthorizer(a)
	return c
}

// TestPlan applies and destroys what a small configuration of Terraform's says, with the pollers of its
// provider. They wait 10 s before they look unless the answer says that it is final: the bound of the test
// is less than two such waits.
func TestPlan(t *testing.T) {
	begin := time.Now()
	c := signIn(t, start(t))
	ctx := patient(t)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	groupID := commonids.NewResourceGroupID(sub, group)
	_, err := c.groups.CreateOrUpdate(ctx, groupID, resourcegroups.ResourceGroup{Location: "local"})
	ok(err)
	networkID := commonids.NewVirtualNetworkID(sub, group, "Corp")
	ok(c.networks.CreateOrUpdateThenPoll(ctx, networkID, from[virtualnetworks.VirtualNetwork](t,
		`{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.1.0.0/16"]},"subnets":[{"name":"pe","properties":{"addressPrefix":"10.1.1.0/24"}}]}}`)))
	serviceID := privatelinkservices.NewPrivateLinkServiceID(sub, group, "Sql")
	ok(c.services.CreateOrUpdateThenPoll(ctx, serviceID, from[privatelinkservices.PrivateLinkService](t,
		`{"location":"local","tags":{"postern-port":"1433"},"properties":{"destinationIPAddress":"10.20.0.66","fqdns":["db.contoso.example"],
		"visibility":{"subscriptions":["%s"]},"autoApproval":{"subscriptions":["%s"]},"ipConfigurations":[{"name":"nat","properties":{"primary":true,"privateIPAllocationMethod":"Dynamic"}}]}}`, sub, sub)))
	zoneID := privatezones.NewPrivateDnsZoneID(sub, group, "privatelink.contoso.example")
	ok(c.zones.CreateOrUpdateThenPoll(ctx, zoneID, from[privatezones.PrivateZone](t, `{"location":"global"}`), privatezones.DefaultCreateOrUpdateOperationOptions()))

	endpointID := privateendpoints.NewPrivateEndpointID(sub, group, "To-Sql")
	ok(c.endpoints.CreateOrUpdateThenPoll(ctx, endpointID, from[privateendpoints.PrivateEndpoint](t,
		`{"location":"local","properties":{"subnet":{"id":"%s/subnets/pe"},"privateLinkServiceConnections":[{"name":"sql","properties":{"privateLinkServiceId":"%s"}}]}}`, networkID.ID(), serviceID.ID())))
	e, err := c.endpoints.Get(ctx, endpointID, privateendpoints.DefaultGetOperationOptions())
	ok(err)
	connection := (*e.Model.Properties.PrivateLinkServiceConnections)[0].Properties
	if *connection.PrivateLinkServiceConnectionState.Status != "Approved" || *e.Model.Id != endpointID.ID() {
		t.Fatalf("endpoint %s, connection %+v", *e.Model.Id, *connection.PrivateLinkServiceConnectionState)
	}
	interfaceID, err := commonids.ParseNetworkInterfaceID(*(*e.Model.Properties.NetworkInterfaces)[0].Id)
	ok(err)
	nic, err := c.interfaces.Get(ctx, *interfaceID, networkinterfaces.DefaultGetOperationOptions())
	ok(err)
	if addr := *(*nic.Model.Properties.IPConfigurations)[0].Properties.PrivateIPAddress; addr != "10.1.1.4" {
		t.Errorf("the endpoint has address %s", addr)
	}
	zoneGroupID := privatednszonegroups.NewPrivateDnsZoneGroupID(sub, group, "To-Sql", "default")
	ok(c.zoneGroups.CreateOrUpdateThenPoll(ctx, zoneGroupID, from[privatednszonegroups.PrivateDnsZoneGroup](t,
		`{"name":"default","properties":{"privateDnsZoneConfigs":[{"name":"contoso","properties":{"privateDnsZoneId":"%s"}}]}}`, zoneID.ID())))
	g, err := c.zoneGroups.Get(ctx, zoneGroupID)
	ok(err)
	if configs := *g.Model.Properties.PrivateDnsZoneConfigs; len(configs) != 1 || *configs[0].Properties.PrivateDnsZoneId != zoneID.ID() {
		t.Errorf("zone group %+v", configs)
	}
	destroy(t, c, groupID, []step{
		{"zone group", func(ctx context.Context) error { return c.zoneGroups.DeleteThenPoll(ctx, zoneGroupID) }},
		{"endpoint", func(ctx context.Context) error { return c.endpoints.DeleteThenPoll(ctx, endpointID) }},
		{"zone", func(ctx context.Context) error {
			return c.zones.DeleteThenPoll(ctx, zoneID, privatezones.DefaultDeleteOperationOptions())
		}},
		{"service", func(ctx context.Context) error { return c.services.DeleteThenPoll(ctx, serviceID) }},
		{"network", func(ctx context.Context) error { return c.networks.DeleteThenPoll(ctx, networkID) }},
	})
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %v: the pollers wait", took)
	}
}

// patient is a context with an end, which the pollers want.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// step is one thing that is deleted.
type step struct {
	name string
	do   func(context.Context) error
}

// destroy deletes in the order of a plan, and the group last, which the provider looks into before.
func destroy(t *testing.T, c *clients, groupID commonids.ResourceGroupId, steps []step) {
	t.Helper()
	ctx := patient(t)
	if err := c.groups.DeleteThenPoll(ctx, groupID, resourcegroups.DefaultDeleteOperationOptions()); err == nil || !strings.Contains(err.Error(), "ResourceGroupNotEmpty") {
		t.Errorf("deleting a group with resources: %v", err)
	}
	for _, s := range steps {
		if err := s.do(ctx); err != nil {
			t.Fatalf("deleting the %s: %v", s.name, err)
		}
	}
	if err := c.groups.DeleteThenPoll(ctx, groupID, resourcegroups.DefaultDeleteOperationOptions()); err != nil {
		t.Fatal(err)
	}
}
