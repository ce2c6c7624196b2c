// Package etcd keeps the state in an etcd cluster (3.5 or later), for many nodes.
//
//	s, err := etcd.Open(ctx, etcd.Options{Endpoints: []string{"https://etcd-1:2379"}, TLS: conf})
//
// Keys, below a prefix (default "/postern/"); values are those of package store, each with a checksum:
//
//	meta                      what all else must add up to: format, the revision (the number of commits),
//	                          a fingerprint of the objects, the chain of the audit record, who wrote it
//	object/KIND/KEY           one object, a record of [store.EncodeRecord]
//	audit/REVISION            one line of the audit record, the revision as 16 hexadecimal digits
//	stage/REVISION/ENTRY/N    a part of a commit that is too large for one transaction
//
// A commit is one etcd transaction that writes the objects, the audit line and meta, on the condition
// that meta is as it was read: so one of two commits on one revision wins, whatever the clocks and
// the network do, and a commit that was sent twice lands once.
//
// A commit beyond etcd's limits is published by reference (stage.go). Its records are first put under
// stage/, where they mean nothing; the transaction that commits names them in meta, and from then on they stand
// above object/ for every reader. Then they are copied there, each step on the condition that meta is
// still the same, and the last step takes their name out of meta. Whoever commits next finishes
// that work first, should the first have died.
//
// A node holds the whole state in memory and follows meta and object/ by a watch. What the watch yields
// has to lead from one meta to the next and add up to its fingerprint; a gap, a compaction or a
// difference means to load all again. Every two seconds meta is read with a quorum: that confirms the view
// ([Store.Confirmed]), and finds a watch that has gone silent. When nothing can be confirmed the last good
// snapshot stays; how long it may be used is for the caller to say.
//
// The user of a node needs read and write rights to the prefix; one that only answers and carries traffic
// ([Options.ReadOnly]) needs to read.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// Defaults of [Options].
const (
	DefaultPrefix = "/postern/"
	// DefaultRequestBytes and DefaultTxnOps are those of etcd's --max-request-bytes and --max-txn-ops.
	DefaultRequestBytes = 1.5 * 1024 * 1024
	DefaultTxnOps       = 128
	// DefaultTimeout is how long a commit is tried.
	DefaultTimeout = 10 * time.Second
)

// Options are the settings of a store. Endpoints must be given; the zero value of all else is a good one.
type Options struct {
	Endpoints []string // URLs or host:port of the members
	Prefix    string   // begins and ends with '/'; "": [DefaultPrefix]
	TLS       *tls.Config
	Username  string
	Password  string
	// ReadOnly: nothing is written, not even an empty state where there is none. Commit is [store.ErrReadOnly].
	ReadOnly bool
	// Node is the name of this node in what it writes. "": the host's.
	Node string
	// Timeout bounds a commit, from when it is sent until its outcome is known, and the wait for the answer to a
	// read. 0: [DefaultTimeout].
	Timeout time.Duration
	// RequestBytes and TxnOps are limits of the servers, see [DefaultRequestBytes]. 0: the defaults.
	RequestBytes int
	TxnOps       int
	// Log gets what an operator should know. Nil: nothing is logged.
	Log *slog.Logger
	// Registerer gets the metrics until Close. Nil: none.
	Registerer prometheus.Registerer
	// Now is the clock that a backup is dated with. Nil: [time.Now].
	Now func() time.Time
}

