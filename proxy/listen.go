package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/engine"
)

// listener is one open listening socket. One on the unspecified address takes the connections of
// every routed endpoint address of the family.
type listener struct {
	*net.TCPListener
	addr      netip.AddrPort
	accepting engine.Listener    // that took it over when its accept loop began; nil before
	stop      context.CancelFunc // of the accept loop
}

// close closes the socket; its accept loop, if there is one, ends.
func (l *listener) close() {
	if l.accepting == nil {
		l.Close()
		return
	}
	l.stop()
	l.accepting.Close()
}

// wants returns the addresses that a snapshot wants listeners on. Where a port is listened on for
// all addresses, that takes the loopback addresses too: the two can't be open side by side.
func wants(s *link.Snapshot, perAddress bool) map[netip.AddrPort]struct{} {
	want := make(map[netip.AddrPort]struct{})
	if s == nil {
		return want
	}
	if perAddress {
		for e := range s.Endpoints() {
			if service := s.Service(e.Service); service != nil && service.Protocol == link.TCP && e.Connection.Live() {
				want[netip.AddrPortFrom(e.Address, service.Port)] = struct{}{}
			}
		}
		return want
	}
	for port := range s.Ports(link.TCP, false) {
		want[netip.AddrPortFrom(netip.IPv4Unspecified(), port)] = struct{}{}
	}
	for port := range s.Ports(link.TCP, true) {
		want[netip.AddrPortFrom(netip.IPv6Unspecified(), port)] = struct{}{}
	}
	for addr := range s.Loopback(link.TCP) {
		if _, covered := want[everyAddress(addr)]; !covered {
			want[addr] = struct{}{}
		}
	}
	return want
}

// everyAddress returns the unspecified address of the family, with the same port.
func everyAddress(a netip.AddrPort) netip.AddrPort {
	if a.Addr().Is4() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port())
}

// open opens a listening socket; nothing is accepted on it yet.
func open(addr netip.AddrPort) (*listener, error) {
	network := "tcp4"
	if addr.Addr().Is6() {
		network = "tcp6" // sets IPV6_V6ONLY
	}
	c := net.ListenConfig{Control: listenOptions, KeepAlive: -1} // see listenOptions
	c.SetMultipathTCP(false)
	l, err := c.Listen(context.Background(), network, addr.String())
	if errors.Is(err, syscall.EADDRINUSE) && addr.Addr().IsUnspecified() {
		return nil, fmt.Errorf("listen on %v: %w; \"listen address\" in linkproxy takes the addresses of endpoints alone", addr, cause(err))
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %v: %w", addr, cause(err))
	}
	return &listener{TCPListener: l.(*net.TCPListener), addr: addr}, nil
}

// cause returns the error below a *net.OpError, which would only say the address again.
func cause(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}

// Prepared is a step to new settings and listeners: everything new is open and nothing has changed.
type Prepared struct {
	proxy    *Proxy
	snapshot *link.Snapshot
	settings Settings
	opened   map[netip.AddrPort]*listener
}

// Prepare opens the listeners that the snapshot wants and that aren't open yet. They accept nothing
// before Commit. The error names the address that can't be had. An earlier step that was neither
// committed nor abandoned is abandoned.
//
// Only a listener that a declared endpoint wants is an error where it can't be had: whoever writes the
// declaration can mend it. One that endpoints of the API alone want is missing from Commit on, and tried
// again, so that no tenant can keep the node from starting.
//
// A listener that stands against one that goes away with this step, such as one for all addresses
// of a port against one for a single address, is opened by Commit.
func (p *Proxy) Prepare(s *link.Snapshot, settings Settings) (*Prepared, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending {
		return nil, errors.New("the proxy is closed")
	}
	if p.prepared != nil {
		p.prepared.discard()
	}
	next := &Prepared{proxy: p, snapshot: s, settings: settings.withDefaults(p.memory), opened: make(map[netip.AddrPort]*listener)}
	want, firm := wants(s, settings.PerAddress), declared(s)
	for _, must := range []bool{true, false} { // those that matter get the descriptors that there are
		for addr := range want {
			if firm[addr] != must {
				continue
			}
			if err := next.take(addr, want); err != nil && must {
				next.discard()
				return nil, err
			}
		}
	}
	p.prepared = next
	return next, nil
}

