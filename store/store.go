// Package store is the contract of the place where state lives, and its errors.
package store

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/postern-link/postern/link"
)

// What a store can answer. Errors wrap one of these or one of package link's.
var (
	// ErrConflict: the state is no longer that of base. Load and decide again.
	ErrConflict = errors.New("state has changed")
	// ErrUnknownOutcome: the commit may or may not have landed; look for the entry's ID.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrLocked: another process has the state.
	ErrLocked = errors.New("state is in use")
	// ErrDamaged: the state is there but can't be trusted.
	ErrDamaged = errors.New("state is damaged")
	// ErrForeign: what is there isn't Postern's state, or of a newer format.
	ErrForeign = errors.New("not a state of this program")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
)

// Entry is one line of the audit record.
type Entry struct {
	ID       string    `json:"id"`       // of the commit, unique: how to find it after [ErrUnknownOutcome]
	Revision uint64    `json:"revision"` // set by Commit
	At       time.Time `json:"at"`
	Actor    string    `json:"actor"`            // who
	From     string    `json:"from,omitempty"`   // from where: an address, a file
	Action   string    `json:"action"`           // what, such as "connection.approve"
	Object   string    `json:"object,omitempty"` // on what, "kind/id"
	Reason   string    `json:"reason,omitempty"`
	// Changes lists what it did, "kind/key: created|updated|deleted", set by Commit.
	Changes []string `json:"changes,omitempty"`
}

// Store keeps one state.
type Store interface {
	// Load returns the newest snapshot.
	Load(ctx context.Context) (*link.Snapshot, error)
	// Commit applies changes to base at entry.At and stores the result and the entry in one
	// transaction. The revision of base must be that of the store: else [ErrConflict]. Errors of
	// Apply are returned as they are, and nothing is stored.
	Commit(ctx context.Context, base *link.Snapshot, entry Entry, changes ...link.Change) (*link.Snapshot, error)
	// Watch yields the newest snapshot at once and then each newer one; a slow reader misses
	// those between. The channel is closed when ctx or the store is done.
	Watch(ctx context.Context) <-chan *link.Snapshot
	// Audit yields the entries from a revision on, oldest first.
	Audit(ctx context.Context, from uint64) iter.Seq2[Entry, error]
	// Backup writes the state of one moment: what [ReadBackup] reads.
	Backup(ctx context.Context, w io.Writer) error
	Close() error
}
