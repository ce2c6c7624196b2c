package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/datagram"
	"github.com/postern-link/postern/proxy/engine"
)

// listener is one open listening socket. One on the unspecified address takes the connections of
// every routed endpoint address of the family.
type listener struct {
	*net.TCPListener                    // nil for UDP
	datagrams        *datagram.Listener // nil for TCP
	addr             netip.AddrPort
	accepting        engine.Listener // that has taken it over; nil before
	fastOpen         int             // of the settings that it has; -1: not known, of the process before this one
}

// spot is what a listener listens on: the same port of two protocols is two.
type spot struct {
	netip.AddrPort
	protocol link.Protocol
}

// close closes the socket. No connection is accepted any more when it returns.
func (l *listener) close() {
	if l.datagrams != nil {
		l.datagrams.Close()
		return
	}
	if l.accepting == nil {
		l.Close()
		return
	}
	l.accepting.Close()
}

// wants returns the addresses that a snapshot wants listeners on. Where a port is listened on for
// all addresses, that takes the loopback addresses too: the two can't be open side by side.
func wants(s *link.Snapshot, perAddress bool) map[spot]struct{} {
	want := make(map[spot]struct{})
	if s == nil {
		return want
	}
	if perAddress {
		for e := range s.Endpoints() {
			if service := s.Service(e.Service); service != nil && e.Connection.Live() && slices.Contains(protocols, service.Protocol) {
				want[spot{netip.AddrPortFrom(e.Address, service.Port), service.Protocol}] = struct{}{}
			}
		}
		return want
	}
	for _, p := range protocols {
		for port := range s.Ports(p, false) {
			want[spot{netip.AddrPortFrom(netip.IPv4Unspecified(), port), p}] = struct{}{}
		}
		for port := range s.Ports(p, true) {
			want[spot{netip.AddrPortFrom(netip.IPv6Unspecified(), port), p}] = struct{}{}
		}
		for addr := range s.Loopback(p) {
			at := spot{addr, p}
			if _, covered := want[everyAddress(at)]; !covered {
				want[at] = struct{}{}
			}
		}
	}
	return want
}

// protocols are those that there are listeners for: for a service of another, of a newer version, there is none.
var protocols = []link.Protocol{link.TCP, link.UDP}

// everyAddress returns the unspecified address of the family, with the same port.
func everyAddress(a spot) spot {
	all := netip.IPv6Unspecified()
	if a.Addr().Is4() {
		all = netip.IPv4Unspecified()
	}
	return spot{netip.AddrPortFrom(all, a.Port()), a.protocol}
}

// open opens a listening socket; nothing is accepted on it yet. The caller holds mu.
func (p *Proxy) open(at spot) (*listener, error) {
	if at.protocol != link.UDP {
		return open(at.AddrPort)
	}
	l, err := p.datagrams.listen(at.AddrPort)
	if err != nil {
		return nil, refusedListen(at, err)
	}
	return &listener{datagrams: l, addr: at.AddrPort}, nil
}

// open opens a listening socket of TCP.
func open(addr netip.AddrPort) (*listener, error) {
	network := "tcp4"
	if addr.Addr().Is6() {
		network = "tcp6" // sets IPV6_V6ONLY
	}
	c := net.ListenConfig{Control: listenOptions, KeepAlive: -1} // see listenOptions
	c.SetMultipathTCP(false)
	l, err := c.Listen(context.Background(), network, addr.String())
	if err != nil {
		return nil, refusedListen(spot{addr, link.TCP}, err)
	}
	return &listener{TCPListener: l.(*net.TCPListener), addr: addr}, nil
}

func refusedListen(at spot, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) && at.Addr().IsUnspecified() {
		return fmt.Errorf("listen on %v: %w; \"listen address\" in linkproxy takes the addresses of endpoints alone", at, cause(err))
	}
	return fmt.Errorf("listen on %v: %w", at, cause(err))
}

