package link

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The functions of this file put one object into the snapshot under construction or take it out,
// and keep all that is computed from it. They check the rules between objects.

// setNetwork replaces old, nil for none, by n, nil for none.
func (t *tx) setNetwork(old, n *Network) error {
	s := &t.next
	id := idOf(old, n)
	touch(t, KindNetwork, string(id), old)
	if old != nil {
		for _, p := range old.Pools {
			s.pools = s.pools.DeletePersist(p)
		}
		if !old.ByListener {
			for _, p := range old.Prefixes {
				s.clients = s.clients.DeletePersist(p)
			}
		}
	}
	if n == nil {
		s.networks.drop([]byte(id))
		t.forgetPools(id)
		return nil
	}
	if err := n.check(); err != nil {
		return err
	}
	for _, p := range n.Pools {
		if other, pool, ok := overlap(s, p); ok {
			return fmt.Errorf("%w: pool %s overlaps pool %s of network %s (%s)", ErrConflict, p, pool, other.ID, other.Origin)
		}
		s.pools = s.pools.InsertPersist(p, n.ID)
	}
	if !n.ByListener {
		for _, p := range n.Prefixes {
			if other, ok := s.clients.Get(p); ok {
				return fmt.Errorf("%w: prefix %s is that of network %s (%s): clients of both can't be told apart by address, find one of them by listener",
					ErrConflict, p, other.ID, other.Origin)
			}
			s.clients = s.clients.InsertPersist(p, n)
		}
	}
	if old == nil || !slices.Equal(old.Pools, n.Pools) {
		t.forgetPools(id)
		for e := range s.EndpointsIn(id) {
			if !inPools(n, e.Address) {
				return fmt.Errorf("%w: address %s of endpoint %s would be outside of the pools", ErrConflict, e.Address, e.ID)
			}
		}
	}
	s.networks.put([]byte(id), n)
	return nil
}

// overlap returns a pool that p overlaps and the network it belongs to.
func overlap(s *Snapshot, p netip.Prefix) (*Network, netip.Prefix, bool) {
	if !s.pools.OverlapsPrefix(p) {
		return nil, netip.Prefix{}, false
	}
	for q, id := range s.pools.Supernets(p) {
		return s.Network(id), q, true
	}
	for q, id := range s.pools.Subnets(p) {
		return s.Network(id), q, true
	}
	return nil, netip.Prefix{}, false
}

// setService replaces old, nil for none, by n, nil for none.
func (t *tx) setService(old, n *Service) error {
	s := &t.next
	id := idOf(old, n)
	touch(t, KindService, string(id), old)
	if n == nil {
		for e := range s.EndpointsOf(id) {
			if e.Connection.State != Disconnected {
				return fmt.Errorf("%w: endpoint %s has a %s connection to it", ErrConflict, e.ID, e.Connection.State)
			}
		}
		s.services.drop([]byte(id))
		return nil
	}
	if err := n.check(); err != nil {
		return err
	}
	if old != nil && old.Port == n.Port && slices.Equal(old.Names, n.Names) {
		s.services.put([]byte(id), n)
		return nil
	}
	endpoints := slices.Collect(s.EndpointsOf(id))
	for _, e := range endpoints {
		t.unindex(e)
	}
	s.services.put([]byte(id), n)
	for _, e := range endpoints {
		if err := t.index(e); err != nil {
			return fmt.Errorf("endpoint %s: %w", e.ID, err)
		}
	}
	return nil
}

// setEndpoint replaces old, nil for none, by e, nil for none.
func (t *tx) setEndpoint(old, e *Endpoint) error {
	s := &t.next
	id := idOf(old, e)
	touch(t, KindEndpoint, string(id), old)
	if old != nil {
		t.unindex(old)
		s.endpoints.drop([]byte(id))
		if c := old.Connection; c.LinkID != 0 && (e == nil || e.Connection.LinkID != c.LinkID) {
			t.retire(&Retired{LinkID: c.LinkID, At: t.at})
		}
	}
	if e == nil {
		return nil
	}
	if err := e.check(); err != nil {
		return err
	}
	s.endpoints.put([]byte(id), e)
	return t.index(e)
}

// index adds what is computed from an endpoint, as its service is now.
func (t *tx) index(e *Endpoint) error {
	s := &t.next
	if t.loading {
		s.addresses.Insert(host(e.Address), e)
	} else {
		s.addresses = s.addresses.InsertPersist(host(e.Address), e)
	}
	s.byService.put(within(e.Service, string(e.ID)), e)
	s.byNetwork.put(within(e.Network, string(e.ID)), e)
	if e.Connection.LinkID != 0 {
		s.links.put(linkKey(e.Connection.LinkID), e)
	}
	if e.Connection.State == Approved {
		add(&s.approved, []byte(e.Service), 1)
	}
	v := s.Service(e.Service)
	if v == nil || e.Connection.State == Disconnected {
		return nil
	}
	if e.Address.IsLoopback() {
		at := netip.AddrPortFrom(e.Address, v.Port)
		s.loopback.put(socketKey(at), at)
	} else {
		add(&s.ports, portKey(e.Address, v.Port), 1)
	}
	for _, n := range v.Names {
		if err := t.own(e, n); err != nil {
			return err
		}
		t.count(e, n, 1)
	}
	return nil
}

