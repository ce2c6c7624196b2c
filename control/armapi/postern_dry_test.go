package armapi

import (
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"

	"github.com/postern-link/postern/control"
)

// TestDryRun: what has a dry run says what it would do and does nothing; what has none is refused, not done.
func TestDryRun(t *testing.T) {
	r, provider, consumer := neighbours(t)
	v := provider.publish("db", serviceBody(contosoSub, "10.20.0.5", to.Ptr("*")))
	if _, err := consumer.ask("pe1", endpointBody(fabrikamSub, *v.Properties.Alias, true)); err != nil {
		t.Fatal(err)
	}
	var of struct {
		Value []struct{ Name string }
	}
	service := armPath(contosoSub, "privateLinkServices/db")
	r.do("contoso", "GET", service+"/privateEndpointConnections", nil).want(200).into(&of)
	connection := service + "/privateEndpointConnections/" + of.Value[0].Name
	postern := groupPath(contosoSub, "rg") + "/providers/Postern.Network/privateLinkServices/db"
	says := func(status string) any {
		return map[string]any{"properties": map[string]any{"privateLinkServiceConnectionState": map[string]string{"status": status}}}
	}
	r.do("contoso", "PUT", connection, says("Approved")).want(200)
	state, err := r.store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, who, method, path string
		body                    any
		verb                    string // of the change
	}{
		{"reject", "contoso", "PUT", connection, says("Rejected"), "updated"},
		{"remove", "contoso", "DELETE", connection, nil, "updated"},
		{"suspend", "contoso", "POST", postern + "/privateEndpointConnections/" + of.Value[0].Name + "/suspend", nil, "updated"},
		{"delete endpoint", "fabrikam", "DELETE", armPath(fabrikamSub, "privateEndpoints/pe1"), nil, "deleted"},
		{"delete service", "contoso", "DELETE", service + "?force=true", nil, "deleted"},
		{"force delete", "contoso", "POST", postern + "/forceDelete", nil, "deleted"},
		{"delete network", "contoso", "DELETE", armPath(contosoSub, "virtualNetworks/provider"), nil, ""},
		{"what has none", "contoso", "PUT", groupPath(contosoSub, "more"), map[string]string{"location": "local"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.t = t
			query := "?dryRun=true"
			if tt.name == "delete service" {
				query = "&dryRun=true"
			}
			a := r.do(tt.who, tt.method, tt.path+query, tt.body)
			if tt.verb == "" {
				a.want(400)
			} else {
				var p control.Plan
				a.want(200).into(&p)
				found := false
				for _, c := range p.Changes {
					found = found || c.Verb == tt.verb
				}
				if !found {
					t.Errorf("plan: %+v", p)
				}
			}
			if now, err := r.store.Load(t.Context()); err != nil || now.Revision() != state.Revision() {
				t.Errorf("the state has changed: %v", err)
			}
		})
	}
	r.t = t
	r.do("contoso", "DELETE", connection+"?dryRun=perhaps", nil).wantError(400, "InvalidQueryParameter")
}
