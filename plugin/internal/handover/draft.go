// Package handover carries one node from Corefile to Corefile.
//
// Each Corefile that is read gets a [Draft], which the directives of Postern fill while they parse:
// objects, store, data plane. Nothing is opened meanwhile. What happens next follows the order in
// which Caddy calls back:
//
//	first start   new: OnFirstStartup, OnStartup ──► node.Open
//	reload        old: OnRestart ──► the old draft puts its node into the slot
//	              new: setup of all directives
//	              new: OnStartup ──► the new draft takes the node from the slot: node.Prepare
//	              new: DNS servers start, old: DNS servers stop
//	              old: OnShutdown ──► Commit; without a successor: drain and close
//	failed reload old: OnRestartFailed ──► Abandon
//	exit          OnShutdown ──► nothing yet
//	              OnFinalShutdown ──► drain and close
//
// A failed successor gets no shutdown call of its own, so all that it had prepared is undone by its
// predecessor. Caddy's event hooks are not used: a reload by signal purges them.
package handover

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin/pkg/transport"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/node"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/proxy"
)

// Draft is what one Corefile says: the objects and settings of all its server blocks. Directives
// fill it during setup; after the start it gives access to the node. Methods that fill it are for
// setup only, which Caddy runs in one goroutine.
type Draft struct {
	first  block.Position // of the first directive of ours in the Corefile
	start  bool           // this Corefile starts the process, it reloads nothing
	node   atomic.Pointer[held]
	zones  *link.Zones
	listen map[netip.Addr]bool // addresses that server blocks with a directive of ours are bound to
	own    []netip.AddrPort    // what they and the API listen on, "[::]" for all addresses
	ownUDP []netip.AddrPort    // those of own that are of UDP

	store    Store
	storedAt block.Position
	proxy    *proxy.Settings
	proxyAt  block.Position
	api      node.API
	apiAt    block.Position
	objects  objects
	policies policies
	exports  exports
	exits    []Exit
	declared map[declaredKey]block.Position

	copied  []func() string
	kept    map[string]any
	inForce []func(from uint64, stored bool)
}

// storageKey is where a Caddy instance keeps its draft.
type storageKey struct{}

// Of returns the draft of the Corefile that c reads, and makes it at the first call. Every setup
// of ours begins with it. The error is that c's server block is bound to an address of a pool.
func Of(c *caddy.Controller) (*Draft, error) {
	d, ok := c.Get(storageKey{}).(*Draft)
	if !ok {
		d = &Draft{
			zones:    link.DefaultZones(),
			listen:   make(map[netip.Addr]bool),
			declared: make(map[declaredKey]block.Position),
			first:    first(c),
		}
		c.Set(storageKey{}, d)
		d.register(c)
	}
	server := dnsserver.GetConfig(c)
	for _, host := range server.ListenHosts {
		// The wildcard is "" and an address may have a zone: neither can be an endpoint's.
		addr, err := netip.ParseAddr(host)
		if addr := addr.Unmap(); err == nil && !d.listen[addr] {
			if err := d.checkListener(addr, d.objects.networks...); err != nil {
				return d, err
			}
			d.listen[addr] = true
		}
		if port, err := strconv.ParseUint(server.Port, 10, 16); err == nil {
			own := netip.AddrPortFrom(cmp.Or(addr.Unmap().WithZone(""), netip.IPv6Unspecified()), uint16(port))
			d.addOwn(own)
			if server.Transport == transport.DNS && !slices.Contains(d.ownUDP, own) {
				d.ownUDP = append(d.ownUDP, own)
			}
		}
	}
	return d, nil
}

// addOwn notes what this process is going to listen on: Caddy opens the sockets of DNS after the data plane's.
func (d *Draft) addOwn(at netip.AddrPort) {
	if !slices.Contains(d.own, at) {
		d.own = append(d.own, at)
	}
}

// first returns the position of the first of our directives. Setup has not read its name yet.
func first(c *caddy.Controller) block.Position {
	ahead := *c // the tokens are shared, where it stands among them is not
	ahead.Next()
	return block.Here(&ahead, ahead.Val())
}

// register asks Caddy for the callbacks of the instance, once.
func (d *Draft) register(c *caddy.Controller) {
	c.OnFirstStartup(d.onFirstStartup)
	c.OnStartup(d.onStartup)
	c.OnRestart(d.onRestart)
	c.OnRestartFailed(d.onRestartFailed)
	c.OnShutdown(d.onShutdown)
	c.OnFinalShutdown(d.onFinalShutdown)
}

// Snapshot returns the newest snapshot of the node, nil while there is none.
func (d *Draft) Snapshot() *link.Snapshot {
	if h := d.node.Load(); h != nil {
		return h.node.Snapshot()
	}
	return nil
}

// Published reports whether a target of the service has ever answered. False before the start.
func (d *Draft) Published(service link.ID) bool {
	h := d.node.Load()
	return h != nil && h.node.Published(service)
}

