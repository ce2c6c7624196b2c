package link

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const corpZone ID = "sub/rg/corp.example"

func zone(id ID, networks ...ID) PutZone {
	z := PrivateZone{ID: id, Name: Name(id.Last())}
	for _, n := range networks {
		z.Links = append(z.Links, ZoneLink{Name: string(n), Network: n})
	}
	return PutZone{z}
}

func record(zone ID, rtype, name string, data ...string) PutRecordSet {
	return PutRecordSet{RecordSet{Zone: zone, Type: rtype, Name: name, TTL: 300, Data: data}}
}

// inZones is an endpoint with a zone group.
func inZones(id, network, service ID, zones ...ID) PutEndpoint {
	c := endpoint(id, network, service)
	c.Endpoint.Zones = &ZoneGroup{Name: "default"}
	for i, z := range zones {
		c.Endpoint.Zones.Configs = append(c.Endpoint.Zones.Configs, ZoneConfig{Name: fmt.Sprint("c", i), Zone: z})
	}
	return c
}

// privateWorld is world with two zones: one linked to the network corp with some records, and that of
// the service sql, which is linked to lab and in the group of an endpoint of corp.
func privateWorld(t testing.TB) *Snapshot {
	t.Helper()
	return must(t, world(t),
		zone(corpZone, "corp"), zone("sub/rg/privatelink.database.windows.net", "lab"),
		record(corpZone, "A", "www", "10.20.0.7"), record(corpZone, "TXT", "www", `"hello"`),
		record(corpZone, "A", "a.b.c", "10.20.0.8"),
		inZones("sql-group", "corp", "sql", "sub/rg/privatelink.database.windows.net"),
	)
}

