package proxy

import (
	"fmt"
	"net/netip"
	"syscall"

	"github.com/postern-link/postern/link"
)

// What else listens on the machine, and who may stand in whose way.

// inherit takes the listening socket that the process before this one had, nil where there is none.
func (p *Proxy) inherit(at spot) *listener {
	if p.inherited == nil || at.protocol == link.UDP {
		return nil
	}
	if l := p.inherited(at.AddrPort); l != nil {
		return &listener{TCPListener: l, addr: at.AddrPort, fastOpen: -1}
	}
	return nil
}

// openBeside takes the listening socket that the process before this one had, or opens one, unless it stands against one
// that this process has or is going to have.
func (p *Proxy) openBeside(s *Settings, at spot) (*listener, error) {
	if l := p.inherit(at); l != nil {
		return l, nil
	}
	all := s.Own
	if at.protocol == link.UDP {
		all = s.OwnUDP
	}
	for _, own := range all {
		if against(at.AddrPort, own) {
			return nil, fmt.Errorf("listen on %v: %w by this node, on %v", at, syscall.EADDRINUSE, own)
		}
	}
	return p.open(at)
}

// against reports whether two listeners can't be open side by side. Go takes both families on "[::]".
func against(a, other netip.AddrPort) bool {
	switch {
	case a.Port() != other.Port():
		return false
	case other.Addr() == netip.IPv6Unspecified(), a.Addr() == other.Addr():
		return true
	}
	return a.Addr().Is4() == other.Addr().Is4() && (a.Addr().IsUnspecified() || other.Addr().IsUnspecified())
}

// declared returns the listeners that endpoints of a declaration want, each for its own address and, where
// it isn't loopback, for all of the family.
func declared(s *link.Snapshot) map[spot]bool {
	found := make(map[spot]bool)
	if s == nil {
		return found
	}
	for e := range s.Endpoints() {
		v := s.Service(e.Service)
		if e.Origin == (link.Origin{}) || v == nil {
			continue
		}
		at := spot{netip.AddrPortFrom(e.Address, v.Port), v.Protocol}
		found[at] = true
		if !e.Address.IsLoopback() {
			found[everyAddress(at)] = true
		}
	}
	return found
}

// Listeners returns what is open for endpoints of TCP now.
func (p *Proxy) Listeners() (all []netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	opened := map[spot]*listener{}
	if p.prepared != nil {
		opened = p.prepared.opened
	}
	for _, listeners := range []map[spot]*listener{p.listeners, opened} {
		for at := range listeners {
			if at.protocol == link.TCP {
				all = append(all, at.AddrPort)
			}
		}
	}
	return all
}
