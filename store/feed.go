package store

import (
	"context"
	"sync"

	"github.com/postern-link/postern/link"
)

// Feed hands each newer snapshot to any number of watchers and waits for none of them: a watcher's
// channel has room for one, and a newer snapshot takes the place of one that wasn't read. It is
// what backends build Watch on. The zero Feed is ready and has no snapshot.
type Feed struct {
	mu       sync.Mutex // guards all below; held for sends that can't block
	newest   *link.Snapshot
	watchers map[*watcher]struct{}
	closed   bool
	ending   sync.WaitGroup // functions started by a watcher's context
}

type watcher struct {
	ch   chan *link.Snapshot
	stop func() bool // undoes the context.AfterFunc; set before the watcher is in the map
}

// Publish makes s the newest snapshot. One that isn't newer is ignored: a watcher never goes back.
func (f *Feed) Publish(s *link.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.newest != nil && s.Revision() <= f.newest.Revision() {
		return
	}
	f.newest = s
	for w := range f.watchers {
		w.put(s)
	}
}

// put never blocks: only the holder of Feed.mu sends, and the room of one has just been made.
func (w *watcher) put(s *link.Snapshot) {
	select {
	case <-w.ch:
	default:
	}
	w.ch <- s
}

// Watch returns a channel as [Store.Watch] promises it.
func (f *Feed) Watch(ctx context.Context) <-chan *link.Snapshot {
	w := &watcher{ch: make(chan *link.Snapshot, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || ctx.Err() != nil {
		close(w.ch)
		return w.ch
	}
	if f.newest != nil {
		w.put(f.newest)
	}
	f.ending.Add(1)
	w.stop = context.AfterFunc(ctx, func() {
		defer f.ending.Done()
		f.drop(w)
	})
	if f.watchers == nil {
		f.watchers = make(map[*watcher]struct{})
	}
	f.watchers[w] = struct{}{}
	return w.ch
}

func (f *Feed) drop(w *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.watchers[w]; ok {
		delete(f.watchers, w)
		close(w.ch)
	}
}

// Close closes the channels of all watchers. When it returns nothing of the feed runs any more.
func (f *Feed) Close() {
	f.mu.Lock()
	f.closed = true
	for w := range f.watchers {
		delete(f.watchers, w)
		close(w.ch)
		if w.stop() {
			f.ending.Done()
		}
	}
	f.mu.Unlock()
	f.ending.Wait()
}
