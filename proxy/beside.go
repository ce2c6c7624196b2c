package proxy

import (
	"fmt"
	"net/netip"
	"syscall"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// What else listens on the machine, and who may stand in whose way.

// open opens a listening socket, unless it stands against one that this process has or is going to have.
func (s *Settings) open(addr netip.AddrPort) (*listener, error) {
	for _, own := range s.Own {
		if against(addr, own) {
			return nil, fmt.Errorf("listen on %v: %w by this node, on %v", addr, syscall.EADDRINUSE, own)
		}
	}
	return open(addr)
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

// judge asks policy about a flow on the newest snapshot. An address that this process listens on itself is
// no endpoint's, whatever the state says: another node, which doesn't know, may have given it out (C10).
func (p *Proxy) judge(r policy.Request) policy.Verdict {
	return p.policy().Admit(p.snapshot(), r, link.Ground{Listeners: p.settings.Load().Own})
}

// declared returns the listeners that endpoints of a declaration want, each for its own address and, where
// it isn't loopback, for all of the family.
func declared(s *link.Snapshot) map[netip.AddrPort]bool {
	found := make(map[netip.AddrPort]bool)
	if s == nil {
		return found
	}
	for e := range s.Endpoints() {
		v := s.Service(e.Service)
		if e.Origin == (link.Origin{}) || v == nil {
			continue
		}
		at := netip.AddrPortFrom(e.Address, v.Port)
		found[at] = true
		if !e.Address.IsLoopback() {
			found[everyAddress(at)] = true
		}
	}
	return found
}

// Listeners returns what is open for endpoints now.
func (p *Proxy) Listeners() (all []netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for addr := range p.listeners {
		all = append(all, addr)
	}
	if p.prepared != nil {
		for addr := range p.prepared.opened {
			all = append(all, addr)
		}
	}
	return all
}
