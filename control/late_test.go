package control

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// contended is a store to which somebody else always writes first.
type contended struct{ store.Store }

func (contended) Commit(context.Context, *link.Snapshot, store.Entry, ...link.Change) (*link.Snapshot, error) {
	return nil, fmt.Errorf("%w: somebody was faster", store.ErrConflict)
}

// TestPatience: a write that others always overtake ends, and so does one that waits for its turn.
func TestPatience(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Store = contended{c.Store} })
	edit := func(tries *int) func(*link.Snapshot, *link.Document) (*link.Document, error) {
		return func(*link.Snapshot, *link.Document) (*link.Document, error) {
			*tries++
			return &link.Document{}, nil
		}
	}
	for name, c := range map[string]struct {
		taken bool // somebody else has the turn
		tried bool
	}{
		"overtaken":            {false, true},
		"waiting for its turn": {true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if c.taken {
					w.turn = make(chan struct{}, 1)
					w.turn <- struct{}{}
				}
				tries, began := 0, time.Now()
				_, err := w.EditDocument(t.Context(), op(Owner, subF), Connect, "group", subF+"/rg/rg", edit(&tries))
				if !errors.Is(err, ErrUnavailable) || errors.Is(err, store.ErrUnknownOutcome) {
					t.Errorf("got %v, want %v", err, ErrUnavailable)
				}
				if d := time.Since(began); d < patience || d > 2*patience || tries > 1 != c.tried {
					t.Errorf("%d tries in %s", tries, d)
				}
				w.turn = nil
			})
			w.turn = make(chan struct{}, 1)
		})
	}
}

// TestRestingLimit: an endpoint can't be asked for and deleted without end, each time leaving a link ID.
func TestRestingLimit(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.RestingLinkIDs = 2 })
	w.ok(w.putNetworkAs(op(Owner, subF), network(netF, "1")))
	w.ok(w.putServiceAs(op(Owner, subC), service(svcC)))
	for range 2 {
		w.ok(w.ask(op(Owner, subF), endF, manual()))
		w.ok(w.EditEndpoint(t.Context(), op(Owner, subF), endF, func(*link.Snapshot, *link.Endpoint) (*Ask, error) { return nil, nil }))
	}
	_, err := w.ask(op(Owner, subF), endF, manual())
	if l, ok := errors.AsType[*LimitError](err); !ok || l.Limit != 2 {
		t.Errorf("got %v, want the limit of 2", err)
	}
}
