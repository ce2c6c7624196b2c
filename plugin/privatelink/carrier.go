package privatelink

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/coredns/caddy"

	"github.com/postern-link/postern/plugin/privatelink/fastpath"
)

// The sockets of the fast path go from Corefile to Corefile; what they serve is replaced with one pointer:
//
//	start, reload    new: OnStartup ──► what is to be served is staged; nothing is opened and nothing said
//	                 new: its DNS servers begin ──► served: sockets are opened or get the new target
//	                 old: its herald is stopped ──► the same, where it isn't done yet; what nobody serves any more gets no more queries
//	                 old: OnShutdown, its DNS servers have ended ──► sockets that nobody wants any more are closed
//	failed reload    old: OnRestartFailed ──► what is staged is dropped; where the old one has no privatelink, at the next start
//	exit             OnFinalShutdown ──► closed, after the lame duck time of health
//	another process  [StopFast] ──► not read any more; that process has the sockets
//	  which fails    [SteerFast] ──► the sockets get the queries again, or others do where that process has left them
//
// When the servers begin nothing can fail any more, so that no datagram comes to a socket that is closed again.
type carrier struct {
	mu     sync.Mutex
	groups map[netip.AddrPort]*fastpath.Group
	staged []*fasts
	said   map[string]*fasts // whose words the metrics have of a server
}

// carried is what this process has.
var carried = carrier{groups: make(map[netip.AddrPort]*fastpath.Group), said: make(map[string]*fasts)}

func (r *carrier) stage(b *fasts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// One instance starts at a time: what another has left here is in force, or never will be.
	r.staged = slices.DeleteFunc(r.staged, func(other *fasts) bool { return other.instance != b.instance })
	r.staged = append(r.staged, b)
}

// told reports whether another block of an instance has the same server, and has said why that has no fast path.
func (r *carrier) told(inst *caddy.Instance, server string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.staged, func(b *fasts) bool {
		why, ok := b.without[server]
		return ok && b.instance == inst && why != b.word // off says nothing
	})
}

// failed forgets what was staged for a reload that has failed. One that fails when the new servers have begun isn't undone by that.
func (r *carrier) failed(old *fasts) {
	r.mu.Lock()
	r.staged = nil
	over := old.over
	r.mu.Unlock()
	if over {
		r.replaced(old)
	}
}

// BeginFast puts in force what is staged: the servers begin, and nothing of the process before this one may be dropped first.
func BeginFast() {
	carried.mu.Lock()
	defer carried.mu.Unlock()
	carried.beginStaged()
}

// beginStaged is called with the lock held. An instance that has failed to start isn't among Caddy's any more.
func (r *carrier) beginStaged() {
	for _, b := range r.staged {
		if slices.Contains(caddy.Instances(), b.instance) {
			r.beginOne(b)
		}
	}
	r.staged = nil
}

// begin puts what a block has in force: its servers begin.
func (r *carrier) begin(b *fasts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beginOne(b)
}

// beginOne is called with the lock held.
func (r *carrier) beginOne(b *fasts) {
	if b.begun || b.over {
		return
	}
	b.begun = true
	for server, why := range b.without {
		r.say(b, server, why)
	}
	for _, f := range b.all {
		r.serve(b, f)
	}
}

// say is called with the lock held.
func (r *carrier) say(b *fasts, server, why string) {
	r.said[server] = b
	setFast(server, why)
}

// serve is called with the lock held.
func (r *carrier) serve(b *fasts, f *fast) {
	f.meter()
	g := r.groups[f.at]
	if g != nil {
		g.Use(f.target)
	} else {
		var err error
		if g, err = fastpath.Open(f.at, f.target); err != nil {
			fastLog().Error("fastpath is not used", "server", f.server.Addr, "err", err)
			r.say(b, f.server.Addr, "socket")
			return
		}
		r.groups[f.at] = g
	}
	r.steer(b, f, g)
}