// TestPrivateRefused: each rule of private zones, and that the error says what stands against it.
func TestPrivateRefused(t *testing.T) {
	const sqlZone ID = "sub/rg/privatelink.database.windows.net"
	linked := func(f func(*PrivateZone)) Change {
		c := zone(corpZone, "corp")
		f(&c.Zone)
		return c
	}
	long := strings.Repeat("a", 63)
	for name, tt := range map[string]struct {
		changes []Change
		err     error
		text    string
	}{
		"zone of one label":           {[]Change{zone("sub/rg/corp")}, ErrInvalid, "two labels"},
		"zone in capitals":            {[]Change{PutZone{PrivateZone{ID: "sub/rg/x.example", Name: "X.example"}}}, ErrInvalid, "canonical"},
		"zone under another name":     {[]Change{PutZone{PrivateZone{ID: "sub/rg/x.example", Name: "y.example"}}}, ErrInvalid, "is called"},
		"zone without a subscription": {[]Change{zone("corp.example")}, ErrInvalid, "is called"},
		"link to no network":          {[]Change{zone(corpZone, "corp", "nobody")}, ErrNotFound, "network nobody"},
		"two links to one network":    {[]Change{linked(func(z *PrivateZone) { z.Links = append(z.Links, ZoneLink{Name: "x", Network: "corp"}) })}, ErrConflict, "linked to network corp already"},
		"two links of one name":       {[]Change{linked(func(z *PrivateZone) { z.Links = append(z.Links, ZoneLink{Name: "corp", Network: "lab"}) })}, ErrInvalid, "given twice"},
		"link in capitals":            {[]Change{linked(func(z *PrivateZone) { z.Links[0].Name = "X" })}, ErrInvalid, `"X"`},
		"two zones of a name":         {[]Change{zone("sub/other/corp.example", "corp")}, ErrConflict, "one zone of a name"},
		"linked network deleted":      {[]Change{DeleteEndpoint{"sql-corp"}, DeleteEndpoint{"sql-group"}, DeleteNetwork{"corp"}}, ErrConflict, "linked to it"},
		"linked zone deleted":         {[]Change{DeleteZone{corpZone}}, ErrConflict, "linked to network corp"},
		"zone in a group deleted":     {[]Change{zone(sqlZone), DeleteZone{sqlZone}}, ErrConflict, "group of endpoint sql-group"},
		"unknown zone deleted":        {[]Change{DeleteZone{"sub/rg/x.example"}}, ErrNotFound, "x.example"},
		"group with unknown zone":     {[]Change{inZones("x", "corp", "sql", "sub/rg/x.example")}, ErrNotFound, "zone sub/rg/x.example"},
		"group with a zone twice":     {[]Change{inZones("x", "corp", "sql", sqlZone, sqlZone)}, ErrInvalid, "given twice"},
		"group of six zones":          {[]Change{inZones("x", "corp", "sql", "a", "b", "c", "d", "e", "f")}, ErrInvalid, "5 are allowed"},
		"record in no zone":           {[]Change{record("sub/rg/x.example", "A", "www", "10.0.0.1")}, ErrNotFound, "zone sub/rg/x.example"},
		"unknown record deleted":      {[]Change{DeleteRecordSet{corpZone, "A", "nobody"}}, ErrNotFound, "a/nobody"},
		"record type":                 {[]Change{record(corpZone, "NS", "x", "ns.example.")}, ErrInvalid, `"NS"`},
		"record type in small":        {[]Change{record(corpZone, "a", "x", "10.0.0.1")}, ErrInvalid, `"a"`},
		"record name in capitals":     {[]Change{record(corpZone, "A", "X", "10.0.0.1")}, ErrInvalid, "canonical"},
		"record name with a star":     {[]Change{record(corpZone, "A", "x.*", "10.0.0.1")}, ErrInvalid, `"*"`},
		"record name with half star":  {[]Change{record(corpZone, "A", "*x", "10.0.0.1")}, ErrInvalid, "whole label"},
		"record name with a slash":    {[]Change{record(corpZone, "A", "x/y", "10.0.0.1")}, ErrInvalid, "other characters"},
		"record name with a dot":      {[]Change{record(corpZone, "A", "x.", "10.0.0.1")}, ErrInvalid, "1 to 63"},
		"record name too long":        {[]Change{record(corpZone, "A", strings.Join([]string{long, long, long, long}, "."), "10.0.0.1")}, ErrInvalid, "253 are allowed"},
		"TTL of 32 bits":              {[]Change{PutRecordSet{RecordSet{Zone: corpZone, Type: "A", Name: "x", TTL: 1 << 31}}}, ErrInvalid, "TTL"},
		"too many records":            {[]Change{record(corpZone, "A", "x", make([]string, 21)...)}, ErrInvalid, "20 are allowed"},
		"a record twice":              {[]Change{record(corpZone, "A", "x", "10.0.0.1", "10.0.0.1")}, ErrInvalid, "twice"},
		"data not canonical":          {[]Change{record(corpZone, "CNAME", "x", "Y.example")}, ErrInvalid, "canonical"},
		"CNAME beside an address":     {[]Change{record(corpZone, "CNAME", "www", "y.example.")}, ErrConflict, "CNAME stands alone"},
		"address beside a CNAME":      {[]Change{record(corpZone, "CNAME", "x", "y.example."), record(corpZone, "A", "x", "10.0.0.1")}, ErrConflict, "CNAME stands alone"},
		"CNAME at the apex":           {[]Change{record(corpZone, "CNAME", "@", "y.example.")}, ErrInvalid, "apex"},
		"two CNAMEs":                  {[]Change{record(corpZone, "CNAME", "x", "y.example.", "z.example.")}, ErrInvalid, "1 is allowed"},
		"SOA below the apex":          {[]Change{record(corpZone, "SOA", "x", "a. b. 1 2 3 4 5")}, ErrInvalid, "apex"},
		"SOA without data":            {[]Change{record(corpZone, "SOA", "@")}, ErrInvalid, "one SOA"},
		"record of an endpoint":       {[]Change{record(sqlZone, "A", "contoso", "10.0.0.1")}, ErrConflict, "endpoint sql-group"},
		"CNAME at an endpoint":        {[]Change{record(sqlZone, "CNAME", "contoso", "y.example.")}, ErrConflict, "endpoint sql-group"},
		"document of no type":         {[]Change{PutDocument{Document{ID: "sub/rg/x"}}}, ErrInvalid, "type"},
		"document deleted":            {[]Change{DeleteDocument{"group", "sub/x"}}, ErrNotFound, "group"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := privateWorld(t).Apply(noon, tt.changes...)
			if !errors.Is(err, tt.err) || !strings.Contains(fmt.Sprint(err), tt.text) {
				t.Fatalf("error %q, want one that wraps %q and says %q", err, tt.err, tt.text)
			}
			var about *ObjectError
			if !errors.As(err, &about) {
				t.Errorf("error %v doesn't say which object it is about", err)
			}
		})
	}
}

func TestLinkedZone(t *testing.T) {
	s := must(t, privateWorld(t), zone("sub/rg/b.corp.example", "corp", "lab"))
	for _, tt := range []struct {
		network ID
		name    string
		want    ID
	}{
		{"corp", "corp.example", corpZone},
		{"corp", "www.corp.example", corpZone},
		{"corp", "b.corp.example", "sub/rg/b.corp.example"},
		{"corp", "a.b.corp.example", "sub/rg/b.corp.example"},
		{"corp", "xb.corp.example", corpZone},
		{"corp", "xcorp.example", ""},
		{"corp", "example", ""},
		{"corp", "", ""},
		{"lab", "www.corp.example", ""},
		{"lab", "b.corp.example", "sub/rg/b.corp.example"},
		{"nobody", "www.corp.example", ""},
		{"corp", strings.Repeat("a", 300) + ".corp.example", ""},
	} {
		z, _, ok := s.LinkedZone(tt.network, []byte(tt.name))
		if ok != (tt.want != "") || ok && z.ID != tt.want {
			t.Errorf("%s in %s: zone %v, want %q", tt.name, tt.network, z, tt.want)
		}
	}
	name, empty := []byte("a.b.corp.example"), Empty()
	if n := testing.AllocsPerRun(100, func() { s.LinkedZone("corp", name); s.HasLinks("lab"); empty.HasLinks("lab") }); n > 0 {
		t.Errorf("LinkedZone allocates %v times", n)
	}
}

