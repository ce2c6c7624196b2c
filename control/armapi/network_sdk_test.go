package armapi

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v9"
)

// sdk is Azure's SDK for Go, signed in as somebody, on one subscription of the rig.
type sdk struct {
	t           testing.TB
	sub         string
	networks    *armnetwork.VirtualNetworksClient
	subnets     *armnetwork.SubnetsClient
	interfaces  *armnetwork.InterfacesClient
	endpoints   *armnetwork.PrivateEndpointsClient
	groups      *armnetwork.PrivateDNSZoneGroupsClient
	services    *armnetwork.PrivateLinkServicesClient
	balancers   *armnetwork.LoadBalancersClient
	frontends   *armnetwork.LoadBalancerFrontendIPConfigurationsClient
	types       *armnetwork.AvailablePrivateEndpointTypesClient
	transporter *http.Client
}

// token is a credential that has one already.
type token string

// GetToken implements azcore.TokenCredential.
func (k token) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(k), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// sdk returns the clients of somebody. Nothing is tried twice: an answer that the SDK would hide behind a
// second try is a fault.
func (r *rig) sdk(name, sub string) *sdk {
	r.t.Helper()
	f, err := armnetwork.NewClientFactory(sub, token(tokenOf(name)), &arm.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: r.client,
		Retry:     policy.RetryOptions{MaxRetries: -1},
		Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: r.url + "/", Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Endpoint: r.url, Audience: r.url + "/"}}},
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	return &sdk{
		t: r.t, sub: sub, transporter: r.client,
		networks: f.NewVirtualNetworksClient(), subnets: f.NewSubnetsClient(), interfaces: f.NewInterfacesClient(),
		endpoints: f.NewPrivateEndpointsClient(), groups: f.NewPrivateDNSZoneGroupsClient(), services: f.NewPrivateLinkServicesClient(),
		balancers: f.NewLoadBalancersClient(), frontends: f.NewLoadBalancerFrontendIPConfigurationsClient(), types: f.NewAvailablePrivateEndpointTypesClient(),
	}
}

// done waits for an operation of the SDK, as in done(client.BeginX(...)).
func done[T any](ctx context.Context) func(p *runtime.Poller[T], err error) (T, error) {
	return func(p *runtime.Poller[T], err error) (T, error) {
		if err != nil {
			var zero T
			return zero, err
		}
		return p.PollUntilDone(ctx, nil)
	}
}

// all reads all pages.
func all[T any](t testing.TB, p *runtime.Pager[T]) []T {
	t.Helper()
	var pages []T
	for p.More() {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, page)
	}
	return pages
}

