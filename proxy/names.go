package proxy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/resolve"
	"github.com/postern-link/postern/proxy/targets"
)

// Targets that are written as names. What a name leads to is an observation of this node: package resolve looks it up for as long
// as a service with a live connection has it, here each address is judged as one that is written down, and what is left
// becomes targets of the service's set. Who dials asks the rules once more, with the very address ([Proxy.guardDial]).

// names are the names of targets.
type names struct {
	proxy   *Proxy
	known   *resolve.Names
	system  resolve.System
	refused atomic.Int64 // addresses that were found and may not be targets, each once for as long as it stays so
	over    atomic.Int64 // and those that were too many
}

func newNames(p *Proxy) *names {
	n := &names{proxy: p}
	asker := resolve.Asker{Servers: n.servers}
	n.known = resolve.New(resolve.Config{
		Lookup:  func(ctx context.Context, name link.Name) resolve.Found { return asker.Lookup(ctx, name) },
		Changed: func(name link.Name) { p.health.renamed(name); p.warm.follow() },
		Log:     func() *slog.Logger { return p.log }, // which isn't there yet
	})
	return n
}

// servers returns whom to ask. A server that is this node is left out: what it answers by is what is being looked for,
// and to a name of its own services it gives the address of an endpoint.
func (n *names) servers() ([]netip.AddrPort, error) {
	settings := n.proxy.settings.Load()
	if settings == nil {
		return nil, errors.New("the data plane hasn't begun")
	}
	all := settings.Resolvers
	if len(all) == 0 {
		var err error
		if all, err = n.system.Servers(); err != nil {
			return nil, fmt.Errorf("whom the system asks: %w", err)
		}
	}
	return resolve.Without(all, n.proxy.ownResolver(settings))
}

// ownResolver returns what reports whether a server is this node itself.
func (p *Proxy) ownResolver(s *Settings) func(netip.AddrPort) bool {
	ground := link.Ground{Listeners: slices.Concat(s.Own, s.OwnUDP), Local: p.locals.has}
	return func(server netip.AddrPort) bool {
		return ground.Listens(netip.AddrPortFrom(server.Addr().Unmap().WithZone(""), server.Port()))
	}
}

// checkResolvers refuses settings that would have this node ask itself.
func (p *Proxy) checkResolvers(s *Settings) error {
	own := p.ownResolver(s)
	for _, server := range s.Resolvers {
		if own(server) {
			return fmt.Errorf("resolver %v: this node listens there itself, and would be told the addresses of its endpoints", server)
		}
	}
	return nil
}

// maxFound bounds the targets that a service has by names: each is probed, and looked at for each flow.
const maxFound = 256

// forbiddenAddr is an address that a name leads to and that is no target.
type forbiddenAddr struct {
	name link.NamePort
	addr netip.Addr
}

// found is what the names of a service lead to, as of a snapshot.
type found struct {
	targets targets.Found
	refused map[forbiddenAddr]string // with the rule
	over    int                      // addresses beyond maxFound
	pending bool                     // a name wasn't looked up yet
}

// of returns what the names of a service lead to.
func (n *names) of(s *link.Snapshot, service *link.Service) (f found) {
	if len(service.TargetNames) == 0 {
		return f
	}
	f.targets, f.refused = make(targets.Found), make(map[forbiddenAddr]string)
	seen := make(map[netip.AddrPort]bool)
	for _, name := range service.TargetNames {
		known := n.known.Get(name.Name)
		f.pending = f.pending || !known.Looked
		for _, a := range known.Addrs {
			to := netip.AddrPortFrom(a, name.Port)
			if rule := n.proxy.refuses(s, service, to); rule != "" {
				f.refused[forbiddenAddr{name, a}] = rule
				continue
			}
			if !seen[to] && len(seen) >= maxFound {
				f.over++
				continue
			}
			seen[to] = true
			f.targets[name] = append(f.targets[name], to)
		}
	}
	return f
}