// String returns the address and port, with the protocol where that isn't TCP.
func (a spot) String() string {
	if a.protocol == link.TCP {
		return a.AddrPort.String()
	}
	return a.protocol.String() + " " + a.AddrPort.String()
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
	opened   map[spot]*listener
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
	if err := p.checkResolvers(&settings); err != nil {
		return nil, err
	}
	next := &Prepared{proxy: p, snapshot: s, settings: settings.withDefaults(p.memory), opened: make(map[spot]*listener)}
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
func (n *Prepared) take(addr spot, want map[spot]struct{}) error {
	if _, ok := n.proxy.listeners[addr]; ok {
		return nil
	}
	l, err := n.proxy.openBeside(&n.settings, addr)
	if errors.Is(err, syscall.EADDRINUSE) && (n.proxy.leavesFor(addr, want) || n.proxy.awaits(addr)) {
		return nil
	}
	if err != nil {
		return err
	}
	n.opened[addr] = l
	return nil
}

// awaits reports whether a listener is one that the process before this one closes when this one serves: one of UDP that an
// older version doesn't hand over, or that stands against another one by settings that differ.
func (p *Proxy) awaits(at spot) bool { return p.inherited != nil && at.protocol == link.UDP }

// leavesFor reports whether a listener of ours that is no longer wanted stands against addr.
func (p *Proxy) leavesFor(addr spot, want map[spot]struct{}) bool {
	for have := range p.listeners {
		_, stays := want[have]
		if !stays && have.protocol == addr.protocol && have.Port() == addr.Port() && (have.Addr().IsUnspecified() || addr.Addr().IsUnspecified()) {
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
	was := p.settings.Swap(&n.settings)
	p.tellLimits(was, n.settings)
	if was != nil && !slices.Equal(was.Resolvers, n.settings.Resolvers) {
		p.names.known.Again()
	}
	p.tellEngine(n.settings)
	p.listen(s, n.settings)
	n.discard()
	// Answers are given from the snapshot in force, which the prepared one may not be yet.
	if newest := p.snapshot(); newest != nil {
		s = newest
	}
	p.health.follow(s)
	p.warm.follow()
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
	for _, l := range p.listeners {
		p.tune(l, settings)
	}
}

// tune gives a listener what settings say of those that are open already.
func (p *Proxy) tune(l *listener, s Settings) {
	if l.accepting == nil || l.fastOpen == s.FastOpen {
		return
	}
	l.accepting.Control(func(fd uintptr) {
		if err := fastOpen(fd, s.FastOpen); err != nil {
			p.log.Warn("connections don't begin with fast open", "address", l.addr, "error", err)
		}
	})
	l.fastOpen = s.FastOpen
}

// start opens a listener, or takes the one prepared, and starts its accept loop. The caller holds mu.
func (p *Proxy) start(addr spot) {
	var l *listener
	if p.prepared != nil {
		l = p.prepared.opened[addr]
		delete(p.prepared.opened, addr)
	}
	if l == nil {
		var err error
		if l, err = p.openBeside(p.settings.Load(), addr); err != nil {
			p.lack(addr, err)
			return
		}
	}
	if p.missing[addr] != nil {
		p.log.Info("listener is open now", "address", addr.String())
		delete(p.missing, addr)
	}
	if l.datagrams != nil {
		p.listeners[addr] = l
		p.datagrams.serve(l.datagrams)
		return
	}
	var err error
	if l.accepting, err = p.engine.Listen(l.TCPListener, p.accepting(addr.AddrPort)); err != nil {
		l.Close()
		p.lack(addr, err)
		return
	}
	p.listeners[addr] = l
	p.tune(l, *p.settings.Load())
}

// lack notes that a listener can't be had, and tells when it is new. The caller holds mu.
func (p *Proxy) lack(addr spot, err error) {
	p.metrics.listenerFailures.Inc()
	if p.missing[addr] == nil {
		p.log.Error("listener can't be opened, trying again", "address", addr.String(), "error", err)
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
