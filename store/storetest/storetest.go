// Package storetest is the suite that every store passes, and [Fault], a store that fails on demand.
package storetest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// Factory makes a new, empty place for a state and returns what opens it. The suite closes a store
// before it opens its place again.
type Factory func(t *testing.T) (open func(t *testing.T) store.Store)

// Run runs the suite.
func Run(t *testing.T, place Factory) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, place Factory)
	}{
		{"starts empty and keeps what is committed", testReopen},
		{"a commit on an old revision is a conflict", testConflict},
		{"no update is lost under eight writers", testWriters},
		{"audit is in the transaction", testAudit},
		{"A17: a refusal is an entry without changes", testRefusal},
		{"lines verify, from any revision on", testLines},
		{"a confirmed view has an age", testConfirmed},
		{"audit may be left, and committed from", testAuditLeave},
		{"errors of Apply store nothing", testRefused},
		{"watch starts at once and never goes back", testWatch},
		{"watch: the newest wins over a slow reader", testWatchSlow},
		{"watch ends with its context", testWatchContext},
		{"close ends watches and everything else", testClose},
		{"fields of a newer version survive a change", testUnknownFields},
		{"restore replaces the state in one commit", testRestore},
		{"backup goes round", testBackup},
		{"a done context does nothing", testContext},
		{"update decides again, and ends where there is nothing to do", testUpdate},
		{"update from a known snapshot trusts it only as far as the commit does", testUpdateFrom},
		{"S13: failed but applied is found by its ID", testAppliedButFailed},
		{"S13: failed and not applied is reported", testNotApplied},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, place) })
	}
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)

// Network returns the n-th network of a family of valid ones (n below 65,536): pool and prefix of its own.
func Network(n int) link.Network {
	return link.Network{
		ID:       link.ID(fmt.Sprintf("net-%d", n)),
		Tenant:   "tenant-a",
		Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24)},
		Pools:    []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64 + byte(n>>12), byte(n >> 4), byte(n << 4)}), 28)},
	}
}

// Entry returns an entry for the n-th thing a test does.
func Entry(n int) store.Entry {
	return store.Entry{
		ID:     fmt.Sprintf("test-%d-%s", n, store.NewID()),
		At:     epoch.Add(time.Duration(n) * time.Second),
		Actor:  "tester",
		From:   "192.0.2.1",
		Action: "network.put",
		Object: fmt.Sprintf("network/net-%d", n),
		Reason: "because <of> the test",
	}
}

func load(t *testing.T, s store.Store) *link.Snapshot {
	t.Helper()
	snap, err := s.Load(t.Context())
	if err != nil {
		t.Fatal("load:", err)
	}
	return snap
}

// commit commits changes on the newest snapshot.
func commit(t *testing.T, s store.Store, n int, changes ...link.Change) *link.Snapshot {
	t.Helper()
	snap, err := s.Commit(t.Context(), load(t, s), Entry(n), changes...)
	if err != nil {
		t.Fatal("commit:", err)
	}
	return snap
}

func closeStore(t *testing.T, s store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error("close:", err)
	}
}

// fresh opens a new place that is closed at the end of the test.
func fresh(t *testing.T, place Factory) store.Store {
	t.Helper()
	s := place(t)(t)
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func audit(t *testing.T, s store.Store, from uint64) []store.Entry {
	t.Helper()
	var all []store.Entry
	for e, err := range s.Audit(t.Context(), from) {
		if err != nil {
			t.Fatal("audit:", err)
		}
		all = append(all, e)
	}
	return all
}

// Dump returns the objects of a snapshot in their stored form: equal snapshots have equal dumps.
func Dump(t *testing.T, s *link.Snapshot) []string {
	t.Helper()
	var all []string
	for o := range s.Objects() {
		rec, err := store.EncodeRecord(o)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s/%s %q", o.Kind(), o.Key(), rec))
	}
	return all
}

func wantEqual(t *testing.T, what string, got, want *link.Snapshot) {
	t.Helper()
	if got.Revision() != want.Revision() {
		t.Errorf("%s: revision %d, want %d", what, got.Revision(), want.Revision())
	}
	wantSameObjects(t, what, got, want)
}

func wantSameObjects(t *testing.T, what string, got, want *link.Snapshot) {
	t.Helper()
	if g, w := Dump(t, got), Dump(t, want); !slices.Equal(g, w) {
		t.Errorf("%s: objects\n%q\nwant\n%q", what, g, w)
	}
}

// next receives from a watch, which must yield within a generous bound.
func next(t *testing.T, ch <-chan *link.Snapshot) (*link.Snapshot, bool) {
	t.Helper()
	select {
	case s, ok := <-ch:
		return s, ok
	case <-time.After(20 * time.Second):
		t.Fatal("watch yields nothing")
		return nil, false
	}
}

// drain receives until a watch is closed.
func drain(t *testing.T, ch <-chan *link.Snapshot) {
	t.Helper()
	for i := 0; ; i++ {
		if _, ok := next(t, ch); !ok {
			return
		}
		if i > 1 {
			t.Fatal("watch still yields after its end")
		}
	}
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
