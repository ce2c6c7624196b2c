package link

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// This file holds the rules that an object obeys by itself. Rules between objects are in tx.go.

func (n *Network) check() error {
	if first, _, _ := strings.Cut(string(n.ID), "/"); first == "tenant" || first == "subscription" || n.ID == ID(Anyone) {
		return fmt.Errorf("%w: %q can't be the name of a network", ErrInvalid, n.ID)
	}
	if len(n.Prefixes) == 0 {
		return fmt.Errorf("%w: a network has at least one prefix of client addresses", ErrInvalid)
	}
	for i, p := range n.Prefixes {
		if err := CheckPrefix(p); err != nil {
			return err
		}
		if slices.Contains(n.Prefixes[:i], p) {
			return fmt.Errorf("%w: prefix %s is given twice", ErrInvalid, p)
		}
	}
	for i, p := range n.Pools {
		if err := CheckPrefix(p); err != nil {
			return fmt.Errorf("pool: %w", err)
		}
		for _, q := range notForHosts {
			if p.Overlaps(q) {
				return fmt.Errorf("%w: pool %s has addresses of %s, which no endpoint can have", ErrInvalid, p, q)
			}
		}
		for _, q := range n.Pools[:i] {
			if p.Overlaps(q) {
				return fmt.Errorf("%w: pools %s and %s overlap", ErrInvalid, q, p)
			}
		}
	}
	for _, e := range n.Egress {
		if e == "" || len(e) > 512 {
			return fmt.Errorf("%w: egress list: an entry of %d bytes", ErrInvalid, len(e))
		}
	}
	if err := n.Sites.check(); err != nil {
		return err
	}
	return n.checkSubnets()
}

// checkSize bounds what a network lists. It is for networks that are written: one that is stored stays, so that
// a state opens whatever the bounds were.
func (n *Network) checkSize() error {
	for _, l := range []struct {
		what       string
		have, most int
	}{
		{"prefixes", len(n.Prefixes), MaxPrefixes},
		{"pools", len(n.Pools), MaxPrefixes},
		{"subnets", len(n.Subnets), MaxSubnets},
		{"entries of the egress list", len(n.Egress), MaxEgress},
	} {
		if l.have > l.most {
			return fmt.Errorf("%w: %d %s of a network, %d are allowed", ErrInvalid, l.have, l.what, l.most)
		}
	}
	for _, sub := range n.Subnets {
		if len(sub.Prefixes) > MaxSubnetPrefixes {
			return fmt.Errorf("%w: subnet %s: %d prefixes, %d are allowed", ErrInvalid, clip(sub.Name), len(sub.Prefixes), MaxSubnetPrefixes)
		}
	}
	return nil
}

func (n *Network) checkSubnets() error {
	names := make(map[string]bool, len(n.Subnets))
	for _, sub := range n.Subnets {
		if id, err := ParseID(sub.Name); err != nil || string(id) != sub.Name || strings.Contains(sub.Name, "/") {
			return fmt.Errorf("%w: name %q of a subnet", ErrInvalid, clip(sub.Name))
		}
		if names[sub.Name] {
			return fmt.Errorf("%w: subnet %s is given twice", ErrInvalid, sub.Name)
		}
		names[sub.Name] = true
		if len(sub.Prefixes) == 0 {
			return fmt.Errorf("%w: subnet %s has no prefix", ErrInvalid, sub.Name)
		}
		for _, p := range sub.Prefixes {
			if err := CheckPrefix(p); err != nil {
				return fmt.Errorf("subnet %s: %w", sub.Name, err)
			}
			within := func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) }
			if !slices.ContainsFunc(n.Prefixes, within) {
				return fmt.Errorf("%w: subnet %s: %s is outside of the prefixes of the network: %s", ErrOutside, sub.Name, p, list(n.Prefixes))
			}
			for _, q := range notForHosts {
				if p.Overlaps(q) {
					return fmt.Errorf("%w: subnet %s: %s has addresses of %s, which no endpoint can have", ErrInvalid, sub.Name, p, q)
				}
			}
		}
	}
	return n.checkOverlap()
}

