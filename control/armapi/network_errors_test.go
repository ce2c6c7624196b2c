package armapi

import (
	"context"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v9"
)

// Short forms of the SDK's writes, for tables.

func (s *sdk) putVnet(ctx context.Context, group, name string, body armnetwork.VirtualNetwork) error {
	_, err := done[armnetwork.VirtualNetworksClientCreateOrUpdateResponse](ctx)(s.networks.BeginCreateOrUpdate(ctx, group, name, body, nil))
	return err
}

func (s *sdk) putSubnet(ctx context.Context, vnet string, body *armnetwork.Subnet) error {
	_, err := done[armnetwork.SubnetsClientCreateOrUpdateResponse](ctx)(s.subnets.BeginCreateOrUpdate(ctx, "rg", vnet, *body.Name, *body, nil))
	return err
}

func (s *sdk) putService(ctx context.Context, name string, body armnetwork.PrivateLinkService) error {
	_, err := done[armnetwork.PrivateLinkServicesClientCreateOrUpdateResponse](ctx)(s.services.BeginCreateOrUpdate(ctx, "rg", name, body, nil))
	return err
}

func (s *sdk) putBalancer(ctx context.Context, name string, body armnetwork.LoadBalancer) error {
	_, err := done[armnetwork.LoadBalancersClientCreateOrUpdateResponse](ctx)(s.balancers.BeginCreateOrUpdate(ctx, "rg", name, body, nil))
	return err
}

func (s *sdk) putGroup(ctx context.Context, endpoint, name, zone string) error {
	_, err := done[armnetwork.PrivateDNSZoneGroupsClientCreateOrUpdateResponse](ctx)(s.groups.BeginCreateOrUpdate(ctx, "rg", endpoint, name, armnetwork.PrivateDNSZoneGroup{
		Properties: &armnetwork.PrivateDNSZoneGroupPropertiesFormat{PrivateDNSZoneConfigs: []*armnetwork.PrivateDNSZoneConfig{{
			Name: to.Ptr("config"), Properties: &armnetwork.PrivateDNSZonePropertiesFormat{PrivateDNSZoneID: &zone}}}}}, nil))
	return err
}

// balancerBody is a load balancer with a frontend, a pool of backends and one rule.
func balancerBody(sub, name string, port, backendPort int32, backends ...string) armnetwork.LoadBalancer {
	id := armPath(sub, "loadBalancers/"+name)
	pool := &armnetwork.BackendAddressPoolPropertiesFormat{}
	for _, b := range backends {
		pool.LoadBalancerBackendAddresses = append(pool.LoadBalancerBackendAddresses, &armnetwork.LoadBalancerBackendAddress{Name: to.Ptr("b" + b),
			Properties: &armnetwork.LoadBalancerBackendAddressPropertiesFormat{IPAddress: &b}})
	}
	return armnetwork.LoadBalancer{Location: to.Ptr("local"), SKU: &armnetwork.LoadBalancerSKU{Name: to.Ptr(armnetwork.LoadBalancerSKUNameStandard)}, Properties: &armnetwork.LoadBalancerPropertiesFormat{
		FrontendIPConfigurations: []*armnetwork.FrontendIPConfiguration{{Name: to.Ptr("Fe"), Properties: &armnetwork.FrontendIPConfigurationPropertiesFormat{}}},
		BackendAddressPools:      []*armnetwork.BackendAddressPool{{Name: to.Ptr("pool"), Properties: pool}},
		LoadBalancingRules: []*armnetwork.LoadBalancingRule{{Name: to.Ptr("rule"), Properties: &armnetwork.LoadBalancingRulePropertiesFormat{
			Protocol: to.Ptr(armnetwork.TransportProtocolTCP), FrontendPort: &port, BackendPort: &backendPort,
			FrontendIPConfiguration: &armnetwork.SubResource{ID: to.Ptr(id + "/frontendIPConfigurations/Fe")},
			BackendAddressPool:      &armnetwork.SubResource{ID: to.Ptr(id + "/backendAddressPools/pool")}}}},
	}}
}

// behind is a service behind a frontend instead of at an address.
func behind(body armnetwork.PrivateLinkService, frontend string) armnetwork.PrivateLinkService {
	body.Properties.DestinationIPAddress = nil
	body.Properties.LoadBalancerFrontendIPConfigurations = []*armnetwork.FrontendIPConfiguration{{ID: &frontend}}
	return body
}

