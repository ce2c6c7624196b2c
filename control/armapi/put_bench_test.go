package armapi

import (
	"fmt"
	"testing"

	"github.com/postern-link/postern/control"
)

// BenchmarkPutEndpoint is what a request for an endpoint costs over TLS, with the commit to a bolt file.
func BenchmarkPutEndpoint(b *testing.B) {
	r := newRig(b, func(_ *Config, c *control.Config) {
		c.Limits.EndpointsPerNetwork, c.Limits.PendingPerConsumer = 60000, 60000
	}, func(a *Config, _ *control.Config) { a.Rate = 1e6 })
	r.putGroup("contoso", contosoSub, "rg")
	network := groupPath(contosoSub, "rg") + "/providers/Microsoft.Network/"
	r.do("contoso", "PUT", network+"virtualNetworks/v", `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.1.0.0/16"]},
		"subnets":[{"name":"pe","properties":{"addressPrefix":"10.1.0.0/16"}}]}}`).want(201)
	service := func(i int) string { return fmt.Sprintf("%sprivateLinkServices/s%d", network, i/500) }
	for i := 0; b.Loop(); i++ {
		if i%500 == 0 {
			b.StopTimer()
			r.do("contoso", "PUT", service(i), `{"location":"local","properties":{"destinationIPAddress":"10.9.0.1","visibility":{"subscriptions":["*"]},
				"ipConfigurations":[{"name":"n","properties":{"privateIPAllocationMethod":"Dynamic"}}]}}`).want(201)
			b.StartTimer()
		}
		r.do("contoso", "PUT", fmt.Sprintf("%sprivateEndpoints/e%d", network, i), `{"location":"local","properties":{"subnet":{"id":"`+network+`virtualNetworks/v/subnets/pe"},
			"manualPrivateLinkServiceConnections":[{"name":"c","properties":{"privateLinkServiceId":"`+service(i)+`"}}]}}`).want(201)
	}
}
