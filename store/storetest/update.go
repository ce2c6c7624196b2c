package storetest

import (
	"errors"
	"slices"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// testUpdateFrom has deciders that know an old snapshot and the newest one.
func testUpdateFrom(t *testing.T, place Factory) {
	s := fresh(t, place)
	old := load(t, s)
	newest := commit(t, s, 1, link.PutNetwork{Network: Network(1)})
	refuse := errors.New("decided against it")
	for _, c := range []struct {
		name  string
		known *link.Snapshot
		want  []uint64 // revisions that are decided on
	}{
		{"old", old, []uint64{0, 1}},
		{"newest", newest, []uint64{1}},
		{"none", nil, []uint64{1}},
	} {
		for verdict, err := range map[string]error{"refused": refuse, "nothing": nil} {
			var seen []uint64
			got, gotErr := store.UpdateFrom(t.Context(), s, c.known, func(snap *link.Snapshot) (store.Entry, []link.Change, error) {
				seen = append(seen, snap.Revision())
				return store.Entry{}, nil, err
			})
			wantSeen(t, c.name+", "+verdict, seen, c.want...)
			if !errors.Is(gotErr, err) || err == nil && got.Revision() != 1 {
				t.Errorf("%s, %s: %v, error %v", c.name, verdict, got, gotErr)
			}
		}
	}
	var seen []uint64
	got, err := store.UpdateFrom(t.Context(), s, old, func(snap *link.Snapshot) (store.Entry, []link.Change, error) {
		seen = append(seen, snap.Revision())
		return Entry(2), []link.Change{link.PutNetwork{Network: Network(2)}}, nil
	})
	wantSeen(t, "a change on an old one", seen, 0, 1)
	if err != nil || got.Revision() != 2 || got.Network(Network(1).ID) == nil {
		t.Errorf("a change on an old one: %v, error %v", got, err)
	}
}

func wantSeen(t *testing.T, what string, got []uint64, want ...uint64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: decided on revisions %v, want %v", what, got, want)
	}
}