// TestErrorsBySDK is the table of errors of the wire contract, as the SDK's users see them. No case changes
// anything.
func TestErrorsBySDK(t *testing.T) {
	r, provider, consumer := neighbours(t)
	ctx := t.Context()
	none := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	none(provider.putBalancer(ctx, "lb", balancerBody(contosoSub, "lb", 443, 8443, "10.20.0.4")))
	onBalancer := func() armnetwork.PrivateLinkService {
		b := serviceBody(contosoSub, "", to.Ptr(fabrikamSub))
		b.Properties.Fqdns = nil
		return behind(b, armPath(contosoSub, "loadBalancers/lb/frontendIPConfigurations/fe"))
	}
	provider.publish("web", onBalancer())
	db := provider.publish("db", serviceBody(contosoSub, "10.20.0.5", to.Ptr("*")))
	hidden := serviceBody(contosoSub, "10.20.0.6")
	hidden.Properties.Fqdns = nil
	hid := provider.publish("hidden", hidden)
	none(provider.putSubnet(ctx, "provider", &armnetwork.Subnet{Name: to.Ptr("strict"), Properties: &armnetwork.SubnetPropertiesFormat{AddressPrefix: to.Ptr("10.20.2.0/24")}}))
	none(consumer.putSubnet(ctx, "corp", subnetBody("tiny", "10.1.2.0/29")))
	none(consumer.putSubnet(ctx, "corp", subnetBody("free", "10.1.3.0/24")))
	in := func(subnet, address string) armnetwork.PrivateEndpoint {
		b := endpointBody(fabrikamSub, *db.Properties.Alias, true)
		b.Properties.Subnet.ID = to.Ptr(armPath(fabrikamSub, "virtualNetworks/corp/subnets/"+subnet))
		if address != "" {
			b.Properties.IPConfigurations = []*armnetwork.PrivateEndpointIPConfiguration{{Name: to.Ptr("fixed"), Properties: &armnetwork.PrivateEndpointIPConfigurationProperties{PrivateIPAddress: &address}}}
		}
		return b
	}
	for _, name := range []string{"t1", "t2", "t3"} { // a subnet of eight has three
		if _, err := consumer.ask(name, in("tiny", "")); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(body armnetwork.PrivateEndpoint) error { _, err := consumer.ask("new", body); return err }
	stranger, reader, unknown := r.sdk("fabrikam", contosoSub), r.sdk("fabrikam-reader", fabrikamSub), r.sdk("fabrikam", "0f000000-0000-4000-8000-000000000009")
	web, err := provider.services.Get(ctx, "rg", "web", nil)
	none(err)
	before, err := r.store.Load(ctx)
	none(err)
	for name, tt := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"no right":                               {reader.putVnet(ctx, "rg", "x", vnetBody("10.9.0.0/16")), 403, "AuthorizationFailed"},
		"A04 consumer in the provider's place":   {stranger.putService(ctx, "db", serviceBody(contosoSub, "10.20.0.9")), 404, "SubscriptionNotFound"},
		"automatic without the right to approve": {ask(endpointBody(fabrikamSub, *db.Properties.Alias, false)), 403, "LinkedAuthorizationFailed"},
		"no location":                            {consumer.putVnet(ctx, "rg", "x", armnetwork.VirtualNetwork{Properties: vnetBody("10.9.0.0/16").Properties}), 400, "LocationRequired"},
		"no address space":                       {consumer.putVnet(ctx, "rg", "x", armnetwork.VirtualNetwork{Location: to.Ptr("local")}), 400, "InvalidRequestFormat"},
		"host bits":                              {consumer.putVnet(ctx, "rg", "x", vnetBody("10.9.0.7/16")), 400, "InvalidRequestFormat"},
		"unknown setting in a tag":               {consumer.putVnet(ctx, "rg", "corp", tagged(vnetBody("10.1.0.0/16"), "postern-egres", "*")), 400, "InvalidRequestFormat"},
		"unknown group":                          {consumer.putVnet(ctx, "nowhere", "x", vnetBody("10.9.0.0/16")), 404, "ResourceGroupNotFound"},
		"unknown subscription":                   {unknown.putVnet(ctx, "rg", "x", vnetBody("10.9.0.0/16")), 404, "SubscriptionNotFound"},
		"subnet of no network":                   {consumer.putSubnet(ctx, "nothing", subnetBody("a", "10.9.0.0/24")), 404, "ParentResourceNotFound"},
		"zone group of no endpoint":              {consumer.putGroup(ctx, "nothing", "default", armPath(fabrikamSub, "privateDnsZones/x.example")), 404, "ParentResourceNotFound"},
		"zone group with no zone":                {consumer.putGroup(ctx, "t1", "default", armPath(fabrikamSub, "privateDnsZones/x.example")), 400, "InvalidResourceReference"},
		"A25 zone group with a foreign zone":     {consumer.putGroup(ctx, "t1", "default", armPath(contosoSub, "privateDnsZones/x.example")), 400, "InvalidResourceReference"},
		"overlapping subnets":                    {consumer.putSubnet(ctx, "corp", subnetBody("more", "10.1.1.128/25")), 400, "NetcfgSubnetRangesOverlap"},
		"subnet outside of its network":          {consumer.putSubnet(ctx, "corp", subnetBody("more", "10.2.1.0/24")), 400, "NetcfgInvalidSubnet"},
		"network without room for its subnets":   {consumer.putVnet(ctx, "rg", "corp", vnetBody("10.1.0.0/23")), 400, "NetcfgInvalidSubnet"},
		"unknown subnet":                         {ask(in("nothing", "")), 400, "InvalidResourceReference"},
		"subnet without an ID":                   {ask(armnetwork.PrivateEndpoint{Location: to.Ptr("local"), Properties: &armnetwork.PrivateEndpointProperties{}}), 400, "InvalidRequestFormat"},
		"A25 foreign subnet":                     {ask(endpointBody(contosoSub, *db.Properties.Alias, true)), 400, "InvalidResourceReference"},
		"subnet of another location":             {ask(func() armnetwork.PrivateEndpoint { b := in("pe", ""); b.Location = to.Ptr("elsewhere"); return b }()), 400, "InvalidResourceReference"},
		"unknown alias":                          {ask(endpointBody(fabrikamSub, "x."+strings.Repeat("0", 32)+".postern.azure.privatelinkservice", true)), 400, "InvalidPrivateLinkServiceId"},
		"unknown service":                        {ask(endpointBody(fabrikamSub, armPath(contosoSub, "privateLinkServices/nothing"), true)), 400, "InvalidPrivateLinkServiceId"},
		"invisible service by its alias":         {ask(endpointBody(fabrikamSub, *hid.Properties.Alias, true)), 400, "InvalidPrivateLinkServiceId"},
		"invisible service by its ID (trap 6)":   {ask(endpointBody(fabrikamSub, *hid.ID, true)), 400, "InvalidPrivateLinkServiceId"},
		"message of 141 characters": {ask(func() armnetwork.PrivateEndpoint {
			b := in("pe", "")
			connectionOf(b).Properties.RequestMessage = to.Ptr(strings.Repeat("é", 141))
			return b
		}()), 400, "InvalidRequestFormat"},
		"two connections": {ask(func() armnetwork.PrivateEndpoint {
			b := in("pe", "")
			c := b.Properties.ManualPrivateLinkServiceConnections
			b.Properties.PrivateLinkServiceConnections = c
			return b
		}()), 400, "InvalidRequestFormat"},
		"address outside of the subnet":      {ask(in("pe", "10.1.2.5")), 400, "PrivateIPAddressNotInSubnet"},
		"first address of a subnet":          {ask(in("pe", "10.1.1.3")), 400, "PrivateIPAddressInReservedRange"},
		"last address of a subnet":           {ask(in("pe", "10.1.1.255")), 400, "PrivateIPAddressInReservedRange"},
		"address of another endpoint":        {ask(in("tiny", "10.1.2.4")), 400, "PrivateIPAddressIsAllocated"},
		"A11 full subnet":                    {ask(in("tiny", "")), 400, "SubnetIsFull"},
		"moved to another subnet":            {func() error { _, err := consumer.ask("t1", in("free", "")); return err }(), 400, "PropertyChangeNotAllowed"},
		"service in a subnet with policies":  {provider.putService(ctx, "new", natIn(serviceBody(contosoSub, "10.20.0.7"), contosoSub, "strict", "")), 400, "PrivateLinkServiceCannotBeCreatedInSubnetThatHasNetworkPoliciesEnabled"},
		"service in no subnet that there is": {provider.putService(ctx, "new", natIn(serviceBody(contosoSub, "10.20.0.7"), contosoSub, "nothing", "")), 400, "InvalidResourceReference"},
		"A25 service in a foreign subnet":    {provider.putService(ctx, "new", natInVnet(serviceBody(contosoSub, "10.20.0.7"), fabrikamSub, "corp", "pe")), 400, "InvalidResourceReference"},
		"NAT address outside of the subnet":  {provider.putService(ctx, "new", natIn(serviceBody(contosoSub, "10.20.0.7"), contosoSub, "nat", "10.20.2.9")), 400, "PrivateIPAddressNotInSubnet"},
		"NAT address that is reserved":       {provider.putService(ctx, "new", natIn(serviceBody(contosoSub, "10.20.0.7"), contosoSub, "nat", "10.20.1.3")), 400, "PrivateIPAddressInReservedRange"},
		"frontend and destination": {provider.putService(ctx, "new", func() armnetwork.PrivateLinkService {
			b := onBalancer()
			b.Properties.DestinationIPAddress = to.Ptr("10.20.0.7")
			return b
		}()), 400, "InvalidRequestFormat"},
		"neither":                   {provider.putService(ctx, "new", serviceBody(contosoSub, "")), 400, "InvalidRequestFormat"},
		"unknown load balancer":     {provider.putService(ctx, "new", behind(serviceBody(contosoSub, ""), armPath(contosoSub, "loadBalancers/nothing/frontendIPConfigurations/fe"))), 400, "InvalidResourceReference"},
		"unknown frontend":          {provider.putService(ctx, "new", behind(serviceBody(contosoSub, ""), armPath(contosoSub, "loadBalancers/lb/frontendIPConfigurations/nothing"))), 400, "InvalidResourceReference"},
		"A25 foreign load balancer": {provider.putService(ctx, "new", behind(serviceBody(contosoSub, ""), armPath(fabrikamSub, "loadBalancers/lb/frontendIPConfigurations/fe"))), 400, "InvalidResourceReference"},
		"no IP configuration": {provider.putService(ctx, "new", func() armnetwork.PrivateLinkService {
			b := serviceBody(contosoSub, "10.20.0.7")
			b.Properties.IPConfigurations = nil
			return b
		}()), 400, "InvalidRequestFormat"},
		"A23 approved and not visible": {provider.putService(ctx, "new", func() armnetwork.PrivateLinkService {
			b := serviceBody(contosoSub, "10.20.0.7")
			b.Properties.AutoApproval = &armnetwork.PrivateLinkServicePropertiesAutoApproval{Subscriptions: []*string{to.Ptr(fabrikamSub)}}
			return b
		}()), 400, "InvalidRequestFormat"},
		"A21 target of the metadata service":         {provider.putService(ctx, "new", serviceBody(contosoSub, "169.254.169.254")), 400, "InvalidRequestFormat"},
		"frontend that a service uses is taken away": {provider.putBalancer(ctx, "lb", armnetwork.LoadBalancer{Location: to.Ptr("local")}), 400, "InvalidResourceReference"},
		"load balancer with a service deleted":       {func() error { _, err := provider.balancers.BeginDelete(ctx, "rg", "lb", nil); return err }(), 400, "CannotDeleteLoadBalancerWithPrivateLinkService"},
		"subnet in use deleted":                      {func() error { _, err := consumer.subnets.BeginDelete(ctx, "rg", "corp", "tiny", nil); return err }(), 400, "InUseSubnetCannotBeDeleted"},
		"subnet of NAT addresses deleted":            {func() error { _, err := provider.subnets.BeginDelete(ctx, "rg", "provider", "nat", nil); return err }(), 400, "InUseSubnetCannotBeDeleted"},
		"network in use deleted":                     {func() error { _, err := consumer.networks.BeginDelete(ctx, "rg", "corp", nil); return err }(), 400, "InUseSubnetCannotBeDeleted"},
		"service with connections deleted":           {func() error { _, err := provider.services.BeginDelete(ctx, "rg", "db", nil); return err }(), 400, "PrivateLinkServiceWithPrivateEndpointConnectionsCannotBeDeleted"},
		"If-Match of another state":                  {consumer.putVnet(with(ctx, "If-Match", `W/"00000000-0000-0000-0000-000000000000"`), "rg", "corp", vnetBody("10.1.0.0/16")), 412, "PreconditionFailed"},
		"If-Match of what isn't there":               {consumer.putVnet(with(ctx, "If-Match", "*"), "rg", "x", vnetBody("10.9.0.0/16")), 412, "PreconditionFailed"},
		"If-None-Match of what is there":             {provider.putService(with(ctx, "If-None-Match", "*"), "web", onBalancer()), 412, "PreconditionFailed"},
		"If-Match on a subnet":                       {consumer.putSubnet(with(ctx, "If-Match", *web.Etag), "corp", subnetBody("pe", "10.1.1.0/24")), 412, "PreconditionFailed"},
		"If-Match on the deletion of an endpoint": {func() error {
			_, err := consumer.endpoints.BeginDelete(with(ctx, "If-Match", *web.Etag), "rg", "t1", nil)
			return err
		}(), 412, "PreconditionFailed"},
		"network that isn't there": {func() error { _, err := consumer.networks.Get(ctx, "rg", "nothing", nil); return err }(), 404, "ResourceNotFound"},
		"subnet that isn't there":  {func() error { _, err := consumer.subnets.Get(ctx, "rg", "corp", "nothing", nil); return err }(), 404, "ResourceNotFound"},
		"interface that isn't there": {func() error {
			_, err := consumer.interfaces.Get(ctx, "rg", "x.nic.00000000-0000-0000-0000-000000000000", nil)
			return err
		}(), 404, "ResourceNotFound"},
		"endpoint that isn't there":   {func() error { _, err := consumer.endpoints.Get(ctx, "rg", "nothing", nil); return err }(), 404, "ResourceNotFound"},
		"zone group that isn't there": {func() error { _, err := consumer.groups.Get(ctx, "rg", "t1", "default", nil); return err }(), 404, "ResourceNotFound"},
		"service that isn't there":    {func() error { _, err := provider.services.Get(ctx, "rg", "nothing", nil); return err }(), 404, "ResourceNotFound"},
		"connection that isn't there": {func() error {
			_, err := provider.services.GetPrivateEndpointConnection(ctx, "rg", "db", "t1.x", nil)
			return err
		}(), 404, "ResourceNotFound"},
		"load balancer that isn't there": {func() error { _, err := provider.balancers.Get(ctx, "rg", "nothing", nil); return err }(), 404, "ResourceNotFound"},
		"frontend that isn't there":      {func() error { _, err := provider.frontends.Get(ctx, "rg", "lb", "nothing", nil); return err }(), 404, "ResourceNotFound"},
		"tags of what isn't there": {func() error {
			_, err := consumer.networks.UpdateTags(ctx, "rg", "nothing", armnetwork.TagsObject{}, nil)
			return err
		}(), 404, "ResourceNotFound"},
		"connection that isn't there is made": {func() error {
			_, err := provider.services.UpdatePrivateEndpointConnection(ctx, "rg", "db", "t1.x", approval("Approved"), nil)
			return err
		}(), 404, "ResourceNotFound"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, tt.err, tt.status, tt.code) })
	}
	after, err := r.store.Load(ctx)
	none(err)
	for o := range after.Objects() {
		found := false
		for b := range before.Objects() {
			found = found || b.Kind() == o.Kind() && b.Key() == o.Key()
		}
		if !found {
			t.Errorf("a refused request has made %s %s", o.Kind(), o.Key())
		}
	}
}

