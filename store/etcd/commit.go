package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

const (
	// What a request needs beside keys and values, in bytes: an upper bound for each operation, and for all.
	opOverhead      = 48
	requestOverhead = 4096
	// The least of the servers' limits that this package can live with: a line of the audit record has to
	// go into one request.
	minRequestBytes = 1 << 20
	minTxnOps       = 8
	// tryTimeout is how long one member may take to answer a commit before it is sent to another.
	tryTimeout = 2 * time.Second
)

// plan is everything of one commit.
type plan struct {
	next   *view // mod is set when it has landed
	line   []byte
	writes []write
}

// Commit implements [store.Store]. While the outcome isn't known it is sent again, which can't do it twice:
// see the package comment. [store.ErrUnknownOutcome] comes when ctx or [Options.Timeout] ends that.
func (s *Store) Commit(ctx context.Context, base *link.Snapshot, entry store.Entry, changes ...link.Change) (*link.Snapshot, error) {
	if base == nil {
		return nil, fmt.Errorf("commit: %w: no base", link.ErrInvalid)
	}
	start := time.Now()
	next, err := s.commit(ctx, base, entry, changes)
	s.metrics.Committed(time.Since(start), err)
	return next, err
}

func (s *Store) commit(ctx context.Context, base *link.Snapshot, entry store.Entry, changes []link.Change) (*link.Snapshot, error) {
	if err := s.lockWrite(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.write }()
	if s.opts.ReadOnly {
		return nil, fmt.Errorf("commit: %w", store.ErrReadOnly)
	}
	cur := s.current.Load()
	if base.Revision() != cur.meta.Revision {
		return nil, fmt.Errorf("commit on revision %d: %w: it is %d", base.Revision(), store.ErrConflict, cur.meta.Revision)
	}
	cur, err := s.settled(ctx, cur)
	if err != nil {
		return nil, s.failed(ctx, "finish the commit before", err)
	}
	// On our own snapshot, not on base: what is stored follows what is there.
	snap, deltas, err := cur.snapshot.Apply(entry.At, changes...)
	if err != nil {
		return nil, err
	}
	p, err := s.plan(cur, snap, entry, deltas)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := s.publish(ctx, cur, p); err != nil {
		return nil, fmt.Errorf("commit revision %d: %w", snap.Revision(), err)
	}
	s.landed(cur, p)
	s.confirmAt(start)
	if p.next.meta.Stage != nil {
		if _, err := s.settled(ctx, p.next); err != nil {
			s.log.Warn("a large commit is stored, and will be put in its place with the next one", "revision", snap.Revision(), "error", err)
		}
	}
	return snap, nil
}

// lockWrite takes the token of s.write.
func (s *Store) lockWrite(ctx context.Context) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	select {
	case <-s.life.Done():
		return store.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	case s.write <- struct{}{}:
	}
	if err := s.usable(ctx); err != nil {
		<-s.write
		return err
	}
	return nil
}

// plan makes the records of a commit that follows cur.
func (s *Store) plan(cur *view, snap *link.Snapshot, entry store.Entry, deltas []link.Delta) (*plan, error) {
	if err := entry.Describe(snap.Revision(), deltas); err != nil {
		return nil, err
	}
	line, chain, err := cur.meta.Audit.Append(entry)
	if err != nil {
		return nil, err
	}
	p := &plan{line: line, writes: make([]write, 0, len(deltas))}
	for _, d := range deltas {
		w := write{Name: string(d.Kind) + "/" + d.Key}
		if d.New != nil {
			if w.Record, err = store.EncodeRecord(d.New); err != nil {
				return nil, err
			}
		}
		p.writes = append(p.writes, w)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.current.Load().meta.Revision; now != cur.meta.Revision {
		return nil, fmt.Errorf("commit on revision %d: %w: it is %d", cur.meta.Revision, store.ErrConflict, now)
	}
	set, err := s.sumUp(p.writes)
	if err != nil {
		return nil, err
	}
	m := cur.meta
	m.Revision, m.Objects, m.Audit, m.Entry, m.Writer, m.Stage = snap.Revision(), set, chain, entry.ID, s.opts.Node, nil
	p.next = &view{meta: m, snapshot: snap}
	return p, nil
}

// publish makes a commit the newest, in one transaction, and sets the mod of its view.
func (s *Store) publish(ctx context.Context, cur *view, p *plan) error {
	ctx, done := s.joined(ctx)
	defer done()
	ops := s.ops(p.writes)
	if err := s.fits(p.writes, len(p.line)); errors.Is(err, errTooLarge) {
		// A restore of a large state takes a while, and nothing is in the balance yet.
		long, cancel := context.WithTimeout(ctx, loadTimeout)
		defer cancel()
		if err := s.putStage(long, p); err != nil {
			return err
		}
		ops = nil
	} else if err != nil {
		return err
	}
	value, err := store.Seal(p.next.meta)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	ops = append(ops, clientv3.OpPut(s.key(auditKey(p.next.meta.Revision)), string(p.line)), clientv3.OpPut(s.key(keyMeta), string(value)))
	err = s.send(ctx, cur, p, ops)
	if err != nil && p.next.meta.Stage != nil && !errors.Is(err, store.ErrUnknownOutcome) {
		s.dropStage(p.next.meta)
	}
	return err
}

// ops returns the operations that put writes into their place.
func (s *Store) ops(writes []write) []clientv3.Op {
	ops := make([]clientv3.Op, 0, len(writes)+2)
	for _, w := range writes {
		key := s.key(dirObject + w.Name)
		if w.Record == nil {
			ops = append(ops, clientv3.OpDelete(key))
		} else {
			ops = append(ops, clientv3.OpPut(key, string(w.Record)))
		}
	}
	return ops
}

// guard is the condition of whatever changes the state of a view: that it is still that.
func (s *Store) guard(v *view) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(s.key(keyMeta)), "=", v.mod)
}

