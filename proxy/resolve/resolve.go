// Package resolve finds the addresses of names, and keeps looking. It asks DNS, in its own words and of servers that it is
// told, so that nothing of the machine, such as a file of hosts or a search list, says where bytes go.
//
//	resolve.go  the names that are followed, and what is known of each
//	keep.go     what a lookup changes of what is known, and when the next one is due
//	ask.go      the questions
//	answer.go   what is believed of an answer
//	servers.go  whom the system asks
//
// It judges no address: whether bytes may go to one is for who knows the rules.
package resolve

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
)

// Config is what makes a [Names].
type Config struct {
	// Lookup asks for the addresses of a name once: [Asker.Lookup].
	Lookup func(ctx context.Context, name link.Name) Found
	// Changed is called after what is known of a name has changed, by one goroutine for each name, and after the first
	// lookup of it whatever that has found. It may call the Names, but for Close.
	Changed func(name link.Name)
	// Log returns where to log; it is asked when there is something to say. Nil: nowhere.
	Log func() *slog.Logger
}

// Known is what is known of a name. The zero Known is that of a name that wasn't looked up yet.
type Known struct {
	// Addrs are its addresses, in order, each once and none of them IPv4-mapped, at most [MaxAddrs]. None: it was never
	// found, or not for longer than [Keep].
	Addrs []netip.Addr
	// At is when a lookup last found what holds.
	At time.Time
	// Err is why the newest lookup didn't, or not for both families; nil where it did.
	Err error
	// Looked says that a lookup has ended.
	Looked bool
}

// atOnce bounds the lookups under way.
const atOnce = 32

// Names are the names that are followed. Its methods are safe for concurrent use.
type Names struct {
	config Config
	ctx    context.Context
	stop   context.CancelFunc
	room   chan struct{} // holds a token for each lookup under way
	counts [outcomes]atomic.Int64

	mu     sync.Mutex // one change of all at a time
	all    sync.Map   // link.Name to *entry: readers don't wait
	closed bool       // under mu
	tasks  sync.WaitGroup
}

// entry is one name.
type entry struct {
	name  link.Name
	known atomic.Pointer[Known]
	keep  keep          // owned by the goroutine of the name
	first chan struct{} // closed after the first lookup, and after Changed was told of it
	again chan struct{} // of size one: look now
	stop  context.CancelFunc
}

// New returns names of which none is followed. They must be closed.
func New(c Config) *Names {
	if c.Log == nil {
		c.Log = func() *slog.Logger { return slog.New(slog.DiscardHandler) }
	}
	n := &Names{config: c, room: make(chan struct{}, atOnce)}
	n.ctx, n.stop = context.WithCancel(context.Background())
	return n
}

// Leave follows names no more, and forgets what is known of them.
func (n *Names) Leave(names ...link.Name) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range names {
		if one, there := n.all.LoadAndDelete(name); there {
			one.(*entry).stop()
		}
	}
}

// Follow follows names, beside those that are followed already. It doesn't wait: they are looked up at once, and again until
// [Names.Leave].
func (n *Names) Follow(names ...link.Name) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	for _, name := range names {
		if _, there := n.all.Load(name); there {
			continue
		}
		e := &entry{name: name, first: make(chan struct{}), again: make(chan struct{}, 1)}
		e.known.Store(new(Known))
		var ctx context.Context
		ctx, e.stop = context.WithCancel(n.ctx)
		n.all.Store(name, e)
		n.tasks.Go(func() { n.tend(ctx, e) })
	}
}

// Get returns what is known of a name. The zero Known where it isn't followed.
func (n *Names) Get(name link.Name) Known {
	if one, ok := n.all.Load(name); ok {
		return *one.(*entry).known.Load()
	}
	return Known{}
}

// Again has every name looked up now: the servers are others.
func (n *Names) Again() {
	n.all.Range(func(_, one any) bool {
		select {
		case one.(*entry).again <- struct{}{}:
		default:
		}
		return true
	})
}

// Wait waits until each name that is followed was looked up once, or ctx is done.
func (n *Names) Wait(ctx context.Context) (err error) {
	n.all.Range(func(_, one any) bool {
		select {
		case <-one.(*entry).first:
		case <-ctx.Done():
			err = ctx.Err()
		}
		return err == nil
	})
	return err
}

// Count returns how many lookups had an outcome.
func (n *Names) Count(o Outcome) int64 { return n.counts[o].Load() }

// Close ends all lookups and waits for their goroutines.
func (n *Names) Close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.stop()
	n.tasks.Wait()
}

// tend is the goroutine of a name: it looks it up until ctx is done.
func (n *Names) tend(ctx context.Context, e *entry) {
	first := sync.OnceFunc(func() { close(e.first) })
	defer first()
	for {
		was, now, next, ok := n.look(ctx, e)
		if !ok {
			return
		}
		if !was.Looked || !slices.Equal(was.Addrs, now.Addrs) {
			n.config.Changed(e.name)
		}
		n.tell(e.name, was, now) // what is said holds already
		first()
		select {
		case <-time.After(next):
		case <-e.again:
		case <-ctx.Done():
			return
		}
	}
}

// look looks a name up once there is room, and returns what was known and what is, and when it is to be done again. ok is false where ctx
// is done.
func (n *Names) look(ctx context.Context, e *entry) (was, now *Known, next time.Duration, ok bool) {
	select {
	case n.room <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, 0, false
	}
	found := n.config.Lookup(ctx, e.name)
	<-n.room
	if ctx.Err() != nil {
		return nil, nil, 0, false // it was we who ended it
	}
	was = e.known.Load()
	is, next := e.keep.take(time.Now(), *was, found)
	n.counts[outcomeOf(is.Err)].Add(1)
	e.known.Store(&is)
	return was, &is, next, true
}

// tell logs what has become of a name, each thing once.
func (n *Names) tell(name link.Name, was, now *Known) {
	log := n.config.Log().With("name", name)
	switch {
	case now.Err == nil && was.Looked && was.Err != nil:
		log.Info("the name of a target is found again", "addresses", now.Addrs)
	case now.Err == nil && !slices.Equal(was.Addrs, now.Addrs):
		log.Info("the name of a target leads elsewhere", "addresses", now.Addrs, "before", was.Addrs)
	case len(was.Addrs) > 0 && len(now.Addrs) == 0:
		log.Error("the name of a target wasn't found for too long, its addresses are given up", "before", was.Addrs, "since", was.At, "error", now.Err)
	case now.Err == nil || was.Err != nil:
	case len(now.Addrs) > 0:
		log.Warn("the name of a target isn't found, its addresses of before stay", "addresses", now.Addrs, "until", now.At.Add(Keep), "error", now.Err)
	default:
		log.Warn("the name of a target isn't found", "error", now.Err)
	}
}
