package armapi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v9"

	"github.com/postern-link/postern/link"
)

// TestGetChangePut: what was read can be put back: nothing changes by that, least of all what is not the
// body's to say. A change changes the tag.
func TestGetChangePut(t *testing.T) {
	_, provider, consumer := neighbours(t)
	ctx := t.Context()
	body := serviceBody(contosoSub, "10.20.0.4", to.Ptr("*"))
	body.Tags = map[string]*string{"postern-port": to.Ptr("1433"), "Team": to.Ptr("db")}
	provider.publish("Db", body)
	pls := succeed[armnetwork.PrivateLinkServicesClientGetResponse](t)(provider.services.Get(ctx, "rg", "db", nil))
	e, err := consumer.ask("pe1", endpointBody(fabrikamSub, *pls.Properties.Alias, true))
	if err != nil {
		t.Fatal(err)
	}
	e.Properties.ManualPrivateLinkServiceConnections[0].Properties.PrivateLinkServiceConnectionState.Status = to.Ptr("Approved")
	again, err := consumer.ask("PE1", e)
	if err != nil || *again.Etag != *e.Etag || *again.Name != "pe1" {
		t.Errorf("trap 5: endpoint put back: %v %v, %v", *again.Name, *again.Etag, err)
	}
	stateIs(t, connectionOf(again).Properties.PrivateLinkServiceConnectionState, "Pending", "Awaiting approval")

	pls = succeed[armnetwork.PrivateLinkServicesClientGetResponse](t)(provider.services.Get(ctx, "RG", "DB", nil))
	pls.Properties.PrivateEndpointConnections, pls.Properties.Alias = nil, to.Ptr("mine.x.azure.privatelinkservice")
	back := provider.publish("db", pls.PrivateLinkService)
	if *back.Name != "Db" || *back.Etag != *pls.Etag || len(back.Properties.PrivateEndpointConnections) != 1 || *back.Properties.Alias == *pls.Properties.Alias {
		t.Errorf("service put back: %v, %+v", *back.Name, back.Properties)
	}
	back.Tags["Team"] = to.Ptr("other")
	if changed := provider.publish("db", back); *changed.Etag == *back.Etag || *changed.Tags["Team"] != "other" {
		t.Errorf("tag %s after a change", *changed.Etag)
	}

	net := succeed[armnetwork.VirtualNetworksClientGetResponse](t)(consumer.networks.Get(ctx, "rg", "corp", nil))
	subnet := succeed[armnetwork.SubnetsClientGetResponse](t)(consumer.subnets.Get(ctx, "rg", "corp", "pe", nil))
	net.Properties.Subnets = nil
	if err := consumer.putVnet(ctx, "rg", "corp", net.VirtualNetwork); err != nil {
		t.Fatal(err)
	}
	if now := succeed[armnetwork.SubnetsClientGetResponse](t)(consumer.subnets.Get(ctx, "rg", "corp", "PE", nil)); *now.Etag != *subnet.Etag || *now.ID != *subnet.ID {
		t.Errorf("a network put without its subnets has changed them: %+v", now)
	}
	tags := succeed[armnetwork.VirtualNetworksClientUpdateTagsResponse](t)(consumer.networks.UpdateTags(ctx, "rg", "corp", armnetwork.TagsObject{Tags: map[string]*string{"a": to.Ptr("b")}}, nil))
	if len(tags.Tags) != 1 || len(tags.Properties.Subnets) != 1 || *tags.Etag == *net.Etag {
		t.Errorf("after a PATCH of the tags: %+v", tags)
	}
}

