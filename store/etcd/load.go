package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// loadPage is how many keys one read of a load asks for.
const loadPage = 4096

// errAbsent: there is no key below the prefix.
var errAbsent = errors.New("there is no state yet")

// connect makes the client and the first view, and returns etcd's revision that it is of. It tries until ctx
// is done.
func (s *Store) connect(ctx context.Context) (at int64, err error) {
	ctx, done := s.joined(ctx)
	defer done()
	var told error // why the last try failed, other than that time was up
	for {
		if at, err = s.first(ctx); err == nil {
			return at, nil
		}
		if ctx.Err() != nil {
			if told != nil {
				err = told
			}
			return 0, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		if errors.Is(err, store.ErrForeign) || errors.Is(err, store.ErrDamaged) || refusal(err) && !passing(err) {
			return 0, err
		}
		if told == nil || told.Error() != err.Error() {
			s.log.Warn("waiting for the state", "error", err)
		}
		told = err
		pause(ctx, 250*time.Millisecond)
	}
}

// passing reports whether a refusal is one that another try may not meet: the revision that was being read has been
// compacted meanwhile, or the servers have too much to do.
func passing(err error) bool {
	return errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, rpctypes.ErrTooManyRequests)
}

func (s *Store) first(ctx context.Context) (int64, error) {
	if s.client == nil {
		life, cancel := context.WithCancel(s.life) // it ends with that, or with ctx while it is made
		stop := context.AfterFunc(ctx, cancel)
		c, err := newClient(life, &s.opts)
		if err != nil {
			cancel()
			return 0, fmt.Errorf("connect: %w", err)
		}
		if s.client = c; !stop() {
			return 0, context.Cause(ctx)
		}
	}
	start := time.Now()
	// A member that can't be reached must not take all the time there is.
	ask, cancel := context.WithTimeout(ctx, 3*readTimeout)
	defer cancel()
	if _, err := s.get(ask, readTimeout, keyMeta, clientv3.WithKeysOnly()); err != nil {
		return 0, fmt.Errorf("no answer: %w", err)
	}
	l, err := s.load(ctx, nil)
	if errors.Is(err, errAbsent) && !s.opts.ReadOnly {
		if err := s.initialise(ask); err != nil {
			return 0, err
		}
		l, err = s.load(ctx, nil)
	}
	if err != nil {
		return 0, err
	}
	s.install(l)
	s.confirmAt(start)
	return l.at, nil
}

// loaded is what a full read found.
type loaded struct {
	view *view
	sums map[string]store.Sum
	at   int64 // etcd's revision that was read
}

// load reads and checks all of the state as it is at one revision of etcd. It must be one that can come after the view
// that was had before, nil: any.
func (s *Store) load(ctx context.Context, before *view) (*loaded, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	resp, err := s.get(ctx, readTimeout, keyMeta)
	if err != nil {
		return nil, fmt.Errorf("read meta: %w", err)
	}
	at := resp.Header.Revision
	if len(resp.Kvs) == 0 {
		return nil, s.absent(ctx, at)
	}
	m, err := decodeMeta(resp.Kvs[0].Value)
	if err != nil {
		return nil, err
	}
	if before != nil { // first: it costs little, and the rest is a lot to read for nothing
		if err := s.judge(before, m, resp.Kvs[0].ModRevision); err != nil {
			return nil, err
		}
		if err := s.checkLine(ctx, before.meta, at); err != nil {
			return nil, fmt.Errorf("it has another history than before: %w", err)
		}
	}
	r := reader{sums: map[string]store.Sum{}}
	staged, err := s.readStage(ctx, m, at)
	if err != nil {
		return nil, err
	}
	err = s.scan(ctx, dirObject, at, func(name string, value []byte) error {
		if _, ok := staged[name]; ok {
			return nil
		}
		return r.record(name, value)
	})
	if err != nil {
		return nil, err
	}
	for name, rec := range staged {
		if rec == nil {
			continue
		}
		if err := r.record(name, rec); err != nil {
			return nil, err
		}
	}
	if r.set != m.Objects {
		return nil, fmt.Errorf("%w: it has %d objects that don't add up to the %d of revision %d", store.ErrDamaged, r.set.Count, m.Objects.Count, m.Revision)
	}
	if err := s.checkLine(ctx, m, at); err != nil {
		return nil, err
	}
	snap, err := link.Load(m.Revision, slices.Values(r.objects))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrDamaged, err)
	}
	return &loaded{view: &view{meta: m, mod: resp.Kvs[0].ModRevision, snapshot: snap}, sums: r.sums, at: at}, nil
}

