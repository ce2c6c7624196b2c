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

// forbidden are addresses that are no backend of anybody's, with the word for each.
var forbidden = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this host"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local, with the metadata service of clouds"},
	{netip.MustParsePrefix("168.63.129.16/32"), "the platform address of Azure"},
	{netip.MustParsePrefix("100.100.100.200/32"), "the metadata service of Alibaba Cloud"},
	{netip.MustParsePrefix("192.0.0.192/32"), "the metadata service of Oracle Cloud"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved, with broadcast"},
	{netip.MustParsePrefix("::/128"), "this host"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fd00:ec2::254/128"), "the metadata service of AWS"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// forbiddenPorts are those of the store of several nodes.
var forbiddenPorts = []uint16{2379, 2380}

// hostPorts are what no service of a tenant listens on, with the word for each: the data plane may have to
// open the port for all addresses of the machine, which others on it need, if not now then after a restart.
var hostPorts = map[uint16]string{22: "SSH", 53: "DNS", 2379: "the state", 2380: "the state"}

// checkPort returns an error wrapping [ErrAddress] unless a service may have its port. old is the service
// as it is, whose port stays, nil for none.
func (c *Control) checkPort(owner Tenant, old, v *link.Service) error {
	if owner.Operator || old != nil && old.Port == v.Port {
		return nil
	}
	why := ""
	if what, ok := hostPorts[v.Port]; ok {
		why = "it is that of " + what
	} else if slices.ContainsFunc(c.sockets().beside, func(l netip.AddrPort) bool { return l.Port() == v.Port }) {
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
// addresses that are new to it: what it had before another tenant came stays its own. The operator's
// services may have any but those of endpoints, and what the domain refuses.
func (c *Control) checkAddresses(s *link.Snapshot, owner Tenant, old, v *link.Service) error {
	if old == nil {
		old = &link.Service{}
	}
	rules := addressRules{snapshot: s, owner: owner}
	if !owner.Operator {
		own := c.sockets()
		rules.listeners, rules.local = own.listeners, own.local
	}
	for _, t := range v.Targets {
		if slices.Contains(old.Targets, t) {
			continue
		}
		if why := rules.target(t.Addr); why != "" {
			return fmt.Errorf("%w: %w: target %s: %s", link.ErrInvalid, ErrAddress, t.Addr, why)
		}
	}
	for _, a := range v.NAT {
		if slices.Contains(old.NAT, a) {
			continue
		}
		if why := rules.address(a.Unmap()); why != "" {
			return fmt.Errorf("%w: %w: NAT address %s: %s", link.ErrInvalid, ErrAddress, a, why)
		}
	}
	return nil
}

// addressRules judges addresses for one service.
type addressRules struct {
	snapshot  *link.Snapshot
	owner     Tenant
	listeners []netip.AddrPort
	local     []netip.Addr // the addresses of this machine
}

// target returns why a service can't have a target, "" where it can.
func (r *addressRules) target(t netip.AddrPort) string {
	a := t.Addr().Unmap()
	if why := r.address(a); why != "" || r.owner.Operator {
		return why
	}
	if t.Port() == 0 {
		return "port 0 is none"
	}
	if contains(r.owner.Targets, netip.PrefixFrom(a, a.BitLen())) {
		return ""
	}
	if slices.Contains(forbiddenPorts, t.Port()) {
		return fmt.Sprintf("port %d is that of the state", t.Port())
	}
	for _, a := range link.Forms(a) {
		if slices.Contains(r.local, a) {
			return "it is an address of this node"
		}
		if slices.ContainsFunc(r.listeners, func(l netip.AddrPort) bool { return r.listens(l, netip.AddrPortFrom(a, t.Port())) }) {
			return "this node listens there itself"
		}
	}
	return ""
}

// listens reports whether a connection to t ends at a listener of this node.
func (r *addressRules) listens(l, t netip.AddrPort) bool {
	if l.Port() != t.Port() {
		return false
	}
	return l.Addr().Unmap() == t.Addr() || l.Addr().IsUnspecified() && (t.Addr().IsLoopback() || slices.Contains(r.local, t.Addr()))
}

// address returns why neither a target nor a NAT address may be a, "" where it may.
func (r *addressRules) address(a netip.Addr) string {
	if !a.IsValid() || a.Zone() != "" {
		return "not an address"
	}
	for _, a := range link.Forms(a) {
		if r.snapshot.EndpointAt(a) != nil {
			return r.say("it is an endpoint's")
		}
		if n, _ := r.snapshot.PoolOf(a); n != nil {
			return r.say("it is in a pool of endpoint addresses")
		}
		if r.owner.Operator || contains(r.owner.Targets, netip.PrefixFrom(a, a.BitLen())) {
			continue
		}
		for _, f := range forbidden {
			if f.prefix.Contains(a) {
				return f.what
			}
		}
		if r.foreign(a) || r.snapshot.BackendOfAnother(r.owner.Name, a) {
			return notYours
		}
	}
	return ""
}

// say returns why an address can't be had, as far as the owner may know.
func (r *addressRules) say(why string) string {
	if r.owner.Operator {
		return why
	}
	return notYours
}

// foreign reports whether an address is of another tenant's network.
func (r *addressRules) foreign(a netip.Addr) bool {
	for n := range r.snapshot.Networks() {
		if n.Tenant != r.owner.Name && slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return true
		}
	}
	return false
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
