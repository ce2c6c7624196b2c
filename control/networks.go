package control

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-link/postern/link"
)

// EditNetwork creates, replaces or deletes a network.
func (c *Control) EditNetwork(ctx context.Context, op Op, id link.ID, edit func(s *link.Snapshot, old *link.Network) (*link.Network, error)) (Result, error) {
	return c.change(ctx, op, write{
		action: "network.write", object: object(link.KindNetwork, id),
		subscription: c.SubscriptionOf(id), right: Connect,
		decide: func(s *link.Snapshot, _ time.Time) (verdict, error) {
			n, err := edit(s, s.Network(id))
			switch {
			case err != nil:
				return verdict{}, err
			case n == nil:
				return c.deleteNetwork(s, id)
			}
			return c.putNetwork(s, id, *n)
		},
	})
}

func (c *Control) deleteNetwork(s *link.Snapshot, id link.ID) (verdict, error) {
	v := verdict{action: "network.delete"}
	if s.Network(id) == nil {
		return v, nil
	}
	var users inUse
	for e := range s.EndpointsIn(id) {
		users.add(link.KindEndpoint, e.ID)
	}
	for z := range s.ZonesOf(id) {
		users.add(link.KindZone, z)
	}
	if err := users.err(); err != nil {
		return v, err
	}
	v.changes = []link.Change{link.DeleteNetwork{ID: id}}
	return v, nil
}

func (c *Control) putNetwork(s *link.Snapshot, id link.ID, n link.Network) (verdict, error) {
	v := verdict{action: "network.put"}
	old, owner := s.Network(id), c.owner(c.SubscriptionOf(id))
	n.ID, n.Tenant, n.Origin = id, owner.Name, link.Origin{}
	subnets := 0
	if old == nil {
		if err := ofAPI(link.KindNetwork, id); err != nil {
			return v, err
		}
		v.created, n.UID = true, newUID(n.UID)
		owned := s.Owned(link.KindNetwork, id.Subscription())
		if err := v.near.take(fill{"networks", "networks of a subscription", link.ID(id.Subscription()), owned, owned + 1, c.config.Limits.Networks}); err != nil {
			return v, err
		}
	} else {
		subnets = len(old.Subnets)
	}
	if err := v.near.take(fill{"subnets", "subnets of a network", id, subnets, len(n.Subnets), c.config.Limits.Subnets}); err != nil {
		return v, err
	}
	if err := c.mayHavePrefixes(s, owner, old, &n); err != nil {
		return v, err
	}
	v.changes = []link.Change{link.PutNetwork{Network: n}}
	return v, nil
}

// mayHavePrefixes returns an error unless a tenant may have the prefixes that are new to its network.
func (c *Control) mayHavePrefixes(s *link.Snapshot, owner Tenant, old, n *link.Network) error {
	if owner.Operator {
		return nil
	}
	for _, p := range slices.Concat(n.Prefixes, n.Pools) {
		if old != nil && (slices.Contains(old.Prefixes, p) || slices.Contains(old.Pools, p)) || !p.IsValid() {
			continue // what isn't valid is refused by the domain, which says why
		}
		if why := c.noPrefix(owner, p); why != "" {
			return fmt.Errorf("%w: %w: prefix %s %s", link.ErrInvalid, ErrAddress, p, why)
		}
		if !contains(owner.Networks, p) && targeted(s, n.Tenant, p) {
			return fmt.Errorf("%w: address space %s is in use", link.ErrConflict, p)
		}
	}
	return nil
}

// targeted reports whether a service of another tenant has a target in a prefix: who could make a network around it without
// a grant would take it from the service.
func targeted(s *link.Snapshot, tenant string, p netip.Prefix) bool {
	for v := range s.Services() {
		in := func(t link.Target) bool { return p.Contains(t.Addr.Addr()) }
		if v.Tenant != tenant && slices.ContainsFunc(v.Targets, in) {
			return true
		}
	}
	return false
}

// noPrefix returns why a tenant can't have a prefix, "" where it can. What it was granted it has whatever it
// is. Without a grant a network is private space of the size of Azure's largest, and neither this node nor
// who it asks for proofs of domains is a client of it: else a tenant could answer them in a zone of its own.
func (c *Control) noPrefix(owner Tenant, p netip.Prefix) string {
	if contains(owner.Networks, p) {
		return ""
	}
	if len(owner.Networks) > 0 {
		return fmt.Sprintf("is outside of what the tenant may have: %v", owner.Networks)
	}
	for _, q := range noNetwork {
		if p.Overlaps(q) {
			return fmt.Sprintf("has addresses of %s, which are no network", q)
		}
	}
	most := largest4
	if p.Addr().Is6() {
		most = largest6
	}
	switch {
	case !contains(private, p):
		return fmt.Sprintf("isn't private: without a grant of the operator it must be in one of %v", private)
	case p.Bits() < most:
		return fmt.Sprintf("is too large: without a grant of the operator it may have /%d", most)
	}
	if slices.ContainsFunc(c.sockets().local, p.Contains) || slices.ContainsFunc(c.config.Reserved, p.Contains) {
		return "has addresses of the node, or of the resolver that it asks"
	}
	return ""
}

// What a network may have without a grant (RFC 1918, RFC 6598, RFC 4193), and its largest sizes.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("fc00::/7"),
}

const (
	largest4 = 16
	largest6 = 48
)

// noNetwork are the addresses that no network of a tenant has (RFC 6890): this host, loopback, link-local,
// multicast, reserved, and the forms of IPv6 addresses that stand for IPv4 ones.
var noNetwork = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// contains reports whether one of the prefixes has all of p.
func contains(prefixes []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(prefixes, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) })
}

// ofAPI refuses to make an object where those of a Corefile are.
func ofAPI(kind link.Kind, id link.ID) error {
	if id.Subscription() == "" {
		return fmt.Errorf("%w: %s %s isn't declared: what is here is made in a Corefile", link.ErrConflict, kind, id)
	}
	return nil
}

// newUID returns uid, or a new one where there is none.
func newUID(uid string) string {
	if uid != "" {
		return uid
	}
	var bits [16]byte
	_, _ = rand.Read(bits[:]) // which never fails
	return hex.EncodeToString(bits[:])
}

func object(kind link.Kind, id link.ID) string { return string(kind) + "/" + string(id) }

// inUse collects what needs an object.
type inUse InUseError

func (u *inUse) add(kind link.Kind, id link.ID) {
	if u.N++; len(u.By) < 20 {
		u.By = append(u.By, string(kind)+" "+string(id))
	}
}

func (u *inUse) err() error {
	if u.N == 0 {
		return nil
	}
	return (*InUseError)(u)
}
