package armapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/privatedns/armprivatedns"

	"github.com/postern-link/postern/link"
)

func TestPrivateDNSLife(t *testing.T) {
	d := newDNS(t)
	ctx := t.Context()
	z, err := d.zones.Get(ctx, "rg", "corp.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	if *z.Name != "Corp.Example" || *z.Location != "global" || *z.Tags["a"] != "b" || *z.Properties.NumberOfRecordSets != 1 ||
		*z.Properties.MaxNumberOfRecordSets != 25000 || *z.Properties.ProvisioningState != "Succeeded" || strings.ContainsAny(*z.Etag, `W/"`) ||
		!strings.HasSuffix(*z.ID, "/resourceGroups/Rg/providers/Microsoft.Network/privateDnsZones/Corp.Example") {
		t.Errorf("zone %+v %+v", z.PrivateZone, z.Properties)
	}
	soa, err := d.records.Get(ctx, "Rg", "corp.example", armprivatedns.RecordTypeSOA, "@", nil)
	if err != nil || *soa.Properties.SoaRecord.Host != "corp.example" || *soa.Properties.SoaRecord.ExpireTime != link.SOAExpire || *soa.Properties.SoaRecord.MinimumTTL != 10 || *soa.Properties.TTL != link.SOATTL || *soa.Properties.Fqdn != "corp.example." {
		t.Fatalf("SOA of a new zone: %+v, %v", soa.Properties, err)
	}

	l, err := d.putLink("corp.example", "Hub", networkARM(fabrikamSub, "RG", "NET"), armprivatedns.ResolutionPolicyNxDomainRedirect)
	if err != nil {
		t.Fatal(err)
	}
	if *l.Name != "Hub" || *l.Properties.VirtualNetworkLinkState != "Completed" || !*l.Properties.RegistrationEnabled ||
		*l.Properties.ResolutionPolicy != armprivatedns.ResolutionPolicyNxDomainRedirect || !strings.EqualFold(*l.Properties.VirtualNetwork.ID, networkARM(fabrikamSub, "rg", "net")) {
		t.Errorf("link %+v", l.Properties)
	}
	p, err := d.links.BeginUpdate(ctx, "Rg", "corp.example", "hub", armprivatedns.VirtualNetworkLink{Tags: map[string]*string{"x": to.Ptr("y")}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	patched, err := p.PollUntilDone(ctx, nil)
	if err != nil || *patched.Tags["x"] != "y" || !*patched.Properties.RegistrationEnabled || *patched.Etag == *l.Etag {
		t.Errorf("patched link %+v, %v", patched.VirtualNetworkLink, err)
	}
	if z, err := d.zones.Get(ctx, "Rg", "corp.example", nil); err != nil || *z.Properties.NumberOfVirtualNetworkLinks != 1 || *z.Properties.NumberOfVirtualNetworkLinksWithRegistration != 1 {
		t.Errorf("counters %+v, %v", z.Properties, err)
	}

	dz, err := d.zones.BeginDelete(ctx, "Rg", "corp.example", nil)
	failed(t, err, http.StatusConflict, "CannotDeleteResource")
	dl, err := d.links.BeginDelete(ctx, "Rg", "corp.example", "HUB", nil)
	if err == nil {
		_, err = dl.PollUntilDone(ctx, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing: 204
		if dz, err = d.zones.BeginDelete(ctx, "Rg", "corp.example", nil); err == nil {
			_, err = dz.PollUntilDone(ctx, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = d.zones.Get(ctx, "Rg", "corp.example", nil)
	failed(t, err, http.StatusNotFound, "ResourceNotFound")
}

func TestPrivateDNSConditions(t *testing.T) {
	d := newDNS(t)
	ctx := t.Context()
	set := armprivatedns.RecordSet{Properties: &armprivatedns.RecordSetProperties{TTL: to.Ptr(int64(10)), ARecords: []*armprivatedns.ARecord{{IPv4Address: to.Ptr("10.0.0.1")}}}}
	put := func(o *armprivatedns.RecordSetsClientCreateOrUpdateOptions) (string, error) {
		got, err := d.records.CreateOrUpdate(ctx, "Rg", "corp.example", armprivatedns.RecordTypeA, "www", set, o)
		if err != nil {
			return "", err
		}
		return *got.Etag, nil
	}
	tag, err := put(&armprivatedns.RecordSetsClientCreateOrUpdateOptions{IfNoneMatch: to.Ptr("*")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = put(&armprivatedns.RecordSetsClientCreateOrUpdateOptions{IfNoneMatch: to.Ptr("*")})
	failed(t, err, http.StatusPreconditionFailed, "PreconditionFailed")
	set.Properties.TTL = to.Ptr(int64(20))
	next, err := put(&armprivatedns.RecordSetsClientCreateOrUpdateOptions{IfMatch: &tag})
	if err != nil || next == tag {
		t.Fatalf("%q after %q, %v", next, tag, err)
	}
	_, err = put(&armprivatedns.RecordSetsClientCreateOrUpdateOptions{IfMatch: &tag})
	failed(t, err, http.StatusPreconditionFailed, "PreconditionFailed")
	_, err = d.records.Delete(ctx, "Rg", "corp.example", armprivatedns.RecordTypeA, "www", &armprivatedns.RecordSetsClientDeleteOptions{IfMatch: &tag})
	failed(t, err, http.StatusPreconditionFailed, "PreconditionFailed")
	_, err = d.records.Delete(ctx, "Rg", "corp.example", armprivatedns.RecordTypeA, "www", &armprivatedns.RecordSetsClientDeleteOptions{IfMatch: &next})
	if err != nil {
		t.Error(err)
	}
	_, err = d.zones.BeginDelete(ctx, "Rg", "corp.example", &armprivatedns.PrivateZonesClientBeginDeleteOptions{IfMatch: to.Ptr("another")})
	failed(t, err, http.StatusPreconditionFailed, "PreconditionFailed")
	_, err = d.zones.BeginCreateOrUpdate(ctx, "Rg", "corp.example", armprivatedns.PrivateZone{Location: to.Ptr("global")}, &armprivatedns.PrivateZonesClientBeginCreateOrUpdateOptions{IfNoneMatch: to.Ptr("*")})
	failed(t, err, http.StatusPreconditionFailed, "PreconditionFailed")
}

// TestPrivateDNSRefused: mistakes, what stands against a request, and A-cases of who may not.
func TestPrivateDNSRefused(t *testing.T) {
	d := newDNS(t)
	d.putGroup("contoso", contosoSub, "rg")
	d.makeNetwork("contoso", contosoSub, "rg", "theirs", "10.2.0.0/16")
	zone := groupPath(fabrikamSub, "rg") + "/providers/Microsoft.Network/privateDnsZones/corp.example"
	other := groupPath(fabrikamSub, "rg") + "/providers/Microsoft.Network/privateDnsZones/x.example"
	linkTo := func(id string) string {
		return fmt.Sprintf(`{"location":"global","properties":{"virtualNetwork":{"id":%q}}}`, id)
	}
	mine := networkARM(fabrikamSub, "rg", "net")
	d.do("fabrikam", "PUT", zone+"/virtualNetworkLinks/one", linkTo(mine)).want(201)
	d.do("fabrikam", "PUT", zone+"/virtualNetworkLinks/one", linkTo(mine)).want(200)
	d.do("fabrikam", "PUT", zone+"/CNAME/c", `{"properties":{"ttl":1,"cnameRecord":{"cname":"a.example"}}}`).want(201)
	d.putGroup("fabrikam", fabrikamSub, "rg2")
	second := groupPath(fabrikamSub, "rg2") + "/providers/Microsoft.Network/privateDnsZones/corp.example"
	d.do("fabrikam", "PUT", second, `{"location":"global"}`).want(201)
	for _, tt := range []struct {
		name, as, method, path, body string
		status                       int
		code                         string
	}{
		{"zone of one label", "fabrikam", "PUT", strings.Replace(zone, "corp.example", "corp", 1), `{"location":"global"}`, 400, "InvalidResourceName"},
		{"zone without a location", "fabrikam", "PUT", other, `{}`, 400, "LocationRequired"},
		{"zone elsewhere", "fabrikam", "PUT", other, `{"location":"westeurope"}`, 400, "LocationNotAvailableForResourceType"},
		{"PATCH of no zone", "fabrikam", "PATCH", other, `{"tags":{}}`, 404, "ResourceNotFound"},
		{"zone in no group", "fabrikam", "PUT", strings.Replace(zone, "/rg/", "/nogroup/", 1), `{"location":"global"}`, 404, "ResourceGroupNotFound"},
		{"link in no zone", "fabrikam", "PUT", other + "/virtualNetworkLinks/l", linkTo(mine), 404, "ParentResourceNotFound"},
		{"link to no network", "fabrikam", "PUT", zone + "/virtualNetworkLinks/l", linkTo(networkARM(fabrikamSub, "rg", "nobody")), 400, "InvalidResourceReference"},
		{"link to a foreign network", "fabrikam", "PUT", zone + "/virtualNetworkLinks/l", linkTo(networkARM(contosoSub, "rg", "theirs")), 400, "InvalidResourceReference"},
		{"link to a subnet", "fabrikam", "PUT", zone + "/virtualNetworkLinks/l", linkTo(mine + "/subnets/pe"), 400, "InvalidRequestFormat"},
		{"link to nothing", "fabrikam", "PUT", zone + "/virtualNetworkLinks/l", `{"location":"global","properties":{}}`, 400, "InvalidRequestFormat"},
		{"second link to a network", "fabrikam", "PUT", zone + "/virtualNetworkLinks/two", linkTo(mine), 409, "Conflict"},
		{"second zone of a name", "fabrikam", "PUT", second + "/virtualNetworkLinks/two", linkTo(mine), 409, "Conflict"},
		{"link moves", "fabrikam", "PUT", zone + "/virtualNetworkLinks/one", linkTo(networkARM(fabrikamSub, "rg", "other")), 409, "Conflict"},
		{"policy", "fabrikam", "PATCH", zone + "/virtualNetworkLinks/one", `{"properties":{"resolutionPolicy":"Maybe"}}`, 400, "InvalidRequestFormat"},
		{"unknown link", "fabrikam", "GET", zone + "/virtualNetworkLinks/l", "", 404, "ResourceNotFound"},
		{"links of no zone", "fabrikam", "GET", other + "/virtualNetworkLinks", "", 404, "ParentResourceNotFound"},
		{"record in no zone", "fabrikam", "PUT", other + "/A/www", `{"properties":{"ttl":1}}`, 404, "ParentResourceNotFound"},
		{"records of no zone", "fabrikam", "GET", other + "/ALL", "", 404, "ParentResourceNotFound"},
		{"record without TTL", "fabrikam", "PUT", zone + "/A/www", `{"properties":{"aRecords":[]}}`, 400, "InvalidRequestFormat"},
		{"record with a long TTL", "fabrikam", "PUT", zone + "/A/www", `{"properties":{"ttl":4294967296}}`, 400, "InvalidRequestFormat"},
		{"record with no address", "fabrikam", "PUT", zone + "/A/www", `{"properties":{"ttl":1,"aRecords":[{"ipv4Address":"10.0.0.256"}]}}`, 400, "InvalidRequestFormat"},
		{"record of another type", "fabrikam", "PUT", zone + "/A/www", `{"properties":{"ttl":1,"aaaaRecords":[{"ipv6Address":"::1"}]}}`, 400, "InvalidRequestFormat"},
		{"two fields in one", "fabrikam", "PUT", zone + "/MX/www", `{"properties":{"ttl":1,"mxRecords":[{"preference":1,"exchange":"2 a.example"}]}}`, 400, "InvalidRequestFormat"},
		{"record beside a CNAME", "fabrikam", "PUT", zone + "/A/c", `{"properties":{"ttl":1}}`, 409, "Conflict"},
		{"CNAME at the apex", "fabrikam", "PUT", zone + "/CNAME/@", `{"properties":{"ttl":1,"cnameRecord":{"cname":"a.example"}}}`, 400, "InvalidRequestFormat"},
		{"SOA below the apex", "fabrikam", "PUT", zone + "/SOA/x", `{"properties":{"ttl":1,"soaRecord":{}}}`, 400, "InvalidRequestFormat"},
		{"name with a slash", "fabrikam", "PUT", zone + "/A/a%2Fb", `{"properties":{"ttl":1}}`, 400, "InvalidRequestFormat"},
		{"PATCH of no record", "fabrikam", "PATCH", zone + "/A/nobody", `{"properties":{"ttl":1}}`, 404, "ResourceNotFound"},
		{"record type", "fabrikam", "GET", zone + "/NS/@", "", 404, "InvalidResourceType"},
		{"A reader writes a zone", "fabrikam-reader", "PUT", other, `{"location":"global"}`, 403, "AuthorizationFailed"},
		{"A reader writes a record", "fabrikam-reader", "PUT", zone + "/A/www", `{"properties":{"ttl":1}}`, 403, "AuthorizationFailed"},
		{"A reader deletes a zone", "fabrikam-reader", "DELETE", zone, "", 403, "AuthorizationFailed"},
		{"A foreign tenant reads a zone", "contoso", "GET", zone, "", 404, "SubscriptionNotFound"},
		{"A foreign tenant lists records", "contoso", "GET", zone + "/ALL", "", 404, "SubscriptionNotFound"},
		{"A foreign tenant writes", "contoso", "PUT", zone + "/A/www", `{"properties":{"ttl":1}}`, 404, "SubscriptionNotFound"},
		{"A foreign tenant deletes", "contoso", "DELETE", zone, "", 404, "SubscriptionNotFound"},
		{"A foreign tenant deletes a link", "contoso", "DELETE", zone + "/virtualNetworkLinks/one", "", 404, "SubscriptionNotFound"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := *d.rig
			r.t = t
			var body any
			if tt.body != "" {
				body = tt.body
			}
			a := r.do(tt.as, tt.method, tt.path, body).wantError(tt.status, tt.code)
			if strings.Contains(string(a.body), "theirs") && tt.as != "contoso" && !strings.Contains(tt.body, "theirs") {
				t.Errorf("the answer tells of what is foreign: %s", a.body)
			}
		})
	}
	// What doesn't exist and what is foreign are told apart by nothing but the ID that was sent.
	foreign := d.do("fabrikam", "PUT", zone+"/virtualNetworkLinks/l", linkTo(networkARM(contosoSub, "rg", "theirs")))
	nobody := d.do("fabrikam", "PUT", zone+"/virtualNetworkLinks/l", linkTo(networkARM(contosoSub, "rg", "nobody")))
	if strings.ReplaceAll(string(foreign.body), "theirs", "nobody") != string(nobody.body) {
		t.Errorf("foreign: %s\nnobody: %s", foreign.body, nobody.body)
	}
	var list listBody
	d.do("fabrikam", "GET", "/subscriptions/"+fabrikamSub+"/providers/Microsoft.Network/privatednszones", nil).want(200).into(&list)
	if len(list.Value) != 2 {
		t.Errorf("%d zones in the subscription", len(list.Value))
	}
	d.do("fabrikam-reader", "GET", zone+"/a", nil).want(200)
}