// steer is called with the lock held.
func (r *carrier) steer(b *fasts, f *fast, g *fastpath.Group) {
	err := g.Steer(f.sockets, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if g.Target() == f.target && r.groups[f.at] == g {
			r.say(b, f.server.Addr, f.reason())
		}
	})
	if err != nil {
		fastLog().Info("fastpath gets a part of the queries only, for now", "server", f.server.Addr, "why", err)
		r.say(b, f.server.Addr, "filter")
		return
	}
	r.say(b, f.server.Addr, f.reason())
}

// succeed puts in force what takes the place of a block, before the block's own servers end.
func (r *carrier) succeed(old *fasts) {
	r.mu.Lock()
	r.beginStaged()
	old.over = true
	for _, f := range old.all {
		if g := r.groups[f.at]; g != nil && g.Target() == f.target {
			delete(r.groups, f.at)
			old.left = append(old.left, g)
		}
	}
	for server, of := range r.said {
		if of == old {
			delete(r.said, server)
			forgetFast(server)
		}
	}
	r.mu.Unlock()
	each(old.left, (*fastpath.Group).Leave)
}

// replaced ends what a replaced block has. Its servers have ended.
func (r *carrier) replaced(old *fasts) {
	r.mu.Lock()
	for _, f := range old.all {
		g := r.groups[f.at]
		if g == nil {
			continue
		}
		if next, ok := g.Target().Backend.(*fast); ok {
			r.steer(next.block, next, g) // sockets of the old instance may be closed, which gives others their numbers
		}
	}
	r.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { each(old.left, func(g *fastpath.Group) { g.Close(drainTime) }) })
	for _, f := range old.all {
		wg.Go(func() { f.target.Drain(drainTime) })
	}
	wg.Wait()
}

// end closes what a block has. CoreDNS's sockets may be kept for a process after this one.
func (r *carrier) end(b *fasts) {
	r.mu.Lock()
	b.over = true
	var left []*fastpath.Group
	for _, f := range b.all {
		if g := r.groups[f.at]; g != nil && g.Target() == f.target {
			delete(r.groups, f.at)
			left = append(left, g)
		}
	}
	r.mu.Unlock()
	each(left, func(g *fastpath.Group) { g.Leave(); g.Close(drainTime) })
}

// each does something with groups side by side.
func each(all []*fastpath.Group, do func(*fastpath.Group)) {
	var wg sync.WaitGroup
	for _, g := range all {
		wg.Go(func() { do(g) })
	}
	wg.Wait()
}

// SteerFast has the kernel lead queries to the sockets of this process again, after another one that had them too has ended without taking its
// place: that one may have found other numbers for them, which went with its own sockets, or have left them.
func SteerFast() {
	each(carried.reopen(), func(g *fastpath.Group) { g.Close(drainTime) }) // before the numbers are searched, which that changes
	carried.mu.Lock()
	defer carried.mu.Unlock()
	for _, g := range carried.groups {
		if f, ok := g.Target().Backend.(*fast); ok && !g.Retreated() {
			carried.steer(f.block, f, g)
		}
	}
}

// reopen opens others in place of the groups whose sockets get nothing any more, in no process, and returns those. They are closed without the
// lock: a search that has just found something waits for it.
func (r *carrier) reopen() (old []*fastpath.Group) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for at, g := range r.groups {
		f, ok := g.Target().Backend.(*fast)
		if !ok || !g.Retreated() {
			continue
		}
		next, err := fastpath.Open(at, g.Target())
		if err != nil {
			fastLog().Error("fastpath is not used any more", "server", f.server.Addr, "err", err)
			r.say(f.block, f.server.Addr, "socket")
			delete(r.groups, at) // a reload tries again
		} else {
			r.groups[at] = next
		}
		old = append(old, g)
	}
	return old
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
	each(all, func(g *fastpath.Group) { g.Close(drainTime) })
}