// TestZoneGroup: what a zone has of an endpoint follows the endpoint.
func TestZoneGroup(t *testing.T) {
	const sqlZone ID = "sub/rg/privatelink.database.windows.net"
	s := privateWorld(t)
	grouped := func(s *Snapshot, name string) (ids []ID) {
		for e := range s.Grouped(sqlZone, name) {
			ids = append(ids, e.ID)
		}
		return ids
	}
	if got := grouped(s, "contoso"); !slices.Equal(got, []ID{"sql-group"}) || !s.ExistsIn(sqlZone, "contoso") {
		t.Fatalf("endpoints %v", got)
	}
	if p, ok := s.GroupedAlias("contoso.database.windows.net"); !ok || p != "contoso.privatelink.database.windows.net" {
		t.Errorf("alias %q, %v", p, ok)
	}
	if _, ok := s.GroupedAlias("other.database.windows.net"); ok {
		t.Error("an alias of nobody")
	}
	e := s.Endpoint("sql-group")
	suspended := must(t, s, Suspend{e.ID, e.Connection.LinkID, Decision{}})
	if suspended.ExistsIn(sqlZone, "contoso") {
		t.Error("D16 the name of a suspended endpoint exists")
	}
	for name, change := range map[string]Change{
		"without the group": endpoint("sql-group", "corp", "sql"),
		"deleted":           DeleteEndpoint{"sql-group"},
		"service renamed":   PutService{Service: service("sql", "fabrikam", "corp")},
		"removed":           Disconnect{e.ID, e.Connection.LinkID, Decision{}},
	} {
		after := must(t, s, change)
		if got := grouped(after, "contoso"); len(got) > 0 || after.ExistsIn(sqlZone, "contoso") {
			t.Errorf("D16 %s: the zone still has %v", name, got)
		}
		if _, ok := after.GroupedAlias("contoso.database.windows.net"); ok {
			t.Errorf("D16 %s: the alias is still there", name)
		}
	}
	v := service("web", "")
	v.Names, v.AutoApprove = []ResourceName{{Public: "*.corp.example"}}, []Party{Anyone}
	s = must(t, s, PutService{Service: v}, inZones("web", "lab", "web", corpZone), endpoint("web-2", "corp", "web"))
	if e, ok := first(s.Grouped(corpZone, "*")); !ok || e.ID != "web" {
		t.Errorf("the pattern is of %v", e)
	}
}

func TestRecordsOfAZone(t *testing.T) {
	s := privateWorld(t)
	var at []string
	for r := range s.RecordSetsAt(corpZone, "www") {
		at = append(at, r.Type)
	}
	if !slices.Equal(at, []string{"A", "TXT"}) || s.CountRecordSets(corpZone) != 3 {
		t.Errorf("types %v, %d sets", at, s.CountRecordSets(corpZone))
	}
	for name, want := range map[string]bool{"@": true, "c": true, "b.c": true, "a.b.c": true, "x.c": false, "x.www": false, "d": false} {
		if s.ExistsIn(corpZone, name) != want {
			t.Errorf("%s exists: %v, want %v", name, !want, want)
		}
	}
	s = must(t, s, zone(corpZone), DeleteZone{corpZone})
	if _, ok := first(s.RecordSets(corpZone, "")); ok || s.CountRecordSets(corpZone) != 0 || s.CountLinks("corp") != 0 {
		t.Error("records or links outlive their zone")
	}
}

func TestDocuments(t *testing.T) {
	s := must(t, Empty(),
		PutDocument{Document{Type: "group", ID: "sub/rg", Facet: Facet{UID: "1"}}}, PutDocument{Document{Type: "group", ID: "sub2/rg"}},
		PutDocument{Document{Type: "balancer", ID: "sub/rg/lb"}}, PutDocument{Document{Type: "group", ID: "sub/rg"}})
	if d := s.Document("group", "sub/rg"); d == nil || d.UID != "1" {
		t.Errorf("document %+v", d)
	}
	if n := len(slices.Collect(s.Documents("group", "sub/"))); n != 1 || s.CountDocuments("group", "sub") != 1 {
		t.Errorf("%d documents, counted %d", n, s.CountDocuments("group", "sub"))
	}
	s = must(t, s, DeleteDocument{"group", "sub/rg"})
	if s.Document("group", "sub/rg") != nil || s.CountDocuments("group", "sub") != 0 {
		t.Error("the document is still there")
	}
}
