package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-link/postern/store"
)

// This file is about commits that are too large for one transaction: see the package comment.
//
// Why nobody sees half of one: before meta names the parts nobody reads them; meta names them in the
// transaction that makes their revision; from then on every reader puts them above object/ until meta no longer
// names them, which the last step of [Store.settled] does, in one transaction with their removal. All
// steps have the condition that meta is the one that names the parts, so that they can be done by several
// nodes at once, again after a failure, and never late.

// write is one record that a commit writes; nil: it deletes it.
type write struct {
	Name   string `json:"name"` // "kind/key"
	Record []byte `json:"record,omitempty"`
}

// errTooLarge: writes don't fit into one transaction.
var errTooLarge = errors.New("too large for one transaction")

// fits returns nil where writes go into one transaction with meta and a line of so many bytes, an error that wraps
// errTooLarge where they have to be staged, and another where one of them is too large for etcd in any case.
func (s *Store) fits(writes []write, line int) error {
	room := s.opts.RequestBytes - requestOverhead
	total := line + 2*opOverhead
	for _, w := range writes {
		if size := s.size(w); size*4/3 > room { // base64, in a part
			return fmt.Errorf("%s has %d bytes: etcd takes %d in a request, of which an object may have three quarters (--max-request-bytes)", w.Name, len(w.Record), s.opts.RequestBytes)
		}
		total += s.size(w)
	}
	if line > room {
		return fmt.Errorf("the audit line has %d bytes: etcd takes %d in a request (--max-request-bytes)", line, s.opts.RequestBytes)
	}
	if total > room || len(writes)+2 > s.opts.TxnOps {
		return errTooLarge
	}
	return nil
}

func (s *Store) size(w write) int {
	return len(s.opts.Prefix) + len(dirObject) + len(w.Name) + len(w.Record) + opOverhead
}

// hint adds to an error of etcd's limits where they are set.
func hint(err error) string {
	switch {
	case errors.Is(err, rpctypes.ErrRequestTooLarge):
		return ": its --max-request-bytes is less than this node was told"
	case errors.Is(err, rpctypes.ErrTooManyOps):
		return ": its --max-txn-ops is less than this node was told"
	case errors.Is(err, rpctypes.ErrNoSpace):
		return ": its --quota-backend-bytes is used up: compact, defragment and disarm the alarm"
	}
	return ""
}

// putStage writes the parts of a commit and names them in its meta. They mean nothing until that is written.
func (s *Store) putStage(ctx context.Context, p *plan) error {
	m := &p.next.meta
	m.Stage = &stage{Entry: store.NewID()}
	for part := range parts(p.writes, s.opts.RequestBytes-requestOverhead) {
		value, err := store.Seal(part)
		if err != nil {
			return err
		}
		key := fmt.Sprintf("%s%08x", s.key(stageDir(m.Revision, m.Stage.Entry)), m.Stage.Parts)
		if err := s.putPart(ctx, key, string(value)); err != nil {
			s.dropStage(*m)
			return fmt.Errorf("stage a large commit: %w%s", err, hint(err))
		}
		m.Stage.Parts++
	}
	return nil
}

