package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy"
)

// Prepared is a step to a new configuration; nothing has changed before [Prepared.Commit]. Exactly
// one of Commit and Abandon must be called.
type Prepared struct {
	node   *Node
	config Config
	proxy  *proxy.Prepared // of the running data plane, where there is one and stays one
	fresh  *plane          // the data plane, where the old configuration had none
}

// Prepare checks a new configuration against the state and opens what is new. Until Commit or Abandon
// another Prepare waits.
func (n *Node) Prepare(_ context.Context, c Config) (*Prepared, error) {
	n.change.Lock()
	p, err := n.prepare(c)
	if err != nil {
		n.change.Unlock()
		return nil, err
	}
	return p, nil
}

func (n *Node) prepare(c Config) (*Prepared, error) {
	if c.StatePath != n.path {
		return nil, fmt.Errorf("state file %s instead of %s: the state of a running node can't change, restart it", c.StatePath, n.path)
	}
	if old, now := n.config.Declaration.Declaration, c.Declaration.Declaration; old != now {
		return nil, fmt.Errorf("origin %q instead of %q: the name of a running node's declaration can't change, restart it", now, old)
	}
	next, _, err := n.Snapshot().Apply(time.Now(), c.Declaration)
	if err != nil {
		return nil, err
	}
	p := &Prepared{node: n, config: c}
	if running := n.proxy.Load(); running != nil && c.Proxy != nil {
		p.proxy, err = running.Prepare(next, *c.Proxy)
	} else {
		p.fresh, err = n.newProxy(next, c.Proxy)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Commit makes the prepared configuration the one in force. Where the declaration can't be applied any
// more, because the state has changed since Prepare, the old objects stay and the error says why.
func (p *Prepared) Commit(ctx context.Context) error {
	n := p.node
	defer n.change.Unlock()
	if p.proxy != nil {
		p.proxy.Commit()
	}
	known := n.Snapshot()
	now, err := n.declare(ctx, p.config)
	if err == nil {
		n.config = p.config
		n.put(now)
	} else {
		err = fmt.Errorf("the objects of the old configuration stay: %w", err)
		// The listeners were made for the new ones.
		if running := n.proxy.Load(); running != nil {
			running.Update(n.Snapshot())
		}
	}
	if p.config.Proxy == nil {
		return errors.Join(err, n.dropProxy())
	}
	n.startProxy(ctx, p.fresh, known)
	return err
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
	if p.proxy != nil {
		p.proxy.Abandon()
	}
	if err := p.fresh.discard(); err != nil {
		p.node.log.Error("close the data plane of an abandoned configuration", "error", err)
	}
}

// restore makes the state that of a backup, with the objects of the Corefile in force on top.
func (n *Node) restore(ctx context.Context, from string, objects []link.Object) (*link.Snapshot, error) {
	n.change.Lock()
	defer n.change.Unlock()
	now, err := n.replace(ctx, from, objects)
	if err != nil {
		return nil, err
	}
	n.put(now)
	return now, nil
}
