package proxy

import (
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/engine"
	"github.com/postern-link/postern/proxy/header"
)

// headerFirst is why a guarded flow ends whose first bytes are a PROXY header.
const headerFirst = "first bytes are a PROXY header"

// copy hands both connections to the engine, which copies both ways until both are done: the end of each side is
// passed on as one, on its own, and an error on either side resets both. From here on the flow has no goroutine.
func (f *flow) copy() {
	c := engine.Copy{
		Client: f.client, Target: f.target, Held: f.held,
		ToTarget: &f.toTarget, ToClient: &f.toClient, Moved: &f.moved, Ended: f.copied,
	}
	if f.guarded {
		// A target that takes headers from our address would believe it. The other direction isn't delayed: in
		// some protocols the server speaks first.
		c.Guard, c.GuardSize = header.Begins, header.Longest
	}
	if f.watcher != nil {
		c.Watch, c.Ask = f.watch, f.second
	}
	f.proxy.engine.Copy(c)
}

// copied is told how copying has ended, and ends the flow.
func (f *flow) copied(e engine.End) {
	switch {
	case e.Guarded:
		f.fail(&refusal{policy.Malformed, headerFirst})
	case e.Broken != engine.Nobody:
		f.end(reasonOf(e.Broken))
	default:
		f.mu.Lock()
		f.first = reasonOf(e.First)
		f.mu.Unlock()
	}
	f.finish()
}

// reasonOf returns the reason that stands for a side.
func reasonOf(s engine.Side) policy.Reason {
	if s == engine.Target {
		return policy.Target
	}
	return policy.Client
}

// waiting returns what the client has sent by now, without waiting: so that it goes into the same
// write as the header.
func (f *flow) waiting() []byte {
	b := make([]byte, waitingSize)
	n, _ := f.client.ReadNow(b)
	return b[:n]
}

// waitingSize is what of it is taken at most; the copy takes the rest.
const waitingSize = 2 << 10
