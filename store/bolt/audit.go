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

// auditBatch is how many entries are read in one transaction. The consumer runs between
// transactions, never within: it may be slow, and it may commit.
const auditBatch = 256

// Audit implements [store.Store]. It yields the entries up to the revision that is the newest when
// iteration begins, each checked against the chain.
func (s *Store) Audit(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		last := s.current.Load().Revision()
		from := max(from, 1)
		for from <= last {
			batch, err := s.auditBatch(ctx, from, last)
			if err != nil {
				yield(store.Entry{}, fmt.Errorf("audit from %d: %w", from, err))
				return
			}
			for _, e := range batch {
				if !yield(e, nil) {
					return
				}
			}
			from += uint64(len(batch))
		}
		// What an unfinished commit left is not for us to report; that there may be something is.
		if err := s.broken.Load(); err != nil {
			yield(store.Entry{}, *err)
		}
	}
}

// auditBatch returns at least one of the entries from from to last.
func (s *Store) auditBatch(ctx context.Context, from, last uint64) (batch []store.Entry, err error) {
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

func readLines(c *bbolt.Cursor, from, last uint64) ([]store.Entry, error) {
	var chain store.Chain
	k, v := c.Seek(auditKey(max(from-1, 1)))
	if from > 1 {
		if !bytes.Equal(k, auditKey(from-1)) {
			return nil, fmt.Errorf("%w: audit entry %d is missing", store.ErrDamaged, from-1)
		}
		var err error
		if chain, err = store.LineChain(v); err != nil {
			return nil, err
		}
		k, v = c.Next()
	}
	var batch []store.Entry
	for at := from; at <= last && len(batch) < auditBatch; at++ {
		if len(k) != 8 || binary.BigEndian.Uint64(k) != at {
			return nil, fmt.Errorf("%w: audit entry %d is missing", store.ErrDamaged, at)
		}
		e, after, err := chain.Next(at, v)
		if err != nil {
			return nil, err
		}
		batch, chain = append(batch, e), after
		k, v = c.Next()
	}
	return batch, nil
}
