// Package controltest starts what a control API stands on: identities from a file, a store and the operations,
// all of them real. It is for tests alone.
package controltest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/control/identity"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store/bolt"
)

// World is one control plane without its API.
type World struct {
	Directory *identity.Directory
	Store     *bolt.Store
	Control   *control.Control
}

// Start makes a control plane with the text of an identities file and an empty store, which live as long as
// the test. change may alter the configuration of the operations. log may be nil.
func Start(t testing.TB, identities string, log *slog.Logger, change func(*control.Config)) *World {
	t.Helper()
	dir, w := t.TempDir(), &World{}
	path := filepath.Join(dir, "identities.json")
	err := os.WriteFile(path, []byte(identities), 0o600)
	if err == nil {
		w.Directory, err = identity.Open(path, identity.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Directory.Close() })
	if w.Store, err = bolt.Open(filepath.Join(dir, "state"), bolt.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Store.Close() })
	c := control.Config{Store: w.Store, Tenants: w.Directory, Log: log, Node: "rig", Snapshot: func() *link.Snapshot {
		s, _ := w.Store.Load(context.Background())
		return s
	}}
	if change != nil {
		change(&c)
	}
	w.Control = control.New(c)
	return w
}
