package node

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/node/succession"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy"
)

// The names that a flow's target was found by go from process to process: without them the next one would end it.
func TestFoundByIsHandedOver(t *testing.T) {
	f := proxy.FlowInfo{ID: "1", Standing: policy.Standing{
		Service: "svc", LinkID: 7, Target: netip.MustParseAddrPort("10.0.0.4:443"),
		By: []link.NamePort{{Name: "a.example", Port: 443}, {Name: "b.example", Port: 443}},
	}}
	is := told(f)
	if got := guests([]succession.Flow{is}); len(got) != 1 || !reflect.DeepEqual(got[0].Standing.By, f.Standing.By) {
		t.Errorf("%+v", got)
	}
	other := is
	if other.ToClient = 9; !same(is, other) {
		t.Error("bytes count")
	}
	if other.FoundBy = is.FoundBy[:1]; same(is, other) {
		t.Error("names don't")
	}
}
