package bolt

import (
	"path/filepath"
	"testing"

	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

func mustOpen(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal("open:", err)
	}
	return s
}

func TestSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func(*testing.T) store.Store {
		path := filepath.Join(t.TempDir(), "state")
		return func(t *testing.T) store.Store { return mustOpen(t, path) }
	})
}