// checkOverlap refuses subnets that share addresses with each other or a pool. In order of their addresses, a
// prefix that shares any with one behind it does so with the next.
func (n *Network) checkOverlap() error {
	type part struct {
		prefix netip.Prefix
		subnet int // -1: a pool
	}
	var parts []part
	for _, p := range n.Pools {
		parts = append(parts, part{p, -1})
	}
	for i, sub := range n.Subnets {
		for _, p := range sub.Prefixes {
			parts = append(parts, part{p, i})
		}
	}
	slices.SortStableFunc(parts, func(a, b part) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	})
	for i := 1; i < len(parts); i++ {
		a, b := parts[i-1], parts[i]
		if a.subnet > b.subnet {
			a, b = b, a
		}
		if a.prefix.Overlaps(b.prefix) {
			return fmt.Errorf("%w: subnet %s: %s overlaps %s", ErrOverlap, n.Subnets[b.subnet].Name, b.prefix, a.prefix)
		}
	}
	return nil
}

// notForHosts are the addresses that neither an endpoint nor a target can have: this network, link-local
// (with the metadata services of clouds), multicast, reserved and broadcast (RFC 6890).
var notForHosts = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/128"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

func forHosts(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" &&
		!slices.ContainsFunc(notForHosts, func(p netip.Prefix) bool { return p.Contains(a) })
}

// CheckPrefix returns an error wrapping [ErrInvalid] unless p is a masked prefix, and not one of
// IPv4-mapped IPv6 addresses.
func CheckPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return fmt.Errorf("%w: no prefix", ErrInvalid)
	case p.Addr().Is4In6():
		return fmt.Errorf("%w: prefix %s is of IPv4-mapped addresses: write it as IPv4", ErrInvalid, p)
	case p != p.Masked():
		return fmt.Errorf("%w: prefix %s has host bits set: did you mean %s?", ErrInvalid, p, p.Masked())
	}
	return nil
}

func (s *Service) check() error {
	if s.Port == 0 {
		return fmt.Errorf("%w: port 0", ErrInvalid)
	}
	if len(s.Targets)+len(s.TargetNames) == 0 && s.ID.Subscription() == "" {
		return fmt.Errorf("%w: a service has at least one target", ErrInvalid)
	}
	for i, t := range s.Targets {
		if err := t.check(); err != nil {
			return err
		}
		if slices.Contains(s.Targets[:i], t) {
			return fmt.Errorf("%w: target %s is given twice", ErrInvalid, t.Addr)
		}
	}
	if err := s.checkTargetNames(); err != nil {
		return err
	}
	if err := s.checkNames(); err != nil {
		return err
	}
	if err := s.checkParties(); err != nil {
		return err
	}
	switch s.ProxyProtocol {
	case ProxyOff, ProxyV1, ProxyV2, ProxyAzure, ProxyAWS, ProxyGCP:
	default:
		return fmt.Errorf("%w: PROXY protocol %q: off, v1, v2, azure, aws and gcp are allowed", ErrInvalid, s.ProxyProtocol)
	}
	if len(s.NAT) > MaxNAT {
		return fmt.Errorf("%w: %d NAT addresses, %d are allowed", ErrInvalid, len(s.NAT), MaxNAT)
	}
	for i, a := range s.NAT {
		if !forHosts(a) {
			return fmt.Errorf("%w: NAT address %s is not one to connect from", ErrInvalid, a)
		}
		if slices.Contains(s.NAT[:i], a) {
			return fmt.Errorf("%w: NAT address %s is given twice", ErrInvalid, a)
		}
	}
	if _, least, most := s.Protocol.IdleBounds(); s.IdleTimeout != 0 && (s.IdleTimeout < least || s.IdleTimeout > most) {
		return fmt.Errorf("%w: idle timeout %s, %s to %s are allowed for %s", ErrInvalid, s.IdleTimeout, least, most, s.Protocol)
	}
	if s.MaxConnections < 0 {
		return fmt.Errorf("%w: connection limit %d", ErrInvalid, s.MaxConnections)
	}
	if err := s.Sites.check(); err != nil {
		return err
	}
	return s.Spread.check()
}

