package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// errLent: the state is with another process. Whoever wanted a change may try again soon, there or here.
var errLent = fmt.Errorf("%w: another process is taking this one's place; try again", store.ErrClosed)

// lent is a store that one process at a time can have, and that may be closed for another process while the node lives on.
type lent struct {
	open openFunc
	feed store.Feed

	mu    sync.Mutex
	st    store.Store // nil: lent
	away  bool        // being lent, or lent: nothing new is begun
	users int         // calls under way
	idle  chan struct{}
	seen  time.Time // of Confirmed

	following sync.WaitGroup
}

func newLent(ctx context.Context, open openFunc) (*lent, error) {
	l := &lent{open: open}
	st, err := open(ctx)
	if err != nil {
		return nil, err
	}
	l.use(st)
	return l, nil
}

// use makes st the store, and passes on what it yields.
func (l *lent) use(st store.Store) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.st, l.away = st, false
	l.following.Go(func() {
		for s := range st.Watch(context.Background()) { // until st is closed
			l.feed.Publish(s)
		}
	})
}

// begin returns the store for one call, which ends with done.
func (l *lent) begin() (store.Store, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return nil, errLent
	}
	l.users++
	return l.st, nil
}

func (l *lent) done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.users == 0 && l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
}

// lend closes the store when the calls under way have ended. On an error it goes on. One that couldn't be taken back is
// lent already.
func (l *lent) lend(ctx context.Context) error {
	l.mu.Lock()
	l.away = true
	if l.st == nil {
		l.mu.Unlock()
		return nil
	}
	var idle chan struct{}
	if l.users > 0 {
		idle = make(chan struct{})
		l.idle = idle
	}
	l.mu.Unlock()
	if idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
			if l.keep() {
				return errors.New("a backup or a reading of the audit record is under way; try again when it is done")
			}
		}
	}
	err := l.st.Close()
	l.following.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.st, l.seen = nil, time.Now()
	return err
}

// keep ends what lend has begun. It reports false where all calls have ended meanwhile.
func (l *lent) keep() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users == 0 {
		return false
	}
	l.away, l.idle = false, nil
	return true
}

// takePause is the time between two tries to open a state that another process still has.
const takePause = 20 * time.Millisecond

// take opens the store again where it was lent; the process that had it may be about to end.
func (l *lent) take(ctx context.Context) error {
	l.mu.Lock()
	here := l.st != nil
	l.mu.Unlock()
	if here {
		return nil
	}
	for {
		st, err := l.open(ctx)
		if err == nil {
			l.use(st)
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(takePause):
		}
	}
}

// Load implements [store.Store].
func (l *lent) Load(ctx context.Context) (*link.Snapshot, error) {
	st, err := l.begin()
	if err != nil {
		return nil, err
	}
	defer l.done()
	return st.Load(ctx)
}

// Commit implements [store.Store].
func (l *lent) Commit(ctx context.Context, base *link.Snapshot, e store.Entry, changes ...link.Change) (*link.Snapshot, error) {
	st, err := l.begin()
	if err != nil {
		return nil, err
	}
	defer l.done()
	return st.Commit(ctx, base, e, changes...)
}

// Watch implements [store.Store].
func (l *lent) Watch(ctx context.Context) <-chan *link.Snapshot { return l.feed.Watch(ctx) }

// Confirmed implements [store.Store]: while it is lent, when it was.
func (l *lent) Confirmed() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.st == nil {
		return l.seen
	}
	return l.st.Confirmed()
}

// Audit implements [store.Store].
func (l *lent) Audit(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return entries(l, func(st store.Store) iter.Seq2[store.Entry, error] { return st.Audit(ctx, from) })
}

// Lines implements [store.Store].
func (l *lent) Lines(ctx context.Context, from uint64) iter.Seq2[store.Line, error] {
	return entries(l, func(st store.Store) iter.Seq2[store.Line, error] { return st.Lines(ctx, from) })
}

// entries yields what read does, as one call.
func entries[T any](l *lent, read func(store.Store) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		st, err := l.begin()
		if err != nil {
			var none T
			yield(none, err)
			return
		}
		defer l.done()
		read(st)(yield)
	}
}

// Backup implements [store.Store].
func (l *lent) Backup(ctx context.Context, w io.Writer) error {
	st, err := l.begin()
	if err != nil {
		return err
	}
	defer l.done()
	return st.Backup(ctx, w)
}

// Close implements [store.Store].
func (l *lent) Close() error {
	l.mu.Lock()
	st := l.st
	l.mu.Unlock()
	var err error
	if st != nil {
		err = st.Close()
	}
	l.following.Wait()
	l.feed.Close()
	return err
}
