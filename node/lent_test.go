package node

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// TestLentTwice (P13): a state that couldn't be taken back after an upgrade that failed is lent to the next, and taken back
// after that one.
func TestLentTwice(t *testing.T) {
	broken := false
	c := config(t, filepath.Join(t.TempDir(), "state.db"), freeport.Get(t), echo(t), "127.77.0.9")
	n := open(t, c)
	defer closeNode(t, n)
	opens := n.lent.open
	n.lent.open = func(ctx context.Context) (store.Store, error) {
		if broken {
			return nil, errors.New("no file")
		}
		return opens(ctx)
	}
	if err := n.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	broken = true
	short, cancel := context.WithTimeout(t.Context(), 3*takePause)
	defer cancel()
	if err := n.Resume(short); err == nil {
		t.Fatal("resumed without a state")
	}
	if err := n.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Store().Load(t.Context()); !errors.Is(err, errLent) {
		t.Errorf("load while lent: %v", err)
	}
	broken = false
	if err := n.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	sees(t, n, "e0", link.Approved)
	if _, err := n.Store().Load(t.Context()); err != nil {
		t.Error(err)
	}
}
