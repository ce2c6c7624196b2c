package link

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
)

// cursor is the next address of a pool to look at. The zero cursor is the start of the first pool.
type cursor struct {
	pool int
	addr netip.Addr
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
	if !inPools(n, e.Address) {
		return fmt.Errorf("%w: address %s is outside of the pools of network %s (%s): %s", ErrInvalid, e.Address, n.ID, n.Origin, listPools(n))
	}
	for _, p := range n.Pools {
		if p.Contains(e.Address) && reserved(p, e.Address) {
			return fmt.Errorf("%w: address %s is the first or last of pool %s", ErrInvalid, e.Address, p)
		}
	}
	if o := t.next.EndpointAt(e.Address); o != nil {
		return fmt.Errorf("%w: address %s is that of endpoint %s (%s)", ErrConflict, e.Address, o.ID, o.Origin)
	}
	return nil
}

// allocate returns a free address of a network's pools: one that was never given out as long as there
// is one, so that a name still cached somewhere doesn't lead to another endpoint.
func (t *tx) allocate(n *Network) (netip.Addr, error) {
	s := &t.next
	c, _ := s.cursors.get([]byte(n.ID))
	for ; c.pool < len(n.Pools); c = (cursor{pool: c.pool + 1}) {
		p := n.Pools[c.pool]
		if !c.addr.IsValid() {
			c.addr = p.Addr()
		}
		for ; c.addr.IsValid() && p.Contains(c.addr); c.addr = c.addr.Next() {
			if a := c.addr; !reserved(p, a) && s.EndpointAt(a) == nil {
				c.addr = a.Next()
				if !c.addr.IsValid() || !p.Contains(c.addr) {
					c = cursor{pool: c.pool + 1}
				}
				s.cursors.put([]byte(n.ID), c)
				return a, nil
			}
		}
	}
	s.cursors.put([]byte(n.ID), c)
	for a, ok := first(s.freed.values(within(n.ID, ""))); ok; a, ok = first(s.freed.values(within(n.ID, ""))) {
		s.freed.drop(freedKey(n.ID, a))
		if s.EndpointAt(a) == nil {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: no address is free in the pools of network %s: %s", ErrExhausted, n.ID, listPools(n))
}

// free notes that an address may be given out again, after all others.
func (t *tx) free(network ID, a netip.Addr) {
	if n := t.next.Network(network); n != nil && inPools(n, a) {
		t.next.freed.put(freedKey(network, a), a)
	}
}

// forgetPools starts the giving out of a network's addresses anew.
func (t *tx) forgetPools(network ID) {
	t.next.cursors.drop([]byte(network))
	for _, a := range slices.Collect(t.next.freed.values(within(network, ""))) {
		t.next.freed.drop(freedKey(network, a))
	}
}

// first returns the first value of seq.
func first[V any](seq iter.Seq[V]) (v V, ok bool) {
	for v := range seq {
		return v, true
	}
	return v, false
}

func freedKey(network ID, a netip.Addr) []byte {
	b := a.As16()
	return append(within(network, ""), b[:]...)
}

func inPools(n *Network, a netip.Addr) bool {
	return slices.ContainsFunc(n.Pools, func(p netip.Prefix) bool { return p.Contains(a) })
}

// reserved reports whether a is the network or broadcast address of an IPv4 pool shorter than /31.
func reserved(p netip.Prefix, a netip.Addr) bool {
	return a.Is4() && p.Bits() < 31 && (a == p.Addr() || !p.Contains(a.Next()))
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
