package handover

import (
	"net/netip"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
)

// A zone that privatelink adds after the services were parsed gives them their private names.
func TestAddZone(t *testing.T) {
	d, at := service(t, "a.example.com")
	if n := d.declaration().Services[0].Names[0]; n.Private != "" {
		t.Fatalf("private name %s before the zone", n.Private)
	}
	if err := d.AddZones(at, link.ZoneRow{Private: "privatelink.example.com", Public: "example.com"}); err != nil {
		t.Fatal(err)
	}
	want := link.ResourceName{Public: "a.example.com", Private: "a.privatelink.example.com", Zone: "privatelink.example.com"}
	if n := d.declaration().Services[0].Names[0]; n != want {
		t.Errorf("name %+v, want %+v", n, want)
	}
}

// A zone that has a service's public name in it is refused at the line of the service.
func TestAddZoneAroundName(t *testing.T) {
	d, at := service(t, "a.svc.example.com")
	err := d.AddZones(at, link.ZoneRow{Private: "svc.example.com", Public: "example.net"})
	want := "Corefile:3 - linkservice: name a.svc.example.com is inside the privatelink zone svc.example.com; give the public name, its private one follows"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// service returns a draft with one service, and the position of a privatelink directive.
func service(t *testing.T, name link.Name) (*Draft, block.Position) {
	if err := dnsserver.Register(); err != nil {
		t.Fatal(err)
	}
	d, err := Of(caddy.NewTestController("dns", "privatelink"))
	if err != nil {
		t.Fatal(err)
	}
	err = d.AddService(block.Position{File: "Corefile", Line: 3, Directive: "linkservice"}, link.Service{
		ID: "svc", Port: 443, Pin: link.PinTLS, ProxyProtocol: link.ProxyOff,
		Names:   []link.ResourceName{{Public: name}},
		Targets: []link.Target{{Addr: netip.MustParseAddrPort("10.0.0.1:443")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d, block.Position{File: "Corefile", Line: 9, Directive: "privatelink"}
}
