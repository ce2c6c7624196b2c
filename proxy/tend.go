package proxy

import (
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/policy"
)

// tend is the goroutine that looks after everything now and then: idle flows, byte counters,
// flows on a view that has expired, missing listeners, connections that are ready, summaries of refusals. One ticker for all flows costs less than a timer each.
func (p *Proxy) tend() {
	ticker := time.NewTicker(tendInterval)
	defer ticker.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case now := <-ticker.C:
			flows := p.live.all()
			for _, f := range flows {
				f.tend(now)
			}
			if !p.retired.Load() { // else another process asks
				p.expire(flows)
				if p.policy().Timed() && p.pace.due(now) {
					p.Review()
				}
			}
			p.retry()
			p.locals.tend()
			p.warm.follow()
			p.refusals.tend(now, p.log)
		}
	}
}

// pace keeps timed rules, which are asked about all flows again and again, from taking all processors where
// they are dear and flows are many. The zero pace is due.
type pace struct {
	next atomic.Pointer[time.Time] // the earliest begin of another round, by the clock that nobody sets
}

// restFor is how many times as long as a round took there is none: a fifth of the time is for rounds.
const restFor = 4

// took notes a round.
func (p *pace) took(began, ended time.Time) {
	next := ended.Add(restFor * ended.Sub(began))
	p.next.Store(&next)
}

// due reports whether there may be another round.
func (p *pace) due(now time.Time) bool {
	next := p.next.Load()
	return next == nil || !now.Before(*next)
}

// expire cuts the flows whose view of the state has expired: nothing else asks about them again while
// no new snapshot comes.
func (p *Proxy) expire(flows []*flow) {
	if p.fresh().Worst() < policy.Expired {
		return
	}
	sweep(flows, func(f *flow) { f.review(nil) })
	p.reviewGuests(nil)
}

// tend ends a flow in which nothing moved for the service's idle timeout.
func (f *flow) tend(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.established || f.reason != "" {
		return // the steps before have deadlines of their own
	}
	f.count()
	if !f.kept {
		f.kept = true
		keep(f.client)
		keep(f.target)
	}
	if f.moved.Swap(false) || f.quiet.IsZero() {
		f.quiet, f.looked = now, time.Time{}
		return
	}
	idle := f.verdict.Service.Idle()
	over := now.Sub(f.quiet) >= idle
	if over || now.Sub(f.looked) >= idle/looksPerIdle {
		if f.drains(now) {
			f.quiet = now
			return
		}
	}
	if over {
		f.endLocked(policy.Idle)
	}
}

// looksPerIdle is how often in an idle timeout the sockets of a quiet flow are looked at.
const looksPerIdle = 8

// drains reports whether a peer has taken bytes since the last look that the copy can't know of: they
// were in the queue of a socket already. A slow reader needs minutes for what the queues hold, and
// until then no write returns. What a peer reads out of its own full queue without making room for a
// segment is nobody's to see. The first look only takes the measure. The caller holds mu.
func (f *flow) drains(now time.Time) bool {
	before, first := f.acked, f.looked.IsZero()
	f.acked, f.looked = [2]uint64{acknowledged(f.client), acknowledged(f.target)}, now
	return !first && f.acked != before
}

// controlled is a connection whose descriptor can be looked at.
type controlled interface{ Control(f func(fd uintptr)) }

// count brings the bytes since the last time into the metrics. The caller holds mu.
func (f *flow) count() {
	to, from := f.toTarget.Load(), f.toClient.Load()
	m := f.metrics()
	m.toTarget.Add(float64(to - f.countedTarget))
	m.toClient.Add(float64(from - f.countedClient))
	f.countedTarget, f.countedClient = to, from
}
