package armapi

import "testing"

// TestQueryGivenTwice: of two values of a parameter, in whatever letter case, none is picked by chance.
func TestQueryGivenTwice(t *testing.T) {
	r := newRig(t)
	r.putGroup("contoso", contosoSub, "rg")
	for range 8 { // the order of a map is random
		for _, twice := range []string{"?force=true&Force=false", "?force=true&force=false", "?FORCE=&force=true"} {
			r.do("contoso", "DELETE", armPath(contosoSub, "privateLinkServices/db")+twice, nil).wantError(400, "InvalidQueryParameter")
		}
	}
	r.do("contoso", "DELETE", armPath(contosoSub, "privateLinkServices/db")+"?force=true&Force=true", nil).want(204)
}
