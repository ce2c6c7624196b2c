package link

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// declaration is that of a Corefile with one network, service and endpoint, changed by f.
func declaration(f func(*Declare)) Declare {
	o := func(line int) Origin { return Origin{Declaration: "host", File: "Corefile", Line: line} }
	n := network("corp", "10.1.0.0/16", "10.200.0.0/24")
	n.Origin = o(2)
	v := service("sql", "contoso", "corp")
	v.Origin = o(5)
	e := at("sql-corp", "corp", "sql", "10.200.0.5").Endpoint
	e.Origin = o(9)
	d := Declare{Declaration: "host", Networks: []Network{n}, Services: []Service{v}, Endpoints: []DeclaredEndpoint{{Endpoint: e}}}
	if f != nil {
		f(&d)
	}
	return d
}

func TestDeclareAgainChangesNothing(t *testing.T) {
	s := must(t, Empty(), declaration(nil))
	if _, deltas, err := s.Apply(noon.Add(1e9), declaration(func(d *Declare) { d.Services[0].Alias = "fresh" })); err != nil || len(deltas) != 0 {
		t.Errorf("deltas %+v, error %v, want none", deltas, err)
	}
}

func TestDeclareEdits(t *testing.T) {
	for name, tt := range map[string]struct {
		edit  func(*Declare)
		state State // of the endpoint, "" for gone
	}{
		"approve dropped":   {func(d *Declare) { d.Services[0].AutoApprove = nil }, Pending},
		"nobody sees it":    {func(d *Declare) { d.Services[0].AutoApprove, d.Services[0].Visible = nil, nil }, Pending},
		"network rejected":  {func(d *Declare) { d.Services[0].Reject = []Party{"corp"} }, Rejected},
		"endpoint dropped":  {func(d *Declare) { d.Endpoints = nil }, ""},
		"everything gone":   {func(d *Declare) { *d = Declare{Declaration: "host"} }, ""},
		"target changed":    {func(d *Declare) { d.Services[0].Targets = slices.Clone(service("", "").Targets) }, Approved},
		"allow-list edited": {func(d *Declare) { d.Endpoints[0].Endpoint.Allow = prefixes("10.1.1.0/24") }, Approved},
	} {
		t.Run(name, func(t *testing.T) {
			s := must(t, Empty(), declaration(nil))
			before := s.Endpoint("sql-corp").Connection.LinkID
			s = must(t, s, declaration(tt.edit))
			e := s.Endpoint("sql-corp")
			// The same file means the same, whatever was there before.
			if fresh := must(t, Empty(), declaration(tt.edit)).Endpoint("sql-corp"); (fresh == nil) != (e == nil) || e != nil && fresh.Connection.State != e.Connection.State {
				t.Errorf("in an empty state %+v, after the edit %+v", fresh, e)
			}
			if e == nil {
				if tt.state != "" {
					t.Fatal("the endpoint is gone")
				}
				return
			}
			if e.Connection.State != tt.state || e.Connection.LinkID != before {
				t.Errorf("connection %+v, want %s with link ID %s", e.Connection, tt.state, before)
			}
			// And back.
			s = must(t, s, declaration(nil))
			if c := s.Endpoint("sql-corp").Connection; c.State != Approved {
				t.Errorf("after the edit was taken back: %+v, want Approved", c)
			}
		})
	}
}

// TestDecisionsOutliveDeclarations: what a person decided isn't undone by the next reload.
func TestDecisionsOutliveDeclarations(t *testing.T) {
	s := must(t, Empty(), declaration(nil))
	e := s.Endpoint("sql-corp")
	s = must(t, s, Decide{Endpoint: e.ID, LinkID: e.Connection.LinkID, State: Rejected, Decision: Decision{Actor: "bob"}})
	s = must(t, s, declaration(func(d *Declare) { d.Services[0].MaxConnections = 9 }))
	if c := s.Endpoint("sql-corp").Connection; c.State != Rejected {
		t.Errorf("connection %+v, want Rejected still", c)
	}
}