// tell logs and counts what is refused and wasn't before: one line for each name.
func (n *names) tell(service link.ID, was, now found) {
	if now.over > was.over {
		n.over.Add(int64(now.over - was.over))
		n.proxy.log.Warn("the names of a service's targets lead to more addresses than a service has targets by names", "service", service, "most", maxFound, "left_out", now.over)
	}
	news := make(map[link.NamePort][]forbiddenAddr)
	for one, rule := range now.refused {
		if was.refused[one] != rule {
			news[one.name] = append(news[one.name], one)
		}
	}
	for name, all := range news {
		n.refused.Add(int64(len(all)))
		slices.SortFunc(all, func(a, b forbiddenAddr) int { return a.addr.Compare(b.addr) })
		n.proxy.log.Warn("a name of a target leads where the service may not send", "service", service, "target", name,
			"address", all[0].addr, "rule", now.refused[all[0]], "others", len(all)-1)
	}
}

// renamed takes it that what is known of a name has changed.
func (h *health) renamed(name link.Name) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.view.Load()
	if h.closed || old.snapshot == nil {
		return
	}
	h.turn(old, &view{snapshot: old.snapshot, services: old.services, left: old.left}, maps.Clone(h.named.of[name]))
}

// namedBy are the services that have a target by a name and a live connection: a name may change often where services are many.
// The zero value is ready; it is guarded by the mu of health.
type namedBy struct {
	of    map[link.Name]map[link.ID]bool
	moved []link.Name // that have perhaps become or ceased to be those of a service
}

// turn takes it that a service has become another; nil is none.
func (n *namedBy) turn(id link.ID, was, now *serviceHealth) {
	var before, after []link.NamePort
	if was != nil {
		before = was.names
	}
	if now != nil {
		after = now.names
	}
	if slices.Equal(before, after) {
		return
	}
	for _, name := range before {
		delete(n.of[name.Name], id)
		n.moved = append(n.moved, name.Name)
	}
	for _, name := range after {
		if n.of == nil {
			n.of = make(map[link.Name]map[link.ID]bool)
		}
		if n.of[name.Name] == nil {
			n.of[name.Name] = make(map[link.ID]bool)
		}
		n.of[name.Name][id] = true
		n.moved = append(n.moved, name.Name)
	}
}

// follow has the names looked up that are those of a service, and the others no more.
func (n *namedBy) follow(known *resolve.Names) {
	for _, name := range n.moved {
		if len(n.of[name]) > 0 {
			known.Follow(name)
		} else {
			delete(n.of, name)
			known.Leave(name)
		}
	}
	n.moved = nil
}

// addresses yields the targets of a service: those that are written down, and those that its names lead to.
func (h *health) addresses(service *link.Service) iter.Seq[netip.AddrPort] {
	return func(yield func(netip.AddrPort) bool) {
		for _, t := range service.Targets {
			if !yield(t.Addr) {
				return
			}
		}
		one := h.of(service.ID)
		if one == nil {
			return
		}
		for _, all := range one.found.targets {
			for _, to := range all {
				if !yield(to) {
					return
				}
			}
		}
	}
}

// NameStatus is what there is to tell of a target that is written as a name.
type NameStatus struct {
	Target  link.NamePort
	Addrs   []netip.Addr          // that are targets now
	Refused map[netip.Addr]string // that the name leads to and that may not be targets, with the rule of each
	At      time.Time             // of the lookup that has found them; zero: none has found any
	Err     error                 // of the newest lookup; nil where it has found them
	Looked  bool                  // a lookup has ended; else nothing is known yet, or nobody has asked
}

// Names returns what there is to tell of the names that a service has targets by, in its order. Names of services without a live
// connection aren't looked up. Safe for concurrent use, no lock.
func (p *Proxy) Names(service link.ID) (all []NameStatus) {
	v := p.health.view.Load()
	one := v.services.get(service)
	if one == nil {
		return nil
	}
	for _, name := range v.snapshot.Service(service).TargetNames {
		known := p.names.known.Get(name.Name)
		status := NameStatus{Target: name, At: known.At, Err: known.Err, Looked: known.Looked}
		for _, to := range one.found.targets[name] {
			status.Addrs = append(status.Addrs, to.Addr())
		}
		for _, a := range known.Addrs {
			if rule := one.found.refused[forbiddenAddr{name, a}]; rule != "" {
				if status.Refused == nil {
					status.Refused = make(map[netip.Addr]string)
				}
				status.Refused[a] = rule
			}
		}
		all = append(all, status)
	}
	return all
}
