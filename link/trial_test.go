package link

import (
	"errors"
	"fmt"
	"testing"
)

// TestTrial: changes one by one are what Apply makes of them, and an address that is asked for goes to who asks.
func TestTrial(t *testing.T) {
	var trial Trial
	try := func(c Change) {
		t.Helper()
		if err := trial.Try(noon, c); err != nil {
			t.Fatal(err)
		}
	}
	try(PutNetwork{network("corp", "10.1.0.0/16", "10.200.0.0/29")}) // six addresses
	try(PutService{Service: service("sql", "db", Anyone)})
	for i := range 3 {
		try(endpoint(ID(fmt.Sprint("any", i)), "corp", "sql"))
	}
	for i := range 3 { // those that the three were given, and each that they move on to
		try(at(ID(fmt.Sprint("fixed", i)), "corp", "sql", fmt.Sprintf("10.200.0.%d", i+1)))
	}
	for i := range 3 {
		if e := trial.t.next.Endpoint(ID(fmt.Sprint("any", i))); e == nil || e.Address.As4()[3] < 4 {
			t.Errorf("%+v", e)
		}
	}
	if err := trial.Try(noon, at("another", "corp", "sql", "10.200.0.2")); !errors.Is(err, ErrTaken) {
		t.Errorf("an address that another asked for: %v", err)
	}
}

// TestTrialFull: who must give an address up and finds no other is what the error is about.
func TestTrialFull(t *testing.T) {
	var trial Trial
	if err := trial.Try(noon, PutNetwork{network("corp", "10.1.0.0/16", "10.200.0.0/30")}, PutService{Service: service("sql", "db", Anyone)},
		endpoint("any1", "corp", "sql"), endpoint("any2", "corp", "sql")); err != nil {
		t.Fatal(err)
	}
	var about *ObjectError
	if err := trial.Try(noon, at("fixed", "corp", "sql", "10.200.0.2")); !errors.As(err, &about) || about.ID != "any2" {
		t.Errorf("%v", err)
	}
}

// TestP15DeclareAgain: a declaration that the state has already leaves every table as it is, whatever its size; where only
// the place in the file is another, only what finds an endpoint is made anew.
func TestP15DeclareAgain(t *testing.T) {
	declare := func(line int) Declare {
		d := Declare{Declaration: "test", Networks: []Network{network("corp", "10.1.0.0/16", "10.200.0.0/16")}}
		d.Networks[0].Origin = Origin{Declaration: "test", Line: line}
		for i := range 20 {
			v := service(ID(fmt.Sprint("s", i)), Name(fmt.Sprint("db", i)), Anyone)
			v.Origin = Origin{Declaration: "test", Line: line + i}
			d.Services = append(d.Services, v)
		}
		for i := range 200 {
			e := at(ID(fmt.Sprint("e", i)), "corp", ID(fmt.Sprint("s", i%20)), fmt.Sprintf("10.200.1.%d", i+1))
			e.Endpoint.Origin = Origin{Declaration: "test", Line: line + 20 + i}
			d.Endpoints = append(d.Endpoints, DeclaredEndpoint{Endpoint: e.Endpoint})
		}
		return d
	}
	known, _, err := Empty().Apply(noon, declare(1))
	if err != nil {
		t.Fatal(err)
	}
	same, deltas, err := known.Apply(noon, declare(1))
	if err != nil || len(deltas) != 0 {
		t.Fatalf("%d deltas, %v", len(deltas), err)
	}
	if same.endpoints.tree != known.endpoints.tree || same.services.tree != known.services.tree || same.byBoth.tree != known.byBoth.tree ||
		same.tallies.tree != known.tallies.tree || same.owners.tree != known.owners.tree || same.addresses != known.addresses || same.claims.tree != known.claims.tree {
		t.Error("a declaration that changes nothing has changed tables")
	}
	moved, deltas, err := known.Apply(noon, declare(2))
	if err != nil || len(deltas) != 1+20+200 {
		t.Fatalf("%d deltas, %v", len(deltas), err)
	}
	if moved.tallies.tree != known.tallies.tree || moved.owners.tree != known.owners.tree || moved.exists.tree != known.exists.tree {
		t.Error("lines that moved have changed counters")
	}
	for i := range 200 {
		id := ID(fmt.Sprint("e", i))
		e, old := moved.Endpoint(id), known.Endpoint(id)
		if e.Origin.Line != old.Origin.Line+1 || moved.EndpointAt(e.Address) != e || moved.EndpointOf(e.Connection.LinkID) != e ||
			known.EndpointAt(old.Address) != old || known.EndpointOf(old.Connection.LinkID) != old {
			t.Fatalf("%s: %+v", id, e)
		}
	}
}