// send sends the transaction of a commit until its outcome is known. It can't land twice: once it has, meta
// is no longer as cur has it.
func (s *Store) send(ctx context.Context, cur *view, p *plan, ops []clientv3.Op) error {
	maybe := false // a try before may have landed
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		try, cancel := context.WithTimeout(ctx, tryTimeout)
		resp, err := s.client.Txn(try).If(s.guard(cur)).Then(ops...).Commit()
		cancel()
		switch {
		case err == nil && resp.Succeeded:
			p.next.mod = resp.Header.Revision
			return nil
		case err == nil && maybe:
			return s.whose(ctx, p)
		case err == nil:
			return fmt.Errorf("%w: another commit was faster", store.ErrConflict)
		case noSpace(err):
			return s.full(ctx, p, err, maybe)
		case refusal(err) && !maybe:
			return fmt.Errorf("%w%s", err, hint(err))
		case !refusal(err) && !unsent(err):
			maybe = true
		}
		if ctx.Err() != nil {
			if !maybe {
				return s.failed(ctx, "it was not sent", err)
			}
			return fmt.Errorf("%w: %w", store.ErrUnknownOutcome, err)
		}
		pause(ctx, wait)
	}
}

// noSpace reports whether an error says that the quota of the servers is used up. A server that finds that out while it
// applies a transaction has applied it all the same, and says so nevertheless.
func noSpace(err error) bool { return errors.Is(err, rpctypes.ErrNoSpace) }

// full finds out whether a commit that was answered with why, no space, has been stored.
func (s *Store) full(ctx context.Context, p *plan, why error, maybe bool) error {
	switch err := s.whose(ctx, p); {
	case err == nil || errors.Is(err, store.ErrUnknownOutcome):
		return err
	case maybe: // an earlier try may be on its way still
		return fmt.Errorf("%w: %w%s", store.ErrUnknownOutcome, why, hint(why))
	}
	return fmt.Errorf("%w%s", why, hint(why))
}

// whose finds out whether it was this commit that changed meta, or another.
func (s *Store) whose(ctx context.Context, p *plan) error {
	resp, err := s.get(ctx, readTimeout, auditKey(p.next.meta.Revision))
	switch {
	case err != nil:
		return fmt.Errorf("%w: it may have landed, looking for it: %w", store.ErrUnknownOutcome, err)
	case len(resp.Kvs) == 0: // meta was written again for the revision before
		return fmt.Errorf("%w: the state was put in order meanwhile", store.ErrConflict)
	case !bytes.Equal(resp.Kvs[0].Value, p.line):
		return fmt.Errorf("%w: another commit was faster", store.ErrConflict)
	}
	p.next.mod = resp.Kvs[0].ModRevision // line and meta are of one transaction
	return nil
}

// landed makes a commit that was stored the view, unless the watch has brought it already.
func (s *Store) landed(cur *view, p *plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.Load().meta.Revision == cur.meta.Revision {
		s.remember(p.writes)
		s.replace(p.next)
	}
}
