package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

func testReopen(t *testing.T, place Factory) {
	open := place(t)
	s := open(t)
	wantEqual(t, "new store", load(t, s), link.Empty())
	for n := range 3 {
		commit(t, s, n, link.PutNetwork{Network: Network(n)})
	}
	commit(t, s, 3, link.DeleteNetwork{ID: Network(1).ID})
	commit(t, s, 4) // no change is a commit all the same
	want, lines := load(t, s), audit(t, s, 0)
	closeStore(t, s)
	s = open(t)
	defer closeStore(t, s)
	wantEqual(t, "after reopening", load(t, s), want)
	if got := audit(t, s, 0); !reflect.DeepEqual(got, lines) {
		t.Errorf("audit after reopening: %v, want %v", got, lines)
	}
	if got := commit(t, s, 5, link.PutNetwork{Network: Network(5)}); got.Revision() != want.Revision()+1 {
		t.Errorf("revision %d after %d", got.Revision(), want.Revision())
	}
}

func testConflict(t *testing.T, place Factory) {
	s := fresh(t, place)
	base := load(t, s)
	want := commit(t, s, 1, link.PutNetwork{Network: Network(1)})
	for _, n := range []int{1, 2} {
		_, err := s.Commit(t.Context(), base, Entry(n), link.PutNetwork{Network: Network(n)})
		if !errors.Is(err, store.ErrConflict) {
			t.Errorf("network %d: %v, want ErrConflict", n, err)
		}
	}
	ahead, _, err := want.Apply(epoch, link.PutNetwork{Network: Network(2)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), ahead, Entry(3)); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a base that is ahead: %v, want ErrConflict", err)
	}
	wantEqual(t, "after conflicts", load(t, s), want)
	if got := len(audit(t, s, 0)); got != 1 {
		t.Errorf("%d audit entries, want 1", got)
	}
}

// testWriters has each writer add to a counter (the prefixes of a network) by reading and writing.
func testWriters(t *testing.T, place Factory) {
	const writers, each = 8, 6
	s := fresh(t, place)
	commit(t, s, 0, link.PutNetwork{Network: Network(0)})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for range each {
				_, err := store.Update(t.Context(), s, func(snap *link.Snapshot) (store.Entry, []link.Change, error) {
					n := *snap.Network(Network(0).ID)
					n.Prefixes = append(slices.Clone(n.Prefixes), netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(len(n.Prefixes)), 0}), 24))
					return Entry(w), []link.Change{link.PutNetwork{Network: n}}, nil
				})
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
				}
			}
		})
	}
	wg.Wait()
	snap := load(t, s)
	if got, want := len(snap.Network(Network(0).ID).Prefixes), 1+writers*each; got != want {
		t.Errorf("%d prefixes, want %d: updates were lost", got, want)
	}
	if got, want := snap.Revision(), uint64(1+writers*each); got != want {
		t.Errorf("revision %d, want %d", got, want)
	}
	ids := make(map[string]bool)
	for _, e := range audit(t, s, 0) {
		ids[e.ID] = true
	}
	if got, want := len(ids), 1+writers*each; got != want {
		t.Errorf("%d commits in the audit record, want %d", got, want)
	}
}

func testAudit(t *testing.T, place Factory) {
	s := fresh(t, place)
	commit(t, s, 1, link.PutNetwork{Network: Network(1)}, link.PutNetwork{Network: Network(2)})
	commit(t, s, 2, link.DeleteNetwork{ID: Network(1).ID}, link.PutNetwork{Network: Network(3)})
	e := Entry(3)
	e.ID = ""
	if _, err := s.Commit(t.Context(), load(t, s), e); err != nil {
		t.Fatal(err)
	}
	got := audit(t, s, 0)
	if len(got) != 3 {
		t.Fatalf("%d entries, want 3", len(got))
	}
	wantChanges := [][]string{
		{"network/net-1: created", "network/net-2: created"},
		{"network/net-1: deleted", "network/net-3: created"},
		nil,
	}
	for i, e := range got {
		want := Entry(i + 1)
		want.ID, want.Revision, want.Changes = e.ID, uint64(i+1), wantChanges[i]
		if len(e.Changes) == 0 {
			e.Changes = nil
		}
		e.Diffs = nil // testLines looks at them
		if !reflect.DeepEqual(e, want) {
			t.Errorf("entry %d: %+v, want %+v", i, e, want)
		}
		if e.ID == "" {
			t.Errorf("entry %d has no ID", i)
		}
	}
	if tail := audit(t, s, 3); len(tail) != 1 || tail[0].Revision != 3 {
		t.Errorf("from revision 3: %v", tail)
	}
	if tail := audit(t, s, 4); len(tail) != 0 {
		t.Errorf("from a revision to come: %v", tail)
	}
}

func testAuditLeave(t *testing.T, place Factory) {
	s := fresh(t, place)
	for n := range 3 {
		commit(t, s, n)
	}
	var seen []uint64
	for e, err := range s.Audit(t.Context(), 2) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, e.Revision)
		commit(t, s, 10)
		if len(seen) == 2 {
			break
		}
	}
	if !slices.Equal(seen, []uint64{2, 3}) {
		t.Errorf("saw %v, want 2 and 3", seen)
	}
	for _, err := range s.Audit(canceled(t), 0) {
		if err == nil {
			t.Error("audit goes on with a done context")
		}
	}
}