func (o *Options) complete() error {
	if len(o.Endpoints) == 0 {
		return errors.New("etcd: no endpoints")
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if !strings.HasPrefix(o.Prefix, "/") || !strings.HasSuffix(o.Prefix, "/") {
		return fmt.Errorf("etcd: prefix %q doesn't begin and end with '/'", o.Prefix)
	}
	if o.Node == "" {
		o.Node, _ = os.Hostname() // only a name for people: none is none
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.RequestBytes == 0 {
		o.RequestBytes = DefaultRequestBytes
	}
	if o.TxnOps == 0 {
		o.TxnOps = DefaultTxnOps
	}
	if o.RequestBytes < minRequestBytes || o.TxnOps < minTxnOps {
		return fmt.Errorf("etcd: requests of %d bytes and %d operations are too small, %d and %d are the least", o.RequestBytes, o.TxnOps, minRequestBytes, minTxnOps)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// Store is a [store.Store] in etcd. All methods are safe for concurrent use.
type Store struct {
	opts    Options
	log     *slog.Logger
	client  *clientv3.Client
	metrics metrics

	current   atomic.Pointer[view]
	confirmed atomic.Pointer[time.Time]
	trouble   atomic.Pointer[error] // why the view can't be confirmed now; nil: it can
	feed      store.Feed

	// mu guards the replacing of current, and what follows.
	mu      sync.Mutex
	sums    map[string]store.Sum // of the records of current, by "kind/key"
	changed chan struct{}        // closed when current is replaced, and made anew

	// write holds one token: whoever has it may commit.
	write    chan struct{}
	watching atomic.Pointer[watching] // the newest watch, or the last

	life      context.Context // until Close
	stop      context.CancelFunc
	running   sync.WaitGroup // follow and confirm
	closeOnce sync.Once
	closeErr  error
}

var _ store.Store = (*Store)(nil)

// Open connects to a cluster and loads its state; where there is none it makes an empty one. While the cluster
// is away, or has no state yet and ReadOnly is set, it tries again until ctx is done: the error then says what is missing.
// Errors wrap [store.ErrForeign] or [store.ErrDamaged] where the keys aren't a state that this version can use.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	s := &Store{opts: opts, log: opts.Log.With("store", "etcd"), changed: make(chan struct{}), write: make(chan struct{}, 1)}
	s.life, s.stop = context.WithCancel(context.Background())
	if err := s.open(ctx); err != nil {
		s.stop()
		return nil, errors.Join(fmt.Errorf("etcd state %s at %s: %w", opts.Prefix, strings.Join(opts.Endpoints, " "), err), s.closeClient())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	at, err := s.connect(ctx)
	if err != nil {
		return err
	}
	if s.metrics, err = newMetrics(s.opts.Registerer, s); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	s.running.Go(func() { s.follow(at) })
	s.running.Go(s.confirm)
	return nil
}

// Load implements [store.Store]: the newest snapshot, as a quorum of the cluster has it. It costs one small
// read, and where this node is behind the wait until it has caught up.
func (s *Store) Load(ctx context.Context) (*link.Snapshot, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	start, before := time.Now(), s.current.Load()
	m, mod, err := s.readMeta(ctx)
	if err == nil {
		err = s.judge(before, m, mod)
	}
	if err != nil {
		return nil, s.failed(ctx, "load", err)
	}
	if err := s.await(ctx, m.Revision); err != nil {
		return nil, s.failed(ctx, "load", err)
	}
	s.refresh(m, mod)
	s.confirmAt(start)
	return s.current.Load().snapshot, nil
}

// Watch implements [store.Store].
func (s *Store) Watch(ctx context.Context) <-chan *link.Snapshot { return s.feed.Watch(ctx) }

// Confirmed implements [store.Store].
func (s *Store) Confirmed() time.Time { return *s.confirmed.Load() }

// Err returns why the view can't be confirmed at present, nil while it can: for a health check.
func (s *Store) Err() error {
	if s.life.Err() != nil {
		return store.ErrClosed
	}
	if err := s.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Backup implements [store.Store]. Commits go on meanwhile.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	snap, err := s.Load(ctx)
	if err != nil {
		return err
	}
	return store.WriteBackup(ctx, w, snap, s.opts.Now())
}

// Close waits for a commit under way, at most [Options.Timeout] and the time to finish a large one, ends all watches and the connections. Later calls return what the
// first did.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.write <- struct{}{} // for good: whoever waits for it gets ErrClosed
		s.stop()
		s.running.Wait()
		s.feed.Close()
		s.metrics.Unregister()
		s.closeErr = s.closeClient()
	})
	return s.closeErr
}

// usable returns why a call ends before it begins.
func (s *Store) usable(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.life.Err() != nil {
		return store.ErrClosed
	}
	return nil
}

// failed says what ended a call: the store's end, the caller's, or err.
func (s *Store) failed(ctx context.Context, what string, err error) error {
	switch {
	case s.life.Err() != nil:
		return store.ErrClosed
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w: %w", what, context.Cause(ctx), err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
