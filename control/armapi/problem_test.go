package armapi

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// TestTellable (decision 0014): the text of a conflict is for those whose objects it names, all of them.
func TestTellable(t *testing.T) {
	caller := control.Caller{Name: "kim", Grants: []control.Grant{{Subscription: "mine", Role: control.Reader}}}
	for _, tt := range []struct {
		id   link.ID
		text string
		want bool
	}{
		{"mine/g/a", "prefix 10.1.0.0/16 is that of network mine/g/b (the API): clients of both can't be told apart", true},
		{"mine/g/a", "prefix 10.1.0.0/16 is that of network other/g/b (the API): clients of both can't be told apart", false},
		{"mine/g/a", "prefix 10.1.0.0/16 is that of network lab (Corefile:3)", false},
		{"mine/g/a", "address space 10.1.0.0/16 is in use", true},
		{"mine/g/a", "address 10.1.0.4 is that of endpoint mine/g/b (the API)", true},
		{"mine/g/a", "address 10.1.0.4 is that of endpoint other/g/b (the API)", false},
		{"mine/g/a", "address 10.1.0.4 is a target of a service", false},
		{"mine/g/a", "the connection is Approved: only a Disconnected one can be asked for again", true},
		{"other/g/a", "the connection is Approved: only a Disconnected one can be asked for again", false},
		{"lab", "the connection is Approved", false},
		{"mine/g/a", "endpoints are connected to it: [other/g/b]", false},
		{"mine/g/a", "it is declared in Corefile:3 by linknetwork", false},
	} {
		o := &link.ObjectError{Kind: link.KindNetwork, ID: tt.id, Err: fmt.Errorf("%w: %s", link.ErrConflict, tt.text)}
		if got := tellable(caller, o); got != tt.want {
			t.Errorf("%v: %v, want %v", o, got, tt.want)
		}
		if !errors.Is(o, link.ErrConflict) {
			t.Errorf("%v is no conflict", o)
		}
	}
}

// TestConflictOfOnesOwn: who is in one's own way is told what it is, and the other tenant is told nothing.
func TestConflictOfOnesOwn(t *testing.T) {
	r, _, _ := neighbours(t)
	body := `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.77.0.0/16"]}}}`
	r.do("fabrikam", "PUT", armPath(fabrikamSub, "virtualNetworks/one"), body).want(201)
	if a := r.do("fabrikam", "PUT", armPath(fabrikamSub, "virtualNetworks/two"), body).wantError(409, "Conflict"); !strings.Contains(string(a.body), "10.77.0.0/16 is that of network "+fabrikamSub+"/rg/one") {
		t.Errorf("one's own: %s", a.body)
	}
	if a := r.do("contoso", "PUT", armPath(contosoSub, "virtualNetworks/two"), body).wantError(409, "Conflict"); strings.Contains(string(a.body), fabrikamSub) {
		t.Errorf("the other's: %s", a.body)
	}
}
