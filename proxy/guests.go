package proxy

import (
	"context"
	"sync"
	"time"

	"github.com/postern-link/postern/policy"
)

// Guests are the live flows of an earlier process, whose place this one has taken. That process carries them, until they
// have ended or its time is over; whether they may go on is said here, as it is for flows of this proxy: by the
// newest snapshot, the rules and the programs of today. They count for no limit. Methods are safe for concurrent use.
type Guests struct {
	proxy *Proxy
	cut   func(ids []string)

	mu    sync.Mutex
	flows map[string]FlowInfo // by ID
	left  bool                // after Leave
	// unasked are those that the programs are still to be asked about; busy while ask runs.
	unasked []string
	busy    bool

	life   context.Context // until Leave
	stop   context.CancelFunc
	asking sync.WaitGroup // ask and what it has begun
}

// hosts are the guests of all earlier processes.
type hosts struct {
	mu    sync.Mutex
	all   map[*Guests]struct{}
	empty chan struct{} // open while there is anybody in all; nil before
	turns chan struct{} // holds a token for each question to a program about a new guest; nil before the first Host
}

// Host makes room for the flows of one earlier process. cut is called with those that must end at once, and must not block.
func (p *Proxy) Host(cut func(ids []string)) *Guests {
	g := &Guests{proxy: p, cut: cut, flows: make(map[string]FlowInfo)}
	g.life, g.stop = context.WithCancel(context.Background())
	h := &p.hosts
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil {
		h.all, h.turns = make(map[*Guests]struct{}), make(chan struct{}, maxAgain)
	}
	if len(h.all) == 0 {
		h.empty = make(chan struct{})
	}
	h.all[g] = struct{}{}
	return g
}

// list returns all guests of this moment.
func (h *hosts) list() (all []*Guests) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for g := range h.all {
		all = append(all, g)
	}
	return all
}

// wait returns when the last has left, or ctx is done.
func (h *hosts) wait(ctx context.Context) {
	h.mu.Lock()
	empty := h.empty
	h.mu.Unlock()
	if empty == nil {
		return
	}
	select {
	case <-empty:
	case <-ctx.Done():
	}
}

// Put adds flows, or what is known of them now, and ends those that aren't allowed: they were let in on an older snapshot,
// and by other programs. Those of today are asked in the background.
func (g *Guests) Put(flows ...FlowInfo) {
	g.mu.Lock()
	if !g.left {
		for _, f := range flows {
			if was, known := g.flows[f.ID]; letIn(&f) && !(known && letIn(&was)) {
				g.unasked = append(g.unasked, f.ID)
			}
			g.flows[f.ID] = f
		}
	}
	g.mu.Unlock()
	// In the set first, so that a revocation finds them there or is in the snapshot that is asked now.
	by := g.proxy.policy()
	g.judge(flows, by)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !hasPrograms(by):
		g.unasked = nil // Reauthorize finds them in the set
	case !g.busy && !g.left && len(g.unasked) > 0:
		g.busy = true
		g.asking.Go(g.ask)
	}
}

// letIn reports whether programs can be asked about a flow.
func letIn(f *FlowInfo) bool { return !f.Standing.Waits && !f.Standing.Unread }

// ask is the goroutine that asks the programs about new flows, a few at once, until it has asked about all or they leave.
func (g *Guests) ask() {
	turns := g.proxy.hosts.turns
	for {
		f, ok := g.next()
		if !ok {
			return
		}
		select {
		case turns <- struct{}{}:
		case <-g.life.Done():
			return
		}
		g.asking.Go(func() {
			defer func() { <-turns }()
			g.reauthorize(g.life, &f)
		})
	}
}

// next returns a flow that is to be asked about and is still there.
func (g *Guests) next() (FlowInfo, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.unasked) > 0 {
		id := g.unasked[0]
		g.unasked = g.unasked[1:]
		if f, there := g.flows[id]; there {
			return f, true
		}
	}
	g.unasked, g.busy = nil, false
	return FlowInfo{}, false
}

// Drop removes flows that have ended.
func (g *Guests) Drop(ids ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range ids {
		delete(g.flows, id)
	}
}

// Leave removes them all: their process has ended. No program is asked about them afterwards.
func (g *Guests) Leave() {
	g.mu.Lock()
	g.left, g.unasked = true, nil
	clear(g.flows)
	g.mu.Unlock()
	g.stop()
	g.asking.Wait()
	h := &g.proxy.hosts
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, there := h.all[g]; !there {
		return
	}
	if delete(h.all, g); len(h.all) == 0 {
		close(h.empty)
		h.empty = nil
	}
}

// list returns the flows of this moment.
func (g *Guests) list() []FlowInfo {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]FlowInfo, 0, len(g.flows))
	for _, f := range g.flows {
		all = append(all, f)
	}
	return all
}

// judge asks about flows, without a lock, and ends those that may not go on. by are the rules to ask too, nil: the
// state alone.
func (g *Guests) judge(flows []FlowInfo, by *policy.Policy) {
	var denied []string
	for i := range flows {
		if _, stands := g.stands(&flows[i], by); !stands {
			denied = append(denied, flows[i].ID)
		}
	}
	g.end(denied)
}

// stands asks about one flow, on the newest snapshot.
func (g *Guests) stands(f *FlowInfo, by *policy.Policy) (policy.Verdict, bool) {
	is := f.Standing
	is.View, is.At = g.proxy.fresh(), time.Now()
	return by.Stands(g.proxy.snapshot(), is, g.proxy.Ground())
}

// end has flows ended, and forgets them.
func (g *Guests) end(ids []string) {
	if len(ids) == 0 {
		return
	}
	g.Drop(ids...)
	g.cut(ids)
	g.proxy.log.Info("flows of an earlier process are ended", "reason", policy.Revoked, "flows", len(ids))
}

// reviewGuests asks about all of them.
func (p *Proxy) reviewGuests(by *policy.Policy) {
	for _, g := range p.hosts.list() {
		g.judge(g.list(), by)
	}
}

// reauthorizeGuests asks the programs about those that were let in, one after the other, until ctx is done.
func (p *Proxy) reauthorizeGuests(ctx context.Context) {
	for _, g := range p.hosts.list() {
		for _, f := range g.list() {
			if ctx.Err() != nil {
				return
			}
			g.reauthorize(ctx, &f)
		}
	}
}

func (g *Guests) reauthorize(ctx context.Context, f *FlowInfo) {
	by := g.proxy.policy()
	v, stands := g.stands(f, by)
	if !stands || !letIn(f) {
		return // for review to end, or not let in yet
	}
	if _, denied := denies(ctx, by, policy.Question{Flow: f.ID, Request: f.Standing.Request, Verdict: v}); denied {
		g.end([]string{f.ID})
	}
}

// cutGuests ends all of them: nobody would watch over them.
func (p *Proxy) cutGuests() {
	for _, g := range p.hosts.list() {
		ids := []string{}
		for _, f := range g.list() {
			ids = append(ids, f.ID)
		}
		g.end(ids)
	}
}
