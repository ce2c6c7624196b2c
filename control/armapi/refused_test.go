package armapi

import (
	"fmt"
	"testing"

	"github.com/postern-link/postern/store"
)

// TestRefusedWrites (A03): who writes into a subscription without a role in it, or into one that doesn't exist, is
// told the same, and both are in the audit record: for the owner of the one, and for the operator. Reads aren't.
func TestRefusedWrites(t *testing.T) {
	r := newRig(t)
	r.putGroup("contoso", contosoSub, "rg")
	const nowhere = "0f000000-0000-4000-8000-000000000009"
	before, err := r.store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ method, path string }{
		{"PUT", "privateLinkServices/db"},
		{"PATCH", "virtualNetworks/corp"},
		{"DELETE", "privateEndpoints/pe"},
		{"PUT", "privateLinkServices/db/privateEndpointConnections/pe.1"},
	}
	for _, sub := range []string{contosoSub, nowhere} {
		r.do("fabrikam", "GET", armPath(sub, "privateLinkServices/db"), nil).wantError(404, "SubscriptionNotFound")
		for _, tt := range tests {
			for range 3 { // the same again is counted, and has no entry
				r.do("fabrikam", tt.method, armPath(sub, tt.path), `{}`).wantError(404, "SubscriptionNotFound")
			}
		}
		r.do("fabrikam", "POST", "/subscriptions/"+sub+"/providers/Postern.Network/apply", `{}`).wantError(404, "SubscriptionNotFound")
	}
	got := map[string]int{}
	for e, err := range r.store.Audit(t.Context(), before.Revision()+1) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Result != store.Refused || e.Actor != "fabrikam" || len(e.Changes) != 0 {
			t.Errorf("entry %+v", e)
		}
		got[fmt.Sprint(e.Action, " ", e.Object, " ", e.Scopes)]++
	}
	for _, sub := range []string{contosoSub, nowhere} {
		scopes := "[]"
		if sub == contosoSub {
			scopes = "[" + sub + "]"
		}
		want := []string{"request.post path/subscriptions/" + sub + "/providers/Postern.Network/apply " + scopes}
		for _, tt := range tests {
			word := map[string]string{"PUT": "put", "PATCH": "patch", "DELETE": "delete"}[tt.method]
			want = append(want, "request."+word+" path"+armPath(sub, tt.path)+" "+scopes)
		}
		for _, w := range want {
			if got[w] != 1 {
				t.Errorf("%d entries %q", got[w], w)
			}
			delete(got, w)
		}
	}
	if len(got) > 0 {
		t.Errorf("more entries: %v", got)
	}
}
