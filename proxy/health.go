package proxy

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/targets"
)

const (
	// probesAtOnce bounds the probes under way in each lane, probesOfOne those of one service in it.
	probesAtOnce = 64
	probesOfOne  = 8
	// firstLook is how long a target may hold a slot of the lane for those that answer.
	firstLook    = 250 * time.Millisecond
	probeTimeout = time.Second // at least; the probe interval where that is longer
)

// health knows which targets answer. It probes those of services with a live connection, and tells package targets,
// which hears of flows too and judges by both. Readers of what DNS answers by take no lock.
//
//	health.go        what is known, for who asks
//	healthtold.go    what probes and flows have found out
//	healthfollow.go  the targets of a snapshot, and the goroutine of each that is probed
//	heirs.go         what is known of a name that another service had
type health struct {
	proxy  *Proxy
	view   atomic.Pointer[view]
	probes sync.WaitGroup
	// Targets that answered last, or refused, or are new, and those that were silent, which hold a slot
	// for as long as a probe may take: however many there are, the others are probed in time.
	prompt, silent lane
	asked          asked
	early          early

	mu        sync.Mutex // one writer of view at a time; guards what follows
	inherited map[link.ID]bool
	watchers  link.Watchers[link.ID] // services, each in the view with what it was made of
	ground    groundAt               // as the view has it
	named     namedBy
	closed    bool
}

// serviceHealth is immutable but for what it points to.
type serviceHealth struct {
	published      *atomic.Bool
	unasked        bool                             // its targets can't be asked: they are taken for ones that answer
	names          []link.NamePort                  // of its targets; none while it has no live connection
	found          found                            // what its names lead to
	prompt, silent lane                             // the service's share
	targets        map[netip.AddrPort]*targetHealth // none while the service has no live connection
	sites          map[string][]*targetHealth       // of targets, those at a site
	set            *targets.Set
}

// targetHealth is one target of one service.
type targetHealth struct {
	service        atomic.Pointer[link.Service] // as of the newest snapshot: for NAT and header
	id             link.ID
	addr           netip.AddrPort
	published      *atomic.Bool
	prompt, silent lane
	set            *targets.Set // which judges
	mu             sync.Mutex   // guards that what follows is what set says
	down           atomic.Bool
	up             atomic.Bool   // answered, and not down since; neither: not known yet
	drained        atomic.Bool   // no flow is sent there, whatever it answers
	probed         chan struct{} // closed after the first probe, or when there will be none
	once           sync.Once
	stop           context.CancelFunc
}

func newHealth(p *Proxy) *health {
	h := &health{proxy: p, prompt: newLane(probesAtOnce), silent: newLane(probesAtOnce), inherited: make(map[link.ID]bool)}
	h.view.Store(new(view))
	return h
}

func (h *health) of(service link.ID) *serviceHealth { return h.view.Load().services.get(service) }

func (h *health) isPublished(service link.ID) bool {
	s := h.find(service)
	return s != nil && s.published.Load()
}

func (h *health) isHealthy(service link.ID) bool {
	s := h.find(service)
	if s == nil {
		return false
	}
	known := s.published.Load()
	for _, t := range s.targets {
		if t.serves(known) {
			return true
		}
	}
	return known && s.found.pending // nothing has said otherwise
}

// isHealthyAt is isHealthy for an endpoint at a site: of its targets there, where it has any.
func (h *health) isHealthyAt(service link.ID, site string) bool {
	s := h.find(service)
	if s == nil || len(s.sites[site]) == 0 {
		return h.isHealthy(service)
	}
	known := s.published.Load()
	return slices.ContainsFunc(s.sites[site], func(t *targetHealth) bool { return t.serves(known) })
}

// serves reports whether a flow would be sent to the target and, as far as is known, be served. Known: the service is published.
func (t *targetHealth) serves(known bool) bool {
	return (t.up.Load() || known && !t.down.Load()) && !t.drained.Load()
}

// wait waits until each name was looked up and each target was probed once.
func (h *health) wait(ctx context.Context) error {
	if err := h.proxy.names.known.Wait(ctx); err != nil {
		return err
	}
	for _, s := range h.view.Load().services.all() {
		for _, t := range s.targets {
			select {
			case <-t.probed:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// TargetStatus is what there is to tell of a target of a service.
type TargetStatus = targets.Status

// Targets returns what there is to tell of the targets of a service, in its order; nothing where the data plane doesn't know it.
// Safe for concurrent use.
func (p *Proxy) Targets(service link.ID) (all []TargetStatus) {
	if s := p.health.of(service); s != nil {
		s.set.Look(time.Now(), func(t targets.Status) { all = append(all, t) })
	}
	return all
}

// close ends all probes and waits for them.
func (h *health) close() {
	h.mu.Lock()
	h.closed = true
	for _, s := range h.view.Load().services.all() {
		for _, t := range s.targets {
			t.stop()
		}
	}
	h.mu.Unlock()
	h.probes.Wait()
}
