package storetest

import (
	"context"
	"errors"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

func testWatch(t *testing.T, place Factory) {
	const commits, watchers = 30, 3
	s := fresh(t, place)
	commit(t, s, 0, link.PutNetwork{Network: Network(0)})
	done := make(chan struct{}, watchers)
	for range watchers {
		ch := s.Watch(t.Context())
		if first, ok := next(t, ch); !ok || first.Revision() != 1 {
			t.Fatal("the newest snapshot isn't there at once")
		}
		go func() {
			defer func() { done <- struct{}{} }()
			for last := uint64(1); last < 1+commits; {
				snap, ok := <-ch
				if !ok {
					t.Error("watch ended")
					return
				}
				if snap.Revision() <= last {
					t.Errorf("revision %d after %d", snap.Revision(), last)
				}
				last = snap.Revision()
			}
		}()
	}
	for n := range commits {
		commit(t, s, n+1, link.PutNetwork{Network: Network(n + 1)})
	}
	for range watchers {
		<-done
	}
}

func testWatchSlow(t *testing.T, place Factory) {
	s := fresh(t, place)
	ch := s.Watch(t.Context())
	var newest *link.Snapshot
	for n := range 10 {
		newest = commit(t, s, n, link.PutNetwork{Network: Network(n)})
	}
	// A store may take its time to tell, so that an older one may come first; the newest must come.
	for last := uint64(0); last < newest.Revision(); {
		snap, ok := next(t, ch)
		if !ok {
			t.Fatal("watch ended")
		}
		if last != 0 && snap.Revision() <= last {
			t.Fatalf("revision %d after %d", snap.Revision(), last)
		}
		if last = snap.Revision(); last == newest.Revision() {
			wantEqual(t, "watched", snap, newest)
		}
	}
}

func testWatchContext(t *testing.T, place Factory) {
	s := fresh(t, place)
	ctx, cancel := context.WithCancel(t.Context())
	ended, kept := s.Watch(ctx), s.Watch(t.Context())
	next(t, kept)
	cancel()
	drain(t, ended)
	commit(t, s, 1, link.PutNetwork{Network: Network(1)})
	if snap, ok := next(t, kept); !ok || snap.Revision() != 1 {
		t.Error("the other watch ended too")
	}
}

func testClose(t *testing.T, place Factory) {
	s := place(t)(t)
	base := commit(t, s, 1, link.PutNetwork{Network: Network(1)})
	idle, read := s.Watch(t.Context()), s.Watch(t.Context())
	next(t, read)
	blocked := make(chan bool)
	go func() {
		_, ok := <-read
		blocked <- ok
	}()
	closeStore(t, s)
	if <-blocked {
		t.Error("a watch yields after close")
	}
	drain(t, idle)
	if _, ok := next(t, s.Watch(t.Context())); ok {
		t.Error("a watch begun after close yields")
	}
	if _, err := s.Load(t.Context()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("load: %v", err)
	}
	if _, err := s.Commit(t.Context(), base, Entry(2)); !errors.Is(err, store.ErrClosed) {
		t.Errorf("commit: %v", err)
	}
	if err := s.Backup(t.Context(), failingWriter{}); !errors.Is(err, store.ErrClosed) {
		t.Errorf("backup: %v", err)
	}
	yields := 0
	for _, err := range s.Audit(t.Context(), 0) {
		if yields++; !errors.Is(err, store.ErrClosed) {
			t.Errorf("audit: %v", err)
		}
	}
	if yields != 1 {
		t.Errorf("audit yields %d times, want one error", yields)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}
