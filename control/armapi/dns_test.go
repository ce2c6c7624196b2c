package armapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/privatedns/armprivatedns"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// staticToken is a credential of azcore's for somebody's static token.
type staticToken string

func (s staticToken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: tokenOf(string(s)), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// dnsRig is a rig with a group, and the private DNS clients of somebody.
type dnsRig struct {
	*rig
	zones   *armprivatedns.PrivateZonesClient
	links   *armprivatedns.VirtualNetworkLinksClient
	records *armprivatedns.RecordSetsClient
}

func (r *rig) dnsAs(name, sub string) *dnsRig {
	r.t.Helper()
	factory, err := armprivatedns.NewClientFactory(sub, staticToken(name), &arm.ClientOptions{
		ClientOptions: policy.ClientOptions{
			Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: r.url + "/", Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
				cloud.ResourceManager: {Endpoint: r.url, Audience: r.url + "/"}}},
			Transport: r.client, Retry: policy.RetryOptions{MaxRetries: -1},
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return &dnsRig{r, factory.NewPrivateZonesClient(), factory.NewVirtualNetworkLinksClient(), factory.NewRecordSetsClient()}
}

// newDNS starts a rig in which fabrikam has a group "Rg" with the network "net" and a private zone.
func newDNS(t *testing.T) *dnsRig {
	t.Helper()
	r := newRig(t)
	r.putGroup("fabrikam", fabrikamSub, "Rg")
	r.makeNetwork("fabrikam", fabrikamSub, "rg", "net", "10.1.0.0/16")
	d := r.dnsAs("fabrikam", fabrikamSub)
	d.putZone("Corp.Example")
	return d
}

// makeNetwork writes a network with a subnet for endpoints, as the operations do.
func (r *rig) makeNetwork(name, sub, group, network, prefix string) link.ID {
	r.t.Helper()
	caller, err := r.directory.Authenticate(r.t.Context(), credential(name))
	if err != nil {
		r.t.Fatal(err)
	}
	id := link.ID(sub + "/" + group + "/" + network)
	p := netip.MustParsePrefix(prefix)
	n := link.Network{Prefixes: []netip.Prefix{p}, Egress: []string{"*"}, Subnets: []link.Subnet{{Name: "pe", Prefixes: []netip.Prefix{netip.PrefixFrom(p.Addr(), 24)}}}}
	if _, err := r.control.EditNetwork(r.t.Context(), opOf(caller), id, func(*link.Snapshot, *link.Network) (*link.Network, error) { return &n, nil }); err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (d *dnsRig) putZone(name string) *armprivatedns.PrivateZone {
	d.t.Helper()
	p, err := d.zones.BeginCreateOrUpdate(d.t.Context(), "Rg", name, armprivatedns.PrivateZone{Location: to.Ptr("Global"), Tags: map[string]*string{"a": to.Ptr("b")}}, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	z, err := p.PollUntilDone(d.t.Context(), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return &z.PrivateZone
}

func networkARM(sub, group, name string) string {
	return groupPath(sub, group) + "/providers/Microsoft.Network/virtualNetworks/" + name
}

func (d *dnsRig) putLink(zone, name, network string, policy armprivatedns.ResolutionPolicy) (*armprivatedns.VirtualNetworkLink, error) {
	p, err := d.links.BeginCreateOrUpdate(d.t.Context(), "Rg", zone, name, armprivatedns.VirtualNetworkLink{Location: to.Ptr("global"),
		Properties: &armprivatedns.VirtualNetworkLinkProperties{RegistrationEnabled: to.Ptr(true), ResolutionPolicy: &policy, VirtualNetwork: &armprivatedns.SubResource{ID: &network}}}, nil)
	if err != nil {
		return nil, err
	}
	l, err := p.PollUntilDone(d.t.Context(), nil)
	return &l.VirtualNetworkLink, err
}

// failed fails the test unless an error of the SDK has the status and code.
func failed(t *testing.T, err error, status int, code string) {
	t.Helper()
	e, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok || e.StatusCode != status || e.ErrorCode != code {
		t.Fatalf("error %v, want %d %s", err, status, code)
	}
}

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
	if err != nil || *soa.Properties.SoaRecord.Host != "azureprivatedns.net" || *soa.Properties.SoaRecord.MinimumTTL != 10 || *soa.Properties.TTL != 3600 || *soa.Properties.Fqdn != "corp.example." {
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

// TestRecordSetsOfAllTypes: each type comes back as it was sent, by GET and in the list, and is changed by
// PATCH and deleted.
func TestRecordSetsOfAllTypes(t *testing.T) {
	d := newDNS(t)
	ctx := t.Context()
	for _, tt := range []struct {
		rtype armprivatedns.RecordType
		name  string
		set   string // the properties
	}{
		{"A", "www", `{"ttl":3600,"aRecords":[{"ipv4Address":"10.0.0.1"},{"ipv4Address":"10.0.0.2"}]}`},
		{"A", "*", `{"ttl":1,"aRecords":[{"ipv4Address":"10.0.0.3"}],"metadata":{"k":"v"}}`},
		{"A", "Empty.Set", `{"ttl":0,"aRecords":[]}`},
		{"AAAA", "@", `{"ttl":3600,"aaaaRecords":[{"ipv6Address":"fd00::1"}]}`},
		{"CNAME", "alias", `{"ttl":3600,"cnameRecord":{"cname":"www.example.org"}}`},
		{"MX", "@", `{"ttl":3600,"mxRecords":[{"exchange":"mail.example.org","preference":10}]}`},
		{"PTR", "1.0", `{"ttl":3600,"ptrRecords":[{"ptrdname":"www.example.org"}]}`},
		{"SOA", "@", `{"ttl":600,"soaRecord":{"email":"me.example.org","expireTime":2419200,"host":"azureprivatedns.net","minimumTtl":5,"refreshTime":3600,"retryTime":300,"serialNumber":7}}`},
		{"SRV", "_sip._tcp", `{"ttl":3600,"srvRecords":[{"port":5060,"priority":1,"target":"sip.example.org","weight":2}]}`},
		{"TXT", "txt", `{"ttl":3600,"txtRecords":[{"value":["a \"quoted\" \\ text","ä; second"]},{"value":["` + strings.Repeat("x", 255) + `"]}]}`},
	} {
		t.Run(string(tt.rtype)+" "+tt.name, func(t *testing.T) {
			var in armprivatedns.RecordSet
			if err := json.Unmarshal([]byte(`{"properties":`+tt.set+`}`), &in); err != nil {
				t.Fatal(err)
			}
			got, err := d.records.CreateOrUpdate(ctx, "Rg", "corp.example", tt.rtype, tt.name, in, nil)
			if err != nil {
				t.Fatal(err)
			}
			again, err := d.records.Get(ctx, "Rg", "corp.example", tt.rtype, tt.name, nil)
			if err != nil || *again.Etag != *got.Etag || *again.Name != tt.name || *again.Type != "Microsoft.Network/privateDnsZones/"+string(tt.rtype) {
				t.Fatalf("%+v, %v", again.RecordSet, err)
			}
			again.Properties.Fqdn, again.Properties.IsAutoRegistered = nil, nil
			out, err := json.Marshal(again.Properties)
			if want, _ := json.Marshal(in.Properties); err != nil || string(out) != string(want) {
				t.Errorf("got %s, want %s", out, want)
			}
			patched, err := d.records.Update(ctx, "Rg", "corp.example", tt.rtype, tt.name, armprivatedns.RecordSet{Properties: &armprivatedns.RecordSetProperties{TTL: to.Ptr(int64(99))}}, nil)
			if err != nil || *patched.Properties.TTL != 99 || *patched.Etag == *got.Etag {
				t.Fatalf("patched: %+v, %v", patched.RecordSet, err)
			}
			patched.Properties.Fqdn, patched.Properties.IsAutoRegistered, patched.Properties.TTL = nil, nil, in.Properties.TTL
			if out, err = json.Marshal(patched.Properties); err != nil || !slices.Equal(out, must(json.Marshal(in.Properties))) {
				t.Errorf("PATCH of the TTL changed more: %s", out)
			}
		})
	}
	pager := d.records.NewListPager("Rg", "corp.example", &armprivatedns.RecordSetsClientListOptions{Top: to.Ptr[int32](3)})
	var all []string
	pages := 0
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if pages++; len(page.Value) > 3 {
			t.Errorf("a page of %d", len(page.Value))
		}
		for _, s := range page.Value {
			all = append(all, strings.TrimPrefix(*s.Type, "Microsoft.Network/privateDnsZones/")+" "+*s.Name)
		}
	}
	if want := []string{"A *", "A Empty.Set", "A www", "AAAA @", "CNAME alias", "MX @", "PTR 1.0", "SOA @", "SRV _sip._tcp", "TXT txt"}; !slices.Equal(all, want) || pages != 4 {
		t.Errorf("list in %d pages: %q", pages, all)
	}
	byType, err := d.records.NewListByTypePager("Rg", "corp.example", armprivatedns.RecordTypeA, &armprivatedns.RecordSetsClientListByTypeOptions{Recordsetnamesuffix: to.Ptr("set")}).NextPage(ctx)
	if err != nil || len(byType.Value) != 1 || *byType.Value[0].Name != "Empty.Set" {
		t.Errorf("by suffix: %+v, %v", byType.Value, err)
	}
	for range 2 {
		if _, err := d.records.Delete(ctx, "Rg", "corp.example", armprivatedns.RecordTypeCNAME, "Alias", nil); err != nil {
			t.Error(err)
		}
	}
	_, err = d.records.Get(ctx, "Rg", "corp.example", armprivatedns.RecordTypeCNAME, "alias", nil)
	failed(t, err, http.StatusNotFound, "ResourceNotFound")
	_, err = d.records.Delete(ctx, "Rg", "corp.example", armprivatedns.RecordTypeSOA, "@", nil)
	failed(t, err, http.StatusBadRequest, "InvalidOperation")
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
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

// TestZoneGroupViews: what endpoints have in a zone is shown as record sets, and can't be written.
func TestZoneGroupViews(t *testing.T) {
	d := newDNS(t)
	d.putGroup("contoso", contosoSub, "rg")
	ctx := t.Context()
	provider, err := d.directory.Authenticate(ctx, credential("contoso"))
	if err != nil {
		t.Fatal(err)
	}
	service := link.Service{Port: 443, Pin: link.PinAddress, ProxyProtocol: link.ProxyOff, Visible: []link.Party{link.Anyone}, AutoApprove: []link.Party{link.Anyone},
		Targets: []link.Target{{Addr: netip.MustParseAddrPort("203.0.113.9:443")}}, Names: []link.ResourceName{{Public: "db.contoso.example"}}}
	serviceID := link.ID(contosoSub + "/rg/db")
	if _, err := d.control.EditService(ctx, opOf(provider), serviceID, func(*link.Snapshot, *link.Service) (*link.Service, error) { return &service, nil }); err != nil {
		t.Fatal(err)
	}
	d.putZone("contoso.example")
	consumer, err := d.directory.Authenticate(ctx, credential("fabrikam"))
	if err != nil {
		t.Fatal(err)
	}
	ask := control.Ask{Manual: true, Endpoint: link.Endpoint{Network: fabrikamSub + "/rg/net", Subnet: "pe", Service: serviceID,
		Zones: &link.ZoneGroup{Name: "default", Configs: []link.ZoneConfig{{Name: "c", Zone: fabrikamSub + "/rg/contoso.example"}}}}}
	endpointID := link.ID(fabrikamSub + "/rg/db-pe")
	res, err := d.control.EditEndpoint(ctx, opOf(consumer), endpointID, func(*link.Snapshot, *link.Endpoint) (*control.Ask, error) { return &ask, nil })
	if err != nil {
		t.Fatal(err)
	}
	address := res.Snapshot.Endpoint(endpointID).Address.String()
	got, err := d.records.Get(ctx, "Rg", "contoso.example", armprivatedns.RecordTypeA, "db", nil)
	if err != nil || *got.Properties.ARecords[0].IPv4Address != address || *got.Properties.TTL != 10 || !strings.Contains(*got.Properties.Metadata["creator"], "db-pe") {
		t.Fatalf("view %+v, %v", got.RecordSet, err)
	}
	list, err := d.records.NewListPager("Rg", "contoso.example", nil).NextPage(ctx)
	if err != nil || len(list.Value) != 2 || *list.Value[0].Name != "db" {
		t.Errorf("list %+v, %v", list.Value, err)
	}
	if z, err := d.zones.Get(ctx, "Rg", "contoso.example", nil); err != nil || *z.Properties.NumberOfRecordSets != 2 {
		t.Errorf("zone %+v, %v", z.Properties, err)
	}
	set := armprivatedns.RecordSet{Properties: &armprivatedns.RecordSetProperties{TTL: to.Ptr(int64(10)), ARecords: []*armprivatedns.ARecord{{IPv4Address: to.Ptr("10.0.0.1")}}}}
	_, err = d.records.CreateOrUpdate(ctx, "Rg", "contoso.example", armprivatedns.RecordTypeA, "db", set, nil)
	failed(t, err, http.StatusConflict, "Conflict")
	_, err = d.records.Delete(ctx, "Rg", "contoso.example", armprivatedns.RecordTypeA, "db", nil)
	failed(t, err, http.StatusConflict, "Conflict")
	cname := armprivatedns.RecordSet{Properties: &armprivatedns.RecordSetProperties{TTL: to.Ptr(int64(10)), CnameRecord: &armprivatedns.CnameRecord{Cname: to.Ptr("a.example")}}}
	_, err = d.records.CreateOrUpdate(ctx, "Rg", "contoso.example", armprivatedns.RecordTypeCNAME, "db", cname, nil)
	failed(t, err, http.StatusConflict, "Conflict")
	_, err = d.zones.BeginDelete(ctx, "Rg", "contoso.example", nil)
	failed(t, err, http.StatusConflict, "CannotDeleteResource")
	// Gone with the connection.
	if _, err := d.control.Disconnect(ctx, opOf(provider), control.Decision{Endpoint: endpointID, Service: serviceID}); err != nil {
		t.Fatal(err)
	}
	_, err = d.records.Get(ctx, "Rg", "contoso.example", armprivatedns.RecordTypeA, "db", nil)
	failed(t, err, http.StatusNotFound, "ResourceNotFound")
	if _, err = d.records.CreateOrUpdate(ctx, "Rg", "contoso.example", armprivatedns.RecordTypeA, "db", set, nil); err != nil {
		t.Error(err)
	}
}

// FuzzRecordData: what clients send as records is refused, or is shown as it was taken.
func FuzzRecordData(f *testing.F) {
	f.Add(`{"aRecords":[{"ipv4Address":"10.0.0.1"}]}`)
	f.Add(`{"mxRecords":[{"preference":1,"exchange":"a.example"}],"srvRecords":[{"target":"."}]}`)
	f.Add(`{"txtRecords":[{"value":["a","\u00e4\\"]}],"soaRecord":{"host":"a b","expireTime":-1}}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, rtype := range link.RecordTypes() {
			var d recordData
			if checkJSON([]byte(text)) != nil || json.Unmarshal([]byte(text), &d) != nil {
				return
			}
			lines, _, err := d.lines(rtype, defaultSOA)
			if err != nil {
				continue
			}
			shown := dataOf(rtype, lines)
			again, _, err := shown.lines(rtype, defaultSOA)
			if err != nil || !slices.Equal(lines, again) {
				t.Errorf("%s: %q is shown as %+v and read as %q, %v", rtype, lines, shown, again, err)
			}
		}
	})
}
