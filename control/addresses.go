package control

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
)

// What a service of a tenant may not send to, unless the operator gave the tenant the prefix: else a
// provider could reach through the proxy what only this machine, its cloud or another tenant reaches.

// hostPorts are what no service of TCP of a tenant listens on, with the word for each: the data plane may have to
// open the port for all addresses of the machine, which others on it need, if not now then after a restart.
var hostPorts = map[uint16]string{22: "SSH", 53: "DNS", 2379: "the state", 2380: "the state"}

// hostPortsUDP are the same for services of UDP: what hosts send from and receive on at one and the same port.
var hostPortsUDP = map[uint16]string{
	53: "DNS", 67: "DHCP", 68: "DHCP", 123: "NTP", 500: "IKE", 546: "DHCPv6", 547: "DHCPv6", 4500: "IKE", 5353: "multicast DNS", 5355: "LLMNR",
}

// checkPort returns an error wrapping [ErrAddress] unless a service may have its port. old is the service
// as it is, whose port stays, nil for none.
func (c *Control) checkPort(owner Tenant, old, v *link.Service) error {
	if owner.Operator || old != nil && old.Port == v.Port && old.Protocol == v.Protocol {
		return nil
	}
	theirs, own := hostPorts, c.sockets().beside
	if v.Protocol == link.UDP {
		theirs, own = hostPortsUDP, c.config.OwnUDP
	}
	why := ""
	if what, ok := theirs[v.Port]; ok {
		why = "it is that of " + what
	} else if slices.ContainsFunc(own, func(l netip.AddrPort) bool { return l.Port() == v.Port }) {
		why = "this node listens on it itself"
	}
	if why == "" {
		return nil
	}
	return fmt.Errorf("%w: %w: port %d: %s", link.ErrInvalid, ErrAddress, v.Port, why)
}

// notYours is the one word for what a tenant may not use because of somebody else: which of an endpoint, a
// network or a service of another tenant it is would tell where that tenant has what.
const notYours = "it is outside of what the tenant may send to"

// checkAddresses returns an error wrapping [ErrAddress] unless a service may have the targets and NAT
// addresses that are new to it: what it had before another tenant came stays its own, though no
// flow may go there ([link.Snapshot.Refuses], which the data plane asks too).
func (c *Control) checkAddresses(s *link.Snapshot, owner Tenant, old, v *link.Service) error {
	if old == nil {
		old = &link.Service{}
	}
	own := c.sockets()
	rules := addressRules{
		snapshot: s, owner: owner,
		as: &link.Service{Tenant: owner.Name, Reach: owner.Targets},
		ground: link.Ground{
			Listeners: own.beside,
			Local:     func(a netip.Addr) bool { return slices.Contains(own.local, a) },
		},
	}
	if owner.Operator {
		rules.as.Tenant = ""
	}
	for _, t := range v.Targets {
		if slices.Contains(old.Targets, t) {
			continue
		}
		if why := rules.say(t.Addr.Addr(), s.Refuses(rules.as, t.Addr, rules.ground)); why != "" {
			return fmt.Errorf("%w: %w: target %s: %s", link.ErrInvalid, ErrAddress, t.Addr, why)
		}
	}
	for _, a := range v.NAT {
		if slices.Contains(old.NAT, a) {
			continue
		}
		if why := rules.say(a, s.RefusesAddress(rules.as, a.Unmap())); why != "" {
			return fmt.Errorf("%w: %w: NAT address %s: %s", link.ErrInvalid, ErrAddress, a, why)
		}
	}
	return nil
}

// addressRules judges addresses for one service: by the rules of link, and whose backend they are.
type addressRules struct {
	snapshot *link.Snapshot
	owner    Tenant
	as       *link.Service // the service as far as the rules look at it
	ground   link.Ground
}

// say returns why an address can't be had, as far as the owner may know: why is what the rules say.
func (r *addressRules) say(a netip.Addr, why string) string {
	switch why {
	case link.TargetIsEndpoint, link.TargetIsPool, link.TargetIsForeign:
		if !r.owner.Operator {
			return notYours
		}
		return why
	case "":
		if !r.owner.Operator && r.anothers(a.Unmap()) {
			return notYours
		}
	}
	return why
}

// anothers reports whether an address that wasn't granted is the backend of another tenant.
func (r *addressRules) anothers(a netip.Addr) bool {
	if contains(r.owner.Targets, netip.PrefixFrom(a, a.BitLen())) {
		return false
	}
	return slices.ContainsFunc(link.Forms(a), func(a netip.Addr) bool { return r.snapshot.BackendOfAnother(r.owner.Name, a) })
}

// listens reports whether this node listens on the address itself, on any port.
func (c *Control) listens(a netip.Addr) bool {
	return slices.ContainsFunc(c.sockets().beside, func(l netip.AddrPort) bool { return l.Addr().Unmap() == a })
}

// ownEvery is how long what this node listens on is kept: to find it out may mean to look at every socket.
const ownEvery = 5 * time.Second

// sockets are what this node listens on.
type sockets struct {
	listeners []netip.AddrPort
	beside    []netip.AddrPort // those that aren't the data plane's
	local     []netip.Addr     // the addresses of this machine
}

// ownSockets is what this node listens on, as of a time.
type ownSockets struct {
	mu sync.Mutex
	at time.Time
	sockets
}

// sockets returns what this node listens on; nothing where nobody tells.
func (c *Control) sockets() sockets {
	c.own.mu.Lock()
	defer c.own.mu.Unlock()
	now := c.config.Now()
	if age := now.Sub(c.own.at); c.own.at.IsZero() || age < 0 || age >= ownEvery {
		c.own.at, c.own.sockets = now, c.lookAtSockets()
	}
	return c.own.sockets
}

// lookAtSockets asks for what this node listens on. The data plane may open and close listeners meanwhile:
// it is asked before and after.
func (c *Control) lookAtSockets() sockets {
	plane := func() []netip.AddrPort {
		if c.config.Plane == nil {
			return nil
		}
		return c.config.Plane()
	}
	before := plane()
	var s sockets
	if c.config.Own != nil {
		s.listeners = c.config.Own()
	}
	if c.config.Local != nil {
		s.local = c.config.Local()
	}
	after := plane()
	for _, l := range s.listeners {
		if !slices.Contains(before, l) && !slices.Contains(after, l) {
			s.beside = append(s.beside, l)
		}
	}
	return s
}
