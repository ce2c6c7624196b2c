package handover

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/coredns/caddy"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/node"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/store"
	"github.com/prometheus/client_golang/prometheus"
)

// slot is where a node waits for its next draft. One reload at a time may use it: from the
// predecessor's OnRestart to its OnShutdown or OnRestartFailed, one of which Caddy always calls.
var slot = &handSlot{free: make(chan struct{}, 1)}

type handSlot struct {
	free chan struct{} // holds a token while a reload is under way

	mu    sync.Mutex
	from  *Draft // whose reload is under way
	taken bool   // a successor has taken the node
}

// put begins a reload of the draft's instance.
func (s *handSlot) put(d *Draft) {
	s.free <- struct{}{}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from, s.taken = d, false
}

// take returns the node that waits, nil where none does.
func (s *handSlot) take() *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from == nil {
		return nil
	}
	s.taken = true
	return s.from.node.Load()
}

// predecessor returns the draft whose node the successor has taken, nil where there is none.
func (s *handSlot) predecessor() *Draft {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.taken {
		return nil
	}
	return s.from
}

// clear ends the reload of the draft's instance. It reports whether there was one, and whether a
// successor has taken the node.
func (s *handSlot) clear(d *Draft) (reload, taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from != d {
		return false, false
	}
	taken = s.taken
	s.from, s.taken = nil, false
	<-s.free
	return true, taken
}

// onFirstStartup runs before onStartup when the instance reloads no other.
func (d *Draft) onFirstStartup() error {
	d.start = true
	return nil
}

func (d *Draft) onStartup() error {
	c, err := d.Config()
	if err != nil {
		return err
	}
	if !d.start {
		if h := slot.take(); h != nil {
			return d.succeed(h, c)
		}
	}
	running.reap(c.State)
	c.Inheritance = inheritance.Swap(nil)
	ctx, cancel := context.WithTimeout(context.Background(), stepTime)
	defer cancel()
	n, err := node.Open(ctx, c)
	if err != nil {
		return d.explain(err)
	}
	h := &held{node: n, place: c.State, origin: c.Declaration.Declaration, log: c.Log, ended: make(chan struct{})}
	running.add(h, d)
	d.node.Store(h)
	return nil
}

// succeed takes over a running node.
func (d *Draft) succeed(h *held, c node.Config) error {
	if c.State != h.place {
		if c.State.String() == h.place.String() {
			return d.storeAt().Errorf("the state is reached otherwise than since the start; that takes a restart")
		}
		return d.storeAt().Errorf("the state is %s since the start; to change it to %s takes a restart", h.place, c.State)
	}
	if now := c.Declaration.Declaration; now != h.origin {
		return d.storeAt().Errorf("the origin is %s since the start; to change it to %s takes a restart", h.origin, now)
	}
	if err := h.prepare(c); err != nil {
		return d.explain(err)
	}
	d.node.Store(h)
	return nil
}

// onRestart begins a reload: the successor finds the node in the slot.
func (d *Draft) onRestart() error {
	slot.put(d)
	return nil
}

// onRestartFailed ends a reload that failed anywhere; the node goes on as it was.
func (d *Draft) onRestartFailed() error {
	if reload, _ := slot.clear(d); reload {
		d.node.Load().abandon()
		reloads.WithLabelValues("refused").Inc()
	}
	return nil
}

// onShutdown ends a reload that succeeded. At the exit of the process there was none, and all is left
// to onFinalShutdown: the DNS side still answers for the lame-duck time of health. An error returned
// here would keep Caddy from calling the other plugins.
func (d *Draft) onShutdown() error {
	reload, taken := slot.clear(d)
	if !reload {
		return nil
	}
	h := d.node.Load()
	if !taken { // the new Corefile has none of our directives
		h.end()
		return nil
	}
	committed, err := h.commit()
	switch {
	case err != nil:
		reloads.WithLabelValues("failed").Inc()
		h.log.Error("RELOAD NOT IN FORCE YET: DNS runs with the new Corefile, its objects can't be stored; trying again", "err", err)
	case committed:
		reloads.WithLabelValues("committed").Inc()
	}
	return nil
}