// TestLoadBalancerMovesItsServices: a change of a load balancer is one of the services behind it.
func TestLoadBalancerMovesItsServices(t *testing.T) {
	r, provider, _ := neighbours(t)
	ctx := t.Context()
	put := func(b armnetwork.LoadBalancer) {
		t.Helper()
		if err := provider.putBalancer(ctx, "Lb", b); err != nil {
			t.Fatal(err)
		}
	}
	targets := func() string {
		t.Helper()
		s, err := r.store.Load(ctx)
		if err != nil {
			t.Fatal(err)
		}
		v := s.Service(contosoSub + "/rg/web")
		return fmt.Sprint(v.Port, v.Targets)
	}
	put(balancerBody(contosoSub, "Lb", 443, 8443, "10.20.0.4"))
	web := provider.publish("web", behind(serviceBody(contosoSub, ""), armPath(contosoSub, "loadBalancers/lb/frontendIpConfigurations/fe")))
	if id := *web.Properties.LoadBalancerFrontendIPConfigurations[0].ID; id != armPath(contosoSub, "loadBalancers/Lb/frontendIPConfigurations/Fe") {
		t.Errorf("frontend %s, want it in the service's own spelling", id)
	}
	if got := targets(); got != "443 [{10.20.0.4:8443}]" {
		t.Errorf("targets %s", got)
	}
	put(balancerBody(contosoSub, "Lb", 1433, 1434, "10.20.0.5", "10.20.0.6"))
	if got := targets(); got != "1433 [{10.20.0.5:1434} {10.20.0.6:1434}]" {
		t.Errorf("targets %s after the load balancer has changed", got)
	}
	got := succeed[armnetwork.LoadBalancersClientGetResponse](t)(provider.balancers.Get(ctx, "rg", "lb", nil))
	put(got.LoadBalancer)
	if now := succeed[armnetwork.LoadBalancersClientGetResponse](t)(provider.balancers.Get(ctx, "rg", "lb", nil)); *now.Etag != *got.Etag {
		t.Errorf("a load balancer put back has changed: %+v", now)
	}
	fe := succeed[armnetwork.LoadBalancerFrontendIPConfigurationsClientGetResponse](t)(provider.frontends.Get(ctx, "rg", "lb", "FE", nil))
	if pages := all(t, provider.frontends.NewListPager("rg", "lb", nil)); *fe.Name != "Fe" || len(pages[0].Value) != 1 {
		t.Errorf("frontends %+v", pages)
	}
	if _, err := provider.balancers.UpdateTags(ctx, "rg", "lb", armnetwork.TagsObject{Tags: map[string]*string{"a": to.Ptr("b")}}, nil); err != nil {
		t.Error(err)
	}
}

