package proxy

import (
	"net/netip"
	"sync"
	"time"

	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/engine"
)

// Pauses of a listener after an error: doubled from the first to the last, anew when there was none for a while.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// accepting is what the engine is told about one listener.
func (p *Proxy) accepting(at netip.AddrPort) engine.Accepting {
	var mu sync.Mutex
	var pause time.Duration
	var failed time.Time
	return engine.Accepting{
		Conn: p.accepted,
		// An error such as EMFILE, ENFILE, ENOBUFS or ECONNABORTED passes.
		Failed: func(err error) time.Duration {
			mu.Lock()
			defer mu.Unlock()
			p.metrics.acceptErrors.Inc()
			if time.Since(failed) > 2*maxPause {
				pause = 0
				p.log.Warn("accepting connections failed, trying again", "address", at, "error", err)
			}
			pause = min(max(2*pause, minPause), maxPause)
			failed = time.Now()
			return pause
		},
	}
}

// accepted is given a connection by the engine, and must not block.
func (p *Proxy) accepted(client engine.Conn, peer, local netip.AddrPort) {
	f := &flow{
		proxy: p, settings: p.settings.Load(), id: p.ids.next(),
		client: client, peer: peer, local: local, began: time.Now(),
		request: policy.Request{Source: peer, Local: local},
	}
	if r := p.live.enter(f, f.settings.MaxFlows); r != nil {
		f.fail(r)
		f.close()
		p.record(f)
		return
	}
	p.flows.Add(1)
	f.begin()
}
