package etcd

import (
	"context"
	"fmt"
	"iter"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-link/postern/store"
)

// auditBatch is how many lines are read at once.
const auditBatch = 256

// Audit implements [store.Store].
func (s *Store) Audit(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return store.Entries(ctx, s.Lines, from)
}

// Lines implements [store.Store]. It yields the lines up to the revision that is the cluster's newest when
// iteration begins, whether or not this node has it yet.
func (s *Store) Lines(ctx context.Context, from uint64) iter.Seq2[store.Line, error] {
	return func(yield func(store.Line, error) bool) {
		if err := s.usable(ctx); err != nil {
			yield(store.Line{}, err)
			return
		}
		before := s.current.Load()
		m, mod, err := s.readMeta(ctx)
		if err == nil {
			err = s.judge(before, m, mod)
		}
		if err != nil {
			yield(store.Line{}, s.failed(ctx, "audit", err))
			return
		}
		for from := max(from, 1); from <= m.Revision; {
			batch, err := s.auditBatch(ctx, from, m.Revision)
			if err != nil {
				yield(store.Line{}, s.failed(ctx, fmt.Sprintf("audit from %d", from), err))
				return
			}
			for _, l := range batch {
				if !yield(l, nil) {
					return
				}
			}
			from += uint64(len(batch))
		}
	}
}

// auditBatch returns at least one of the lines from from to last. A line never changes, so that the batches
// need not be of one revision of etcd.
func (s *Store) auditBatch(ctx context.Context, from, last uint64) ([]store.Line, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	resp, err := s.get(ctx, pageTimeout, auditKey(from), clientv3.WithRange(s.key(auditKey(last))+"\x00"), clientv3.WithLimit(auditBatch))
	if err != nil {
		return nil, err
	}
	var batch []store.Line
	for at := from; at <= last && len(batch) < auditBatch; at++ {
		i := len(batch)
		if i >= len(resp.Kvs) || string(resp.Kvs[i].Key) != s.key(auditKey(at)) {
			return nil, fmt.Errorf("%w: audit entry %d is missing", store.ErrDamaged, at)
		}
		batch = append(batch, store.Line{Revision: at, Bytes: resp.Kvs[i].Value})
	}
	return batch, nil
}
