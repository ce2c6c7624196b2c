package armapi

import (
	"fmt"
	"reflect"
	"slices"
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
			"maxConnections":9,"maxPerConsumer":2,"idleTimeout":"5m0s","strict":true,"fallbackPublic":true,"balance":"least-connections",
			"weights":{"10.20.0.5:1433":0},"sites":["paris=10.20.0.4/32","lyon=10.20.0.5/32"],"probe":"http /up 204","maxPerTarget":20,"maxWaiting":5,"warm":4,"warmAge":"20s"`, "10.20.0.4:1433 10.20.0.5:1433"},
		{"names", `"port":1433,"targets":["db2.contoso.example:1433","10.20.0.4:1433","db1.contoso.example:1434"],"within":["10.20.0.0/16","2001:db8::/32"],
			"weights":{"db2.contoso.example:1433":0,"10.20.0.4:1433":3}`, "10.20.0.4:1433 db2.contoso.example:1433 db1.contoso.example:1434"},
		{"a name alone", `"port":443,"targets":["db.contoso.example:443"]`, "db.contoso.example:443"},
		{"nobody waits", `"port":443,"targets":["10.20.0.4:443"],"maxPerTarget":20,"maxWaiting":0,"balance":"source-hash","weights":{"10.20.0.4:443":7}`, ""},
		{"tls", `"names":["db.contoso.example"],"port":443,"targets":["10.20.0.4:443"],"probe":"tls probe.contoso.example","echOuter":true`, ""},
		{"udp", `"names":["db.contoso.example"],"port":1514,"protocol":"udp","targets":["10.20.0.4:514"],"idleTimeout":"5s","proxyProtocol":"v2","maxPerTarget":9`, "10.20.0.4:514"},
	}
	seen := map[string]bool{}
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
			for i := range reflect.TypeFor[link.Service]().NumField() {
				if f := reflect.ValueOf(before).Field(i); !f.IsZero() {
					seen[reflect.TypeFor[link.Service]().Field(i).Name] = true
				}
			}
			for i := range reflect.TypeFor[link.Spread]().NumField() {
				if f := reflect.ValueOf(before.Spread).Field(i); !f.IsZero() {
					seen[reflect.TypeFor[link.Spread]().Field(i).Name] = true
				}
			}
			got := succeed[armnetwork.PrivateLinkServicesClientGetResponse](t)(provider.services.Get(t.Context(), "rg", "db", nil)).PrivateLinkService
			tag := ""
			if got.Tags["postern-targets"] != nil {
				tag = *got.Tags["postern-targets"]
			}
			dest, first := "", "" // a service with names alone has neither
			if got.Properties.DestinationIPAddress != nil {
				dest = *got.Properties.DestinationIPAddress
			}
			if len(before.Targets) > 0 {
				first = before.Targets[0].Addr.Addr().String()
			}
			if tag != tt.tag || dest != first {
				t.Errorf("tag %q, want %q; destination %q, want %q", tag, tt.tag, dest, first)
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
	for _, typ := range []reflect.Type{reflect.TypeFor[link.Service](), reflect.TypeFor[link.Spread]()} {
		for i := range typ.NumField() {
			// The facet is the API's own, origins are a Corefile's, and nobody has granted the tenant anything.
			if name := typ.Field(i).Name; !seen[name] && !slices.Contains([]string{"Facet", "Origin", "Reach"}, name) {
				t.Errorf("no service here has a field %s: say it in a manifest, and keep it over a put", name)
			}
		}
	}
}

// TestSpreadTags: the settings of targets and protocols can be written as tags, and what can't be meant is refused and names the tag.
func TestSpreadTags(t *testing.T) {
	r, _, _ := neighbours(t)
	for _, tt := range []struct {
		tags   string
		status int
	}{
		{`"postern-pin":"address","postern-protocol":"UDP","postern-idle-timeout":"5s"`, 201},
		{`"postern-pin":"address","postern-protocol":"tcp","postern-idle-timeout":"5s"`, 400},
		{`"postern-idle-timeout":"-5s"`, 400},
		{`"postern-protocol":"sctp"`, 400},
		{`"postern-protocol":"udp","postern-pin":"tls"`, 400},
		{`"postern-protocol":"udp","postern-probe":"tls"`, 400},
		{`"postern-protocol":"udp","postern-proxy-protocol":"v1"`, 400},
		{`"postern-balance":"Source-Hash","postern-weights":"10.20.0.5:443=0, [2001:db8::1]:1=3","postern-max-per-target":"20 5","postern-probe":"http /up"`, 200},
		{`"postern-balance":"random"`, 400},
		{`"postern-weights":"10.20.0.5:443"`, 400},
		{`"postern-weights":"10.20.0.5:443=1001"`, 400},
		{`"postern-weights":"10.20.0.5:443=1 10.20.0.5:443=2"`, 400},
		{`"postern-warm":"4, 20s"`, 200},
		{`"postern-warm":"4"`, 200},
		{`"postern-warm":"4 20s 1"`, 400},
		{`"postern-warm":""`, 400},
		{`"postern-warm":"20s"`, 400},
		{`"postern-warm":"101"`, 400},
		{`"postern-warm":"1 20"`, 400},
		{`"postern-warm":"1 1h"`, 400},
		{`"postern-warm":"1","postern-protocol":"udp","postern-pin":"address"`, 400},
		{`"postern-max-per-target":"20 5 1"`, 400},
		{`"postern-max-per-target":""`, 400},
		{`"postern-max-per-target":"0 5"`, 400},
		{`"postern-max-per-target":"1000001"`, 400},
		{`"postern-targets":"10.20.0.5:443 db.contoso.example:443","postern-weights":"db.contoso.example:443=0","postern-within":"10.20.0.0/16, 2001:db8::/32"`, 200},
		{`"postern-targets":"10.20.0.5:443 db.contoso.example:443","postern-weights":"db.contoso.example:443=1001"`, 400},
		{`"postern-targets":"10.20.0.5:443 db.contoso.example:443","postern-weights":"db.contoso.example:443=1,DB.contoso.example:443=1"`, 400},
		{`"postern-targets":"10.20.0.5:443 db.contoso.example:443","postern-within":"10.20.0.1/16"`, 400},
		{`"postern-targets":"10.20.0.5:443 db.contoso.example:443","postern-within":"everywhere"`, 400},
		{`"postern-within":"10.20.0.0/16"`, 400},
		{`"postern-probe":"http"`, 400},
		{`"postern-fallback":"private"`, 400},
		{`"postern-fallback":"public"`, 200},
	} {
		a := putTagged(r, "db", tt.tags)
		if a.status != tt.status {
			t.Errorf("%s: status %d: %s", tt.tags, a.status, a.body)
		}
	}
}

// TestBalancerOfUDP: the rule of a frontend says which protocol a service is of, also when it changes.
func TestBalancerOfUDP(t *testing.T) {
	r, _, _ := neighbours(t)
	put := func(protocol string, status int) {
		t.Helper()
		r.do("contoso", "PUT", armPath(contosoSub, "loadBalancers/lb"), balancerJSON(contosoSub, "lb", protocol)).want(status)
	}
	is := func(p link.Protocol, targets int) {
		t.Helper()
		s, err := r.store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if v := s.Service(contosoSub + "/rg/syslog"); v == nil || v.Protocol != p || v.Port != 1514 || len(v.Targets) != targets {
			t.Fatalf("%+v", v)
		}
	}
	service := func(tags string) answer {
		return r.do("contoso", "PUT", armPath(contosoSub, "privateLinkServices/syslog"), `{"location":"local","tags":{`+tags+`},"properties":{"ipConfigurations":[{"name":"nat"}],
			"loadBalancerFrontendIpConfigurations":[{"id":"`+armPath(contosoSub, "loadBalancers/lb/frontendIPConfigurations/fe")+`"}]}}`)
	}
	put("Udp", 201)
	service(`"postern-protocol":"tcp"`).want(201)
	is(link.UDP, 1)
	service(`"postern-protocol":"udp"`).want(200)
	put("Tcp", 200)
	is(link.TCP, 1)
	service(`"postern-protocol":"udp"`).want(400)
	put("All", 400)
	is(link.TCP, 1)
}

// balancerJSON is a load balancer with one rule of a protocol.
func balancerJSON(sub, name, protocol string) string {
	part := func(kind, name2 string) string {
		return `{"id":"` + armPath(sub, "loadBalancers/"+name+"/"+kind+"/"+name2) + `"}`
	}
	return `{"location":"local","sku":{"name":"Standard"},"properties":{
		"frontendIPConfigurations":[{"name":"fe","properties":{"privateIPAddress":"10.20.0.4"}}],
		"backendAddressPools":[{"name":"pool","properties":{"loadBalancerBackendAddresses":[{"name":"a","properties":{"ipAddress":"10.20.0.4"}}]}}],
		"loadBalancingRules":[{"name":"rule","properties":{"protocol":"` + protocol + `","frontendPort":1514,"backendPort":514,
		"frontendIPConfiguration":` + part("frontendIPConfigurations", "fe") + `,"backendAddressPool":` + part("backendAddressPools", "pool") + `}}]}}`
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
		{"a name with a load balancer", "db.contoso.example:443", balanced, 400},
		{"a name alone", "db.contoso.example:443", own, 200},
		{"a name and a destination that isn't in the tag", "db.contoso.example:443", dest, 400},
		{"a name before the address", "db.contoso.example:443 10.20.0.4:443", dest, 200},
		{"a name and an address without a destination", "db.contoso.example:443 10.20.0.4:443", own, 400},
		{"a name without port", "db.contoso.example", own, 400},
		{"a name that ends with a number", "10.20.0.256:443", own, 400},
		{"a name twice", "db.contoso.example:443 DB.contoso.example:443", own, 400},
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