// succeed fails the test unless err is nil.
func succeed[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// refused fails the test unless err is the SDK's error of a status and code.
func refused(t testing.TB, err error, status int, code string) {
	t.Helper()
	var e *azcore.ResponseError
	if !errors.As(err, &e) || e.StatusCode != status || e.ErrorCode != code {
		t.Errorf("%v, want %d %s", err, status, code)
	}
}

// with returns a context in which requests of the SDK carry a header.
func with(ctx context.Context, name, value string) context.Context {
	return policy.WithHTTPHeader(ctx, http.Header{name: {value}})
}

// The resources of the tests, as a user of the SDK writes them.

func vnetBody(prefix string, subnets ...*armnetwork.Subnet) armnetwork.VirtualNetwork {
	return armnetwork.VirtualNetwork{Location: to.Ptr("local"), Properties: &armnetwork.VirtualNetworkPropertiesFormat{
		AddressSpace: &armnetwork.AddressSpace{AddressPrefixes: []*string{&prefix}}, Subnets: subnets}}
}

func subnetBody(name, prefix string) *armnetwork.Subnet {
	return &armnetwork.Subnet{Name: &name, Properties: &armnetwork.SubnetPropertiesFormat{AddressPrefix: &prefix,
		PrivateLinkServiceNetworkPolicies: to.Ptr(armnetwork.VirtualNetworkPrivateLinkServiceNetworkPoliciesDisabled)}}
}

// armPath is the resource ID of something in group rg.
func armPath(sub, rest string) string {
	return "/subscriptions/" + sub + "/resourceGroups/rg/providers/Microsoft.Network/" + rest
}

// serviceBody is a service at one address, whose NAT address is the node's.
func serviceBody(sub, dest string, visible ...*string) armnetwork.PrivateLinkService {
	return armnetwork.PrivateLinkService{Location: to.Ptr("local"), Properties: &armnetwork.PrivateLinkServiceProperties{
		DestinationIPAddress: &dest,
		Fqdns:                []*string{to.Ptr("db.contoso.example")},
		Visibility:           &armnetwork.PrivateLinkServicePropertiesVisibility{Subscriptions: visible},
		IPConfigurations: []*armnetwork.PrivateLinkServiceIPConfiguration{{Name: to.Ptr("nat"), Properties: &armnetwork.PrivateLinkServiceIPConfigurationProperties{
			Primary: to.Ptr(true), PrivateIPAllocationMethod: to.Ptr(armnetwork.IPAllocationMethodDynamic),
			Subnet: &armnetwork.Subnet{ID: to.Ptr(armPath(sub, "virtualNetworks/provider/subnets/nat"))}}}},
	}}
}

// endpointBody asks for a service by alias or ID, with a decision of the provider where manual.
func endpointBody(sub, service string, manual bool) armnetwork.PrivateEndpoint {
	c := []*armnetwork.PrivateLinkServiceConnection{{Name: to.Ptr("conn"), Properties: &armnetwork.PrivateLinkServiceConnectionProperties{PrivateLinkServiceID: &service}}}
	p := &armnetwork.PrivateEndpointProperties{Subnet: &armnetwork.Subnet{ID: to.Ptr(armPath(sub, "virtualNetworks/corp/subnets/pe"))}}
	if p.PrivateLinkServiceConnections = c; manual {
		c[0].Properties.RequestMessage = to.Ptr("let us in")
		p.PrivateLinkServiceConnections, p.ManualPrivateLinkServiceConnections = nil, c
	}
	return armnetwork.PrivateEndpoint{Location: to.Ptr("local"), Properties: p}
}

// neighbours is a rig with a provider's and a consumer's network, each with a group rg.
func neighbours(t testing.TB) (r *rig, provider, consumer *sdk) {
	t.Helper()
	r = newRig(t)
	r.putGroup("contoso", contosoSub, "rg")
	r.putGroup("fabrikam", fabrikamSub, "rg")
	provider, consumer = r.sdk("contoso", contosoSub), r.sdk("fabrikam", fabrikamSub)
	ctx := t.Context()
	succeed[armnetwork.VirtualNetworksClientCreateOrUpdateResponse](t)(done[armnetwork.VirtualNetworksClientCreateOrUpdateResponse](ctx)(
		provider.networks.BeginCreateOrUpdate(ctx, "rg", "provider", vnetBody("10.20.0.0/16", subnetBody("nat", "10.20.1.0/24")), nil)))
	corp := vnetBody("10.1.0.0/16", subnetBody("pe", "10.1.1.0/24"))
	corp.Tags = map[string]*string{"postern-egress": to.Ptr("*")}
	succeed[armnetwork.VirtualNetworksClientCreateOrUpdateResponse](t)(done[armnetwork.VirtualNetworksClientCreateOrUpdateResponse](ctx)(
		consumer.networks.BeginCreateOrUpdate(ctx, "rg", "corp", corp, nil)))
	return r, provider, consumer
}

// publish makes a service.
func (s *sdk) publish(name string, body armnetwork.PrivateLinkService) armnetwork.PrivateLinkService {
	s.t.Helper()
	ctx := s.t.Context()
	return succeed[armnetwork.PrivateLinkServicesClientCreateOrUpdateResponse](s.t)(done[armnetwork.PrivateLinkServicesClientCreateOrUpdateResponse](ctx)(
		s.services.BeginCreateOrUpdate(ctx, "rg", name, body, nil))).PrivateLinkService
}

// ask makes an endpoint, or changes it.
func (s *sdk) ask(name string, body armnetwork.PrivateEndpoint) (armnetwork.PrivateEndpoint, error) {
	ctx := s.t.Context()
	got, err := done[armnetwork.PrivateEndpointsClientCreateOrUpdateResponse](ctx)(s.endpoints.BeginCreateOrUpdate(ctx, "rg", name, body, nil))
	return got.PrivateEndpoint, err
}