// TestListsAndViews: automatic approval by the lists, visibility, what is approved, types, interfaces, and a
// deletion by force.
func TestListsAndViews(t *testing.T) {
	r, provider, consumer := neighbours(t)
	ctx := t.Context()
	body := natIn(serviceBody(contosoSub, "10.20.0.4", to.Ptr(fabrikamSub)), contosoSub, "nat", "10.20.1.9")
	body.Properties.AutoApproval = &armnetwork.PrivateLinkServicePropertiesAutoApproval{Subscriptions: []*string{to.Ptr(fabrikamSub)}}
	body.Properties.EnableProxyProtocol = to.Ptr(true)
	pls := provider.publish("db", body)
	s, err := r.store.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !*pls.Properties.EnableProxyProtocol {
		t.Error("enableProxyProtocol is lost")
	}
	if v := s.Service(contosoSub + "/rg/db"); v.ProxyProtocol != link.ProxyAzure || fmt.Sprint(v.NAT) != "[10.20.1.9]" || v.Pin != link.PinTLS || v.Port != 443 {
		t.Errorf("service %+v", v)
	}
	e, err := consumer.ask("pe1", endpointBody(fabrikamSub, *pls.ID, false))
	if err != nil {
		t.Fatal(err)
	}
	stateIs(t, connectionOf(e).Properties.PrivateLinkServiceConnectionState, "Approved", "Auto Approved")
	if len(e.Properties.ManualPrivateLinkServiceConnections) != 0 || len(e.Properties.CustomDNSConfigs) != 1 {
		t.Errorf("endpoint %+v", e.Properties)
	}
	visible := func(s *sdk, alias string) bool {
		t.Helper()
		got, err := done[armnetwork.PrivateLinkServicesClientCheckPrivateLinkServiceVisibilityResponse](ctx)(s.services.BeginCheckPrivateLinkServiceVisibility(ctx, "local", armnetwork.CheckPrivateLinkServiceVisibilityRequest{PrivateLinkServiceAlias: &alias}, nil))
		in, err2 := done[armnetwork.PrivateLinkServicesClientCheckPrivateLinkServiceVisibilityByResourceGroupResponse](ctx)(s.services.BeginCheckPrivateLinkServiceVisibilityByResourceGroup(ctx, "local", "rg", armnetwork.CheckPrivateLinkServiceVisibilityRequest{PrivateLinkServiceAlias: &alias}, nil))
		if err != nil || err2 != nil || *got.Visible != *in.Visible {
			t.Fatalf("visibility: %v, %v", err, err2)
		}
		return *got.Visible
	}
	if !visible(consumer, strings.ToUpper(*pls.Properties.Alias)) || visible(r.sdk("operator", operatorSub).inGroup(r), *pls.Properties.Alias) || visible(consumer, "x.azure.privatelinkservice") {
		t.Error("visibility isn't what the list says")
	}
	if got := all(t, consumer.services.NewListAutoApprovedPrivateLinkServicesPager("local", nil)); len(got[0].Value) != 1 || *got[0].Value[0].PrivateLinkService != *pls.ID {
		t.Errorf("approved for the consumer: %+v", got)
	}
	if got := all(t, provider.services.NewListAutoApprovedPrivateLinkServicesPager("local", nil)); len(got[0].Value) != 0 {
		t.Errorf("approved for the provider itself: %+v", got)
	}
	if got := all(t, consumer.types.NewListPager("local", nil)); len(got[0].Value) != 1 || *got[0].Value[0].ResourceName != "Microsoft.Network/privateLinkServices" {
		t.Errorf("types %+v", got)
	}
	for who, want := range map[*sdk]string{consumer: "10.1.1.4", provider: "10.20.1.9"} {
		got := all(t, who.interfaces.NewListAllPager(nil))
		if len(got) != 1 || len(got[0].Value) != 1 || *got[0].Value[0].Properties.IPConfigurations[0].Properties.PrivateIPAddress != want {
			t.Errorf("interfaces %+v, want one with %s", got, want)
		}
	}
	if n := len(all(t, consumer.endpoints.NewListBySubscriptionPager(nil))[0].Value) + len(all(t, consumer.services.NewListBySubscriptionPager(nil))[0].Value); n != 1 {
		t.Errorf("the consumer's lists have %d objects, want its endpoint", n)
	}
	// A18: by force; the connection is Disconnected.
	r.do("contoso", "DELETE", armPath(contosoSub, "privateLinkServices/db")+"?force=true", nil).want(200)
	got := succeed[armnetwork.PrivateEndpointsClientGetResponse](t)(consumer.endpoints.Get(ctx, "rg", "pe1", nil))
	if c := connectionOf(got.PrivateEndpoint); *c.Properties.PrivateLinkServiceConnectionState.Status != "Disconnected" || len(got.Properties.CustomDNSConfigs) != 0 {
		t.Errorf("after the service is gone: %+v", c.Properties)
	}
	if _, err := consumer.ask("pe1", got.PrivateEndpoint); err != nil {
		t.Errorf("an endpoint whose service is gone can't be put back: %v", err)
	}
}

// inGroup makes the group rg for an operator's clients.
func (s *sdk) inGroup(r *rig) *sdk {
	r.putGroup("operator", s.sub, "rg")
	return s
}

