package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mustOpen opens a store that is closed at the end of the test.
func mustOpen(t testing.TB, opts Options) *Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if opts.Log == nil {
		opts.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s, err := Open(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return s
}

func put(t testing.TB, s store.Store, n int) *link.Snapshot {
	t.Helper()
	snap, err := store.Update(t.Context(), s, func(*link.Snapshot) (store.Entry, []link.Change, error) {
		return storetest.Entry(n), []link.Change{link.PutNetwork{Network: storetest.Network(n)}}, nil
	})
	if err != nil {
		t.Fatal("put:", err)
	}
	return snap
}

func load(t testing.TB, s store.Store) *link.Snapshot {
	t.Helper()
	snap, err := s.Load(t.Context())
	if err != nil {
		t.Fatal("load:", err)
	}
	return snap
}

func TestSuite(t *testing.T) {
	c := newCluster(t, 1)
	var places atomic.Int32
	storetest.Run(t, func(t *testing.T) func(*testing.T) store.Store {
		opts := Options{Endpoints: c.endpoints(), Prefix: fmt.Sprintf("/place-%d/", places.Add(1))}
		return func(t *testing.T) store.Store {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			s, err := Open(ctx, opts)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	})
}