// take opens a listener unless it is open, or will be free when another one has gone. Of an error that is
// no reason to give up, Commit finds out again, and tells. The caller holds the proxy's mu.
func (n *Prepared) take(addr netip.AddrPort, want map[netip.AddrPort]struct{}) error {
	if _, ok := n.proxy.listeners[addr]; ok {
		return nil
	}
	l, err := n.settings.open(addr)
	if errors.Is(err, syscall.EADDRINUSE) && n.proxy.leavesFor(addr, want) {
		return nil
	}
	if err != nil {
		return err
	}
	n.opened[addr] = l
	return nil
}

// leavesFor reports whether a listener of ours that is no longer wanted stands against addr.
func (p *Proxy) leavesFor(addr netip.AddrPort, want map[netip.AddrPort]struct{}) bool {
	for have := range p.listeners {
		_, stays := want[have]
		if !stays && have.Port() == addr.Port() && (have.Addr().IsUnspecified() || addr.Addr().IsUnspecified()) {
			return true
		}
	}
	return false
}

// Commit starts what was prepared and closes the listeners that are no longer wanted. Live flows go on.
func (n *Prepared) Commit() {
	p := n.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prepared != n {
		return // abandoned, or the proxy was closed
	}
	s := n.snapshot
	if newest := p.snapshot(); newest != nil && (s == nil || newest.Revision() > s.Revision()) {
		s = newest
	}
	p.tellLimits(p.settings.Swap(&n.settings), n.settings)
	p.listen(s, n.settings)
	n.discard()
	// Answers are given from the snapshot in force, which the prepared one may not be yet.
	if newest := p.snapshot(); newest != nil {
		s = newest
	}
	p.health.follow(s)
	if !p.tending {
		p.tending = true
		p.background.Go(p.tend)
	}
}

// Abandon closes what was opened for it.
func (n *Prepared) Abandon() {
	n.proxy.mu.Lock()
	defer n.proxy.mu.Unlock()
	n.discard()
}

// discard closes what was opened and not taken. The caller holds the proxy's mu.
func (n *Prepared) discard() {
	for _, l := range n.opened {
		l.close()
	}
	clear(n.opened)
	if n.proxy.prepared == n {
		n.proxy.prepared = nil
	}
}

// listen makes the open listeners those that the snapshot wants. The caller holds mu.
func (p *Proxy) listen(s *link.Snapshot, settings Settings) {
	want := wants(s, settings.PerAddress)
	for addr, l := range p.listeners {
		if _, ok := want[addr]; !ok {
			l.close()
			delete(p.listeners, addr)
		}
	}
	for addr := range p.missing {
		if _, ok := want[addr]; !ok {
			delete(p.missing, addr)
		}
	}
	for addr := range want {
		if _, ok := p.listeners[addr]; !ok {
			p.start(addr)
		}
	}
}

// start opens a listener, or takes the one prepared, and starts its accept loop. The caller holds mu.
func (p *Proxy) start(addr netip.AddrPort) {
	var l *listener
	if p.prepared != nil {
		l = p.prepared.opened[addr]
		delete(p.prepared.opened, addr)
	}
	if l == nil {
		var err error
		if l, err = p.settings.Load().open(addr); err != nil {
			p.lack(addr, err)
			return
		}
	}
	if p.missing[addr] != nil {
		p.log.Info("listener is open now", "address", addr)
		delete(p.missing, addr)
	}
	var err error
	if l.accepting, err = p.engine.Listener(l.TCPListener); err != nil {
		l.Close()
		p.lack(addr, err)
		return
	}
	ctx, stop := context.WithCancel(p.ctx)
	l.stop = stop
	p.listeners[addr] = l
	p.accepting.Go(func() { p.accept(ctx, l) })
}

// lack notes that a listener can't be had, and tells when it is new. The caller holds mu.
func (p *Proxy) lack(addr netip.AddrPort, err error) {
	p.metrics.listenerFailures.Inc()
	if p.missing[addr] == nil {
		p.log.Error("listener can't be opened, trying again", "address", addr, "error", err)
	}
	p.missing[addr] = err
}

// retry tries again to open the listeners that are missing.
func (p *Proxy) retry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for addr := range p.missing {
		p.start(addr)
	}
}
