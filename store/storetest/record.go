package storetest

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// testRefusal: what was refused has a revision and an entry of its own, and changes nothing.
func testRefusal(t *testing.T, place Factory) {
	open := place(t)
	s := open(t)
	before := commit(t, s, 1, link.PutNetwork{Network: Network(1)})
	e := Entry(2)
	e.Result, e.Scopes = store.Refused, []string{"sub-1"}
	after, err := store.Update(t.Context(), s, func(*link.Snapshot) (store.Entry, []link.Change, error) { return e, nil, nil })
	if err != nil || after.Revision() != before.Revision()+1 {
		t.Fatalf("revision %v, error %v", after, err)
	}
	wantSameObjects(t, "after a refusal", after, before)
	closeStore(t, s)
	s = open(t)
	defer closeStore(t, s)
	got := audit(t, s, after.Revision())
	if len(got) != 1 || got[0].ID != e.ID || got[0].Result != store.Refused || !slices.Equal(got[0].Scopes, e.Scopes) || len(got[0].Changes)+len(got[0].Diffs) != 0 {
		t.Errorf("%+v, want the refusal", got)
	}
}

// testLines: the stored lines are those of Audit, and each follows from the one before it.
func testLines(t *testing.T, place Factory) {
	s := fresh(t, place)
	for n := range 5 {
		commit(t, s, n, link.PutNetwork{Network: Network(n)})
	}
	var chain store.Chain
	var entries []store.Entry
	for l, err := range s.Lines(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		e, after, err := chain.Next(l.Revision, l.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		entries, chain = append(entries, e), after
	}
	if want := audit(t, s, 0); len(want) != 5 || !reflect.DeepEqual(entries, want) {
		t.Errorf("lines hold %v, want %v", entries, want)
	}
	d := entries[4].Diffs
	if len(d) != 1 || d[0].Object != "network/net-4" || d[0].Before != nil || !json.Valid(d[0].After) {
		t.Errorf("diffs %+v", d)
	}
	for from, want := range map[uint64][]uint64{3: {3, 4, 5}, 5: {5}, 6: nil} {
		var got []uint64
		for l, err := range s.Lines(t.Context(), from) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, l.Revision)
		}
		if !slices.Equal(got, want) {
			t.Errorf("from %d: %v, want %v", from, got, want)
		}
	}
}

func testConfirmed(t *testing.T, place Factory) {
	s := fresh(t, place)
	before := time.Now()
	commit(t, s, 1, link.PutNetwork{Network: Network(1)})
	load(t, s)
	if at := s.Confirmed(); at.Before(before) || at.After(time.Now()) {
		t.Errorf("confirmed %s after the load began", at.Sub(before))
	}
}

// testUnknownFields: a rolling upgrade. An object as a newer version left it is opened, changed by this
// version, opened again, and has still what that version gave it.
func testUnknownFields(t *testing.T, place Factory) {
	open := place(t)
	s := open(t)
	newer := Network(1)
	newer.Extra = map[string]json.RawMessage{"fromTheFuture": []byte(`{"a":[1,2]}`)}
	commit(t, s, 1, link.PutNetwork{Network: newer})
	check := func(s store.Store, when string) {
		t.Helper()
		if got := load(t, s).Network(newer.ID); got == nil || !reflect.DeepEqual(got.Extra, newer.Extra) {
			t.Errorf("%s: %+v, want %s kept", when, got, newer.Extra)
		}
	}
	closeStore(t, s)
	s = open(t)
	check(s, "opened")
	ours := *load(t, s).Network(newer.ID)
	ours.Prefixes = Network(2).Prefixes
	commit(t, s, 2, link.PutNetwork{Network: ours})
	check(s, "changed")
	closeStore(t, s)
	s = open(t)
	defer closeStore(t, s)
	check(s, "opened again")
	if got := load(t, s).Network(newer.ID); !slices.Equal(got.Prefixes, ours.Prefixes) {
		t.Errorf("prefixes %s, want those of the change", got.Prefixes)
	}
}
