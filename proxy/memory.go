package proxy

import (
	"time"

	"github.com/postern-link/postern/proxy/budget"
)

// What a flow costs in memory, the kernel's for its two sockets included, measured on 64-bit Linux: 8.5 KiB while it is idle,
// about 40 KiB while neither of its peers reads what the other one sends, beside what the kernel has queued.
const (
	flowMemory = 32 << 10
	// flowShare is the part of the memory that the default of max_flows counts on. The rest is for the state, DNS, and
	// flows that are dearer than that.
	flowShare = 2
)

// Where a control group bounds the memory, new flows are refused from one share of it until it is below another, in percent:
// the kernel would kill the process, and with it all flows.
const (
	shortFrom  = 85
	shortUntil = 80
)

// How often the memory is looked at: as soon as it could be short if it filled as fast as this, in bytes in a second, which
// is several times as fast as flows can come.
const (
	fillsAt    = 256 << 20
	looksFirst = 10 * time.Millisecond
	looksLast  = time.Second
)

// flowsFor returns how many flows the memory and the descriptors have room for.
func flowsFor(m budget.Memory, descriptors int) int {
	n := max(1, (descriptors-reserved)/perFlow)
	if m.Limit > 0 {
		n = max(1, int(min(m.Limit/flowShare/flowMemory, int64(n))))
	}
	return n
}

// watchMemory is the goroutine that has new flows refused while memory is short. It ends with the proxy.
func (p *Proxy) watchMemory(m budget.Memory) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	complained := false
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-timer.C:
		}
		used, err := m.Used()
		if err != nil && !complained {
			p.log.Warn("the memory of the control group can't be looked at, max_flows alone bounds the flows", "error", err)
		}
		complained = err != nil
		m.Soften(used)
		timer.Reset(p.lookedAtMemory(used, m.Limit))
	}
}

// lookedAtMemory notes whether memory is short, tells when that has changed, and returns when to look again.
func (p *Proxy) lookedAtMemory(used, limit int64) time.Duration {
	from, was := limit/100*shortFrom, p.live.short.Load()
	switch {
	case !was && used >= from:
		p.live.short.Store(true)
		p.metrics.memoryShort.Set(1)
		p.log.Warn("memory is short, new flows are refused", "used", used, "limit", limit)
	case was && used < limit/100*shortUntil:
		p.live.short.Store(false)
		p.metrics.memoryShort.Set(0)
		p.log.Info("there is memory again, new flows are taken", "used", used, "limit", limit)
	}
	wait := time.Duration(float64(max(from-used, 0)) / fillsAt * float64(time.Second))
	return min(max(wait, looksFirst), looksLast)
}
