package armapi

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/privatedns/armprivatedns"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// TestRecordSetsOfAllTypes: each type comes back as it was sent, by GET and in the list, and is changed by
// PATCH and deleted.
func TestRecordSetsOfAllTypes(t *testing.T) {
	d := newDNS(t)
	ctx := t.Context()
	for _, tt := range []struct {
		rtype armprivatedns.RecordType
		name  string
		set   string // the properties
	}{
		{"A", "www", `{"ttl":3600,"aRecords":[{"ipv4Address":"10.0.0.1"},{"ipv4Address":"10.0.0.2"}]}`},
		{"A", "*", `{"ttl":1,"aRecords":[{"ipv4Address":"10.0.0.3"}],"metadata":{"k":"v"}}`},
		{"A", "Empty.Set", `{"ttl":0,"aRecords":[]}`},
		{"AAAA", "@", `{"ttl":3600,"aaaaRecords":[{"ipv6Address":"fd00::1"}]}`},
		{"CNAME", "alias", `{"ttl":3600,"cnameRecord":{"cname":"www.example.org"}}`},
		{"MX", "@", `{"ttl":3600,"mxRecords":[{"exchange":"mail.example.org","preference":10}]}`},
		{"PTR", "1.0", `{"ttl":3600,"ptrRecords":[{"ptrdname":"www.example.org"}]}`},
		{"SOA", "@", `{"ttl":600,"soaRecord":{"email":"me.example.org","expireTime":2419200,"host":"azureprivatedns.net","minimumTtl":5,"refreshTime":3600,"retryTime":300,"serialNumber":7}}`},
		{"SRV", "_sip._tcp", `{"ttl":3600,"srvRecords":[{"port":5060,"priority":1,"target":"sip.example.org","weight":2}]}`},
		{"TXT", "txt", `{"ttl":3600,"txtRecords":[{"value":["a \"quoted\" \\ text","ä; second"]},{"value":["` + strings.Repeat("x", 255) + `"]}]}`},
	} {
		t.Run(string(tt.rtype)+" "+tt.name, func(t *testing.T) {
			var in armprivatedns.RecordSet
			if err := json.Unmarshal([]byte(`{"properties":`+tt.set+`}`), &in); err != nil {
				t.Fatal(err)
			}
			got, err := d.records.CreateOrUpdate(ctx, "Rg", "corp.example", tt.rtype, tt.name, in, nil)
			if err != nil {
				t.Fatal(err)
			}
			again, err := d.records.Get(ctx, "Rg", "corp.example", tt.rtype, tt.name, nil)
			if err != nil || *again.Etag != *got.Etag || *again.Name != tt.name || *again.Type != "Microsoft.Network/privateDnsZones/"+string(tt.rtype) {
				t.Fatalf("%+v, %v", again.RecordSet, err)
			}
			again.Properties.Fqdn, again.Properties.IsAutoRegistered = nil, nil
			out, err := json.Marshal(again.Properties)
			if want, _ := json.Marshal(in.Properties); err != nil || string(out) != string(want) {
				t.Errorf("got %s, want %s", out, want)
			}
			patched, err := d.records.Update(ctx, "Rg", "corp.example", tt.rtype, tt.name, armprivatedns.RecordSet{Properties: &armprivatedns.RecordSetProperties{TTL: to.Ptr(int64(99))}}, nil)
			if err != nil || *patched.Properties.TTL != 99 || *patched.Etag == *got.Etag {
				t.Fatalf("patched: %+v, %v", patched.RecordSet, err)
			}
			patched.Properties.Fqdn, patched.Properties.IsAutoRegistered, patched.Properties.TTL = nil, nil, in.Properties.TTL
			if out, err = json.Marshal(patched.Properties); err != nil || !slices.Equal(out, must(json.Marshal(in.Properties))) {
				t.Errorf("PATCH of the TTL changed more: %s", out)
			}
		})
	}
	pager := d.records.NewListPager("Rg", "corp.example", &armprivatedns.RecordSetsClientListOptions{Top: to.Ptr[int32](3)})
	var all []string
	pages := 0
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if pages++; len(page.Value) > 3 {
			t.Errorf("a page of %d", len(page.Value))
		}
		for _, s := range page.Value {
			all = append(all, strings.TrimPrefix(*s.Type, "Microsoft.Network/privateDnsZones/")+" "+*s.Name)
		}
	}
	if want := []string{"A *", "A Empty.Set", "A www", "AAAA @", "CNAME alias", "MX @", "PTR 1.0", "SOA @", "SRV _sip._tcp", "TXT txt"}; !slices.Equal(all, want) || pages != 4 {
		t.Errorf("list in %d pages: %q", pages, all)
	}
	byType, err := d.records.NewListByTypePager("Rg", "corp.example", armprivatedns.RecordTypeA, &armprivatedns.RecordSetsClientListByTypeOptions{Recordsetnamesuffix: to.Ptr("set")}).NextPage(ctx)
	if err != nil || len(byType.Value) != 1 || *byType.Value[0].Name != "Empty.Set" {
		t.Errorf("by suffix: %+v, %v", byType.Value, err)
	}
	for range 2 {
		if _, err := d.records.Delete(ctx, "Rg", "corp.example", armprivatedns.RecordTypeCNAME, "Alias", nil); err != nil {
			t.Error(err)
		}
	}
	_, err = d.records.Get(ctx, "Rg", "corp.example", armprivatedns.RecordTypeCNAME, "alias", nil)
	failed(t, err, http.StatusNotFound, "ResourceNotFound")
	_, err = d.records.Delete(ctx, "Rg", "corp.example", armprivatedns.RecordTypeSOA, "@", nil)
	failed(t, err, http.StatusBadRequest, "InvalidOperation")
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// TestZoneGroupViews: what endpoints have in a zone is shown as record sets, and can't be written.
func TestZoneGroupViews(t *testing.T) {
	d := newDNS(t)
	d.putGroup("contoso", contosoSub, "rg")
	ctx := t.Context()
	provider, err := d.directory.Authenticate(ctx, credential("contoso"))
	if err != nil {
		t.Fatal(err)
	}
	service := link.Service{Port: 443, Pin: link.PinAddress, ProxyProtocol: link.ProxyOff, Visible: []link.Party{link.Anyone}, AutoApprove: []link.Party{link.Anyone},
		Targets: []link.Target{{Addr: netip.MustParseAddrPort("203.0.113.9:443")}}, Names: []link.ResourceName{{Public: "db.contoso.example"}}}
	serviceID := link.ID(contosoSub + "/rg/db")
	if _, err := d.control.EditService(ctx, opOf(provider), serviceID, func(*link.Snapshot, *link.Service) (*link.Service, error) { return &service, nil }); err != nil {
		t.Fatal(err)
	}
	d.putZone("contoso.example")
	consumer, err := d.directory.Authenticate(ctx, credential("fabrikam"))
	if err != nil {
		t.Fatal(err)
	}
	ask := control.Ask{Manual: true, Endpoint: link.Endpoint{Network: fabrikamSub + "/rg/net", Subnet: "pe", Service: serviceID,
		Zones: &link.ZoneGroup{Name: "default", Configs: []link.ZoneConfig{{Name: "c", Zone: fabrikamSub + "/rg/contoso.example"}}}}}
	endpointID := link.ID(fabrikamSub + "/rg/db-pe")
	res, err := d.control.EditEndpoint(ctx, opOf(consumer), endpointID, func(*link.Snapshot, *link.Endpoint) (*control.Ask, error) { return &ask, nil })
	if err != nil {
		t.Fatal(err)
	}
	address := res.Snapshot.Endpoint(endpointID).Address.String()
	got, err := d.records.Get(ctx, "Rg", "contoso.example", armprivatedns.RecordTypeA, "db", nil)
	if err != nil || *got.Properties.ARecords[0].IPv4Address != address || *got.Properties.TTL != 10 || !strings.Contains(*got.Properties.Metadata["creator"], "db-pe") {
		t.Fatalf("view %+v, %v", got.RecordSet, err)
	}
	list, err := d.records.NewListPager("Rg", "contoso.example", nil).NextPage(ctx)
	if err != nil || len(list.Value) != 2 || *list.Value[0].Name != "db" {
		t.Errorf("list %+v, %v", list.Value, err)
	}
	if z, err := d.zones.Get(ctx, "Rg", "contoso.example", nil); err != nil || *z.Properties.NumberOfRecordSets != 2 {
		t.Errorf("zone %+v, %v", z.Properties, err)
	}
	set := armprivatedns.RecordSet{Properties: &armprivatedns.RecordSetProperties{TTL: to.Ptr(int64(10)), ARecords: []*armprivatedns.ARecord{{IPv4Address: to.Ptr("10.0.0.1")}}}}
	_, err = d.records.CreateOrUpdate(ctx, "Rg", "contoso.example", armprivatedns.RecordTypeA, "db", set, nil)
	failed(t, err, http.StatusConflict, "Conflict")
	_, err = d.records.Delete(ctx, "Rg", "contoso.example", armprivatedns.RecordTypeA, "db", nil)
	failed(t, err, http.StatusConflict, "Conflict")
	cname := armprivatedns.RecordSet{Properties: &armprivatedns.RecordSetProperties{TTL: to.Ptr(int64(10)), CnameRecord: &armprivatedns.CnameRecord{Cname: to.Ptr("a.example")}}}
	_, err = d.records.CreateOrUpdate(ctx, "Rg", "contoso.example", armprivatedns.RecordTypeCNAME, "db", cname, nil)
	failed(t, err, http.StatusConflict, "Conflict")
	_, err = d.zones.BeginDelete(ctx, "Rg", "contoso.example", nil)
	failed(t, err, http.StatusConflict, "CannotDeleteResource")
	// Gone with the connection.
	if _, err := d.control.Disconnect(ctx, opOf(provider), control.Decision{Endpoint: endpointID, Service: serviceID}); err != nil {
		t.Fatal(err)
	}
	_, err = d.records.Get(ctx, "Rg", "contoso.example", armprivatedns.RecordTypeA, "db", nil)
	failed(t, err, http.StatusNotFound, "ResourceNotFound")
	if _, err = d.records.CreateOrUpdate(ctx, "Rg", "contoso.example", armprivatedns.RecordTypeA, "db", set, nil); err != nil {
		t.Error(err)
	}
}

// FuzzRecordData: what clients send as records is refused, or is shown as it was taken.
func FuzzRecordData(f *testing.F) {
	f.Add(`{"aRecords":[{"ipv4Address":"10.0.0.1"}]}`)
	f.Add(`{"mxRecords":[{"preference":1,"exchange":"a.example"}],"srvRecords":[{"target":"."}]}`)
	f.Add(`{"txtRecords":[{"value":["a","\u00e4\\"]}],"soaRecord":{"host":"a b","expireTime":-1}}`)
	soa := (&link.PrivateZone{Name: "corp.example"}).SOA().Data[0]
	f.Fuzz(func(t *testing.T, text string) {
		for _, rtype := range link.RecordTypes() {
			var d recordData
			if checkJSON([]byte(text)) != nil || json.Unmarshal([]byte(text), &d) != nil {
				return
			}
			lines, _, err := d.lines(rtype, soa)
			if err != nil {
				continue
			}
			shown := dataOf(rtype, lines)
			again, _, err := shown.lines(rtype, soa)
			if err != nil || !slices.Equal(lines, again) {
				t.Errorf("%s: %q is shown as %+v and read as %q, %v", rtype, lines, shown, again, err)
			}
		}
	})
}
