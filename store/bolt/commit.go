package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// errReopen is wrapped by the error of every commit after one that left the file in doubt.
var errReopen = errors.New("the store takes no commits until it is opened again")

// Commit implements [store.Store]. After an error that leaves in doubt what is on the disk (an fsync
// that failed: the kernel may have dropped what it couldn't write) the store takes no more commits,
// see [Store.Err]; reading goes on. A full disk is no such error.
func (s *Store) Commit(ctx context.Context, base *link.Snapshot, entry store.Entry, changes ...link.Change) (*link.Snapshot, error) {
	if base == nil {
		return nil, fmt.Errorf("commit: %w: no base", link.ErrInvalid)
	}
	start := time.Now()
	next, err := s.commit(ctx, base, entry, changes)
	s.meter.Committed(time.Since(start), err)
	return next, err
}

func (s *Store) commit(ctx context.Context, base *link.Snapshot, entry store.Entry, changes []link.Change) (*link.Snapshot, error) {
	if err := s.lockWrite(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.write }()
	if err := s.Err(); err != nil {
		return nil, err
	}
	cur := s.current.Load()
	if base.Revision() != cur.Revision() {
		return nil, fmt.Errorf("commit on revision %d: %w: it is %d", base.Revision(), store.ErrConflict, cur.Revision())
	}
	// On our own snapshot, not on base: whatever the caller gave us, the file follows what it holds.
	next, deltas, err := cur.Apply(entry.At, changes...)
	if err != nil {
		return nil, err
	}
	if err := entry.Describe(next.Revision(), deltas); err != nil {
		return nil, err
	}
	a, err := s.store(entry, deltas)
	s.failing.Store(err != nil)
	if err != nil {
		return nil, fmt.Errorf("commit revision %d to %s: %w", entry.Revision, s.path, err)
	}
	s.anchor = a
	s.tellWitness()
	s.current.Store(next)
	s.feed.Publish(next)
	return next, nil
}

// lockWrite takes the token of s.write.
func (s *Store) lockWrite(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-s.closed:
		return store.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	case s.write <- struct{}{}:
		return nil
	}
}

// store writes one commit and returns the anchor after it. The caller holds the token.
func (s *Store) store(entry store.Entry, deltas []link.Delta) (anchor, error) {
	var a anchor
	sent := false
	err := guard(func() error {
		tx, err := s.db.Begin(true)
		if err != nil {
			return err
		}
		defer tx.Rollback() // of no effect after Commit
		if a, err = s.fill(tx, entry, deltas); err != nil {
			return err
		}
		sent = true
		return tx.Commit()
	})
	if err == nil {
		return a, nil
	}
	if harmless(err) {
		s.log.Warn("commit refused", "revision", entry.Revision, "error", err)
		return anchor{}, err
	}
	err = fmt.Errorf("%w; %w", err, errReopen)
	if sent && s.visible() != s.anchor.Revision {
		// The new meta page is in the file, but not known to be on the disk.
		err = fmt.Errorf("%w: %w", store.ErrUnknownOutcome, err)
	}
	broken := fmt.Errorf("state file %s: commit of revision %d: %w", s.path, entry.Revision, err)
	s.broken.Store(&broken)
	s.log.Error("state can't be written", "error", broken)
	return anchor{}, err
}

// fill puts everything of one commit into a transaction.
func (s *Store) fill(tx *bbolt.Tx, entry store.Entry, deltas []link.Delta) (anchor, error) {
	a := s.anchor
	objects := tx.Bucket(bucketObjects)
	for _, d := range deltas {
		if err := put(objects, &a.Objects, d); err != nil {
			return a, err
		}
	}
	line, chain, err := a.Audit.Append(entry)
	if err != nil {
		return a, err
	}
	if err := tx.Bucket(bucketAudit).Put(auditKey(entry.Revision), line); err != nil {
		return a, err
	}
	a.Revision, a.Audit = entry.Revision, chain
	b, err := store.Seal(a)
	if err != nil {
		return a, err
	}
	return a, tx.Bucket(bucketMeta).Put(keyAnchor, b)
}

// put stores what a delta did, and takes it into the set.
func put(b *bbolt.Bucket, set *store.Set, d link.Delta) error {
	key := []byte(string(d.Kind) + "/" + d.Key)
	old := b.Get(key)
	if (old == nil) != (d.Old == nil) {
		return fmt.Errorf("%w: %s is in the file: %t, in the snapshot: %t", store.ErrDamaged, key, old != nil, d.Old != nil)
	}
	if old != nil {
		sum, err := store.RecordSum(old)
		if err != nil {
			return fmt.Errorf("record %s: %w", key, err)
		}
		set.Remove(sum)
	}
	if d.New == nil {
		return b.Delete(key)
	}
	rec, err := store.EncodeRecord(d.New)
	if err != nil {
		return err
	}
	sum, err := store.RecordSum(rec)
	if err != nil {
		return err
	}
	set.Add(sum)
	return b.Put(key, rec)
}

// harmless reports whether a failed commit left nothing behind, and the next may well succeed: the
// data pages found no room. The meta page, written last, is never the one that needs room. A
// failed sync is never harmless, also where it says that there is no room.
func harmless(err error) bool {
	var pe *fs.PathError
	if errors.As(err, &pe) && (pe.Op == "write" || pe.Op == "truncate") {
		return noRoom(err) || errors.Is(err, unix.EFBIG)
	}
	return false
}

// noRoom reports whether an error says that the disk, or its owner's part of it, is full.
func noRoom(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// visible returns the revision that the file shows, ^0 where it can't be read.
func (s *Store) visible() uint64 {
	revision := ^uint64(0)
	// An error here has no other consequence than that the outcome is unknown.
	_ = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			a, err := decodeAnchor(tx.Bucket(bucketMeta).Get(keyAnchor))
			if err == nil {
				revision = a.Revision
			}
			return err
		})
	})
	return revision
}

// tellWitness writes the revision into the witness file. A failure isn't one of the commit, which
// is on disk: the witness stays behind and vouches for less.
func (s *Store) tellWitness() {
	if err := s.writeWitness(); err != nil {
		s.log.Warn("witness file of the state can't be written", "path", s.path+witnessSuffix, "error", err)
	}
}

func (s *Store) writeWitness() error {
	if s.witness == nil {
		f, err := openWitness(s.path, s.witnessNow())
		if err == nil {
			s.witness = f
		}
		return err
	}
	b, err := s.witnessNow().encode()
	if err != nil {
		return err
	}
	_, err = s.witness.WriteAt(b, 0)
	return err
}

func auditKey(revision uint64) []byte { return binary.BigEndian.AppendUint64(nil, revision) }

// guard runs f and makes an error of a panic. bbolt panics where its file isn't what it was, and a
// disk that can't be read is a fault in the memory map.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: while it was in use: %v", store.ErrDamaged, r)
		}
	}()
	return f()
}