func TestDeclareMoves(t *testing.T) {
	second := func(d *Declare) {
		n := network("lab", "10.2.0.0/16", "10.201.0.0/24")
		n.Origin = d.Networks[0].Origin
		v := service("web", "fabrikam", "corp")
		v.Origin = n.Origin
		e := at("web-corp", "corp", "web", "10.200.0.6").Endpoint
		e.Origin = n.Origin
		d.Networks, d.Services = append(d.Networks, n), append(d.Services, v)
		d.Endpoints = append(d.Endpoints, DeclaredEndpoint{Endpoint: e})
	}
	for name, edit := range map[string]func(*Declare){
		"two endpoints swap addresses": func(d *Declare) {
			a, b := &d.Endpoints[0].Endpoint, &d.Endpoints[1].Endpoint
			a.Address, b.Address = b.Address, a.Address
		},
		"two services swap names": func(d *Declare) {
			a, b := &d.Services[0], &d.Services[1]
			a.Names, b.Names = b.Names, a.Names
		},
		"two networks swap pools": func(d *Declare) {
			a, b := &d.Networks[0], &d.Networks[1]
			a.Pools, b.Pools = b.Pools, a.Pools
			for i := range d.Endpoints {
				d.Endpoints[i].Endpoint.Network = "lab"
				d.Services[i].AutoApprove = []Party{"lab"}
			}
		},
		"a prefix and a pool move to a network before": func(d *Declare) {
			d.Networks[0], d.Networks[1] = d.Networks[1], d.Networks[0]
			d.Networks[0].Prefixes, d.Networks[0].Pools = append(d.Networks[0].Prefixes, d.Networks[1].Prefixes...), append(d.Networks[0].Pools, d.Networks[1].Pools...)
			d.Networks[1].Prefixes, d.Networks[1].Pools = prefixes("10.77.0.0/16"), nil
			for i := range d.Endpoints {
				d.Endpoints[i].Endpoint.Network = "lab"
				d.Services[i].AutoApprove = []Party{"lab"}
			}
		},
		"two networks swap prefixes": func(d *Declare) {
			a, b := &d.Networks[0], &d.Networks[1]
			a.Prefixes, b.Prefixes = b.Prefixes, a.Prefixes
		},
		"a pool moves and its address with it": func(d *Declare) {
			d.Networks[0].Pools = prefixes("10.209.0.0/24")
			for i := range d.Endpoints {
				d.Endpoints[i].Endpoint.Address = prefixes("10.209.0.0/24")[0].Addr().Next()
				if i == 1 {
					d.Endpoints[i].Endpoint.Address = d.Endpoints[0].Endpoint.Address.Next()
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := must(t, Empty(), declaration(second))
			s = must(t, s, declaration(func(d *Declare) { second(d); edit(d) }))
			for e := range s.Endpoints() {
				if e.Connection.State != Approved {
					t.Errorf("endpoint %s is %+v", e.ID, e.Connection)
				}
			}
			must(t, s, declaration(second))
		})
	}
}

// TestDeclareSwapsListener: of two networks with the same prefix, first one and then the other is found
// by its listener alone.
func TestDeclareSwapsListener(t *testing.T) {
	with := func(hidden ...bool) Declare {
		return declaration(func(d *Declare) {
			n := network("branch", "10.1.0.0/16", "")
			n.Origin = d.Networks[0].Origin
			d.Networks = []Network{n, d.Networks[0]} // branch stands first
			for i := range d.Networks {
				d.Networks[i].ByListener = hidden[i]
			}
		})
	}
	client := netip.MustParseAddr("10.1.2.3")
	s := must(t, Empty(), with(true, false))
	if n := s.NetworkOf(client); n == nil || n.ID != "corp" {
		t.Errorf("%s is of %v, want corp", client, n)
	}
	s = must(t, s, with(false, true))
	if n := s.NetworkOf(client); n == nil || n.ID != "branch" {
		t.Errorf("after the swap %s is of %v, want branch", client, n)
	}
}

func TestDeclareConflicts(t *testing.T) {
	for name, tt := range map[string]struct {
		before []Change
		edit   func(*Declare)
		err    error
		text   string
	}{
		"held by the API":             {[]Change{PutNetwork{network("corp", "10.1.0.0/16", "10.200.0.0/24")}}, nil, ErrConflict, "made through the API"},
		"held by another declaration": {[]Change{Declare{Declaration: "elsewhere", Networks: []Network{{ID: "corp", Prefixes: prefixes("10.5.0.0/16"), Origin: Origin{Declaration: "elsewhere", File: "/etc/other", Line: 3}}}}}, nil, ErrConflict, "/etc/other:3"},
		"given twice":                 {nil, func(d *Declare) { d.Networks = append(d.Networks, d.Networks[0]) }, ErrConflict, "declared in Corefile:2 already"},
		"of no declaration":           {nil, func(d *Declare) { d.Services[0].Origin = Origin{} }, ErrInvalid, `of declaration ""`},
		"address of an API endpoint":  {[]Change{PutNetwork{network("x", "10.6.0.0/16", "10.206.0.0/24")}, PutService{Service: service("s", "", Anyone)}, at("api", "x", "s", "10.206.0.5")}, func(d *Declare) { d.Networks[0].Pools = prefixes("10.206.0.0/25") }, ErrConflict, "network x"},
		"dropped network in use":      {[]Change{declaration(nil), PutService{Service: service("api", "", Anyone)}, endpoint("guest", "corp", "api")}, func(d *Declare) { *d = Declare{Declaration: "host"} }, ErrConflict, "endpoint guest"},
		"without a name":              {nil, func(d *Declare) { d.Declaration = "" }, ErrInvalid, "has a name"},
	} {
		t.Run(name, func(t *testing.T) {
			s := must(t, Empty(), tt.before...)
			if _, _, err := s.Apply(noon, declaration(tt.edit)); !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v, want one that wraps %q and says %q", err, tt.err, tt.text)
			}
		})
	}
}

