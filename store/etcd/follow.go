package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

const (
	// confirmEvery is how often meta is read to confirm the view, retryEvery while that fails.
	confirmEvery = 2 * time.Second
	retryEvery   = 500 * time.Millisecond
	// patience is how long a watch may be behind what a read has shown before it is made anew, most likely with
	// another member; restarts, how often that is done before all is loaded.
	patience = time.Second
	restarts = 3
	// firstRewatch is the wait before a watch is made anew, doubled up to patience while none brings anything.
	firstRewatch = 50 * time.Millisecond
	// lastReload is the longest wait between two loads of a state that can't be used: each reads all of it.
	lastReload = 15 * time.Second
)

// Why a watch ends.
var (
	errSilent = errors.New("the watch is silent")
	errGap    = errors.New("the watch doesn't lead to the state that was read")
)

// follow keeps the view up to date from etcd's revision at on, until the store is closed.
func (s *Store) follow(at int64) {
	wait, told := firstRewatch, "" // the error that was told last, while no watch brought anything
	for s.life.Err() == nil {
		next, err := s.watch(at + 1)
		if next > at+1 {
			wait, told = firstRewatch, ""
		}
		at = next - 1
		if s.life.Err() != nil {
			return
		}
		s.metrics.watchEnded(err)
		if !errors.Is(err, errGap) {
			if told != err.Error() {
				s.log.Warn("watch ended, making new ones", "error", err)
				told = err.Error()
			}
			pause(s.life, wait)
			wait = min(2*wait, patience)
			continue
		}
		told = ""
		s.log.Warn("loading the whole state", "reason", err)
		if l := s.reload(); l != nil {
			at = l.at
		}
	}
}

// reload loads until it succeeds; nil: the store was closed.
func (s *Store) reload() *loaded {
	wait := 100 * time.Millisecond
	for {
		start, before := time.Now(), s.current.Load()
		l, err := s.load(s.life, before)
		if err == nil {
			s.install(l)
			s.confirmAt(start)
			return l
		}
		if s.life.Err() != nil {
			return nil
		}
		s.doubt(fmt.Errorf("load: %w", err))
		pause(s.life, wait)
		longest := 2 * time.Second
		if errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrForeign) {
			longest = lastReload
		}
		wait = min(2*wait, longest)
	}
}

// watch takes over what is written from etcd's revision from on. It returns the revision to go on from, and
// an error that wraps errGap where that is of no use.
func (s *Store) watch(from int64) (int64, error) {
	ctx, cancel := context.WithCancelCause(clientv3.WithRequireLeader(s.life))
	defer cancel(nil)
	s.watching.Store(&watching{cancel: cancel, since: time.Now()})
	for resp := range s.client.Watch(ctx, s.key(keyMeta), clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.key(dirObject))), clientv3.WithRev(from), clientv3.WithProgressNotify()) {
		if resp.CompactRevision != 0 {
			return from, fmt.Errorf("%w: etcd has compacted beyond it", errGap)
		}
		if err := resp.Err(); err != nil {
			return from, err
		}
		if err := s.take(resp.Events); err != nil {
			return from, err
		}
		switch n := len(resp.Events); {
		case n > 0: // not what the header says: a watch that catches up gets its events in several answers of one revision
			from = max(from, resp.Events[n-1].Kv.ModRevision+1)
		case resp.IsProgressNotify():
			from = max(from, resp.Header.Revision+1)
		}
	}
	return from, context.Cause(ctx)
}

// watching is a watch under way.
type watching struct {
	cancel context.CancelCauseFunc
	since  time.Time
}

// restart ends the watch under way, unless it has just begun: many may wait for what it will bring, and each of them
// loses its patience at another time.
func (s *Store) restart(why error) {
	if w := s.watching.Load(); w != nil && time.Since(w.since) > patience/2 {
		w.cancel(why)
	}
}

// take takes over events, in groups of one transaction each.
func (s *Store) take(events []*clientv3.Event) error {
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].Kv.ModRevision == events[0].Kv.ModRevision {
			n++
		}
		if err := s.takeTxn(events[:n]); err != nil {
			return err
		}
		events = events[n:]
	}
	return nil
}

