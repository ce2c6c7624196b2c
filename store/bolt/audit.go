package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"go.etcd.io/bbolt"

	"github.com/postern-link/postern/store"
)

// What is read in one transaction: so many entries, and no more once they have so many bytes. The consumer runs between
// transactions, never within: it may be slow, and it may commit.
const (
	auditBatch = 256
	auditBytes = 4 << 20
)

// Audit implements [store.Store].
func (s *Store) Audit(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return store.Entries(ctx, s.Lines, from)
}

// Lines implements [store.Store]. It yields the lines up to the revision that is the newest when
// iteration begins.
func (s *Store) Lines(ctx context.Context, from uint64) iter.Seq2[store.Line, error] {
	return func(yield func(store.Line, error) bool) {
		last := s.current.Load().Revision()
		from := max(from, 1)
		for from <= last {
			batch, err := s.auditBatch(ctx, from, last)
			if err != nil {
				yield(store.Line{}, fmt.Errorf("audit from %d: %w", from, err))
				return
			}
			for _, l := range batch {
				if !yield(l, nil) {
					return
				}
			}
			from += uint64(len(batch))
		}
		// What an unfinished commit left is not for us to report; that there may be something is.
		if err := s.broken.Load(); err != nil {
			yield(store.Line{}, *err)
		}
	}
}

// auditBatch returns at least one of the lines from from to last.
func (s *Store) auditBatch(ctx context.Context, from, last uint64) (batch []store.Line, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if s.isClosed() {
		return nil, store.ErrClosed
	}
	err = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			batch, err = readLines(tx.Bucket(bucketAudit).Cursor(), from, last)
			return err
		})
	})
	if err != nil && s.isClosed() {
		err = store.ErrClosed
	}
	return batch, err
}

func readLines(c *bbolt.Cursor, from, last uint64) ([]store.Line, error) {
	var batch []store.Line
	k, v := c.Seek(auditKey(from))
	size := 0
	for at := from; at <= last && len(batch) < auditBatch && size < auditBytes; at++ {
		if len(k) != 8 || binary.BigEndian.Uint64(k) != at {
			return nil, fmt.Errorf("%w: audit entry %d is missing", store.ErrDamaged, at)
		}
		batch = append(batch, store.Line{Revision: at, Bytes: bytes.Clone(v)}) // v is the file's, until the transaction ends
		size += len(v)
		k, v = c.Next()
	}
	return batch, nil
}
