package privatelink

import (
	"net/netip"
	"sync"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
	"github.com/postern-link/postern/plugin/privatelink/fastpath"
)

// The sockets of the fast path go from Corefile to Corefile; what they serve is replaced with one pointer:
//
//	start, reload    new: OnStartup ──► what is to be served is staged; nothing is opened
//	                 new: its DNS servers begin ──► served: sockets are opened or get the new target
//	                 old: OnShutdown ──► the same, where it isn't done yet; sockets that nobody wants any more are closed
//	failed reload    old: OnRestartFailed ──► what is staged is dropped
//	exit             OnFinalShutdown ──► closed, after the lame duck time of health
//	another process  [StopFast] ──► not read any more; that process has the sockets
//
// When the servers begin nothing can fail any more, so that no datagram comes to a socket that is closed again.
type carrier struct {
	mu     sync.Mutex
	groups map[netip.AddrPort]*fastpath.Group
	staged map[netip.AddrPort]*fast
}

// carried is what this process has.
var carried = carrier{groups: make(map[netip.AddrPort]*fastpath.Group), staged: make(map[netip.AddrPort]*fast)}

// drainTime bounds the wait for plugins that are about to be shut down: as long as CoreDNS waits for them.
const drainTime = 5 * time.Second

// fastLog is where it is said whether a server block has a fast path.
var fastLog = sync.OnceValue(func() logger { return handover.NewLogger(name) })

type logger interface {
	Info(msg string, args ...any)
	Error(msg string, args ...any)
}

// fasts is those of one server block.
type fasts struct {
	word      string         // of the property: on, off, or "" for where it changes nothing
	at        block.Position // of the property
	p         *Privatelink
	config    *dnsserver.Config
	keys      int
	decorated bool
	all       []*fast

	restarting bool // the instance is being replaced
}

// register has a server block get its fast path.
func (b *fasts) register(c *caddy.Controller) {
	before := b.config.UDPDecorateWriterFunc
	b.decorated = before != nil
	b.config.UDPDecorateWriterFunc = func(s *dnsserver.Server) dns.DecorateWriter {
		carried.serve(b.all)
		if before == nil {
			return nil
		}
		return before(s)
	}
	instance := new(int) // to be found again
	c.Set(instance, true)
	c.OnStartup(func() error { return b.stage(c, instance) })
	c.OnRestart(func() error { b.restarting = true; return nil })
	c.OnRestartFailed(func() error { b.restarting = false; carried.drop(); return nil })
	c.OnShutdown(func() error {
		if b.restarting {
			carried.replace(b.all)
		}
		return nil
	})
	c.OnFinalShutdown(func() error { carried.end(b.all); return nil })
}

// stage decides which addresses have a fast path.
func (b *fasts) stage(c *caddy.Controller, instance any) error {
	off := func(server string, why *reason) error {
		if b.word == "on" {
			return b.at.Property("fastpath").Errorf("fastpath: %s: %s", server, why.text)
		}
		setFast(server, why.word)
		if b.word == "" {
			fastLog().Info("fastpath is not used", "server", server, "reason", why.word, "why", why.text)
		}
		return nil
	}
	why := blockReason(b.config, b.keys, b.decorated)
	if b.word == "off" {
		why = &reason{"off", ""}
	}
	var others []*dnsserver.Config
	if why == nil {
		var err error
		if others, err = configs(c, fileOf(instance)); err != nil {
			return err
		}
	}
	for _, host := range b.config.ListenHosts {
		at, why := netip.AddrPort{}, why
		if why == nil {
			at, why = addressReason(b.config, host, others)
		}
		if why != nil {
			if err := off(serverName(b.config, host), why); err != nil {
				return err
			}
			continue
		}
		f, err := newFast(b.p, b.config, at)
		if err != nil {
			return err
		}
		b.all = append(b.all, f)
		carried.stage(f)
	}
	return nil
}

// fileOf returns the Corefile of an instance that has something stored.
func fileOf(stored any) caddy.Input {
	for _, inst := range caddy.Instances() {
		inst.StorageMu.RLock()
		_, ok := inst.Storage[stored]
		inst.StorageMu.RUnlock()
		if ok {
			return inst.Caddyfile()
		}
	}
	return caddy.CaddyfileInput{} // not reached: it is being started
}

func (r *carrier) stage(f *fast) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.staged[f.at] = f
}

// drop forgets what was staged for a reload that has failed.
func (r *carrier) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.staged)
}

// serve puts targets in force.
func (r *carrier) serve(all []*fast) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range all {
		r.serveOne(f)
	}
}

// serveOne is called with the lock held.
func (r *carrier) serveOne(f *fast) {
	if r.staged[f.at] == f {
		delete(r.staged, f.at)
	}
	if f.served {
		return
	}
	f.served = true
	g := r.groups[f.at]
	if g != nil {
		g.Use(f.target)
	} else {
		var err error
		if g, err = fastpath.Open(f.at, f.target); err != nil {
			fastLog().Error("fastpath is not used", "server", f.server.Addr, "err", err)
			setFast(f.server.Addr, "socket")
			return
		}
		r.groups[f.at] = g
	}
	r.steer(f, g)
}

func (r *carrier) steer(f *fast, g *fastpath.Group) {
	if err := g.Steer(f.sockets); err != nil {
		fastLog().Error("fastpath gets a part of the queries only", "server", f.server.Addr, "err", err)
	}
	setFast(f.server.Addr, "")
}

// replace ends what a replaced instance has, and puts in force what has taken its place.
func (r *carrier) replace(old []*fast) {
	r.mu.Lock()
	var left []*fastpath.Group
	for _, f := range old {
		g := r.groups[f.at]
		if g == nil {
			continue
		}
		if next := r.staged[f.at]; next != nil {
			r.serveOne(next)
		}
		if g.Target() != f.target {
			if next, ok := g.Target().Backend.(*fast); ok {
				r.steer(next, g) // by now sockets of the old instance may be closed, which gives others their numbers
			}
			continue
		}
		delete(r.groups, f.at)
		left = append(left, g)
	}
	r.mu.Unlock()
	var wg sync.WaitGroup
	for _, g := range left {
		wg.Go(func() { g.Leave(g.Target().Backend.(*fast).sockets) })
	}
	for _, f := range old {
		wg.Go(func() { f.target.Drain(drainTime) })
	}
	wg.Wait()
}

// end closes what an instance has.
func (r *carrier) end(all []*fast) {
	r.mu.Lock()
	var left []*fastpath.Group
	for _, f := range all {
		if g := r.groups[f.at]; g != nil && g.Target() == f.target {
			delete(r.groups, f.at)
			left = append(left, g)
		}
	}
	r.mu.Unlock()
	var wg sync.WaitGroup
	for _, g := range left {
		wg.Go(func() { g.Leave(g.Target().Backend.(*fast).sockets) }) // CoreDNS's sockets may be kept for a process after this one
	}
	wg.Wait()
}

func closeGroups(all []*fastpath.Group) {
	var wg sync.WaitGroup
	for _, g := range all {
		wg.Go(func() { g.Close(drainTime) })
	}
	wg.Wait()
}

// StopFast ends the reading of queries that the fast path has, for another process that has the sockets as well.
func StopFast() {
	carried.mu.Lock()
	var all []*fastpath.Group
	for _, g := range carried.groups {
		all = append(all, g)
	}
	clear(carried.groups)
	carried.mu.Unlock()
	closeGroups(all)
}
