package link

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"strings"
)

// cursor is where in the pools of a network the next address is looked for. The zero cursor is the
// start of the first pool.
type cursor struct {
	pool int
	addr netip.Addr // not valid: the start of the pool
}

// place gives an endpoint without an address one, and checks the one of an endpoint that has one.
func (t *tx) place(e *Endpoint) error {
	n := t.next.Network(e.Network)
	if n == nil {
		return fmt.Errorf("%w: network %s", ErrNotFound, e.Network)
	}
	if !e.Address.IsValid() {
		a, err := t.allocate(n)
		e.Address = a
		return err
	}
	if err := n.fits(e.Address); err != nil {
		return err
	}
	if o := t.next.EndpointAt(e.Address); o != nil {
		return fmt.Errorf("%w: address %s is that of endpoint %s (%s)", ErrConflict, e.Address, o.ID, o.Origin)
	}
	return nil
}

// fits returns an error wrapping [ErrInvalid] unless an endpoint of the network can have the address.
func (n *Network) fits(a netip.Addr) error {
	for _, p := range n.Pools {
		switch {
		case !p.Contains(a):
		case reserved(p, a):
			return fmt.Errorf("%w: address %s is the first or last of pool %s", ErrInvalid, a, p)
		default:
			return nil
		}
	}
	return fmt.Errorf("%w: address %s is outside of the pools of network %s (%s): %s", ErrInvalid, a, n.ID, n.Origin, listPools(n))
}

// allocate returns a free address of a network's pools. It goes round: an address that was given back
// is given out again when all behind it have been, so that a name still cached somewhere doesn't
// lead to another endpoint. After a start, and after a change of the pools, the round begins anew.
func (t *tx) allocate(n *Network) (netip.Addr, error) {
	s := &t.next
	c, _ := s.cursors.get([]byte(n.ID))
	began := c.addr
	for i := 0; len(n.Pools) > 0 && i <= len(n.Pools); i++ { // the pool that the round begins in comes last again, with its beginning
		p := n.Pools[c.pool]
		a := c.addr
		if !a.IsValid() {
			a = p.Addr()
		}
		for ; a.IsValid() && p.Contains(a) && (i < len(n.Pools) || a != began); a = a.Next() {
			if reserved(p, a) || s.EndpointAt(a) != nil {
				continue
			}
			c.addr = a.Next()
			if !c.addr.IsValid() || !p.Contains(c.addr) {
				c = cursor{pool: (c.pool + 1) % len(n.Pools)}
			}
			s.cursors.put([]byte(n.ID), c)
			return a, nil
		}
		c = cursor{pool: (c.pool + 1) % len(n.Pools)}
		if !began.IsValid() && i == len(n.Pools)-1 {
			break // the round began at the start of a pool: there is no beginning left
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: no address is free in the pools of network %s: %s", ErrExhausted, n.ID, listPools(n))
}

// first returns the first value of seq.
func first[V any](seq iter.Seq[V]) (v V, ok bool) {
	for v := range seq {
		return v, true
	}
	return v, false
}

// reserved reports whether an address isn't for a host: the network or broadcast address of an IPv4 pool
// shorter than /31, the Subnet-Router anycast address (RFC 4291 section 2.6.1) of an IPv6 one shorter
// than /127.
func reserved(p netip.Prefix, a netip.Addr) bool {
	if a.BitLen()-p.Bits() < 2 {
		return false
	}
	return a == p.Addr() || a.Is4() && !p.Contains(a.Next())
}

func listPools(n *Network) string {
	if len(n.Pools) == 0 {
		return "it has none"
	}
	var b strings.Builder
	for i, p := range n.Pools {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// newLinkID returns a link ID for the asked-th request of an endpoint that no connection has and
// none had within [LinkIDRest]. It begins at a hash of both: the same Corefile on a second node, or
// on a node that lost its state, then gives the same endpoint the same link ID, which the provider's
// records may name.
func (t *tx) newLinkID(endpoint ID, asked uint32) (LinkID, error) {
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(within(endpoint, ""), asked))
	id := LinkID(binary.BigEndian.Uint32(sum[:]))
	for range 1 << 20 {
		if id != 0 && t.next.EndpointOf(id) == nil {
			r, ok := t.next.retired.get(linkKey(id))
			if !ok || t.at.Sub(r.At) >= LinkIDRest {
				return id, nil
			}
		}
		id++
	}
	return 0, fmt.Errorf("%w: no link ID is free near %s", ErrExhausted, id)
}
