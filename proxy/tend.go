package proxy

import (
	"time"

	"github.com/postern-link/postern/policy"
)

// tend is the goroutine that looks after everything now and then: idle flows, byte counters,
// missing listeners, summaries of refusals. One ticker for all flows costs less than a timer each.
func (p *Proxy) tend() {
	ticker := time.NewTicker(tendInterval)
	defer ticker.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case now := <-ticker.C:
			for _, f := range p.live.all() {
				f.tend(now)
			}
			p.retry()
			p.refusals.tend(now, p.log)
		}
	}
}

// tend ends a flow in which nothing moved for the service's idle timeout.
func (f *flow) tend(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.established || f.reason != "" {
		return // the steps before have deadlines of their own
	}
	f.count()
	if f.moved.Swap(false) || f.quiet.IsZero() {
		f.quiet = now
		return
	}
	if now.Sub(f.quiet) >= f.verdict.Service.Idle() {
		f.endLocked(policy.Idle)
	}
}

// count brings the bytes since the last time into the metrics. The caller holds mu.
func (f *flow) count() {
	to, from := f.toTarget.Load(), f.toClient.Load()
	f.proxy.metrics.toTarget.Add(float64(to - f.countedTarget))
	f.proxy.metrics.toClient.Add(float64(from - f.countedClient))
	f.countedTarget, f.countedClient = to, from
}