func (t Target) check() error {
	if t.Addr.Port() == 0 || !forHosts(t.Addr.Addr()) {
		return fmt.Errorf("%w: target %s is not an address and port to connect to", ErrInvalid, t.Addr)
	}
	return nil
}

func (s *Service) checkNames() error {
	for i, n := range s.Names {
		if p, err := ParsePattern(string(n.Public)); err != nil {
			return err
		} else if p != n.Public {
			return fmt.Errorf("%w: name %q is not in canonical form", ErrInvalid, n.Public)
		}
		if (n.Private == "") != (n.Zone == "") || n.Private != "" && !strings.HasSuffix(string(n.Private), "."+string(n.Zone)) {
			return fmt.Errorf("%w: private name %q is not below its zone %q", ErrInvalid, n.Private, n.Zone)
		}
		if n.Private != "" {
			if p, err := ParsePattern(string(n.Private)); err != nil || p != n.Private {
				return fmt.Errorf("%w: private name %q is not in canonical form", ErrInvalid, n.Private)
			}
		}
		for _, m := range s.Names[:i] {
			if m.Public == n.Public || n.Private != "" && m.Private == n.Private {
				return fmt.Errorf("%w: name %s is given twice", ErrInvalid, n.Public)
			}
		}
	}
	return nil
}

func (s *Service) checkParties() error {
	for _, list := range [][]Party{s.Visible, s.AutoApprove, s.Reject} {
		for _, p := range list {
			if _, err := ParseParty(string(p)); err != nil {
				return err
			}
		}
	}
	if slices.Contains(s.Visible, Anyone) {
		return nil
	}
	for _, p := range s.AutoApprove {
		if !slices.Contains(s.Visible, p) {
			return fmt.Errorf("%w: %s is approved without a decision but can't see the service: it must be visible to them", ErrInvalid, p)
		}
	}
	return nil
}

// ParseParty returns s as a party: "*", "tenant/NAME", "subscription/ID" or the ID of a network. The error wraps [ErrInvalid].
func ParseParty(s string) (Party, error) {
	if s == string(Anyone) {
		return Anyone, nil
	}
	id, err := ParseID(s)
	if err == nil && (id == "tenant" || id == "subscription") {
		err = fmt.Errorf("%w: party %q: write %s/NAME", ErrInvalid, s, id)
	}
	return Party(id), err
}

// Matches reports whether p speaks of the network.
func (p Party) Matches(n *Network) bool {
	if tenant, ok := strings.CutPrefix(string(p), "tenant/"); ok {
		return n.Tenant == tenant
	}
	if sub, ok := strings.CutPrefix(string(p), "subscription/"); ok {
		return n.ID.Subscription() == sub
	}
	return p == Anyone || p == Party(n.ID)
}

// match returns the first party that speaks of the network, "" where none does.
func match(list []Party, n *Network) Party {
	for _, p := range list {
		if p.Matches(n) {
			return p
		}
	}
	return ""
}

func (e *Endpoint) check() error {
	if e.Zones != nil && len(e.Zones.Configs) > MaxZoneConfigs {
		return fmt.Errorf("%w: %d zones in a zone group, %d are allowed", ErrInvalid, len(e.Zones.Configs), MaxZoneConfigs)
	}
	if a := e.Address; a.IsValid() && (a.Is4In6() || a.Zone() != "") {
		return fmt.Errorf("%w: address %s", ErrInvalid, a)
	}
	for i, p := range e.Allow {
		if err := CheckPrefix(p); err != nil {
			return fmt.Errorf("allow-list: %w", err)
		}
		if slices.Contains(e.Allow[:i], p) {
			return fmt.Errorf("%w: allow-list: %s is given twice", ErrInvalid, p)
		}
	}
	return nil
}
