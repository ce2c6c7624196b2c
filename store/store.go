// Package store is the contract of the place where state lives, and its errors.
package store

import (
	"context"
	"encoding/json"
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
	// ErrReadOnly: the store was opened for reading.
	ErrReadOnly = errors.New("store is read-only")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
)

// Entry is one line of the audit record: a commit, or with no changes what was refused. A reader
// leaves out the fields that it doesn't know, of a newer version beside it.
type Entry struct {
	ID       string    `json:"id"`       // of the commit, unique: how to find it after [ErrUnknownOutcome]
	Revision uint64    `json:"revision"` // set by Commit
	At       time.Time `json:"at"`
	Actor    string    `json:"actor"`            // who
	Tenant   string    `json:"tenant,omitempty"` // the actor's, of what was refused; "" is the operator's
	From     string    `json:"from,omitempty"`   // from where: an address, a file
	Action   string    `json:"action"`           // what, such as "connection.approve"
	Object   string    `json:"object,omitempty"` // on what, "kind/id"
	Reason   string    `json:"reason,omitempty"`
	// Result is "" for what was done, [Refused] for what was asked for and not done.
	Result string `json:"result,omitempty"`
	// Scopes are the subscriptions that it concerns, in order: those that the caller gave and, from
	// Commit, those of the objects that it changed. Who may read one of them may read the entry.
	Scopes []string `json:"scopes,omitempty"`
	// Changes lists what it did, "kind/key: created|updated|deleted", set by Commit. Beyond
	// [MaxChangeBytes] the last line is "and N more".
	Changes []string `json:"changes,omitempty"`
	// Diffs are the same objects before and after, set by Commit: services, endpoints, networks, zones, record
	// sets and then documents, in order of their keys. There are at most [MaxDiffs]; Truncated is the number left
	// out at the end. What doesn't fit into [MaxDiffBytes] in all has a [Digest] in place of its field "api", or
	// of the whole object.
	Diffs     []Diff `json:"diffs,omitempty"`
	Truncated int    `json:"truncated,omitempty"`
}

// Refused is the Result of an [Entry] about something that was asked for and not done.
const Refused = "refused"

// The bounds of what one entry says about the objects that it changed: a line of the audit record must
// fit into one request to any store.
const (
	MaxDiffs       = 32
	MaxDiffBytes   = 64 << 10
	MaxChangeBytes = 512 << 10
)

// Digest stands for what is too long for an [Entry]. [Diff] has it in place of it.
type Digest struct {
	SHA256  string  `json:"sha256"`            // of the JSON that it stands for, in hexadecimal
	Bytes   int     `json:"bytes"`             // the length of that
	Service link.ID `json:"service,omitempty"` // of an endpoint: its service
}

// Diff is one object before and after a commit, as JSON. The link IDs that came to rest are left out: they
// are no objects that anyone knows.
type Diff struct {
	Object string          `json:"object"`           // "kind/key"
	Before json.RawMessage `json:"before,omitempty"` // none: it was created
	After  json.RawMessage `json:"after,omitempty"`  // none: it was deleted
}

// Line is one line of the audit record as it is stored: [Chain.Next] judges and decodes it.
type Line struct {
	Revision uint64
	Bytes    []byte
}

// Store keeps one state.
type Store interface {
	// Load returns the newest snapshot.
	Load(ctx context.Context) (*link.Snapshot, error)
	// Commit applies changes to base at entry.At and stores the result and the entry in one
	// transaction. The revision of base must be that of the store: else [ErrConflict]. Errors of
	// Apply are returned as they are, and nothing is stored. With no changes it is the entry alone
	// that is stored, under a revision of its own.
	Commit(ctx context.Context, base *link.Snapshot, entry Entry, changes ...link.Change) (*link.Snapshot, error)
	// Watch yields the newest snapshot at once and then each newer one; a slow reader misses
	// those between. The channel is closed when ctx or the store is done.
	Watch(ctx context.Context) <-chan *link.Snapshot
	// Confirmed returns when what Watch yielded last was last known to be the newest there is: a time
	// with a monotonic reading, so that its age is right whatever becomes of the clock.
	Confirmed() time.Time
	// Audit yields the entries from a revision on, oldest first, each checked against the chain.
	Audit(ctx context.Context, from uint64) iter.Seq2[Entry, error]
	// Lines yields the same as they are stored, unjudged, none left out. Who verifies from a revision
	// other than 1 on asks for the line before it, and starts with its [LineChain].
	Lines(ctx context.Context, from uint64) iter.Seq2[Line, error]
	// Backup writes the state of one moment: what [ReadBackup] reads.
	Backup(ctx context.Context, w io.Writer) error
	Close() error
}
