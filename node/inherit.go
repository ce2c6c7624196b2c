package node

import (
	"context"
	"net"
	"net/netip"
	"sync"

	"github.com/postern-link/postern/node/succession"
)

// Inheritance is what a node has from the process whose place its own takes.
type Inheritance struct {
	claim func(context.Context) error

	mu        sync.Mutex
	listeners map[netip.AddrPort]*net.TCPListener
	datagrams map[netip.AddrPort]*net.UDPConn
}

// NewInheritance returns one with these listeners, and these sockets for UDP. claim returns when the state may be opened; it is
// called once, by [Open].
func NewInheritance(listeners []*net.TCPListener, datagrams []*net.UDPConn, claim func(context.Context) error) *Inheritance {
	i := &Inheritance{claim: claim, listeners: make(map[netip.AddrPort]*net.TCPListener), datagrams: make(map[netip.AddrPort]*net.UDPConn)}
	for _, l := range listeners {
		i.listeners[l.Addr().(*net.TCPAddr).AddrPort()] = l
	}
	for _, c := range datagrams {
		i.datagrams[c.LocalAddr().(*net.UDPAddr).AddrPort()] = c
	}
	return i
}

// Listener gives out the listener of an address, once; nil where there is none. i may be nil.
func (i *Inheritance) Listener(at netip.AddrPort) *net.TCPListener {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	l := i.listeners[at]
	delete(i.listeners, at)
	return l
}

// takeDatagrams is Listener for UDP.
func (i *Inheritance) takeDatagrams(at netip.AddrPort) *net.UDPConn {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.datagrams[at]
	delete(i.datagrams, at)
	return c
}

// givers returns what gives out listeners and sockets for UDP, nil where there is nothing to give.
func (i *Inheritance) givers() (func(netip.AddrPort) *net.TCPListener, func(netip.AddrPort) *net.UDPConn) {
	if i == nil {
		return nil, nil
	}
	return i.Listener, i.takeDatagrams
}

// Close closes the sockets that nobody has taken: this configuration doesn't want them.
func (i *Inheritance) Close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, l := range i.listeners {
		l.Close()
	}
	for _, c := range i.datagrams {
		c.Close()
	}
	clear(i.listeners)
	clear(i.datagrams)
}

// Inherited gives out the listener that the process before this one had at an address, once; nil where there is none.
func (n *Node) Inherited(at netip.AddrPort) *net.TCPListener { return n.inheritance.Listener(at) }

// Suspend closes the state, so that another process can open it, and the socket beside it. Changes fail until
// [Node.Resume]; what is read is read from the newest snapshot. On an error nothing has changed.
func (n *Node) Suspend(ctx context.Context) error {
	n.exports.pause() // first: they read the state, and another process is going to
	if n.lent != nil {
		if err := n.lent.lend(ctx); err != nil {
			n.exports.resume()
			return err
		}
	}
	n.change.Lock()
	defer n.change.Unlock()
	if n.admin != nil {
		n.admin.leave()
	}
	return nil
}

// Resume takes the state back. What another process has committed meanwhile is in it, but for what it has declared: the
// objects of the configuration in force are as it says. It tries until ctx is done.
func (n *Node) Resume(ctx context.Context) error {
	if n.lent != nil {
		if err := n.lent.take(ctx); err != nil {
			return err
		}
	}
	defer n.exports.resume()
	n.change.Lock()
	defer n.change.Unlock()
	if n.admin != nil && n.admin.left.Load() {
		old := n.admin
		next, err := n.serveAdmin()
		if err != nil {
			n.log.Error("the socket of the state can't be opened again: no backup, restore or upgrade by command until a restart", "error", err)
		} else {
			n.admin = next
			n.ended = append(n.ended, old)
		}
	}
	if n.owed != nil || n.Snapshot() == nil {
		return nil // pay does it
	}
	return n.adopt(ctx, n.config)
}

// OnUpgrade says what is done when somebody who may open the socket beside the state asks for an upgrade: f returns when
// another process has taken the place of this one, or why not.
func (n *Node) OnUpgrade(f func(context.Context) error) { n.upgrade.Store(&f) }

// Host takes in the flows that the process at the other end of c carries, whose place this node's has taken.
func (n *Node) Host(c *succession.Conn) { n.host(c, false) }
