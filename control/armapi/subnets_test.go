package armapi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

// largeNetwork makes a network with as many subnets as one may have, and returns its path.
func (r *rig) largeNetwork() string {
	r.putGroup("fabrikam", fabrikamSub, "rg")
	at := groupPath(fabrikamSub, "rg") + "/providers/Microsoft.Network/virtualNetworks/large"
	r.do("fabrikam", "PUT", at, subnetsBody("s", link.MaxSubnets)).want(201)
	return at
}

func subnetsBody(name string, n int) string {
	subnets := make([]string, n)
	for i := range subnets {
		subnets[i] = fmt.Sprintf(`{"name":"%s%d","properties":{"addressPrefix":"10.64.%d.%d/28"}}`, name, i, i/16, i%16*16)
	}
	return `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.64.0.0/16"]},"subnets":[` + strings.Join(subnets, ",") + `]}}`
}

// TestManySubnets: what a network with thousands of subnets costs doesn't grow with their square. Before it
// was looked after, each of these took several seconds.
func TestManySubnets(t *testing.T) {
	r := newRig(t)
	began := time.Now()
	at := r.largeNetwork()
	for i := range 3 {
		r.do("fabrikam", "PATCH", at, fmt.Sprintf(`{"tags":{"n":"%d"}}`, i)).want(200)
	}
	var one subnet
	r.do("fabrikam", "GET", at+"/subnets/S2999", nil).want(200).into(&one)
	if one.Name != "s2999" || one.Properties.AddressPrefix != "10.64.187.112/28" || !strings.HasSuffix(one.ID, "/large/subnets/s2999") {
		t.Errorf("subnet %+v", one)
	}
	r.do("fabrikam", "PUT", at, subnetsBody("t", link.MaxSubnets)).want(200)
	r.do("fabrikam", "PUT", at, subnetsBody("t", link.MaxSubnets+1)).want(400)
	r.do("fabrikam", "DELETE", at, nil).want(200)
	if d := time.Since(began); d > time.Minute {
		t.Errorf("it took %s", d)
	}
	// The prefixes of one subnet are bounded, in a request that is small.
	hosts := make([]string, 24000)
	for i := range hosts {
		hosts[i] = fmt.Sprintf(`"10.64.%d.%d/32"`, i>>8, i&255)
	}
	r.do("fabrikam", "PUT", at, `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.64.0.0/16"]},
		"subnets":[{"name":"bomb","properties":{"addressPrefixes":[`+strings.Join(hosts, ",")+`]}}]}}`).want(400)
}

// BenchmarkPatchTags is what a PATCH of the tags of a network with 3000 subnets costs.
func BenchmarkPatchTags(b *testing.B) {
	r := newRig(b)
	at := r.largeNetwork()
	for i := 0; b.Loop(); i++ {
		r.do("fabrikam", "PATCH", at, fmt.Sprintf(`{"tags":{"n":"%d"}}`, i)).want(200)
	}
}
