package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"time"

	"github.com/postern-link/postern/link"
)

// The wait between two tries of Update: doubled from the first to the last, each with up to
// half of it taken off at random so that writers that met once don't meet again.
const (
	firstBackoff = time.Millisecond
	lastBackoff  = 64 * time.Millisecond
)

// NewID returns a new ID for an [Entry]: 26 characters, 128 bits of random.
func NewID() string { return rand.Text() }

// Update loads, decides and commits, again after each [ErrConflict] until ctx is done. A decide that
// returns no changes ends it with the snapshot that it saw, unless its entry has a Result, such as
// [Refused]: that is stored by itself. decide may be called many times and must
// not act on its own. After [ErrUnknownOutcome] the commit is looked for: where it landed Update
// returns the newest snapshot and no error, else that error, and nothing is done twice.
func Update(ctx context.Context, s Store, decide func(*link.Snapshot) (Entry, []link.Change, error)) (*link.Snapshot, error) {
	return UpdateFrom(ctx, s, nil, decide)
}

// UpdateFrom is Update that decides on a known snapshot first, nil for none, which spares a shared store a round
// trip: the commit finds out whether the snapshot is still the newest. A verdict that commits nothing
// (an error, no changes) stands only if Load says that it is.
func UpdateFrom(ctx context.Context, s Store, known *link.Snapshot, decide func(*link.Snapshot) (Entry, []link.Change, error)) (*link.Snapshot, error) {
	wait := firstBackoff
	for {
		base, entry, changes, err := propose(ctx, s, known, decide)
		known = nil
		if err != nil {
			return nil, err
		}
		if len(changes) == 0 && entry.Result == "" {
			return base, nil
		}
		if entry.ID == "" {
			entry.ID = NewID() // here, not in Commit, so that we know what to look for
		}
		next, err := s.Commit(ctx, base, entry, changes...)
		switch {
		case err == nil:
			return next, nil
		case errors.Is(err, ErrUnknownOutcome):
			return settle(ctx, s, entry.ID, base.Revision()+1, err)
		case !errors.Is(err, ErrConflict):
			return nil, err
		}
		if err := sleep(ctx, wait-mrand.N(wait/2)); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrConflict, err)
		}
		wait = min(2*wait, lastBackoff)
	}
}

// propose decides on known, or on the newest snapshot where there is none or the verdict commits nothing, and
// returns what it decided on too.
func propose(ctx context.Context, s Store, known *link.Snapshot, decide func(*link.Snapshot) (Entry, []link.Change, error)) (base *link.Snapshot, e Entry, changes []link.Change, err error) {
	if known != nil {
		if e, changes, err = decide(known); err == nil && len(changes) > 0 {
			return known, e, changes, nil
		}
	}
	newest, lost := s.Load(ctx)
	switch {
	case lost != nil:
		return nil, Entry{}, nil, lost
	case known == nil || newest.Revision() != known.Revision():
		e, changes, err = decide(newest)
	}
	return newest, e, changes, err
}

// settle finds out whether the commit behind an unknown outcome landed.
func settle(ctx context.Context, s Store, id string, from uint64, unknown error) (*link.Snapshot, error) {
	_, found, err := Find(ctx, s, id, from)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w; looking for it: %w", unknown, err)
	case !found:
		return nil, unknown // it may still be on its way
	}
	return s.Load(ctx)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
