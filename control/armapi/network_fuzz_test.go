package armapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/control/identity"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store/bolt"
)

// fuzzTargets are the resources that a body is written to. They stand in one world, so that a body may
// refer to the others.
var fuzzTargets = []string{
	"virtualNetworks/corp", "virtualNetworks/corp/subnets/pe", "loadBalancers/lb", "privateLinkServices/db",
	"privateEndpoints/pe1", "privateEndpoints/pe1/privateDnsZoneGroups/default", "privateLinkServices/db/privateEndpointConnections/pe1.x",
}

// FuzzBodies (A14, A15): whatever a body says, the answer is a resource that can be read again or an error of
// the caller's, never one of ours. The resource can then be put back as it is read.
func FuzzBodies(f *testing.F) {
	at := func(rest string) string { return armPath(contosoSub, rest) }
	for i, body := range []string{
		`{"location":"local","tags":{"postern-egress":"* tenant/fabrikam"},"properties":{"addressSpace":{"addressPrefixes":["10.1.0.0/16","fd00::/64"]},"subnets":[{"name":"pe","properties":{"addressPrefix":"10.1.1.0/24","privateLinkServiceNetworkPolicies":"Disabled"}},{"name":"six","properties":{"addressPrefixes":["fd00::/65"]}}]}}`,
		`{"properties":{"addressPrefix":"10.1.1.0/24","privateLinkServiceNetworkPolicies":"disabled"}}`,
		`{"location":"local","properties":{"frontendIPConfigurations":[{"name":"fe"}],"backendAddressPools":[{"name":"p","properties":{"loadBalancerBackendAddresses":[{"properties":{"ipAddress":"10.20.0.4"}},{"name":"b"}]}}],"loadBalancingRules":[{"name":"r","properties":{"protocol":"tcp","frontendPort":443,"backendPort":8443,"frontendIPConfiguration":{"id":"` + at("loadBalancers/lb/frontendIPConfigurations/FE") + `"},"backendAddressPools":[{"id":"` + at("loadBalancers/lb/backendAddressPools/p") + `"}]}}]}}`,
		`{"location":"local","tags":{"postern-port":"443","postern-pin":"tls","postern-reject":"tenant/x","postern-idle-timeout":"90s","postern-strict":"true","postern-max-connections":"5","postern-proxy-protocol":"v2"},"properties":{"destinationIPAddress":"10.20.0.4","fqdns":["db.contoso.example"],"visibility":{"subscriptions":["*"]},"autoApproval":{"subscriptions":["` + fabrikamSub + `"]},"ipConfigurations":[{"name":"nat","properties":{"privateIPAllocationMethod":"Static","privateIPAddress":"10.1.1.9","subnet":{"id":"` + at("virtualNetworks/corp/subnets/pe") + `"}}}]}}`,
		`{"location":"local","tags":{"postern-allow":"10.1.0.0/16"},"properties":{"subnet":{"id":"` + at("virtualNetworks/corp/subnets/pe") + `"},"privateLinkServiceConnections":[{"name":"c","properties":{"privateLinkServiceId":"` + at("privateLinkServices/db") + `","groupIds":null}}],"ipConfigurations":[{"name":"x","properties":{"privateIPAddress":"10.1.1.7"}}]}}`,
		`{"properties":{"privateDnsZoneConfigs":[{"name":"z","properties":{"privateDnsZoneId":"` + at("privateDnsZones/contoso.example") + `"}}]}}`,
		`{"properties":{"linkIdentifier":"4294967295","privateEndpoint":{"id":"x"},"privateLinkServiceConnectionState":{"status":"Approved"}}}`,
	} {
		f.Add(uint8(i), body)
	}
	f.Add(uint8(3), `{"location":"local","properties":{"loadBalancerFrontendIpConfigurations":[{"id":"`+at("loadBalancers/lb/frontendIPConfigurations/fe")+`"}],"ipConfigurations":[{"name":"n"}]}}`)
	for _, body := range []string{"", "null", "[]", `{"properties":null}`, `{"properties":[]}`, `{"properties":{"subnets":[null]}}`, `{"location":1e999}`, `{"location":"local","properties":{"ipConfigurations":[null],"privateLinkServiceConnections":[null]}}`} {
		for i := range fuzzTargets {
			f.Add(uint8(i), body)
		}
	}
	api := fuzzAPI(f)
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		path := at(fuzzTargets[int(which)%len(fuzzTargets)])
		put := fuzzed(api, http.MethodPut, path, body)
		if put.Code >= 500 || put.Code == http.StatusNotFound && !strings.Contains(path, "/pe1") {
			t.Fatalf("PUT %s: %d %s", path, put.Code, put.Body)
		}
		get := fuzzed(api, http.MethodGet, path, "")
		if put.Code >= 300 {
			return
		}
		if get.Code != http.StatusOK || get.Body.String() != put.Body.String() {
			t.Fatalf("PUT has answered\n%s, GET\n%s", put.Body, get.Body)
		}
		if again := fuzzed(api, http.MethodPut, path, get.Body.String()); again.Code != http.StatusOK || again.Body.String() != get.Body.String() {
			t.Fatalf("read\n%s, put back: %d\n%s", get.Body, again.Code, again.Body)
		}
	})
}

// fuzzed makes one request of contoso's owner.
func fuzzed(api *API, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "https://127.0.0.1"+path+"?api-version=2025-05-01", strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+tokenOf("contoso"))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	return w
}

// fuzzAPI is an API without a server, over a real store, in which every target is there already.
func fuzzAPI(f *testing.F) *API {
	ok := func(err error) {
		f.Helper()
		if err != nil {
			f.Fatal(err)
		}
	}
	dir := f.TempDir()
	path := filepath.Join(dir, "identities.json")
	ok(os.WriteFile(path, []byte(identities()), 0o600))
	directory, err := identity.Open(path, identity.Options{})
	ok(err)
	f.Cleanup(func() { _ = directory.Close() })
	store, err := bolt.Open(filepath.Join(dir, "state"), bolt.Options{})
	ok(err)
	f.Cleanup(func() { _ = store.Close() })
	c := control.New(control.Config{Store: store, Tenants: directory, Snapshot: func() *link.Snapshot {
		s, _ := store.Load(context.Background())
		return s
	}})
	api, err := New(Config{Control: c, Directory: directory, Rate: -1})
	ok(err)
	if w := fuzzed(api, http.MethodPut, groupPath(contosoSub, "rg"), `{"location":"local"}`); w.Code != http.StatusCreated {
		f.Fatalf("%d %s", w.Code, w.Body)
	}
	return api
}
