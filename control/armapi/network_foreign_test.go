package armapi

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v9"
)

// foreignBodies are valid bodies for the writes of a row, by the last literal of its pattern.
func foreignBodies(sub string) map[string]string {
	at := func(rest string) string { return armPath(sub, rest) }
	return map[string]string{
		"virtualNetworks":                   `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.77.0.0/16"]}}}`,
		"subnets":                           `{"properties":{"addressPrefix":"10.20.7.0/24"}}`,
		"privateEndpoints":                  `{"location":"local","properties":{"subnet":{"id":"` + at("virtualNetworks/corp/subnets/pe") + `"},"manualPrivateLinkServiceConnections":[{"name":"c","properties":{"privateLinkServiceId":"` + at("privateLinkServices/db") + `"}}]}}`,
		"privateDnsZoneGroups":              `{"properties":{"privateDnsZoneConfigs":[]}}`,
		"privateLinkServices":               `{"location":"local","properties":{"destinationIPAddress":"10.20.0.66","ipConfigurations":[{"name":"nat"}]}}`,
		"privateEndpointConnections":        `{"properties":{"privateLinkServiceConnectionState":{"status":"Approved"}}}`,
		"loadBalancers":                     `{"location":"local","properties":{}}`,
		"checkPrivateLinkServiceVisibility": `{"privateLinkServiceAlias":"x"}`,
	}
}

// bodyOf returns the body for a row, nil for one without.
func bodyOf(o operation, sub string) any {
	if o.method == http.MethodGet || o.method == http.MethodDelete {
		return nil
	}
	literal := ""
	for seg := range strings.SplitSeq(o.pattern, "/") {
		if !strings.HasPrefix(seg, "{") {
			literal = seg
		}
	}
	if body, ok := foreignBodies(sub)[literal]; ok {
		return body
	}
	return `{}`
}

// TestForeignObjects (A03, A04): each row of the table, on objects that are there and on ones that aren't, as
// callers who may not. Both answers are the same to the byte, the names in the path aside, and nothing changes.
func TestForeignObjects(t *testing.T) {
	r, provider, consumer := neighbours(t)
	ctx := t.Context()
	if err := provider.putBalancer(ctx, "lb", balancerBody(contosoSub, "lb", 443, 8443, "10.20.0.4")); err != nil {
		t.Fatal(err)
	}
	pls := provider.publish("db", serviceBody(contosoSub, "10.20.0.5", to.Ptr("*")))
	e, err := consumer.ask("pe1", endpointBody(fabrikamSub, *pls.Properties.Alias, true))
	if err != nil {
		t.Fatal(err)
	}
	zone := armPath(contosoSub, "privateDnsZones/corp.example")
	r.do("contoso", "PUT", zone, `{"location":"global"}`).want(201)
	r.do("contoso", "PUT", zone+"/A/www", `{"properties":{"ttl":10,"aRecords":[{"ipv4Address":"10.20.0.9"}]}}`).want(201)
	nicID := *e.Properties.NetworkInterfaces[0].ID
	guid := nicID[strings.LastIndex(nicID, ".")+1:]
	there := map[string]map[string]string{
		contosoSub:  {"network": "provider", "subnet": "nat", "service": "db", "connection": "pe1." + guid, "balancer": "lb", "frontend": "Fe", "endpoint": "pe1", "interface": "db.nic." + *resourceGUID(t, r, *pls.ID), "zoneGroup": "default", "zone": "corp.example", "record": "www"},
		fabrikamSub: {"network": "corp", "subnet": "pe", "service": "db", "connection": "pe1." + guid, "balancer": "lb", "frontend": "Fe", "endpoint": "pe1", "interface": "pe1.nic." + guid, "zoneGroup": "default"},
	}
	const nowhere = "0f000000-0000-4000-8000-000000000009"
	fill := func(pattern, sub, group string, names map[string]string) string {
		for _, p := range []string{"network", "subnet", "service", "connection", "balancer", "frontend", "endpoint", "interface", "zoneGroup", "zone", "link", "record"} {
			pattern = strings.ReplaceAll(pattern, "{"+p+"}", cmp.Or(names[p], "absent"))
		}
		return strings.NewReplacer("{subscription}", sub, "{group}", group, "{location}", "local").Replace(pattern)
	}
	before, err := r.store.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range slices.Concat(networkOperations, dnsOperations, posternOperations) {
		if !strings.Contains(o.pattern, "{subscription}") {
			continue // for operators alone: TestOperatorRows
		}
		t.Run(o.method+" "+o.label(), func(t *testing.T) {
			r.t = t
			// Somebody else's subscription: as one that doesn't exist.
			for caller, sub := range map[string]string{"fabrikam": contosoSub, "fabrikam-reader": contosoSub, "nobody": contosoSub, "contoso": fabrikamSub, "contoso-provider": contosoSub2} {
				seen := r.do(caller, o.method, fill(o.pattern, sub, "rg", there[sub]), bodyOf(o, sub))
				none := r.do(caller, o.method, fill(o.pattern, nowhere, "nothing", nil), bodyOf(o, nowhere))
				seen.wantError(404, "SubscriptionNotFound")
				if got, want := strings.ReplaceAll(string(seen.body), sub, nowhere), string(none.body); got != want || seen.status != none.status {
					t.Errorf("%s: %d %s, for what isn't there %d %s", caller, seen.status, got, none.status, want)
				}
			}
			// The names of a foreign object in one's own subscription: there is nothing.
			if strings.Contains(o.pattern, "{group}") && o.method == http.MethodGet {
				own := r.do("operator", o.method, fill(o.pattern, operatorSub, "rg", there[contosoSub]), nil)
				own.wantError(404, "ResourceGroupNotFound")
			}
			// A reader of the subscription sees, and writes nothing.
			harmless := strings.HasSuffix(o.pattern, "/plan") || strings.HasSuffix(o.pattern, "Visibility")
			if o.method != http.MethodGet && !harmless {
				a := r.do("contoso-reader", o.method, fill(o.pattern, contosoSub, "rg", there[contosoSub]), bodyOf(o, contosoSub))
				if a.status == 200 || a.status == 201 || a.status == 202 || a.status >= 500 {
					t.Errorf("a reader's %s: %d %s", o.method, a.status, a.body)
				}
			}
		})
	}
	r.t = t
	after, err := r.store.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for o := range before.Objects() {
		count[string(o.Kind())+o.Key()]++
	}
	for o := range after.Objects() {
		count[string(o.Kind())+o.Key()]--
	}
	for key, n := range count {
		if n != 0 {
			t.Errorf("%s has come or gone", key)
		}
	}
	got, err := consumer.endpoints.Get(ctx, "rg", "pe1", nil)
	if err != nil || *got.Etag != *e.Etag {
		t.Errorf("the endpoint has changed: %v", err)
	}
}