// absent says what a prefix without meta is.
func (s *Store) absent(ctx context.Context, at int64) error {
	resp, err := s.get(ctx, readTimeout, "", clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(1), clientv3.WithRev(at))
	switch {
	case err != nil:
		return fmt.Errorf("look for keys: %w", err)
	case len(resp.Kvs) > 0:
		return fmt.Errorf("%w: there are keys such as %q, and no meta", store.ErrForeign, resp.Kvs[0].Key)
	}
	return errAbsent
}

// scan calls fn with the keys of a directory, without its name, as they were at a revision of etcd.
func (s *Store) scan(ctx context.Context, dir string, at int64, fn func(name string, value []byte) error) error {
	from, end := dir, clientv3.GetPrefixRangeEnd(s.key(dir))
	for {
		resp, err := s.get(ctx, pageTimeout, from, clientv3.WithRange(end), clientv3.WithRev(at), clientv3.WithLimit(loadPage))
		if err != nil {
			return fmt.Errorf("read %s: %w", dir, err)
		}
		for _, kv := range resp.Kvs {
			if err := fn(string(kv.Key[len(s.key(dir)):]), kv.Value); err != nil {
				return err
			}
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key[len(s.opts.Prefix):]) + "\x00"
	}
}

// checkLine returns an error unless the audit record ends as meta says.
func (s *Store) checkLine(ctx context.Context, m meta, at int64) error {
	if m.Revision == 0 {
		return nil
	}
	resp, err := s.get(ctx, readTimeout, auditKey(m.Revision), clientv3.WithRev(at))
	if err != nil {
		return fmt.Errorf("read the audit record: %w", err)
	}
	if len(resp.Kvs) == 0 {
		return fmt.Errorf("%w: audit entry %d is missing", store.ErrDamaged, m.Revision)
	}
	chain, err := store.LineChain(resp.Kvs[0].Value)
	if err != nil {
		return fmt.Errorf("audit entry %d: %w", m.Revision, err)
	}
	if chain != m.Audit {
		return fmt.Errorf("%w: the audit record doesn't end as revision %d says", store.ErrDamaged, m.Revision)
	}
	return nil
}

// reader takes records and adds them up.
type reader struct {
	objects []link.Object
	sums    map[string]store.Sum
	set     store.Set
}

func (r *reader) record(name string, value []byte) error {
	kind, key := named(name)
	o, err := store.DecodeRecord(kind, key, value)
	if err != nil {
		return err
	}
	sum, err := store.RecordSum(value)
	if err != nil {
		return err
	}
	r.set.Add(sum)
	r.sums[name] = sum
	r.objects = append(r.objects, o)
	return nil
}

// install makes what was loaded the view, unless there is a newer one.
func (s *Store) install(l *loaded) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cur := s.current.Load(); cur != nil && cur.mod >= l.view.mod {
		return
	}
	s.sums = l.sums
	s.replace(l.view)
}

// refresh takes over a meta that tells the same revision as the view, as when a large commit has been put in
// its place.
func (s *Store) refresh(m meta, mod int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cur := s.current.Load(); m.Revision == cur.meta.Revision && m.Audit == cur.meta.Audit && mod > cur.mod {
		s.replace(&view{meta: m, mod: mod, snapshot: cur.snapshot})
	}
}

// replace makes v the view and wakes who waits for it. The caller holds mu.
func (s *Store) replace(v *view) {
	s.current.Store(v)
	close(s.changed)
	s.changed = make(chan struct{})
	s.feed.Publish(v.snapshot)
}
