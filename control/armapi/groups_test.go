package armapi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
)

// TestGroup is the life of a resource group.
func TestGroup(t *testing.T) {
	r := newRig(t)
	path := groupPath(contosoSub, "Prod-RG")
	r.do("contoso", "GET", path, nil).wantError(404, "ResourceGroupNotFound")
	r.do("contoso", "HEAD", path, nil).want(404)
	r.do("contoso", "PUT", path, `{}`).wantError(400, "LocationRequired")
	r.do("contoso", "PUT", path, `{"location":"local","tags":{"a":"1"}}`).want(201)
	var g groupBody
	get := r.do("contoso", "GET", strings.ToUpper(path), nil).want(200).into(&g)
	if g.Name != "Prod-RG" || g.ID != path || g.Location != "local" || g.Tags["a"] != "1" || g.Properties.State != "Succeeded" || g.Type != "Microsoft.Resources/resourceGroups" {
		t.Errorf("%+v", g)
	}
	r.do("contoso", "HEAD", path, nil).want(204)
	tag := get.header.Get("ETag")
	if tag == "" {
		t.Fatal("no ETag")
	}
	r.do("contoso", "PUT", path, `{"location":"local","tags":{"a":"2"}}`, "If-None-Match: *").wantError(412, "PreconditionFailed")
	r.do("contoso", "PATCH", path, `{"tags":{"b":"2","c":null}}`, `If-Match: "other"`).wantError(412, "PreconditionFailed")
	r.do("contoso", "PATCH", path, `{"tags":{"b":"2"}}`, "If-Match: "+tag).want(200).into(&g)
	r.do("contoso", "PATCH", path, `{"tags":{"b":"3"}}`, "If-Match: "+tag).wantError(412, "PreconditionFailed")
	r.do("contoso", "PATCH", path, `{}`, "If-Match: *").want(200)
	r.do("contoso", "PUT", path, `{"location":"elsewhere"}`).wantError(409, "InvalidResourceGroupLocation")
	r.do("contoso", "PUT", groupPath(contosoSub, "-x"), `{"location":"local"}`).wantError(400, "InvalidResourceName")
	r.do("contoso", "PATCH", groupPath(contosoSub, "other"), `{}`).wantError(404, "ResourceGroupNotFound")
	r.do("contoso", "PUT", groupPath(contosoSub, "other"), `{"location":"local"}`, "If-Match: *").wantError(412, "PreconditionFailed")
	r.do("contoso", "DELETE", path, nil, `If-Match: "other"`).wantError(412, "PreconditionFailed")
	r.do("contoso", "DELETE", path, nil).want(200)
	r.do("contoso", "DELETE", path, nil).want(204)
	r.do("contoso", "HEAD", path, nil).want(404)
}

// TestGroupRights: whoever may make objects may make a group for them, who may only read or decide may not.
func TestGroupRights(t *testing.T) {
	r := newRig(t)
	body := `{"location":"local"}`
	r.do("contoso-provider", "PUT", groupPath(contosoSub, "a"), body).want(201)
	r.do("fabrikam-network", "PUT", groupPath(fabrikamSub, "a"), body).want(201)
	for _, name := range []string{"contoso-reader", "contoso-approver"} {
		r.do(name, "PUT", groupPath(contosoSub, "b"), body).wantError(403, "AuthorizationFailed")
		r.do(name, "DELETE", groupPath(contosoSub, "a"), nil).wantError(403, "AuthorizationFailed")
		r.do(name, "GET", groupPath(contosoSub, "a"), nil).want(200)
	}
	r.do("nobody", "GET", groupPath(fabrikamSub, "a"), nil).wantError(404, "SubscriptionNotFound")
}

// TestGroupNotEmpty: a group that holds something isn't deleted, and lists what it holds.
func TestGroupNotEmpty(t *testing.T) {
	r := newRig(t)
	r.putGroup("fabrikam", fabrikamSub, "rg")
	r.putNetwork("fabrikam", fabrikamSub, "rg", "hub")
	a := r.do("fabrikam", "DELETE", groupPath(fabrikamSub, "rg"), nil).wantError(409, "ResourceGroupNotEmpty")
	if !strings.Contains(string(a.body), "virtualNetworks/hub") {
		t.Errorf("%s", a.body)
	}
	for _, path := range []string{groupPath(fabrikamSub, "rg") + "/resources?$expand=provisioningState&$top=10", "/subscriptions/" + fabrikamSub + "/resources"} {
		var body struct{ Value []resourceBody }
		r.do("fabrikam", "GET", path, nil).want(200).into(&body)
		if len(body.Value) != 1 || body.Value[0].Type != typeNetwork || body.Value[0].ID != groupPath(fabrikamSub, "rg")+"/providers/Microsoft.Network/virtualNetworks/hub" {
			t.Errorf("%s: %+v", path, body)
		}
	}
	r.do("fabrikam", "GET", groupPath(fabrikamSub, "none")+"/resources", nil).wantError(404, "ResourceGroupNotFound")
}