// Healthy reports whether a target of the service answers now. False before the start.
func (d *Draft) Healthy(service link.ID) bool {
	h := d.node.Load()
	return h != nil && h.node.Healthy(service)
}

// HealthyAt is Healthy for an endpoint at a site. False before the start.
func (d *Draft) HealthyAt(service link.ID, site string) bool {
	h := d.node.Load()
	return h != nil && h.node.HealthyAt(service, site)
}

// Stale says why the snapshot is too old to answer from, for a service that demands strict freshness
// or for all others; "" where it isn't.
func (d *Draft) Stale(strict bool) string {
	if h := d.node.Load(); h != nil {
		return h.node.Stale(strict)
	}
	return ""
}

// Keep has v found under key, by this draft and by the next Corefile's.
func (d *Draft) Keep(key string, v any) {
	if d.kept == nil {
		d.kept = make(map[string]any)
	}
	d.kept[key] = v
}

// Kept returns what was kept under key, nil where that is nothing.
func (d *Draft) Kept(key string) any { return d.kept[key] }

// Reload reports whether the draft succeeds another one. It is for OnStartup.
func (d *Draft) Reload() bool { return !d.start && slot.predecessor() != nil }

// Before returns what the draft that this one succeeds has kept under key, nil where that is nothing. It is for OnStartup.
func (d *Draft) Before(key string) any {
	if !d.Reload() {
		return nil
	}
	return slot.predecessor().kept[key]
}

// OnForce has f told what [node.Config.InForce] is. It is for setup and OnStartup.
func (d *Draft) OnForce(f func(from uint64, stored bool)) { d.inForce = append(d.inForce, f) }

// Copied has a change of what f returns, some settings that others have copies of what follows from, be a revision of the state. "" stands for none. It is for setup; f is
// called when the server blocks have all their plugins.
func (d *Draft) Copied(f func() string) { d.copied = append(d.copied, f) }

// settings returns [link.Declare].Settings.
func (d *Draft) settings() string {
	all := sha256.New()
	some := false
	for _, f := range d.copied {
		one := f()
		some = some || one != ""
		fmt.Fprintf(all, "%d %s", len(one), one)
	}
	if !some {
		return ""
	}
	return hex.EncodeToString(all.Sum(nil))
}

// Place says where state lives.
type Place = node.Place

// Etcd is a cluster that several nodes share.
type Etcd = node.Etcd

// Store is what linkstore says. Zero values are the defaults.
type Store struct {
	Place  Place         // zero: the default state file
	Origin link.ID       // that owns the declared objects; "": see [Draft.SetStore]
	Bound  time.Duration // of the age of a shared state; 0: never too old
	Strict bool          // live flows are cut at twice the bound
}

// shared reports whether other nodes may have the same state.
func (s *Store) shared() bool { return s.Place != Place{} && s.Place.Shared() }

// SetStore says where the state lives. A Corefile has one state. Without an origin a state file has
// [defaultOrigin], since it has one process and so one Corefile; named after the host, it would refuse
// that on any other. A state that is shared has many, which the names of their hosts tell apart.
func (d *Draft) SetStore(at block.Position, s Store) error {
	if d.storedAt.Line != 0 {
		return at.Errorf("given already at %s; a process has one state", d.storedAt)
	}
	if s.Origin == "" && s.shared() && !s.Place.Etcd.ReadOnly {
		host, err := os.Hostname()
		if err != nil {
			return at.Errorf("origin: %w", err)
		}
		if s.Origin, err = link.ParseID(host); err != nil {
			return at.Errorf("the host's name can't be that of the declaration, give origin NAME: %w", err)
		}
	}
	d.store, d.storedAt = s, at
	return nil
}

// Shared reports whether other nodes may have the same state: what a Corefile speaks of need not be in it.
func (d *Draft) Shared() bool { return d.store.shared() }

// SetProxy switches the data plane on. A Corefile has one.
func (d *Draft) SetProxy(at block.Position, s proxy.Settings) error {
	if d.proxy != nil {
		return at.Errorf("given already at %s; a process has one data plane", d.proxyAt)
	}
	d.proxy, d.proxyAt = &s, at
	return nil
}

// SetAPI switches the control API on, which listens on an address. A Corefile has one. api is called as [node.API] says, and not at
// all where the Corefile is only validated.
func (d *Draft) SetAPI(at block.Position, listen netip.AddrPort, api node.API) error {
	if d.api != nil {
		return at.Errorf("given already at %s; a process has one control API", d.apiAt)
	}
	d.api, d.apiAt = api, at
	d.addOwn(listen)
	return nil
}

// PlaceOf returns where the state of a linkstore lives: where it says nothing, postern.db in the state
// directory of systemd's unit, or else in the working directory.
func PlaceOf(s Store) (Place, error) {
	if s.Place != (Place{}) {
		return s.Place, nil
	}
	// systemd sets it for a unit with StateDirectory=; several are joined with colons.
	dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	path, err := filepath.Abs(filepath.Join(dir, "postern.db"))
	return Place{Bolt: path}, err
}