// unindex takes away what index added. The service is still the one of then.
func (t *tx) unindex(e *Endpoint) {
	s := &t.next
	s.addresses = s.addresses.DeletePersist(host(e.Address))
	s.byService.drop(within(e.Service, string(e.ID)))
	s.byNetwork.drop(within(e.Network, string(e.ID)))
	if e.Connection.LinkID != 0 {
		s.links.drop(linkKey(e.Connection.LinkID))
	}
	if e.Connection.State == Approved {
		add(&s.approved, []byte(e.Service), -1)
	}
	v := s.Service(e.Service)
	if v == nil || e.Connection.State == Disconnected {
		return
	}
	if e.Address.IsLoopback() {
		s.loopback.drop(socketKey(netip.AddrPortFrom(e.Address, v.Port)))
	} else {
		add(&s.ports, portKey(e.Address, v.Port), -1)
	}
	for _, n := range v.Names {
		t.disown(e, n)
		t.count(e, n, -1)
	}
}

// own makes e one of the owners of a name in its network.
func (t *tx) own(e *Endpoint, n ResourceName) error {
	for _, key := range ownerKeys(e, n) {
		owner := &Owner{Service: e.Service, Name: n}
		if old, ok := t.next.owners.get(key); ok {
			if old.Service != e.Service {
				o := old.Endpoints[0]
				return fmt.Errorf("%w: name %s belongs to endpoint %s (%s) of service %s in network %s",
					ErrConflict, key[len(e.Network)+1:], o.ID, o.Origin, o.Service, e.Network)
			}
			owner.Endpoints = old.Endpoints
		}
		at, _ := slices.BinarySearchFunc(owner.Endpoints, e.ID, func(o *Endpoint, id ID) int {
			return strings.Compare(string(o.ID), string(id))
		})
		owner.Endpoints = slices.Insert(slices.Clone(owner.Endpoints), at, e)
		t.next.owners.put(key, owner)
	}
	return nil
}

func (t *tx) disown(e *Endpoint, n ResourceName) {
	for _, key := range ownerKeys(e, n) {
		old, ok := t.next.owners.get(key)
		if !ok || old.Service != e.Service {
			continue
		}
		owner := &Owner{Service: old.Service, Name: old.Name}
		for _, o := range old.Endpoints {
			if o.ID != e.ID {
				owner.Endpoints = append(owner.Endpoints, o)
			}
		}
		if len(owner.Endpoints) == 0 {
			t.next.owners.drop(key)
		} else {
			t.next.owners.put(key, owner)
		}
	}
}

func ownerKeys(e *Endpoint, n ResourceName) [][]byte {
	keys := [][]byte{within(e.Network, string(n.Public))}
	if n.Private != "" {
		keys = append(keys, within(e.Network, string(n.Private)))
	}
	return keys
}

// count adds d to the live private names at and above the one of n, up to the apex of its zone.
func (t *tx) count(e *Endpoint, n ResourceName, d int) {
	if n.Private == "" || !e.Connection.Live() {
		return
	}
	for name := n.Private; ; name = name.Parent() {
		add(&t.next.exists, within(e.Network, string(name)), d)
		if name == n.Zone || name == "" {
			return
		}
	}
}

// retire keeps a link ID from being given out, and lets those go that have rested.
func (t *tx) retire(r *Retired) {
	s := &t.next
	before, _ := s.retired.get(linkKey(r.LinkID))
	touch(t, KindRetired, r.Key(), before)
	if before != nil {
		s.resting.drop(restKey(before))
	}
	s.retired.put(linkKey(r.LinkID), r)
	s.resting.put(restKey(r), r)
	// One is added, up to two go: what rests doesn't grow without bound.
	for range 2 {
		oldest, ok := first(s.resting.values(nil))
		if !ok || t.at.Sub(oldest.At) < LinkIDRest {
			return
		}
		touch(t, KindRetired, oldest.Key(), oldest)
		s.resting.drop(restKey(oldest))
		s.retired.drop(linkKey(oldest.LinkID))
	}
}

func restKey(r *Retired) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(r.At.UnixNano())), linkKey(r.LinkID)...)
}

func portKey(a netip.Addr, port uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family(a.Is6())}, port)
}

func socketKey(a netip.AddrPort) []byte {
	b := a.Addr().As16()
	return binary.BigEndian.AppendUint16(b[:], a.Port())
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// idOf returns the ID of the one that isn't nil.
func idOf[T any, P interface {
	*T
	Object
}](a, b P) ID {
	if a != nil {
		return ID(a.Key())
	}
	return ID(b.Key())
}
