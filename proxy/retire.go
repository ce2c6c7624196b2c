package proxy

import (
	"context"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// Retire lets another process accept in the place of this one: the listening sockets are closed here, where the other
// process must have them too, and every connection that was accepted is served. Retire returns when no more connections are
// accepted and no more datagrams read. From then on the other process says which flows may go on, by what [Proxy.List] tells of
// them, and this one ends them by [Proxy.Revoke].
//
// Flows of UDP are kept for [Proxy.HandOver] where hands is set: what their clients send meanwhile waits in the listening
// sockets, which the other process must have too. Else they end, and their next datagram begins others there.
func (p *Proxy) Retire(hands bool) {
	p.mu.Lock()
	p.ending = true
	p.retired.Store(true)
	if !hands {
		p.datagrams.shut()
	}
	p.closeListeners(!hands)
	p.stopReceiving()
	p.warm.close()
	p.mu.Unlock()
	if hands {
		p.datagrams.serving.Wait() // what they have received begins flows yet
		p.datagrams.shut()
		return
	}
	sweep(p.live.all(), func(f *flow) {
		if f.protocol == link.UDP {
			f.end(policy.Drain)
		}
	})
}

// stopReceiving has nothing more received on the sockets of UDP that are open. The caller holds mu.
func (p *Proxy) stopReceiving() {
	for _, l := range p.listeners {
		if l.datagrams != nil {
			l.datagrams.Stop()
		}
	}
}

// closeListeners closes what is open, those of UDP too where all is set, and forgets what is missing. The caller holds mu.
func (p *Proxy) closeListeners(all bool) {
	for addr, l := range p.listeners {
		if all || l.datagrams == nil {
			l.close()
			delete(p.listeners, addr)
		}
	}
	clear(p.missing)
	if p.prepared != nil {
		p.prepared.discard()
	}
}

// Revoke resets the flows with these IDs.
func (p *Proxy) Revoke(ids []string) {
	if len(ids) == 0 {
		return
	}
	which := make(map[string]struct{}, len(ids))
	for _, id := range ids {
		which[id] = struct{}{}
	}
	sweep(p.live.all(), func(f *flow) {
		if _, is := which[f.id.String()]; is {
			f.end(policy.Revoked)
		}
	})
}

// Reset resets all flows: nobody can say any more which of them may go on.
func (p *Proxy) Reset() { p.cutAll(policy.Drain) }

// Leave waits until every flow has ended, or until ctx is done, when it resets those left.
func (p *Proxy) Leave(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		p.flows.Wait()
		p.hosts.wait(ctx)
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		p.cutAll(policy.Drain)
		<-done
	}
}
