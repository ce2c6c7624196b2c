package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// firstTry is how long a start waits for a state that is shared before it goes on without.
const firstTry = 5 * time.Second

// openPause is the time between two tries to open a store that is there and refuses.
const openPause = 2 * time.Second

// openFunc opens a store; it may take until ctx is done.
type openFunc func(ctx context.Context) (store.Store, error)

// openShared opens a store that other nodes may have too. One that can't be reached now is a [later]; one
// that refuses, such as for its credentials, is an error.
func openShared(ctx context.Context, open openFunc, log *slog.Logger) (store.Store, error) {
	try, cancel := context.WithTimeout(ctx, firstTry)
	defer cancel()
	st, err := open(try)
	switch {
	case err == nil:
		return st, nil
	case try.Err() == nil:
		return nil, &PlaceError{err}
	case isFinal(err):
		return nil, err
	}
	log.Error("the state can't be reached; until it can, no flow is carried and no name answered", "error", err)
	return newLater(open, log, err), nil
}

// isFinal reports whether an error won't pass by itself.
func isFinal(err error) bool {
	var place *PlaceError
	return errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrForeign) || errors.As(err, &place)
}

// later is a store that couldn't be reached when the node started: it goes on trying to open it. What it
// is asked for fails until then, and is that store's afterwards.
type later struct {
	open openFunc
	log  *slog.Logger
	why  atomic.Pointer[error] // of the last try
	st   atomic.Pointer[store.Store]
	feed store.Feed

	life    context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
}

func newLater(open openFunc, log *slog.Logger, why error) *later {
	l := &later{open: open, log: log}
	l.why.Store(&why)
	l.life, l.stop = context.WithCancel(context.Background())
	l.running.Go(l.run)
	return l
}

// run opens the store and passes on what it yields.
func (l *later) run() {
	st := l.try()
	if st == nil {
		return
	}
	l.st.Store(&st)
	l.log.Info("the state is reached now")
	for s := range st.Watch(l.life) {
		l.feed.Publish(s)
	}
}

// try returns the store when it is open, nil when l is closed before.
func (l *later) try() store.Store {
	for {
		st, err := l.open(l.life)
		if err == nil {
			return st
		}
		if l.life.Err() != nil {
			return nil
		}
		if old := *l.why.Swap(&err); old.Error() != err.Error() {
			l.log.Error("the state can't be opened yet", "error", err)
		}
		select {
		case <-l.life.Done():
			return nil
		case <-time.After(openPause):
		}
	}
}

// reached returns the store, or why there is none yet.
func (l *later) reached() (store.Store, error) {
	if st := l.st.Load(); st != nil {
		return *st, nil
	}
	return nil, fmt.Errorf("the state was not reached yet: %w", *l.why.Load())
}

// Load implements [store.Store].
func (l *later) Load(ctx context.Context) (*link.Snapshot, error) {
	st, err := l.reached()
	if err != nil {
		return nil, err
	}
	return st.Load(ctx)
}

// Commit implements [store.Store].
func (l *later) Commit(ctx context.Context, base *link.Snapshot, e store.Entry, changes ...link.Change) (*link.Snapshot, error) {
	st, err := l.reached()
	if err != nil {
		return nil, err
	}
	return st.Commit(ctx, base, e, changes...)
}

// Watch implements [store.Store]. It yields nothing before the store is open.
func (l *later) Watch(ctx context.Context) <-chan *link.Snapshot { return l.feed.Watch(ctx) }

// Confirmed implements [store.Store]: zero before the store is open.
func (l *later) Confirmed() time.Time {
	if st := l.st.Load(); st != nil {
		return (*st).Confirmed()
	}
	return time.Time{}
}

// Audit implements [store.Store].
func (l *later) Audit(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	st, err := l.reached()
	if err != nil {
		return func(yield func(store.Entry, error) bool) { yield(store.Entry{}, err) }
	}
	return st.Audit(ctx, from)
}

// Lines implements [store.Store].
func (l *later) Lines(ctx context.Context, from uint64) iter.Seq2[store.Line, error] {
	st, err := l.reached()
	if err != nil {
		return func(yield func(store.Line, error) bool) { yield(store.Line{}, err) }
	}
	return st.Lines(ctx, from)
}

// Backup implements [store.Store].
func (l *later) Backup(ctx context.Context, w io.Writer) error {
	st, err := l.reached()
	if err != nil {
		return err
	}
	return st.Backup(ctx, w)
}

// Close implements [store.Store].
func (l *later) Close() error {
	l.stop()
	l.running.Wait()
	l.feed.Close()
	if st := l.st.Load(); st != nil {
		return (*st).Close()
	}
	return nil
}