// putNetwork makes a network through the operations, without its wire format.
func (r *rig) putNetwork(name, sub, group, network string) {
	r.t.Helper()
	id := link.ID(sub + "/" + group + "/" + network)
	caller, err := r.directory.Authenticate(r.t.Context(), credential(name))
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = r.control.EditNetwork(r.t.Context(), opOf(caller), id, func(*link.Snapshot, *link.Network) (*link.Network, error) {
		return &link.Network{ID: id, Tenant: caller.Tenant, Prefixes: prefixes("10.7.0.0/16")}, nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestCorefileGroup: the operator sees what the Corefile declares, and nobody writes it.
func TestCorefileGroup(t *testing.T) {
	r := newRig(t)
	r.declare(link.Network{ID: "corp", Prefixes: prefixes("10.9.0.0/16")})
	path := groupPath(operatorSub, "corefile")
	r.do("operator", "GET", path, nil).want(200)
	for _, method := range []string{"PUT", "PATCH"} {
		r.do("operator", method, path, `{"location":"local"}`).wantError(409, "ScopeLocked")
	}
	r.do("operator", "DELETE", path, nil).wantError(409, "ScopeLocked")
	var all struct{ Value []resourceBody }
	r.do("operator", "GET", path+"/resources", nil).want(200).into(&all)
	if len(all.Value) != 1 || all.Value[0].Name != "corp" {
		t.Errorf("%+v", all)
	}
	var groups struct{ Value []groupBody }
	r.do("operator", "GET", "/subscriptions/"+operatorSub+"/resourceGroups", nil).want(200).into(&groups)
	if len(groups.Value) != 1 || groups.Value[0].Name != corefileGroup {
		t.Errorf("%+v", groups)
	}
	// For others it is a name like any other.
	r.putGroup("contoso", contosoSub, "corefile")
	r.do("contoso", "GET", groupPath(contosoSub, "corefile")+"/resources", nil).want(200).into(&all)
	if len(all.Value) != 0 {
		t.Errorf("%+v", all)
	}
	r.do("contoso", "GET", path, nil).wantError(404, "SubscriptionNotFound")
}

// TestPages: a list goes on where it was, whatever comes and goes between two pages.
func TestPages(t *testing.T) {
	r := newRig(t)
	for i := range 7 {
		r.putGroup("contoso", contosoSub, fmt.Sprintf("g%d", i))
	}
	next := "/subscriptions/" + contosoSub + "/resourceGroups?api-version=2021-04-01&$top=2"
	var names []string
	for pages := 0; next != ""; pages++ {
		var body struct {
			Value    []groupBody
			NextLink string
		}
		r.do("contoso", "GET", next, nil).want(200).into(&body)
		if len(body.Value) > 2 {
			t.Fatalf("%d values on a page", len(body.Value))
		}
		for _, g := range body.Value {
			names = append(names, g.Name)
		}
		if next = body.NextLink; next != "" && (!strings.HasPrefix(next, r.url+"/") || !strings.Contains(next, "api-version=2021-04-01")) {
			t.Fatalf("nextLink %q", next)
		}
		if pages == 0 { // one that was seen goes, one behind comes
			r.do("contoso", "DELETE", groupPath(contosoSub, "g1"), nil).want(200)
			r.putGroup("contoso", contosoSub, "g1a")
		}
	}
	if got := strings.Join(names, " "); got != "g0 g1 g1a g2 g3 g4 g5 g6" {
		t.Errorf("%s", got)
	}
	for _, bad := range []string{"$top=0", "$top=-1", "$top=x", "$skiptoken=*"} {
		r.do("contoso", "GET", "/subscriptions/"+contosoSub+"/resourceGroups?"+bad, nil).wantError(400, "InvalidQueryParameter")
	}
}

// TestTags: what isn't a tag of Azure's is refused.
func TestTags(t *testing.T) {
	value := func(s string) *string { return &s }
	many := map[string]*string{}
	for i := range maxTags + 1 {
		many[fmt.Sprint(i)] = value("")
	}
	for name, in := range map[string]map[string]*string{
		"empty name": {"": value("x")}, "a control character": {"a\n": value("x")}, "a forbidden character": {"a/b": value("x")},
		"a long value": {"a": value(strings.Repeat("x", 5000))}, "too many": many,
	} {
		if err := mergeTags(map[string]string{}, in); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	tags := map[string]string{"a": "1", "b": "2"}
	if err := mergeTags(tags, map[string]*string{"a": nil, "c": value("3")}); err != nil || len(tags) != 2 || tags["c"] != "3" {
		t.Errorf("%v, %v", tags, err)
	}
}
