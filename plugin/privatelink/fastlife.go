package privatelink

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
	"github.com/postern-link/postern/plugin/privatelink/fastpath"
)

// fasts is what one server block has of the fast path.
type fasts struct {
	word      string         // of the property: on, off, plugins, or "" for where it changes nothing
	at        block.Position // of the property
	p         *Privatelink
	config    *dnsserver.Config
	instance  *caddy.Instance // set when it starts
	keys      int
	decorated bool
	all       []*fast
	without   map[string]string // servers that have none, and why

	// The carrier's lock is held for these.
	begun, over bool              // the servers have begun; others have taken their place
	left        []*fastpath.Group // not needed any more, to be closed

	restarting bool // the instance is being replaced
}

// herald is a server of Caddy's that serves nothing. It is the first that is stopped when an instance is replaced: the new
// servers have begun then, and those of the old one may take seconds to end. It implements [caddy.GracefulServer].
type herald struct{ begun, replaced func() }

// Listen implements [caddy.TCPServer].
func (*herald) Listen() (net.Listener, error) { return nil, nil }

// Serve implements [caddy.TCPServer].
func (h *herald) Serve(net.Listener) error { h.begun(); return nil }

// ListenPacket implements [caddy.UDPServer].
func (*herald) ListenPacket() (net.PacketConn, error) { return nil, nil }

// ServePacket implements [caddy.UDPServer].
func (*herald) ServePacket(net.PacketConn) error { return nil }

// Stop implements [caddy.Stopper].
func (h *herald) Stop() error { h.replaced(); return nil }

// Address implements [caddy.GracefulServer].
func (*herald) Address() string { return name }

// WrapListener implements [caddy.GracefulServer].
func (*herald) WrapListener(l net.Listener) net.Listener { return l }

// drainTime bounds the wait for plugins that are about to be shut down: as long as CoreDNS waits for them.
const drainTime = 5 * time.Second

// fastLog is where it is said whether a server block has a fast path.
var fastLog = sync.OnceValue(func() logger { return handover.NewLogger(name) })

type logger interface {
	Info(msg string, args ...any)
	Error(msg string, args ...any)
}

// register has a server block get its fast path.
func (b *fasts) register(c *caddy.Controller) {
	before := b.config.UDPDecorateWriterFunc
	b.decorated = before != nil
	b.config.UDPDecorateWriterFunc = func(s *dnsserver.Server) dns.DecorateWriter {
		carried.begin(b)
		if before == nil {
			return nil
		}
		return before(s)
	}
	stored := new(int) // to find the instance by
	c.Set(stored, true)
	c.OnStartup(func() error { return b.stage(c, stored) })
	c.OnRestart(func() error { b.restarting = true; return nil })
	c.OnRestartFailed(func() error { b.restarting = false; carried.failed(b); return nil })
	c.OnShutdown(func() error {
		if b.restarting {
			carried.replaced(b)
		}
		return nil
	})
	c.OnFinalShutdown(func() error { carried.end(b); return nil })
}

// stage decides which addresses have a fast path.
func (b *fasts) stage(c *caddy.Controller, stored any) error {
	b.without = make(map[string]string)
	b.instance = instanceOf(stored)
	block := blockReason(b.config, b.keys, b.decorated)
	switch {
	case b.word == "off":
		block = &reason{word: b.word}
	case b.word == "plugins" && block == nil:
		block = &reason{word: b.word, sockets: true}
	}
	var others []*dnsserver.Config
	if block == nil || block.sockets {
		var err error
		if others, err = configs(c, b.instance.Caddyfile()); err != nil {
			return err
		}
	}
	for _, host := range b.config.ListenHosts {
		at, why := netip.AddrPort{}, block
		if why == nil || why.sockets {
			addr, bad := addressReason(b.config, host, others)
			if at = addr; bad != nil {
				why = bad
			}
		}
		server := serverName(b.config, host)
		if why != nil && b.word != "on" && carried.told(b.instance, server) {
			continue // once is enough
		}
		if err := b.tell(server, why); err != nil {
			return err
		}
		if why != nil && !why.sockets {
			b.without[server] = why.word
			continue
		}
		f, err := newFast(b.p, b.config, host, at, why)
		if err != nil {
			return err
		}
		f.block = b
		b.all = append(b.all, f)
	}
	carried.stage(b)
	b.instance.SaveServer(&herald{begun: func() { carried.begin(b) }, replaced: func() {
		if b.restarting {
			carried.succeed(b)
		}
	}}, nil)
	return nil
}

// tell says why a server has no fast path, unless nobody asked for it. Where it was asked for, that is an error.
func (b *fasts) tell(server string, why *reason) error {
	switch {
	case why == nil || b.word == why.word || b.word == "plugins" && why.sockets:
		return nil
	case b.word == "on":
		return b.at.Property("fastpath").Errorf("fastpath: %s: %s", server, why.text)
	case why.sockets:
		fastLog().Info("fastpath has every query answered by the plugins", "server", server, "reason", why.word, "why", why.text)
	default:
		fastLog().Info("fastpath is not used", "server", server, "reason", why.word, "why", why.text)
	}
	return nil
}

// instanceOf returns the instance that has something stored.
func instanceOf(stored any) *caddy.Instance {
	for _, inst := range caddy.Instances() {
		inst.StorageMu.RLock()
		_, ok := inst.Storage[stored]
		inst.StorageMu.RUnlock()
		if ok {
			return inst
		}
	}
	return new(caddy.Instance) // not reached: it is being started
}
