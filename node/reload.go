package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/postern-link/postern/export"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy"
)

// Prepared is a step to a new configuration; nothing has changed before [Prepared.Commit]. Exactly
// one of Commit and Abandon must be called.
type Prepared struct {
	node     *Node
	config   Config
	policies *policies
	exports  []*export.Receiver
	proxy    *proxy.Prepared // of the running data plane, where there is one and stays one
	fresh    *plane          // the data plane, where the old configuration had none
}

// Prepare checks a new configuration against the state and opens what is new. Until Commit or Abandon
// another Prepare waits.
func (n *Node) Prepare(ctx context.Context, c Config) (*Prepared, error) {
	n.change.Lock()
	p, err := n.prepare(ctx, c)
	if err != nil {
		n.change.Unlock()
		return nil, err
	}
	return p, nil
}

func (n *Node) prepare(ctx context.Context, c Config) (_ *Prepared, err error) {
	if c.State != n.place {
		return nil, fmt.Errorf("state %s instead of %s, or reached another way: the state of a running node can't change, restart it", c.State, n.place)
	}
	if err := c.State.Check(); err != nil {
		return nil, err
	}
	if old, now := n.config.Declaration.Declaration, c.Declaration.Declaration; old != now {
		return nil, fmt.Errorf("origin %q instead of %q: the name of a running node's declaration can't change, restart it", now, old)
	}
	next, err := n.expect(n.Snapshot(), c)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			n.expected = expected{}
		}
	}()
	// The API first, as at the start.
	if err := n.prepareAPI(c.API); err != nil {
		return nil, err
	}
	p := &Prepared{node: n, config: c}
	if p.policies, err = n.preparePolicies(ctx, c.Policies); err != nil {
		abandonAPI(c.API)
		return nil, err
	}
	if p.exports, err = n.prepareExports(c.Exports); err != nil {
		abandonAPI(c.API)
		p.discard()
		return nil, err
	}
	if running := n.proxy.Load(); running != nil && c.Proxy != nil {
		p.proxy, err = running.Prepare(next, *c.Proxy)
	} else {
		p.fresh, err = n.newProxy(next, c.Proxy)
	}
	if err != nil {
		abandonAPI(c.API)
		p.discard()
		return nil, err
	}
	return p, nil
}

// discard closes what the step has opened of policies and data plane.
func (p *Prepared) discard() {
	if err := p.node.abandonPolicies(p.policies); err != nil {
		p.node.log.Error("close the policy programs of an abandoned configuration", "error", err)
	}
	p.node.abandonExports(p.exports)
	if p.proxy != nil {
		p.proxy.Abandon()
	}
	if err := p.fresh.discard(); err != nil {
		p.node.log.Error("close the data plane of an abandoned configuration", "error", err)
	}
}

// Commit makes the prepared configuration the one in force. Where the store can't take its objects, for
// want of space or because the state has changed since Prepare, the old objects stay and the error says
// why; the node tries again by itself until it succeeds or another configuration is committed. Until then a
// flow must be allowed by the policies of both.
func (p *Prepared) Commit(ctx context.Context) error {
	n := p.node
	defer n.change.Unlock()
	if p.proxy != nil {
		p.proxy.Commit()
	}
	n.limits.Store(&p.config.Stale)
	n.apis.replace(p.config.API)
	n.commitPolicies(p.policies)
	known := n.Snapshot()
	n.owed = nil
	err := n.adopt(ctx, p.config)
	if err != nil {
		err = fmt.Errorf("the objects of the old configuration stay, trying again: %w", err)
		// The listeners were made for the new ones.
		if running := n.proxy.Load(); running != nil {
			running.Update(n.Snapshot())
		}
		n.owe(&p.config)
	}
	n.commitExports(p.exports) // what is revoked waits for no receiver
	if p.config.Proxy == nil {
		return errors.Join(err, n.dropProxy())
	}
	n.startProxy(ctx, p.fresh, known)
	return err
}

// adopt commits the objects of a configuration and makes it the one in force. The caller holds change.
func (n *Node) adopt(ctx context.Context, c Config) error {
	if n.Snapshot() == nil {
		if err := n.inherit(ctx); err != nil {
			return err
		}
	}
	now, err := n.declare(ctx, c)
	n.expected = expected{}
	if err != nil {
		c.inForce(math.MaxUint64, false)
		return err
	}
	n.config = c
	c.inForce(now.Revision(), false)
	n.enter(now)
	c.inForce(now.Revision(), true)
	n.settlePolicies() // after it: what the old ones allowed, they allowed of the old objects
	return nil
}

func (c *Config) inForce(from uint64, stored bool) {
	if c.InForce != nil {
		c.InForce(from, stored)
	}
}

// inherit does what startProxy can't for a data plane that started without a state.
func (n *Node) inherit(ctx context.Context) error {
	p := n.proxy.Load()
	if p == nil {
		return nil
	}
	known, err := n.store.Load(ctx)
	if err != nil {
		return err
	}
	p.Inherit(liveServices(known)...)
	return nil
}

// owe has the node try to adopt a configuration until it succeeds. The caller holds change.
func (n *Node) owe(c *Config) {
	n.owed = c
	n.paying.Go(func() { n.pay(c) })
}

// How long pay waits before it tries again, doubled from the first to the last, and how long a try may
// take: another configuration waits for it.
const (
	firstPay = 500 * time.Millisecond
	lastPay  = 10 * time.Second
	payTime  = 5 * time.Second
)

// pay tries to adopt a configuration that is owed: a revocation in it must not wait for somebody to notice.
func (n *Node) pay(c *Config) {
	for wait := firstPay; ; wait = min(2*wait, lastPay) {
		select {
		case <-n.life.Done():
			return
		case <-n.wake:
		case <-time.After(wait):
		}
		if n.tryPay(c) {
			return
		}
	}
}

// tryPay reports whether there is nothing left to do.
func (n *Node) tryPay(c *Config) bool {
	n.change.Lock()
	defer n.change.Unlock()
	if n.owed != c {
		return true // another configuration came
	}
	ctx, cancel := context.WithTimeout(n.life, payTime)
	defer cancel()
	if err := n.adopt(ctx, *c); err != nil {
		n.log.Error("the objects of the new configuration can't be stored yet, trying again", "error", err)
		return false
	}
	n.owed = nil
	n.log.Info("the objects of the new configuration are in force now")
	return true
}

// dropProxy ends a data plane that the new configuration no longer has. Its flows go at once: nobody
// would watch over them.
func (n *Node) dropProxy() error {
	running := n.proxy.Load()
	if running == nil {
		return nil
	}
	n.setProxy(nil)
	return running.Close()
}

// Abandon undoes Prepare.
func (p *Prepared) Abandon() {
	defer p.node.change.Unlock()
	p.node.expected = expected{}
	abandonAPI(p.config.API)
	p.discard()
}

// restore makes the state that of a backup, with the objects of the Corefile in force on top.
func (n *Node) restore(ctx context.Context, backup link.Restore) (*link.Snapshot, error) {
	n.change.Lock()
	defer n.change.Unlock()
	now, err := n.replace(ctx, backup)
	if err != nil {
		return nil, err
	}
	n.enter(now)
	return now, nil
}
