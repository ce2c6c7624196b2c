package store

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/postern-link/postern/link"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// snapshots returns snapshots of the revisions 0 to n.
func snapshots(t *testing.T, n int) []*link.Snapshot {
	t.Helper()
	all := []*link.Snapshot{link.Empty()}
	for range n {
		s, _, err := all[len(all)-1].Apply(when)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

func TestFeed(t *testing.T) {
	s := snapshots(t, 3)
	var f Feed
	early := f.Watch(t.Context())
	f.Publish(s[0])
	if got := <-early; got != s[0] {
		t.Fatal("a watch begun before the first snapshot doesn't get it")
	}
	f.Publish(s[2])
	f.Publish(s[1]) // S12: older, and late
	f.Publish(s[2]) // S12: twice
	if got := <-early; got != s[2] {
		t.Errorf("revision %d, want 2", got.Revision())
	}
	select {
	case got := <-early:
		t.Errorf("revision %d out of turn", got.Revision())
	default:
	}
	late := f.Watch(t.Context())
	f.Publish(s[3])
	if got := <-late; got != s[3] {
		t.Errorf("revision %d, want 3: the newest wins", got.Revision())
	}
	f.Close()
	f.Publish(s[3])
	if got, ok := <-early; !ok || got != s[3] {
		t.Error("what was published before close is lost")
	}
	for _, ch := range []<-chan *link.Snapshot{early, late, f.Watch(t.Context())} {
		if _, ok := <-ch; ok {
			t.Error("a watch yields after close")
		}
	}
	f.Close()
}

func TestFeedContext(t *testing.T) {
	var f Feed
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ch := f.Watch(ctx)
	cancel()
	for range ch { // ends
		t.Error("yields")
	}
	if _, ok := <-f.Watch(ctx); ok {
		t.Error("a watch with a done context yields")
	}
}
