// Package node is one process of Postern: it holds the store, the newest snapshot and the proxy, and
// carries them from one configuration to the next in two steps, [Node.Prepare] and [Prepared.Commit].
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/export"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/external"
	"github.com/postern-link/postern/proxy"
	"github.com/postern-link/postern/proxy/budget"
	"github.com/postern-link/postern/store"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is one configuration of a node, as a Corefile says it.
type Config struct {
	// State is where the state lives. It can't change while the node lives.
	State Place
	// Stale says how old the snapshot may become where the state is shared.
	Stale policy.Limits
	// Declaration holds the declared objects under the name that owns them.
	Declaration link.Declare
	// From says where the declaration was read, such as the path of a Corefile: for the audit.
	From string
	// Proxy are the settings of the data plane; nil: this node only answers DNS.
	Proxy *proxy.Settings
	// Policies narrow what the state allows, in order.
	Policies []Policy
	// Exports are the receivers of flow records and the audit record.
	Exports []export.Config
	// API is the control API; nil: none. A configuration has a value of its own.
	API API
	// InForce is told from which revision of the state on the objects are in it: before they are stored, with math.MaxUint64 where
	// they couldn't be, and, stored, when they are and [Node.Snapshot] has them. Nil: nobody asks.
	InForce func(from uint64, stored bool)
	// Inheritance is what the process has of the one before it; nil: nothing, or this isn't its first configuration.
	Inheritance *Inheritance
	// Log and Registerer are kept for the life of the node. A nil Log is silent, a nil Registerer
	// takes no metrics.
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// firstProbes is how long Open waits for the first probes of targets: a node that restarts shall not
// let names pass that it has answered before.
const firstProbes = time.Second

// defaultDrain is how long live flows may go on at the end where the settings don't say.
const defaultDrain = 30 * time.Second

// Node is one running process. Its methods are safe for concurrent use.
type Node struct {
	name     string
	place    Place
	log      *slog.Logger
	register prometheus.Registerer
	metrics  *collector
	store    store.Store
	lent     *lent  // the store, where one process at a time can have it; nil: several can
	admin    *admin // guarded by change after Open
	ended    []*admin
	began    time.Time

	inheritance *Inheritance
	upgrade     atomic.Pointer[func(context.Context) error]
	heir        atomic.Pointer[heir] // after Retire
	eldersMu    sync.Mutex
	elders      map[*elder]struct{} // the processes before this one that still have flows
	claimed     uint64              // the revision of the state before this process changed it

	limits   atomic.Pointer[policy.Limits]
	snapshot atomic.Pointer[link.Snapshot]
	proxy    atomic.Pointer[proxy.Proxy]   // nil: no data plane
	policy   atomic.Pointer[policy.Policy] // of policies
	apis     apis

	// install orders snapshots: only a newer one replaces the pointer. Until the first declaration is in
	// force there is no snapshot to anyone else, and held is the newest of those that came.
	install sync.Mutex
	adopted bool
	held    *link.Snapshot

	// config is the one in force. change is held while another takes its place. owed is one that was
	// committed and whose objects the store couldn't take yet; nil: none.
	change   sync.Mutex
	config   Config
	owed     *Config
	expected expected // of the configuration that is being put in force
	// Also under change: the policies in force, which are those of the objects in force and, while objects are owed,
	// those of owed too; what their programs are counted in; and the end of what asks them about live flows.
	policies        policies
	settled, coming policies // of the objects in force, and of the newest configuration
	programMetrics  *external.Metrics
	stopAsking      context.CancelFunc
	asking          sync.WaitGroup
	exports         exports

	life       context.Context // until Close
	stop       context.CancelFunc
	background sync.WaitGroup // follow, watchAge
	paying     sync.WaitGroup // goroutines of pay
	wake       chan struct{}  // holds a token where the store answers, for pay
}

// Open starts a node: it opens the state, applies the declaration and starts the data plane. Errors
// are those of the store, a [*PlaceError], or a [*link.ObjectError] where a declared object can't be had.
//
// Where the state is shared and can't be reached the node starts all the same: it has no snapshot, so that
// no flow is carried and no name answered, and goes on trying.
func Open(ctx context.Context, c Config) (*Node, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	open := func(ctx context.Context) (store.Store, error) { return c.State.Open(ctx, c.Log, c.Registerer) }
	if c.Inheritance != nil {
		if err := c.Inheritance.claim(ctx); err != nil {
			return nil, err
		}
	}
	if !c.State.Shared() {
		return openOn(ctx, c, open)
	}
	return openOn(ctx, c, func(ctx context.Context) (store.Store, error) { return openShared(ctx, open, c.Log) })
}

// openOn starts a node on the store that open returns.
func openOn(ctx context.Context, c Config, open openFunc) (*Node, error) {
	n := &Node{
		name: hostName(), place: c.State, log: c.Log, register: c.Registerer,
		began: time.Now(), wake: make(chan struct{}, 1), config: c, inheritance: c.Inheritance, elders: make(map[*elder]struct{}),
	}
	var err error
	if c.State.Shared() {
		n.store, err = open(ctx)
	} else if n.lent, err = newLent(ctx, open); err == nil {
		n.store = n.lent
	}
	if err != nil {
		return nil, err
	}
	n.limits.Store(&c.Stale)
	if err := n.open(ctx, c); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// open takes the same steps as a reload: first all that can be refused, then the commit. A start that is
// refused leaves the state as it was.
func (n *Node) open(ctx context.Context, c Config) error {
	n.life, n.stop = context.WithCancel(context.Background())
	snapshots := n.store.Watch(n.life)
	n.background.Go(func() { n.follow(snapshots) })
	known, err := n.firstLoad(ctx)
	if err != nil {
		return err
	}
	if known != nil {
		n.claimed = known.Revision()
	}
	next, err := n.expect(known, c)
	if err != nil {
		return err
	}
	// The API first: a port that a tenant wants for endpoints must not take its own.
	if err := n.prepareAPI(c.API); err != nil {
		return err
	}
	policies, err := n.preparePolicies(ctx, c.Policies)
	if err != nil {
		abandonAPI(c.API)
		return err
	}
	n.commitPolicies(policies) // nothing is decided yet; Close ends them
	exports, err := n.prepareExports(c.Exports)
	if err != nil {
		abandonAPI(c.API)
		return err
	}
	plane, err := n.newProxy(next, c.Proxy)
	if err != nil {
		abandonAPI(c.API)
		return err
	}
	if err := n.begin(ctx, c, known); err != nil {
		abandonAPI(c.API)
		return errors.Join(err, plane.discard())
	}
	n.commitExports(exports)
	n.startProxy(ctx, plane, known)
	n.apis.replace(c.API)
	// Reading a large state leaves as much behind as it takes. Nobody has to wait for it to be given back.
	n.background.Go(debug.FreeOSMemory)
	n.metrics, err = registerMetrics(n)
	return err
}

// begin is the commit of the first configuration. Without a known state it is owed.
func (n *Node) begin(ctx context.Context, c Config, known *link.Snapshot) (err error) {
	if n.admin, err = n.serveAdmin(); err != nil {
		return err
	}
	if n.place.Shared() {
		n.background.Go(n.watchAge)
	}
	if known == nil {
		n.owe(&c)
		return nil
	}
	return n.adopt(ctx, c)
}

// firstLoad returns the state as it is before this node's declaration, nil where it is shared and can't
// be reached.
func (n *Node) firstLoad(ctx context.Context) (*link.Snapshot, error) {
	if !n.place.Shared() {
		return n.store.Load(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, firstTry)
	defer cancel()
	s, err := n.store.Load(ctx)
	if err != nil && !isFinal(err) {
		return nil, nil // openShared has said why
	}
	return s, err
}

// plane is a data plane that has opened its listeners and accepts nothing yet.
type plane struct {
	proxy    *proxy.Proxy
	prepared *proxy.Prepared
}

// newProxy makes a data plane for a snapshot; nil where there are no settings for one.
func (n *Node) newProxy(s *link.Snapshot, settings *proxy.Settings) (*plane, error) {
	if settings == nil {
		return nil, nil
	}
	c := proxy.Config{Snapshot: n.Snapshot, Freshness: n.Freshness, Policy: n.Policy, Portable: settings.Portable, Memory: budget.Find(), Log: n.log, Registerer: n.register}
	c.Inherited, c.InheritedUDP = n.inheritance.givers()
	c.Tap = n.exports.tap
	p := proxy.New(c)
	prepared, err := p.Prepare(s, *settings)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return &plane{p, prepared}, nil
}

// discard ends a data plane that wasn't started, nil for none.
func (p *plane) discard() error {
	if p == nil {
		return nil
	}
	p.prepared.Abandon()
	return p.proxy.Close()
}

// startProxy starts a data plane, nil for none. known is the state that an earlier process or
// configuration left: what it had approved counts as published, so that a restart beside dead targets
// doesn't let private names pass to public addresses.
func (n *Node) startProxy(ctx context.Context, p *plane, known *link.Snapshot) {
	if p == nil {
		return
	}
	p.proxy.Inherit(liveServices(known)...)
	p.prepared.Commit()
	n.setProxy(p.proxy)
	if n.Snapshot() == nil {
		return // nothing is listened on and nothing probed
	}
	ctx, cancel := context.WithTimeout(ctx, firstProbes)
	defer cancel()
	if err := p.proxy.Probed(ctx); err != nil {
		n.log.Warn("some targets have not answered a first probe yet; until they do, their names are passed on as if there were no endpoint", "waited", firstProbes)
	}
}

// setProxy makes p the data plane and gives it the newest snapshot, which may have come meanwhile.
func (n *Node) setProxy(p *proxy.Proxy) {
	n.install.Lock()
	defer n.install.Unlock()
	n.proxy.Store(p)
	if p != nil {
		p.Update(n.snapshot.Load())
	}
}

// liveServices returns the services with a live connection; none without a snapshot.
func liveServices(s *link.Snapshot) []link.ID {
	if s == nil {
		return nil
	}
	var ids []link.ID
	for v := range s.Services() {
		for e := range s.EndpointsOf(v.ID) {
			if e.Connection.Live() {
				ids = append(ids, v.ID)
				break
			}
		}
	}
	return ids
}

// follow installs what the store yields.
func (n *Node) follow(snapshots <-chan *link.Snapshot) {
	for s := range snapshots {
		n.put(s)
		n.kick()
	}
}

// put makes s the newest snapshot, unless there is a newer one or no declaration is in force yet.
func (n *Node) put(s *link.Snapshot) {
	n.install.Lock()
	defer n.install.Unlock()
	if n.adopted {
		n.putLocked(s)
	} else if n.held == nil || n.held.Revision() < s.Revision() {
		n.held = s
	}
}

// enter makes s the newest snapshot, the first time together with those that were held back.
func (n *Node) enter(s *link.Snapshot) {
	n.install.Lock()
	defer n.install.Unlock()
	if n.held != nil && n.held.Revision() > s.Revision() {
		s = n.held
	}
	n.adopted, n.held = true, nil
	n.putLocked(s)
	n.tellMissing(s)
}

// putLocked sets the pointer first, then the data plane, so that what is looked at afterwards is judged
// by s. The caller holds install.
func (n *Node) putLocked(s *link.Snapshot) {
	if now := n.snapshot.Load(); now != nil && now.Revision() >= s.Revision() {
		return
	}
	n.snapshot.Store(s)
	if n.judgesAlone() {
		n.hushElders()
	}
	if p := n.proxy.Load(); p != nil {
		p.Update(s)
	}
	n.tellPolicies(s)
}

// Snapshot returns the newest snapshot; nil while there is none.
func (n *Node) Snapshot() *link.Snapshot { return n.snapshot.Load() }

// Published reports whether a target of the service has ever answered; true on a node without a
// data plane, which can't know.
func (n *Node) Published(service link.ID) bool {
	p := n.proxy.Load()
	return p == nil || p.Published(service)
}

// Healthy reports whether a target of the service answers now; true on a node without a data plane.
func (n *Node) Healthy(service link.ID) bool {
	p := n.proxy.Load()
	return p == nil || p.Healthy(service)
}

// HealthyAt is Healthy for an endpoint at a site: of the targets there, where the service has any there.
func (n *Node) HealthyAt(service link.ID, site string) bool {
	p := n.proxy.Load()
	return p == nil || p.HealthyAt(service, site)
}

// Drain accepts no more flows and waits until the live ones have ended, at most for the drain time
// of the settings, after which it resets them, or until ctx is done. After [Node.Retire] they have the time for that.
func (n *Node) Drain(ctx context.Context) {
	n.change.Lock()
	defer n.change.Unlock()
	n.drain(ctx, n.proxy.Load())
}

func (n *Node) drain(ctx context.Context, p *proxy.Proxy) {
	if p == nil || n.config.Proxy == nil {
		return
	}
	if h := n.heir.Load(); h != nil {
		select {
		case <-h.settled: // its last flow may be gone before the other process knows that there are no more
		case <-h.patience.Done():
		}
		p.Leave(h.patience)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(n.config.Proxy.DrainTimeout, defaultDrain))
	defer cancel()
	p.Drain(ctx)
}

// Close ends everything at once. It may be called once.
func (n *Node) Close() error {
	n.stop()
	n.paying.Wait()
	n.background.Wait()
	n.change.Lock()
	defer n.change.Unlock()
	errs := []error{n.apis.close()}
	if n.admin != nil {
		n.ended = append(n.ended, n.admin)
	}
	for _, a := range n.ended {
		errs = append(errs, a.close())
	}
	if h := n.heir.Load(); h != nil {
		h.giveUp()
		errs = append(errs, h.conn.Close())
	}
	for _, e := range n.eldersNow() {
		e.conn.Close() // what flows they have left they end
	}
	if n.metrics != nil {
		n.register.Unregister(n.metrics)
	}
	if p := n.proxy.Load(); p != nil {
		errs = append(errs, p.Close())
	}
	n.closeExports() // the last flows have been recorded, and the state is still there
	errs = append(errs, n.closePolicies(), n.store.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close node of %s: %w", n.place, err)
	}
	return nil
}