// takeTxn takes over the events of one transaction. What the view has already is left out, so that
// duplicates and old revisions do nothing.
func (s *Store) takeTxn(events []*clientv3.Event) error {
	cur, mod := s.current.Load(), events[0].Kv.ModRevision
	if mod <= cur.mod {
		return nil
	}
	var now *meta
	var writes []write
	for _, ev := range events {
		rel := strings.TrimPrefix(string(ev.Kv.Key), s.opts.Prefix)
		if name, ok := strings.CutPrefix(rel, dirObject); ok {
			w := write{Name: name}
			if ev.Type == mvccpb.Event_PUT {
				w.Record = ev.Kv.Value
			}
			writes = append(writes, w)
			continue
		}
		if rel != keyMeta {
			continue // of a foreign key between ours
		}
		if ev.Type != mvccpb.Event_PUT {
			return fmt.Errorf("%w: meta was deleted", errGap)
		}
		m, err := decodeMeta(ev.Kv.Value)
		if err != nil {
			return fmt.Errorf("%w: %w", errGap, err)
		}
		now = &m
	}
	switch {
	case now == nil && (cur.meta.Stage != nil || len(writes) == 0):
		return nil // a large commit is put in its place: it is in the view already
	case now == nil:
		return fmt.Errorf("%w: objects were written without meta", errGap)
	}
	if err := s.judge(cur, *now, mod); err != nil {
		return fmt.Errorf("%w: %w", errGap, err)
	}
	if now.Revision == cur.meta.Revision {
		s.refresh(*now, mod)
		return nil
	}
	if now.Revision != cur.meta.Revision+1 || cur.meta.Stage != nil {
		return fmt.Errorf("%w: revision %d after %d", errGap, now.Revision, cur.meta.Revision)
	}
	if now.Stage != nil {
		ctx, cancel := context.WithTimeout(s.life, loadTimeout)
		staged, err := s.readStage(ctx, *now, mod)
		cancel()
		if err != nil {
			return fmt.Errorf("%w: %w", errGap, err)
		}
		for name, rec := range staged {
			writes = append(writes, write{Name: name, Record: rec})
		}
	}
	return s.advance(cur, &view{meta: *now, mod: mod}, writes)
}

// advance makes next, whose snapshot isn't made yet, the view that follows cur by writes.
func (s *Store) advance(cur, next *view, writes []write) error {
	var put []link.Object
	var gone []link.Ref
	for _, w := range writes {
		kind, key := named(w.Name)
		if w.Record == nil {
			gone = append(gone, link.Ref{Kind: kind, Key: key})
			continue
		}
		o, err := store.DecodeRecord(kind, key, w.Record)
		if err != nil {
			return fmt.Errorf("%w: %w", errGap, err)
		}
		put = append(put, o)
	}
	var err error
	if next.snapshot, err = cur.snapshot.Follow(next.meta.Revision, put, gone); err != nil {
		return fmt.Errorf("%w: %w", errGap, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.Load().meta.Revision != cur.meta.Revision {
		return nil // our own commit, whose answer was faster
	}
	set, err := s.sumUp(writes)
	if err != nil || set != next.meta.Objects {
		return fmt.Errorf("%w: objects don't add up to revision %d: %v", errGap, next.meta.Revision, err)
	}
	s.remember(writes)
	s.replace(next)
	return nil
}

// sumUp returns the fingerprint of the objects after writes. The caller holds mu.
func (s *Store) sumUp(writes []write) (store.Set, error) {
	set := s.current.Load().meta.Objects
	for _, w := range writes {
		if old, ok := s.sums[w.Name]; ok {
			set.Remove(old)
		} else if w.Record == nil {
			return set, fmt.Errorf("%w: %s, which is deleted, isn't there", store.ErrDamaged, w.Name)
		}
		if w.Record == nil {
			continue
		}
		sum, err := store.RecordSum(w.Record)
		if err != nil {
			return set, err
		}
		set.Add(sum)
	}
	return set, nil
}

// remember keeps the sums of writes. The caller holds mu.
func (s *Store) remember(writes []write) {
	for _, w := range writes {
		if w.Record == nil {
			delete(s.sums, w.Name)
		} else if sum, err := store.RecordSum(w.Record); err == nil { // sumUp has looked at it
			s.sums[w.Name] = sum
		}
	}
}

// await waits until the view is of a revision or newer. Where the watch doesn't bring it, it is made anew, and
// in the end the state is loaded.
func (s *Store) await(ctx context.Context, revision uint64) error {
	late := time.NewTicker(patience)
	defer late.Stop()
	for tries := 0; ; {
		s.mu.Lock()
		have, changed := s.current.Load().meta.Revision, s.changed
		s.mu.Unlock()
		if have >= revision {
			return nil
		}
		select {
		case <-changed:
		case <-late.C:
			if tries++; tries <= restarts {
				s.restart(errSilent)
			} else {
				s.restart(errGap)
			}
		case <-ctx.Done():
			return fmt.Errorf("waiting for revision %d, at %d", revision, have)
		case <-s.life.Done():
			return store.ErrClosed
		}
	}
}
