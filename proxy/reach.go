package proxy

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
)

// forbidden is why a target may not be connected to: a rule of [link.Snapshot.Refuses].
type forbidden struct {
	target netip.AddrPort
	rule   string
}

func (f forbidden) Error() string { return fmt.Sprintf("target %v: %s", f.target, f.rule) }

// refuses returns why the bytes of a service may not go to a target, "" where they may, on a snapshot and
// on what this node knows of itself. Without a snapshot nothing may.
func (p *Proxy) refuses(s *link.Snapshot, service *link.Service, target netip.AddrPort) string {
	if s == nil {
		return "no snapshot"
	}
	return s.Refuses(service, target, p.Ground())
}

// Ground returns what this node knows of itself, for the rules about targets. It is no longer true when settings
// are committed.
func (p *Proxy) Ground() link.Ground {
	g := link.Ground{Local: p.locals.has}
	if settings := p.settings.Load(); settings != nil {
		g.Listeners = settings.Own
	}
	return g
}

// groundAt says which ground was in force.
type groundAt struct {
	own    []netip.AddrPort
	locals int // the version
}

func (p *Proxy) groundNow() groundAt {
	var g groundAt
	if settings := p.settings.Load(); settings != nil {
		g.own = settings.Own
	}
	if known := p.locals.now.Load(); known != nil {
		g.locals = known.version
	}
	return g
}

func (g groundAt) is(other groundAt) bool {
	return g.locals == other.locals && slices.Equal(g.own, other.own)
}

// guardDial returns what is asked with the very address that the kernel is about to connect to: on the
// newest snapshot, so that nothing which came since the target was chosen is overlooked.
func (p *Proxy) guardDial(service *link.Service) func(to netip.AddrPort) error {
	return func(to netip.AddrPort) error {
		if why := p.refuses(p.snapshot(), service, to); why != "" {
			return forbidden{to, why}
		}
		return nil
	}
}

// localEvery is how long the addresses of the machine are kept: to ask for them takes a few system calls, which may wait for
// whoever changes interfaces. So they are asked for by [Proxy.tend], and by who needs them only where it doesn't keep up.
const localEvery = 5 * time.Second

// locals are the addresses of this machine. The zero value is ready.
type locals struct {
	mu  sync.Mutex // one looks at a time
	now atomic.Pointer[localsAt]
}

type localsAt struct {
	at      time.Time
	addrs   map[netip.Addr]bool
	version int // another one where the addresses are others
}

// has reports whether an address is one of this machine's, as of the last few seconds. Where they can't be
// had those before hold.
func (l *locals) has(a netip.Addr) bool {
	known := l.now.Load()
	if known == nil || time.Since(known.at) >= 2*localEvery {
		known = l.look(known)
	}
	return known.addrs[a]
}

// tend looks again where somebody has asked, and it was a while ago.
func (l *locals) tend() {
	if known := l.now.Load(); known != nil && time.Since(known.at) >= localEvery {
		l.look(known)
	}
}

// look looks, unless somebody else has since known.
func (l *locals) look(known *localsAt) *localsAt {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.now.Load(); now != known {
		return now
	}
	next := &localsAt{at: time.Now(), addrs: make(map[netip.Addr]bool)}
	if all, err := net.InterfaceAddrs(); err == nil {
		for _, one := range all {
			if n, ok := one.(*net.IPNet); ok {
				if a, ok := netip.AddrFromSlice(n.IP); ok {
					next.addrs[a.Unmap()] = true
				}
			}
		}
	} else if known != nil {
		next.addrs = known.addrs
	}
	if known != nil && maps.Equal(known.addrs, next.addrs) {
		next.version = known.version
	} else if known != nil {
		next.version = known.version + 1
	}
	l.now.Store(next)
	return next
}
