// Package bolt keeps the state in one bbolt file: the default store, for one process.
//
// bbolt makes commits atomic. What it doesn't do is done here. It takes an empty file for a new
// database, dies of a truncated one, goes back to the older of its two meta pages when the newer is
// damaged, and hands out flipped values. So a file is read and checked as a whole before bbolt gets it
// (image.go: the pages; contents.go: the records), it must add up to the anchor that each commit writes
// with it, and it must not be older than its witness file says (anchor.go). What doesn't add up is
// refused: with [store.ErrDamaged] or [store.ErrForeign], never repaired and never made anew.
//
// The newest snapshot is in memory. Reading takes no lock and no disk.
package bolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/meter"
)

// Options are the settings of a store. The zero Options are good ones.
type Options struct {
	// Log gets what an operator should know. Nil: nothing is logged.
	Log *slog.Logger
	// Registerer gets the metrics until Close. Nil: none.
	Registerer prometheus.Registerer
	// Now is the clock that a backup is dated with. Nil: [time.Now].
	Now func() time.Time
}

// Store is a [store.Store] in one file. All methods are safe for concurrent use.
type Store struct {
	path  string
	log   *slog.Logger
	now   func() time.Time
	meter *meter.Meter

	current atomic.Pointer[link.Snapshot]
	feed    store.Feed

	// write holds one token: whoever has it may write to what follows, and to the file.
	write   chan struct{}
	db      *bbolt.DB
	witness *os.File // nil: there was no room for one yet
	anchor  anchor

	broken    atomic.Pointer[error] // set once: why nothing is written any more
	failing   atomic.Bool           // the last commit could not be written
	closed    chan struct{}
	closeOnce sync.Once
	closeErr  error
}

var _ store.Store = (*Store)(nil)

// Open opens the state file at path, or creates an empty one where there is none. It waits less than
// two seconds for another process to let go of the file. Errors wrap [store.ErrLocked],
// [store.ErrDamaged], [store.ErrForeign], or are those of the file system.
func Open(path string, opts Options) (*Store, error) {
	s := &Store{
		path:   path,
		log:    opts.Log,
		now:    opts.Now,
		write:  make(chan struct{}, 1),
		closed: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if err := s.open(opts.Registerer); err != nil {
		return nil, refusal(path, err)
	}
	return s, nil
}

func (s *Store) open(reg prometheus.Registerer) error {
	if err := create(s.path, s.log); err != nil {
		return err
	}
	db, c, err := openDB(s.path, s.log)
	if err != nil {
		return err
	}
	s.db, s.anchor = db, c.anchor
	s.current.Store(c.snapshot)
	s.feed.Publish(c.snapshot)
	sweep(s.path, s.log) // before the witness: what is left over may be what fills the disk
	if s.witness, err = openWitness(s.path, s.witnessNow()); noRoom(err) {
		// The state file has proved itself, and DNS and data plane need no room.
		s.log.Warn("no room for the witness file of the state, trying again with the next commit", "path", s.path+witnessSuffix, "error", err)
	} else if err != nil {
		return errors.Join(fmt.Errorf("witness file: %w", err), db.Close())
	}
	if s.meter, err = newMeter(reg, s); err != nil {
		return errors.Join(fmt.Errorf("metrics: %w", err), s.closeWitness(), db.Close())
	}
	return nil
}

func (s *Store) witnessNow() witness {
	return witness{Format: anchorFormat, File: s.anchor.File, Revision: s.anchor.Revision, PID: os.Getpid()}
}

func (s *Store) closeWitness() error {
	if s.witness == nil {
		return nil
	}
	return s.witness.Close()
}

// Load implements [store.Store]. It never waits.
func (s *Store) Load(ctx context.Context) (*link.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if s.isClosed() {
		return nil, store.ErrClosed
	}
	return s.current.Load(), nil
}

// Watch implements [store.Store].
func (s *Store) Watch(ctx context.Context) <-chan *link.Snapshot { return s.feed.Watch(ctx) }

// Confirmed implements [store.Store]: always now, as nobody else writes the file.
func (s *Store) Confirmed() time.Time { return time.Now() }

// Backup implements [store.Store]. Commits go on meanwhile.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	snap, err := s.Load(ctx)
	if err != nil {
		return err
	}
	return store.WriteBackup(ctx, w, snap, s.now())
}

// Err returns why the store takes no more commits until it is opened again, nil while it does: for a health
// check. A full disk is no such reason; the metric postern_store_writable tells of both.
func (s *Store) Err() error {
	if err := s.broken.Load(); err != nil {
		return *err
	}
	if s.isClosed() {
		return store.ErrClosed
	}
	return nil
}

func (s *Store) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// Close waits for a commit under way, ends all watches and lets go of the file. Later calls return
// what the first did.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closed)
		s.write <- struct{}{}
		defer func() { <-s.write }()
		s.feed.Close()
		s.meter.Unregister()
		s.closeErr = errors.Join(s.closeWitness(), guard(s.db.Close))
		if s.closeErr != nil {
			s.closeErr = fmt.Errorf("close state file %s: %w", s.path, s.closeErr)
		}
	})
	return s.closeErr
}