// putPart puts one key, again where that fails: to do so twice does no harm.
func (s *Store) putPart(ctx context.Context, key, value string) error {
	for {
		try, cancel := context.WithTimeout(ctx, tryTimeout)
		_, err := s.client.Put(try, key, value)
		cancel()
		if err == nil || refusal(err) || ctx.Err() != nil {
			return err
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// parts yields writes in parts whose sealed form has at most so many bytes, each with at least one.
func parts(writes []write, bytes int) func(func([]write) bool) {
	const overhead = 64
	return func(yield func([]write) bool) {
		from, size := 0, overhead
		for i, w := range writes {
			n := 2*len(w.Name) + (len(w.Record)+2)/3*4 + overhead // JSON may escape a name, and encodes the record in base64
			if size+n > bytes && i > from {
				if !yield(writes[from:i]) {
					return
				}
				from, size = i, overhead
			}
			size += n
		}
		if from < len(writes) {
			yield(writes[from:])
		}
	}
}

// dropStage removes the parts of a commit that didn't land. Where that fails the next large commit does it.
func (s *Store) dropStage(m meta) {
	ctx, cancel := context.WithTimeout(s.life, tryTimeout)
	defer cancel()
	if _, err := s.client.Delete(ctx, s.key(stageDir(m.Revision, m.Stage.Entry)), clientv3.WithPrefix()); err != nil {
		s.log.Warn("parts of a commit that was not stored are left for the next large one to remove", "error", err)
	}
}

// readStage returns the records, by name, of the parts that meta names, as they were at a revision of etcd.
func (s *Store) readStage(ctx context.Context, m meta, at int64) (map[string][]byte, error) {
	if m.Stage == nil {
		return nil, nil
	}
	all, n := map[string][]byte{}, 0
	err := s.scan(ctx, stageDir(m.Revision, m.Stage.Entry), at, func(name string, value []byte) error {
		if name != fmt.Sprintf("%08x", n) {
			return fmt.Errorf("%w: part %d of revision %d is missing", store.ErrDamaged, n, m.Revision)
		}
		n++
		var part []write
		if err := store.Unseal(value, &part); err != nil {
			return fmt.Errorf("part %s of revision %d: %w", name, m.Revision, err)
		}
		for _, w := range part {
			all[w.Name] = w.Record
		}
		return nil
	})
	if err == nil && n != m.Stage.Parts {
		err = fmt.Errorf("%w: %d parts of revision %d, there should be %d", store.ErrDamaged, n, m.Revision, m.Stage.Parts)
	}
	return all, err
}

// settled puts the parts that the meta of a view names into their place, where it does, and returns the view
// after that: of the same revision, with nothing staged.
func (s *Store) settled(ctx context.Context, v *view) (*view, error) {
	m := v.meta
	if m.Stage == nil {
		return v, nil
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	ctx, done := s.joined(ctx)
	defer done()
	staged, err := s.readStage(ctx, m, 0)
	if err != nil {
		// Parts that are missing are no damage where another node was faster.
		now, mod, metaErr := s.readMeta(ctx)
		switch {
		case metaErr != nil:
			return nil, metaErr
		case mod != v.mod:
			s.refresh(now, mod)
			return nil, fmt.Errorf("%w: another node has put it in its place", store.ErrConflict)
		}
		return nil, err
	}
	var batch []write
	bytes := requestOverhead
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		_, err := s.step(ctx, v, s.ops(batch))
		batch, bytes = batch[:0], requestOverhead
		return err
	}
	for name, rec := range staged {
		w := write{Name: name, Record: rec}
		if bytes+s.size(w) > s.opts.RequestBytes || len(batch) == s.opts.TxnOps {
			if err := flush(); err != nil {
				return nil, err
			}
		}
		batch, bytes = append(batch, w), bytes+s.size(w)
	}
	if err := flush(); err != nil {
		return nil, err
	}
	m.Stage, m.Writer = nil, s.opts.Node
	value, err := store.Seal(m)
	if err != nil {
		return nil, err
	}
	// With the parts go all that were put for this revision or an earlier one and can never be named.
	mod, err := s.step(ctx, v, []clientv3.Op{
		clientv3.OpPut(s.key(keyMeta), string(value)),
		clientv3.OpDelete(s.key(dirStage), clientv3.WithRange(s.key(fmt.Sprintf("%s%016x", dirStage, m.Revision+1)))),
	})
	if err != nil {
		return nil, err
	}
	s.refresh(m, mod)
	return &view{meta: m, mod: mod, snapshot: v.snapshot}, nil
}

// step does one step of [Store.settled]. It isn't repeated: the next commit begins anew.
func (s *Store) step(ctx context.Context, v *view, ops []clientv3.Op) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	resp, err := s.client.Txn(ctx).If(s.guard(v)).Then(ops...).Commit()
	switch {
	case err != nil:
		return 0, fmt.Errorf("put a large commit in its place: %w%s", err, hint(err))
	case !resp.Succeeded:
		return 0, fmt.Errorf("%w: another node does it", store.ErrConflict)
	}
	return resp.Header.Revision, nil
}