func testRefused(t *testing.T, place Factory) {
	s := fresh(t, place)
	want := commit(t, s, 1, link.PutNetwork{Network: Network(1)})
	_, err := s.Commit(t.Context(), want, Entry(2), link.PutNetwork{Network: Network(2)}, link.DeleteNetwork{ID: "no-such"})
	if !errors.Is(err, link.ErrNotFound) {
		t.Errorf("%v, want link.ErrNotFound", err)
	}
	if _, err := s.Commit(t.Context(), nil, Entry(3)); !errors.Is(err, link.ErrInvalid) {
		t.Errorf("no base: %v, want link.ErrInvalid", err)
	}
	wantEqual(t, "after a refused change", load(t, s), want)
	if got := len(audit(t, s, 0)); got != 1 {
		t.Errorf("%d audit entries, want 1", got)
	}
	commit(t, s, 4, link.PutNetwork{Network: Network(2)})
}

func testRestore(t *testing.T, place Factory) {
	s := fresh(t, place)
	commit(t, s, 1, link.PutNetwork{Network: Network(1)})
	old := commit(t, s, 2, link.PutNetwork{Network: Network(2)})
	commit(t, s, 3, link.DeleteNetwork{ID: Network(1).ID}, link.PutNetwork{Network: Network(3)})
	got := commit(t, s, 4, link.Restore{Objects: slices.Collect(old.Objects())})
	if got.Revision() != 4 {
		t.Errorf("revision %d, want 4", got.Revision())
	}
	wantSameObjects(t, "restored", got, old)
	wantEqual(t, "loaded", load(t, s), got)
	if lines := audit(t, s, 0); len(lines) != 4 {
		t.Errorf("%d audit entries, want 4: a restore keeps the record", len(lines))
	}
}

func testBackup(t *testing.T, place Factory) {
	s := fresh(t, place)
	for n := range 5 {
		commit(t, s, n, link.PutNetwork{Network: Network(n)})
	}
	want := load(t, s)
	var file bytes.Buffer
	if err := s.Backup(t.Context(), &file); err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Replace(file.Bytes(), []byte("tenant-a"), []byte("tenant-b"), 1)
	other := fresh(t, place)
	before := commit(t, other, 0, link.PutNetwork{Network: Network(77)})
	if _, err := store.Restore(t.Context(), other, bytes.NewReader(damaged), Entry(1)); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("a damaged backup: %v, want ErrDamaged", err)
	}
	wantEqual(t, "after a damaged backup", load(t, other), before)
	restored, err := store.Restore(t.Context(), other, &file, Entry(1))
	if err != nil {
		t.Fatal(err)
	}
	if restored.Age() <= want.Age() {
		t.Errorf("restored elsewhere: age %d of revision %d, after %d", restored.Age(), restored.Revision(), want.Age())
	}
	there, _, err := before.Apply(Entry(1).At, link.Restore{Objects: slices.Collect(want.Objects()), Revision: want.Revision()})
	if err != nil {
		t.Fatal(err)
	}
	wantSameObjects(t, "restored elsewhere", restored, there)
	wantEqual(t, "loaded", load(t, other), restored)
	if err := s.Backup(t.Context(), failingWriter{}); !errors.Is(err, errInjected) {
		t.Errorf("backup to a writer that fails: %v", err)
	}
}

func testContext(t *testing.T, place Factory) {
	s := fresh(t, place)
	base, ctx := load(t, s), canceled(t)
	if _, err := s.Load(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("load: %v", err)
	}
	if _, err := s.Commit(ctx, base, Entry(1), link.PutNetwork{Network: Network(1)}); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v", err)
	}
	if _, ok := next(t, s.Watch(ctx)); ok {
		t.Error("watch yields")
	}
	wantEqual(t, "after all", load(t, s), base)
}

func testUpdate(t *testing.T, place Factory) {
	s := fresh(t, place)
	tries := 0
	got, err := store.Update(t.Context(), s, func(snap *link.Snapshot) (store.Entry, []link.Change, error) {
		tries++
		if tries == 1 { // someone else is faster
			commit(t, s, 1, link.PutNetwork{Network: Network(1)})
		}
		return Entry(2), []link.Change{link.PutNetwork{Network: Network(2)}}, nil
	})
	if err != nil || tries != 2 || got.Revision() != 2 {
		t.Errorf("revision %v, error %v, %d tries; want 2, none, 2", got, err, tries)
	}
	same, err := store.Update(t.Context(), s, func(*link.Snapshot) (store.Entry, []link.Change, error) {
		return store.Entry{}, nil, nil
	})
	if err != nil || same.Revision() != 2 || len(audit(t, s, 0)) != 2 {
		t.Errorf("nothing to do: revision %d, error %v", same.Revision(), err)
	}
	refuse := fmt.Errorf("decided against it")
	if _, err := store.Update(t.Context(), s, func(*link.Snapshot) (store.Entry, []link.Change, error) {
		return store.Entry{}, []link.Change{link.PutNetwork{Network: Network(3)}}, refuse
	}); !errors.Is(err, refuse) {
		t.Errorf("error of decide: %v", err)
	}
	wantEqual(t, "after all", load(t, s), got)
}
