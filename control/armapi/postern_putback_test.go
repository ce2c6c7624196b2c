package armapi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v9"

	"github.com/postern-link/postern/link"
)

// applyService applies a manifest with service db in group rg of contoso's, with these fields.
func (r *rig) applyService(fields string) answer {
	r.t.Helper()
	return r.do("contoso", "POST", "/subscriptions/"+contosoSub+"/providers/Postern.Network/apply",
		`{"subscription":"`+contosoSub+`","resourceGroup":"rg","services":[{"name":"db",`+fields+`}]}`)
}

// TestPutBackManifestService: a service that a manifest or the command line has made is the same after an SDK's
// get, change and put, whatever Azure has no field for.
func TestPutBackManifestService(t *testing.T) {
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("%q", fmt.Sprintf("10.20.7.%d:1433", i+1)))
	}
	tests := []struct{ name, fields, tag string }{
		{"two targets", `"port":1433,"targets":["10.20.0.4:1433","10.20.0.5:1434"],"maxPerConsumer":3`, "10.20.0.4:1433 10.20.0.5:1434"},
		{"another port", `"port":443,"targets":["10.20.0.4:8443"]`, "10.20.0.4:8443"},
		{"one target", `"port":443,"targets":["10.20.0.4:443"],"nat":["10.20.1.7"]`, ""},
		{"IPv6", `"port":443,"targets":["[2001:db8::4]:443","[2001:db8::5]:443"]`, "[2001:db8::4]:443 [2001:db8::5]:443"},
		{"many", `"port":443,"targets":[` + strings.Join(many, ",") + `]`, strings.ReplaceAll(strings.Join(many, " "), `"`, "")},
		{"everything", `"names":["db.contoso.example"],"port":1433,"targets":["10.20.0.4:1433","10.20.0.5:1433"],"visible":["*","tenant/fabrikam"],
			"approve":["tenant/fabrikam"],"reject":["tenant/ops"],"pin":"address","proxyProtocol":"v1","nat":["10.20.1.7","10.20.1.8"],
			"maxConnections":9,"maxPerConsumer":2,"idleTimeout":"5m0s","strict":true`, "10.20.0.4:1433 10.20.0.5:1433"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, provider, _ := neighbours(t)
			r.applyService(tt.fields).want(200)
			service := func() link.Service {
				t.Helper()
				s, err := r.store.Load(t.Context())
				if err != nil || s.Service(contosoSub+"/rg/db") == nil {
					t.Fatal("no service", err)
				}
				v := *s.Service(contosoSub + "/rg/db")
				v.Facet = link.Facet{}
				return v
			}
			before := service()
			got := succeed[armnetwork.PrivateLinkServicesClientGetResponse](t)(provider.services.Get(t.Context(), "rg", "db", nil)).PrivateLinkService
			tag := ""
			if got.Tags["postern-targets"] != nil {
				tag = *got.Tags["postern-targets"]
			}
			if tag != tt.tag || *got.Properties.DestinationIPAddress != before.Targets[0].Addr.Addr().String() {
				t.Errorf("tag %q, want %q; destination %s", tag, tt.tag, *got.Properties.DestinationIPAddress)
			}
			back := provider.publish("db", got)
			if *back.Etag != *got.Etag {
				t.Errorf("put back unchanged it has another etag: %+v", back.Tags)
			}
			back.Tags["team"] = to.Ptr("db")
			if changed := provider.publish("db", back); *changed.Tags["team"] != "db" || len(changed.Tags) != len(got.Tags)+1 {
				t.Errorf("tags after the change: %+v", changed.Tags)
			}
			if after := service(); fmt.Sprintf("%+v", after) != fmt.Sprintf("%+v", before) {
				t.Errorf("it was\n%+v\nand is\n%+v", before, after)
			}
			// The command line's update after that changes what it says, tags and all.
			r.applyService(`"port":443,"targets":["10.20.0.9:443"]`).want(200)
			now := succeed[armnetwork.PrivateLinkServicesClientGetResponse](t)(provider.services.Get(t.Context(), "rg", "db", nil)).PrivateLinkService
			if len(now.Tags) != 1 || *now.Properties.DestinationIPAddress != "10.20.0.9" {
				t.Errorf("after another manifest: %+v, destination %s", now.Tags, *now.Properties.DestinationIPAddress)
			}
		})
	}
}

// TestTargetsTag: what can't be meant is refused, and names the tag.
func TestTargetsTag(t *testing.T) {
	r, provider, _ := neighbours(t)
	if err := provider.putBalancer(t.Context(), "lb", balancerBody(contosoSub, "lb", 443, 8443, "10.20.0.4")); err != nil {
		t.Fatal(err)
	}
	const own = `"ipConfigurations":[{"name":"nat"}]`
	dest := `"destinationIPAddress":"10.20.0.4",` + own
	balanced := `"loadBalancerFrontendIpConfigurations":[{"id":"` + armPath(contosoSub, "loadBalancers/lb/frontendIPConfigurations/fe") + `"}],` + own
	tests := []struct {
		name, tag, properties string
		status                int
	}{
		{"two", "10.20.0.4:1433, 10.20.0.5:1433", dest, 201},
		{"empty", "", dest, 200},
		{"another first", "10.20.0.5:1433 10.20.0.4:1433", dest, 400},
		{"no port", "10.20.0.4 10.20.0.5", dest, 400},
		{"port 0", "10.20.0.4:0", dest, 400},
		{"zone", "[fe80::1%eth0]:443", dest, 400},
		{"loopback behind the first", "10.20.0.4:443 127.0.0.1:443", dest, 400},
		{"without a destination", "10.20.0.4:443", own, 400},
		{"with a load balancer", "10.20.0.4:443", balanced, 400},
		{"too long", strings.Repeat("10.20.0.4:443 ", 1<<11), dest, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.t = t
			r.do("contoso", "PUT", armPath(contosoSub, "privateLinkServices/db"),
				`{"location":"local","tags":{"postern-targets":"`+tt.tag+`"},"properties":{`+tt.properties+`}}`).want(tt.status)
		})
	}
}