// TestDeclaredIsNotChangedOtherwise is C18.
func TestDeclaredIsNotChangedOtherwise(t *testing.T) {
	s := must(t, Empty(), declaration(nil))
	for name, c := range map[string]Change{
		"put network":     PutNetwork{network("corp", "10.1.0.0/16", "10.200.0.0/24")},
		"delete network":  DeleteNetwork{"corp"},
		"put service":     PutService{Service: service("sql", "contoso")},
		"delete service":  DeleteService{"sql", true},
		"put endpoint":    endpoint("sql-corp", "corp", "sql"),
		"delete endpoint": DeleteEndpoint{"sql-corp"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := s.Apply(noon, c); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "Corefile:") {
				t.Errorf("error %v, want a conflict that names file and line", err)
			}
		})
	}
	e := s.Endpoint("sql-corp")
	must(t, s, Decide{Endpoint: e.ID, LinkID: e.Connection.LinkID, State: Rejected, Decision: Decision{Actor: "bob"}})
}

func TestRestore(t *testing.T) {
	s := world(t)
	backup := slices.Collect(s.Objects())
	later := must(t, s, DeleteEndpoint{"sql-corp"}, endpoint("x", "lab", "sql"))
	gone := later.Endpoint("x").Connection.LinkID
	back := must(t, later, Restore{Objects: backup, Revision: s.Revision()})
	if back.Revision() != later.Revision()+1 {
		t.Errorf("revision %d after %d", back.Revision(), later.Revision())
	}
	if back.Endpoint("x") != nil || back.Endpoint("sql-corp").Connection.LinkID != s.Endpoint("sql-corp").Connection.LinkID {
		t.Error("the state isn't that of the backup")
	}
	found := false
	for o := range back.Objects() {
		r, ok := o.(*Retired)
		found = found || ok && r.LinkID == gone
	}
	if !found {
		t.Errorf("link ID %s, given out after the backup, doesn't rest", gone)
	}
}

// TestAge: a state that a backup was restored into is older than the one that the backup was made of, and goes on from there.
func TestAge(t *testing.T) {
	first := world(t)
	for range 5 {
		first = must(t, first, DeleteEndpoint{"sql-corp"}, endpoint("sql-corp", "corp", "sql"))
	}
	backup := Restore{slices.Collect(first.Objects()), first.Revision()}
	newest := must(t, must(t, first, DeleteEndpoint{"sql-corp"}), endpoint("sql-corp", "corp", "sql")) // that nobody has a backup of
	if newest.Age() != newest.Revision() {
		t.Errorf("age %d of revision %d", newest.Age(), newest.Revision())
	}
	second := must(t, Empty(), backup)
	if second.Revision() != 1 || second.Age() <= newest.Age() {
		t.Fatalf("restored: revision %d, age %d after %d", second.Revision(), second.Age(), newest.Age())
	}
	loaded, err := Load(second.Revision(), second.Objects())
	if err != nil || loaded.Age() != second.Age() {
		t.Fatalf("loaded: age %d, want %d, %v", loaded.Age(), second.Age(), err)
	}
	for name, c := range map[string]Restore{"its own backup": {slices.Collect(second.Objects()), second.Revision()}, "the first backup": backup, "no backup": {Objects: backup.Objects}} {
		if next := must(t, second, c); next.Age() != second.Age()+1 {
			t.Errorf("%s in place of it: age %d after %d", name, next.Age(), second.Age())
		}
	}
	third := must(t, Empty(), Restore{slices.Collect(second.Objects()), second.Revision()})
	if third.Age() <= second.Age()+1 {
		t.Errorf("restored again: age %d after %d", third.Age(), second.Age())
	}
	for _, body := range []string{"", "{", `{"before":-1}`} {
		if _, _, err := first.Apply(noon, PutDocument{Document{Type: historyType, ID: historyID, Facet: Facet{API: []byte(body)}}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("history %q: %v", body, err)
		}
	}
}

// TestDeclareSettings: other settings are a change of the state, the same ones and none after none aren't.
func TestDeclareSettings(t *testing.T) {
	s := Empty()
	for i, tt := range []struct {
		declaration, settings string
		changes               int
	}{{"a", "", 0}, {"a", "one", 1}, {"a", "one", 0}, {"b", "two", 1}, {"a", "two", 1}, {"b", "two", 0}, {"a", "", 1}, {"a", "", 0}} {
		next, deltas, err := s.Apply(noon, Declare{Declaration: tt.declaration, Settings: tt.settings})
		if err != nil || len(deltas) != tt.changes {
			t.Fatalf("step %d: %d changes, %v", i, len(deltas), err)
		}
		s = next
	}
	if n := len(slices.Collect(s.Objects())); n != 1 {
		t.Errorf("%d objects remain, want those of b", n)
	}
}