// TestDeclaredIsShown (C18): what the operator's Corefile declares is shown in its first subscription, and not changed.
func TestDeclaredIsShown(t *testing.T) {
	r := newRig(t)
	r.declare(link.Network{ID: "corp", Prefixes: prefixes("10.1.0.0/16"), Pools: prefixes("10.200.0.0/24")})
	path := "/subscriptions/" + operatorSub + "/resourceGroups/corefile/providers/Microsoft.Network/virtualNetworks/corp"
	var v virtualNetwork
	r.do("operator", "GET", path, nil).want(200).into(&v)
	if v.Name != "corp" || v.Location != "local" || len(v.Properties.Subnets) != 1 || v.Properties.Subnets[0].Properties.AddressPrefix != "10.200.0.0/24" {
		t.Errorf("network %+v", v)
	}
	for _, method := range []string{"PUT", "PATCH", "DELETE"} {
		a := r.do("operator", method, path, vnetJSON).want(409)
		if !strings.Contains(string(a.body), "/etc/postern/Corefile:7") {
			t.Errorf("%s: %s, want it to name file and line", method, a.body)
		}
	}
	r.do("operator", "PUT", path+"/subnets/x", `{"properties":{"addressPrefix":"10.1.1.0/24"}}`).want(409)
}

const vnetJSON = `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.1.0.0/16"]}}}`

// TestZoneGroup: the records of a zone group are a view on the state of the connection, in the zones that a
// name of the service is in.
func TestZoneGroup(t *testing.T) {
	r, provider, consumer := neighbours(t)
	ctx := t.Context()
	body := serviceBody(contosoSub, "10.20.0.4", to.Ptr("*"))
	body.Properties.Fqdns = []*string{to.Ptr("db.contoso.example"), to.Ptr("contoso.database.windows.net")}
	pls := provider.publish("db", body)
	e, err := consumer.ask("pe1", endpointBody(fabrikamSub, *pls.Properties.Alias, true))
	if err != nil {
		t.Fatal(err)
	}
	const sqlZone = "privateDnsZones/privatelink.database.windows.net"
	r.do("fabrikam", "PUT", armPath(fabrikamSub, sqlZone), `{"location":"global"}`).want(201)
	if err := consumer.putGroup(ctx, "pe1", "Default", armPath(fabrikamSub, sqlZone)); err != nil {
		t.Fatal(err)
	}
	records := func() []*armnetwork.RecordSet {
		t.Helper()
		got := all(t, consumer.groups.NewListPager("pe1", "rg", nil)) // the endpoint first, the group second
		config := got[0].Value[0].Properties.PrivateDNSZoneConfigs[0]
		if *got[0].Value[0].Name != "Default" || *config.Name != "config" || *config.Properties.PrivateDNSZoneID != armPath(fabrikamSub, sqlZone) {
			t.Errorf("group %+v", got[0].Value[0])
		}
		return config.Properties.RecordSets
	}
	if got := records(); len(got) != 0 {
		t.Errorf("records of a Pending connection: %+v", got)
	}
	conns := all(t, provider.services.NewListPrivateEndpointConnectionsPager("rg", "db", nil))
	if _, err := provider.services.UpdatePrivateEndpointConnection(ctx, "rg", "db", *conns[0].Value[0].Name, approval("Approved"), nil); err != nil {
		t.Fatal(err)
	}
	if got := records(); len(got) != 1 || *got[0].RecordSetName != "contoso" || *got[0].RecordType != "A" || *got[0].IPAddresses[0] != "10.1.1.4" || *got[0].TTL != 10 {
		t.Errorf("records of an Approved connection: %+v", got)
	}
	refused(t, consumer.putGroup(ctx, "pe1", "second", armPath(fabrikamSub, sqlZone)), 400, "PrivateDnsZoneGroupLimitReached")
	if again, err := consumer.ask("pe1", e); err != nil || connectionOf(again) == nil || len(records()) != 1 {
		t.Errorf("an endpoint put back has lost its zone group: %v", err)
	}
	for range 2 {
		if _, err := done[armnetwork.PrivateDNSZoneGroupsClientDeleteResponse](ctx)(consumer.groups.BeginDelete(ctx, "rg", "pe1", "default", nil)); err != nil {
			t.Fatal(err)
		}
	}
	if got := all(t, consumer.groups.NewListPager("pe1", "rg", nil)); len(got[0].Value) != 0 {
		t.Errorf("groups %+v after the deletion", got)
	}
}