func tagged(b armnetwork.VirtualNetwork, name, value string) armnetwork.VirtualNetwork {
	b.Tags = map[string]*string{name: &value}
	return b
}

func approval(status string) armnetwork.PrivateEndpointConnection {
	return armnetwork.PrivateEndpointConnection{Properties: &armnetwork.PrivateEndpointConnectionProperties{
		PrivateLinkServiceConnectionState: &armnetwork.PrivateLinkServiceConnectionState{Status: &status}}}
}

// natIn gives a service its NAT address from a subnet of the provider's network, a static one unless it is "".
func natIn(b armnetwork.PrivateLinkService, sub, subnet, address string) armnetwork.PrivateLinkService {
	b = natInVnet(b, sub, "provider", subnet)
	if p := b.Properties.IPConfigurations[0].Properties; address != "" {
		p.PrivateIPAddress, p.PrivateIPAllocationMethod = &address, to.Ptr(armnetwork.IPAllocationMethodStatic)
	}
	return b
}

func natInVnet(b armnetwork.PrivateLinkService, sub, vnet, subnet string) armnetwork.PrivateLinkService {
	b.Properties.IPConfigurations[0].Properties.Subnet.ID = to.Ptr(armPath(sub, "virtualNetworks/"+vnet+"/subnets/"+subnet))
	return b
}