func (d *Draft) onFinalShutdown() error {
	if h := d.node.Load(); h != nil {
		h.end()
	}
	return nil
}

// Config returns the node's configuration.
func (d *Draft) Config() (node.Config, error) {
	place, err := PlaceOf(d.store)
	if err != nil {
		return node.Config{}, d.first.Errorf("path of the state: %w", err)
	}
	exports, err := d.exports.placed(place)
	if err != nil {
		return node.Config{}, err
	}
	plane := d.proxy
	if plane != nil {
		settings := *plane
		settings.Own, settings.OwnUDP = d.own, d.ownUDP
		plane = &settings
	}
	declaration := d.declaration()
	declaration.Settings = d.settings()
	return node.Config{
		State:       place,
		Stale:       policy.Limits{Bound: d.store.Bound, Strict: d.store.Strict},
		Declaration: declaration,
		From:        d.first.File,
		Proxy:       plane,
		Policies:    d.policies.all,
		Exports:     exports,
		API:         d.api,
		Log:         NewLogger("linkproxy"),
		Registerer:  prometheus.DefaultRegisterer,
		InForce: func(from uint64, stored bool) {
			for _, f := range d.inForce {
				f(from, stored)
			}
			if stored {
				d.inForce = nil // with what it remembers of the draft before
			}
		},
	}, nil
}

// explain gives an error of the node the line of the directive that it is about.
func (d *Draft) explain(err error) error {
	at := d.first
	var about *link.ObjectError
	var path *fs.PathError
	var api *node.APIError
	var place *node.PlaceError
	var rules *node.PolicyError
	var receiver *node.ExportError
	switch {
	case errors.As(err, &api):
		at = d.apiAt
	case errors.As(err, &receiver):
		at = d.exports.at[receiver.Name]
	case errors.As(err, &rules):
		at = d.programAt(rules.Name)
	case errors.As(err, &about):
		return d.positioned(at, err)
	case errors.Is(err, store.ErrLocked), errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrForeign), errors.As(err, &path), errors.As(err, &place):
		at = d.storeAt()
	case d.proxy != nil:
		at = d.proxyAt
	}
	return at.Errorf("%w", err)
}

// storeAt returns the line of linkstore, or that of our first directive where there is none.
func (d *Draft) storeAt() block.Position {
	if d.storedAt.Line != 0 {
		return d.storedAt
	}
	return d.first
}

// inheritance is what the first node of this process has of the process before it.
var inheritance atomic.Pointer[node.Inheritance]

// Inherit has the next node that is opened take the place of another process's.
func Inherit(i *node.Inheritance) { inheritance.Store(i) }

// Node returns the node of this process, nil where it has none or, while one replaces another, several.
func Node() *node.Node {
	running.mu.Lock()
	defer running.mu.Unlock()
	if len(running.by) != 1 {
		return nil
	}
	for h := range running.by {
		return h.node
	}
	return nil
}

// nodes are those that run in this process.
type nodes struct {
	mu sync.Mutex
	by map[*held]*Draft // the draft that opened it
}

var running = nodes{by: make(map[*held]*Draft)}

func (r *nodes) add(h *held, d *Draft) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.by[h] = d
}

func (r *nodes) remove(h *held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.by, h)
}

// reap ends a node with the given state that no instance holds: one that was opened by a start that
// failed afterwards, for example because a DNS port was taken. Nobody tells us of that.
func (r *nodes) reap(place Place) {
	r.mu.Lock()
	var found *held
	for h := range r.by {
		if h.place == place && !inUse(h) {
			found = h
		}
	}
	r.mu.Unlock()
	if found != nil {
		found.end()
	}
}

// inUse reports whether a Caddy instance has the node.
func inUse(h *held) bool {
	for _, inst := range caddy.Instances() {
		inst.StorageMu.RLock()
		d, ok := inst.Storage[storageKey{}].(*Draft)
		inst.StorageMu.RUnlock()
		if ok && d.node.Load() == h {
			return true
		}
	}
	return false
}
