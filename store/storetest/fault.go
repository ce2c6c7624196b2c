package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

var errInjected = errors.New("injected fault")

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errInjected }

// Fault is a store whose next commits fail as told. Everything else is that of Store.
type Fault struct {
	store.Store

	mu   sync.Mutex
	plan []Outcome
}

// Outcome is what a [Fault] does to one commit.
type Outcome int

// The outcomes. Lost and Landed both tell the caller [store.ErrUnknownOutcome].
const (
	Pass   Outcome = iota // commits
	Refuse                // fails, not applied, and says so: a plain error
	Lost                  // not applied, and the caller can't know
	Landed                // applied, and the caller can't know
)

// Plan says what happens to the next commits, one each; those after them pass.
func (f *Fault) Plan(outcomes ...Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan = outcomes
}

// Commit implements [store.Store].
func (f *Fault) Commit(ctx context.Context, base *link.Snapshot, entry store.Entry, changes ...link.Change) (*link.Snapshot, error) {
	unknown := fmt.Errorf("%w: %w", store.ErrUnknownOutcome, errInjected)
	switch f.next() {
	case Refuse:
		return nil, errInjected
	case Lost:
		return nil, unknown
	case Landed:
		if _, err := f.Store.Commit(ctx, base, entry, changes...); err != nil {
			return nil, err
		}
		return nil, unknown
	}
	return f.Store.Commit(ctx, base, entry, changes...)
}

func (f *Fault) next() Outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.plan) == 0 {
		return Pass
	}
	o := f.plan[0]
	f.plan = f.plan[1:]
	return o
}

// testAppliedButFailed: found, reported as done, no second effect, also without an ID of the caller.
func testAppliedButFailed(t *testing.T, place Factory) {
	f := &Fault{Store: fresh(t, place)}
	commit(t, f, 0, link.PutNetwork{Network: Network(0)})
	base := load(t, f)
	e := Entry(1)
	f.Plan(Landed)
	if _, err := f.Commit(t.Context(), base, e, link.PutNetwork{Network: Network(1)}); !errors.Is(err, store.ErrUnknownOutcome) {
		t.Fatalf("commit: %v", err)
	}
	got, found, err := store.Find(t.Context(), f, e.ID, base.Revision()+1)
	if err != nil || !found || got.Revision != base.Revision()+1 {
		t.Errorf("found %t at %d, error %v", found, got.Revision, err)
	}
	f.Plan(Landed)
	decided := 0
	snap, err := store.Update(t.Context(), f, func(*link.Snapshot) (store.Entry, []link.Change, error) {
		decided++
		e := Entry(2)
		e.ID = ""
		return e, []link.Change{link.PutNetwork{Network: Network(2)}}, nil
	})
	if err != nil || decided != 1 {
		t.Fatalf("update: %v after %d decisions, want none after 1", err, decided)
	}
	if snap.Network(Network(2).ID) == nil || snap.Revision() != 3 || len(audit(t, f, 0)) != 3 {
		t.Errorf("revision %d, want the change once", snap.Revision())
	}
}

func testNotApplied(t *testing.T, place Factory) {
	f := &Fault{Store: fresh(t, place)}
	base := commit(t, f, 0, link.PutNetwork{Network: Network(0)})
	for outcome, want := range map[Outcome]error{Refuse: errInjected, Lost: store.ErrUnknownOutcome} {
		f.Plan(outcome)
		e := Entry(1)
		_, err := store.Update(t.Context(), f, func(*link.Snapshot) (store.Entry, []link.Change, error) {
			return e, []link.Change{link.PutNetwork{Network: Network(1)}}, nil
		})
		if !errors.Is(err, want) {
			t.Errorf("outcome %d: %v, want %v", outcome, err, want)
		}
		if _, found, err := store.Find(t.Context(), f, e.ID, 0); found || err != nil {
			t.Errorf("outcome %d: found %t, error %v", outcome, found, err)
		}
	}
	wantEqual(t, "after faults", load(t, f), base)
	commit(t, f, 2, link.PutNetwork{Network: Network(2)})
}