// TestOperatorRows: what tells of all tenants is for operators, and the record and the state of all for the owners among them.
func TestOperatorRows(t *testing.T) {
	r := newRig(t)
	for _, o := range posternOperations {
		if strings.Contains(o.pattern, "{subscription}") {
			continue
		}
		for _, caller := range []string{"contoso", "fabrikam", "contoso-reader", "nobody"} {
			if a := r.do(caller, o.method, o.pattern, nil); a.status != 403 {
				t.Errorf("%s %s as %s: %d %s", o.method, o.pattern, caller, a.status, a.body)
			}
		}
		if a := r.do("operator", o.method, o.pattern, nil); a.status != 200 {
			t.Errorf("%s %s as operator: %d %s", o.method, o.pattern, a.status, a.body)
		}
	}
}

// resourceGUID reads the GUID of a resource, which the SDK's types don't have.
func resourceGUID(t *testing.T, r *rig, id string) *string {
	t.Helper()
	var v struct {
		Properties struct{ ResourceGUID *string }
	}
	r.do("contoso", "GET", id, nil).want(200).into(&v)
	return v.Properties.ResourceGUID
}

// TestForeignInterface: an interface is found by its name in its own group alone.
func TestForeignInterface(t *testing.T) {
	r, provider, consumer := neighbours(t)
	pls := provider.publish("db", serviceBody(contosoSub, "10.20.0.5", to.Ptr("*")))
	body := endpointBody(fabrikamSub, *pls.Properties.Alias, true)
	body.Properties.CustomNetworkInterfaceName = to.Ptr("My-Nic")
	if _, err := consumer.ask("pe1", body); err != nil {
		t.Fatal(err)
	}
	r.putGroup("fabrikam", fabrikamSub, "other")
	if _, err := consumer.interfaces.Get(t.Context(), "rg", "my-nic", nil); err != nil {
		t.Error(err)
	}
	_, err := consumer.interfaces.Get(t.Context(), "other", "my-nic", nil)
	refused(t, err, 404, "ResourceNotFound")
	_, err = provider.interfaces.Get(t.Context(), "rg", "my-nic", nil)
	refused(t, err, 404, "ResourceNotFound")
	body.Properties.CustomNetworkInterfaceName = to.Ptr("MY-NIC")
	_, err = consumer.ask("pe2", body)
	refused(t, err, 409, "NetworkInterfaceNameInUse")
	var none armnetwork.PrivateEndpoint
	if e, _ := consumer.endpoints.Get(t.Context(), "rg", "pe2", nil); e.ID != none.ID {
		t.Error("a refused endpoint is there")
	}
}
