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
	r, err := n.rangeOf(e.Subnet)
	if err != nil {
		return err
	}
	if !e.Address.IsValid() {
		e.Address, err = t.allocate(r)
		return err
	}
	if err := r.fits(e.Address); err != nil {
		return err
	}
	switch o := t.next.EndpointAt(e.Address); {
	case o != nil && o.Tenant != e.Tenant:
		return fmt.Errorf("%w: address %s is in use", ErrTaken, e.Address)
	case o != nil:
		return fmt.Errorf("%w: address %s is that of endpoint %s (%s)", ErrTaken, e.Address, o.ID, o.Origin)
	case counter(&t.next.targeted, addrKey(e.Address)) > 0:
		return fmt.Errorf("%w: address %s is a target of a service", ErrTaken, e.Address)
	case counter(&t.next.sources, addrKey(e.Address)) > 0:
		return fmt.Errorf("%w: address %s is one that a service connects from", ErrTaken, e.Address)
	}
	return nil
}

// checkSources returns an error if a service is to connect from the address of an endpoint: what comes back
// to it would reach the endpoint's proxy. Addresses that the service, old, has had before stay.
func (t *tx) checkSources(old, v *Service) error {
	for _, a := range v.NAT {
		if e := t.next.EndpointAt(a); e != nil && (old == nil || !slices.Contains(old.NAT, a)) {
			return fmt.Errorf("%w: NAT address %s is in use", ErrTaken, a)
		}
	}
	return nil
}

// CheckAddress returns an error wrapping [ErrOutside], [ErrReserved] or [ErrNotFound] unless the address is
// one for a host in a subnet of the network, or in its pools for "".
func (n *Network) CheckAddress(subnet string, a netip.Addr) error {
	r, err := n.rangeOf(subnet)
	if err != nil {
		return err
	}
	return r.fits(a)
}

// addresses is where an endpoint may get its address from: the pools of a network, or one subnet.
type addresses struct {
	network  *Network
	subnet   string
	prefixes []netip.Prefix
}

// rangeOf returns the addresses of a subnet of the network, or those of its pools for "".
func (n *Network) rangeOf(subnet string) (addresses, error) {
	if subnet == "" {
		return addresses{network: n, prefixes: n.Pools}, nil
	}
	for _, sub := range n.Subnets {
		if sub.Name == subnet {
			return addresses{n, subnet, sub.Prefixes}, nil
		}
	}
	return addresses{}, fmt.Errorf("%w: subnet %s of network %s", ErrNotFound, subnet, n.ID)
}

// key is where the cursor of the range is kept.
func (r addresses) key() []byte { return within(r.network.ID, r.subnet) }

// fits returns an error wrapping [ErrOutside] or [ErrReserved] unless an endpoint can have the address.
func (r addresses) fits(a netip.Addr) error {
	for _, p := range r.prefixes {
		switch {
		case !p.Contains(a):
		case r.reserved(p, a) && r.subnet == "":
			return fmt.Errorf("%w: address %s is the first or last of pool %s", ErrReserved, a, p)
		case r.reserved(p, a):
			return fmt.Errorf("%w: address %s is one of the first four or the last of subnet %s", ErrReserved, a, p)
		default:
			return nil
		}
	}
	return fmt.Errorf("%w: address %s is outside of %s: %s", ErrOutside, a, r, list(r.prefixes))
}

// fits returns an error unless the endpoint can have its address in the network.
func (n *Network) fits(e *Endpoint) error {
	return n.CheckAddress(e.Subnet, e.Address)
}

// String says which addresses they are.
func (r addresses) String() string {
	if r.subnet == "" {
		return fmt.Sprintf("the pools of network %s (%s)", r.network.ID, r.network.Origin)
	}
	return fmt.Sprintf("subnet %s of network %s", r.subnet, r.network.ID)
}

// allocate returns a free address of a network's pools or subnet. It goes round: an address that was given back
// is given out again when all behind it have been, so that a name still cached somewhere doesn't
// lead to another endpoint. After a start, and after a change of the pools, the round begins anew.
func (t *tx) allocate(r addresses) (netip.Addr, error) {
	s, pools := &t.next, r.prefixes
	c, _ := s.cursors.get(r.key())
	began := c.addr
	for i := 0; len(pools) > 0 && i <= len(pools); i++ { // the pool that the round begins in comes last again, with its beginning
		p := pools[c.pool]
		a := c.addr
		if !a.IsValid() {
			a = p.Addr()
		}
		for ; a.IsValid() && p.Contains(a) && (i < len(pools) || a != began); a = a.Next() {
			if r.reserved(p, a) || s.EndpointAt(a) != nil || counter(&s.targeted, addrKey(a)) > 0 || counter(&s.sources, addrKey(a)) > 0 {
				continue
			}
			c.addr = a.Next()
			if !c.addr.IsValid() || !p.Contains(c.addr) {
				c = cursor{pool: (c.pool + 1) % len(pools)}
			}
			s.cursors.put(r.key(), c)
			return a, nil
		}
		c = cursor{pool: (c.pool + 1) % len(pools)}
		if !began.IsValid() && i == len(pools)-1 {
			break // the round began at the start of a pool: there is no beginning left
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: no address is free in %s: %s", ErrExhausted, r, list(r.prefixes))
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
// Of a subnet that has eight addresses or more the first four are Azure's.
func (r addresses) reserved(p netip.Prefix, a netip.Addr) bool {
	size := a.BitLen() - p.Bits()
	if size < 2 {
		return false
	}
	if r.subnet != "" && size >= 3 {
		first := p.Addr()
		for range 4 {
			if a == first {
				return true
			}
			first = first.Next()
		}
	}
	return a == p.Addr() || a.Is4() && !p.Contains(a.Next())
}

// forget drops where the next addresses of a network are looked for.
func (t *tx) forget(network ID) {
	var keys [][]byte
	for key := range t.next.cursors.all(within(network, "")) {
		keys = append(keys, []byte(key))
	}
	for _, key := range keys {
		t.next.cursors.drop(key)
	}
}

func list(prefixes []netip.Prefix) string {
	if len(prefixes) == 0 {
		return "it has none"
	}
	var b strings.Builder
	for i, p := range prefixes {
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
