package link

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
)

// The functions of this file put one object into the snapshot under construction or take it out,
// and keep all that is computed from it. They check the rules between objects.

// setNetwork replaces old, nil for none, by n, nil for none.
func (t *tx) setNetwork(old, n *Network) error {
	s := &t.next
	id := idOf(old, n)
	touch(t, KindNetwork, string(id), old)
	if old == nil || n == nil || !slices.Equal(old.Sites, n.Sites) {
		t.changes.note(ofSites, []byte(id))
	}
	if old != nil {
		t.leave(old, old.Pools, old.Prefixes)
		t.countObject(KindNetwork, id, -1)
	}
	if n == nil {
		if err := t.notLinked(id); err != nil {
			return err
		}
		s.networks.drop([]byte(id))
		t.forget(id)
		t.noteGround(*old, Network{})
		return nil
	}
	if old != nil {
		n.keep(old.Facet)
		t.noteGround(*old, *n)
	} else {
		t.noteGround(Network{}, *n)
	}
	if err := n.check(); err != nil {
		return err
	}
	t.countObject(KindNetwork, id, 1)
	for _, sub := range n.Subnets {
		for _, p := range sub.Prefixes {
			if other, _, ok := overlap(s, p); ok && other.ID != id {
				return fmt.Errorf("%w: address space %s is in use", ErrConflict, p)
			}
		}
	}
	for _, p := range n.Pools {
		if other, pool, ok := overlap(s, p); ok {
			return fmt.Errorf("%w: pool %s overlaps pool %s of network %s (%s)", ErrConflict, p, pool, other.ID, other.Origin)
		}
		s.pools = s.pools.InsertPersist(p, n.ID)
	}
	if !n.ByListener {
		for _, p := range n.Prefixes {
			if other, ok := s.clients.Get(p); ok && other.Tenant == n.Tenant {
				return fmt.Errorf("%w: prefix %s is that of network %s (%s): clients of both can't be told apart by address, find one of them by listener",
					ErrConflict, p, other.ID, other.Origin)
			}
			if t.foreign(n, p) {
				return fmt.Errorf("%w: address space %s is in use", ErrConflict, p)
			}
			s.clients = s.clients.InsertPersist(p, n)
		}
	}
	s.networks.put([]byte(id), n)
	samePools := old != nil && slices.Equal(old.Pools, n.Pools)
	if samePools && reflect.DeepEqual(old.Subnets, n.Subnets) {
		return nil
	}
	t.forget(id)
	for e := range s.EndpointsIn(id) {
		if err := n.fits(e); err != nil {
			return fmt.Errorf("%w: endpoint %s: %w", ErrConflict, e.ID, err)
		}
	}
	if samePools || old == nil && len(n.Pools) == 0 {
		return nil
	}
	for v := range s.Services() {
		if err := t.checkTargets(v); err != nil {
			return fmt.Errorf("service %s (%s): %w", v.ID, v.Origin, err)
		}
	}
	return nil
}

// noteGround notes what changes with a network for who asks where bytes may go. The zero Network is none.
func (t *tx) noteGround(old, n Network) {
	if !slices.Equal(old.Pools, n.Pools) {
		t.changes.note(ofPools, nil)
	}
	if old.Tenant != n.Tenant || old.ByListener != n.ByListener || !slices.Equal(old.Prefixes, n.Prefixes) {
		t.changes.note(ofClients, nil)
	}
}

// leave takes pools and prefixes of a network away, as far as they are still its own: in one change
// another may have got them already.
func (t *tx) leave(n *Network, pools, prefixes []netip.Prefix) {
	s := &t.next
	for _, p := range pools {
		if holder, ok := s.pools.Get(p); ok && holder == n.ID {
			s.pools = s.pools.DeletePersist(p)
		}
	}
	for _, p := range prefixes {
		if holder, ok := s.clients.Get(p); ok && holder.ID == n.ID {
			s.clients = s.clients.DeletePersist(p)
		}
	}
}

// foreign reports whether another tenant's network has addresses of p.
func (t *tx) foreign(n *Network, p netip.Prefix) bool {
	if !t.next.clients.OverlapsPrefix(p) {
		return false
	}
	for _, other := range t.next.clients.Supernets(p) {
		if other.Tenant != n.Tenant {
			return true
		}
	}
	for _, other := range t.next.clients.Subnets(p) {
		if other.Tenant != n.Tenant {
			return true
		}
	}
	return false
}

// checkTargets refuses targets that are endpoint addresses: a flow would come back to us, again and again.
func (t *tx) checkTargets(v *Service) error {
	for _, target := range v.Targets {
		for _, a := range Forms(target.Addr.Addr()) {
			if n, pool := t.next.PoolOf(a); n != nil {
				return fmt.Errorf("%w: target %s is in pool %s of network %s (%s): endpoints are no targets", ErrInvalid, target.Addr, pool, n.ID, n.Origin)
			}
			if t.next.EndpointAt(a) != nil {
				return fmt.Errorf("%w: target %s is the address of an endpoint: endpoints are no targets", ErrInvalid, target.Addr)
			}
		}
	}
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
	if n == nil {
		touch(t, KindService, string(id), old)
		for e := range s.EndpointsOf(id) {
			if e.Connection.State != Disconnected {
				return fmt.Errorf("%w: endpoint %s has a %s connection to it", ErrConflict, e.ID, e.Connection.State)
			}
		}
		s.services.drop([]byte(id))
		t.leaveService(old)
		return nil
	}
	if old != nil {
		n.keep(old.Facet)
		if reflect.DeepEqual(old, n) {
			// Nothing that it stands for changes. A pool that is new has looked at its targets (setNetwork).
			return nil
		}
	}
	touch(t, KindService, string(id), old)
	if old != nil {
		t.leaveService(old)
	}
	if err := n.check(); err != nil {
		return err
	}
	if err := t.checkBackends(old, n); err != nil {
		return err
	}
	if err := t.checkTargets(n); err != nil {
		return err
	}
	if err := t.checkSources(old, n); err != nil {
		return err
	}
	if err := t.enterService(n); err != nil {
		return err
	}
	if old != nil && old.Port == n.Port && old.Protocol == n.Protocol && slices.Equal(old.Names, n.Names) {
		s.services.put([]byte(id), n)
		return nil
	}
	endpoints := slices.Collect(s.EndpointsOf(id))
	for _, e := range endpoints {
		t.detach(e)
	}
	s.services.put([]byte(id), n)
	for _, e := range endpoints {
		if err := t.attach(e); err != nil {
			return fmt.Errorf("endpoint %s: %w", e.ID, err)
		}
	}
	return nil
}

// setEndpoint replaces old, nil for none, by e, nil for none.
func (t *tx) setEndpoint(old, e *Endpoint) error {
	s := &t.next
	id := idOf(old, e)
	if old != nil && e != nil {
		e.keep(old.Facet)
		if reflect.DeepEqual(old, e) {
			return nil
		}
	}
	touch(t, KindEndpoint, string(id), old)
	if old != nil && e != nil && sameIndex(old, e) {
		if err := e.check(); err != nil {
			return err
		}
		t.point(e)
		return nil
	}
	if old != nil {
		t.unindex(old)
		s.endpoints.drop([]byte(id))
		if c := old.Connection; c.LinkID != 0 && (e == nil || e.Connection.LinkID != c.LinkID) {
			t.retire(&Retired{LinkID: c.LinkID, At: t.at, Tenant: old.Tenant})
		}
	}
	if e == nil {
		return nil
	}
	if err := e.check(); err != nil {
		return err
	}
	t.point(e)
	return t.index(e)
}

// index adds what is computed from an endpoint, but for what finds it.
func (t *tx) index(e *Endpoint) error {
	t.tally(e, 1)
	if err := t.joinZones(e); err != nil {
		return err
	}
	return t.attach(e)
}

// attach adds what is computed from an endpoint and its service as it is now: port, protocol and names.
func (t *tx) attach(e *Endpoint) error {
	s := &t.next
	v := s.Service(e.Service)
	if v == nil || e.Connection.State == Disconnected {
		return nil
	}
	if e.Address.IsLoopback() {
		at := netip.AddrPortFrom(e.Address, v.Port)
		s.loopback.put(socketKey(v.Protocol, at), at)
	} else {
		add(&s.ports, portKey(v.Protocol, e.Address, v.Port), 1)
	}
	for _, n := range v.Names {
		if err := t.own(e, n); err != nil {
			return err
		}
		t.count(e, n, 1)
	}
	t.group(e, v, 1)
	return nil
}

// unindex takes away what point and index added.
func (t *tx) unindex(e *Endpoint) {
	s := &t.next
	t.setAddress(e.Address, nil)
	s.byService.drop(within(e.Service, string(e.ID)))
	s.byBoth.drop(bothKey(e.Network, e.Service, e.ID))
	if e.Connection.LinkID != 0 {
		s.links.drop(linkKey(e.Connection.LinkID))
	}
	t.tally(e, -1)
	t.leaveZones(e)
	t.detach(e)
}

// detach takes away what attach added. The service is still the one of then.
func (t *tx) detach(e *Endpoint) {
	s := &t.next
	v := s.Service(e.Service)
	if v == nil || e.Connection.State == Disconnected {
		return
	}
	if e.Address.IsLoopback() {
		s.loopback.drop(socketKey(v.Protocol, netip.AddrPortFrom(e.Address, v.Port)))
	} else {
		add(&s.ports, portKey(v.Protocol, e.Address, v.Port), -1)
	}
	for _, n := range v.Names {
		t.disown(e, n)
		t.count(e, n, -1)
	}
	t.group(e, v, -1)
}

// own makes the service of e the owner of a name in its network. The owner counts its endpoints rather
// than list them, so that the cost doesn't grow with their number.
func (t *tx) own(e *Endpoint, n ResourceName) error {
	for _, key := range ownerKeys(e, n) {
		owner := Owner{Service: e.Service, Name: n, endpoints: 1}
		if old, ok := t.next.owners.get(key); ok {
			if old.Service != e.Service {
				o, _ := first(t.next.EndpointsFor(e.Network, old.Service))
				return fmt.Errorf("%w: name %s belongs to endpoint %s (%s) of service %s in network %s",
					ErrConflict, key[len(e.Network)+1:], o.ID, o.Origin, o.Service, e.Network)
			}
			owner.endpoints += old.endpoints
		}
		t.next.owners.put(key, owner)
	}
	return nil
}

func (t *tx) disown(e *Endpoint, n ResourceName) {
	for _, key := range ownerKeys(e, n) {
		owner, ok := t.next.owners.get(key)
		if !ok || owner.Service != e.Service {
			continue
		}
		if owner.endpoints--; owner.endpoints == 0 {
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
		t.release(before)
	}
	s.retired.put(linkKey(r.LinkID), r)
	s.resting.put(restKey(r), r)
	add(&s.tallies, tallyKey('q', r.Tenant, ""), 1)
	// One is added, up to two go: what rests doesn't grow without bound.
	for range 2 {
		oldest, ok := first(s.resting.values(nil))
		if !ok || t.at.Sub(oldest.At) < LinkIDRest {
			return
		}
		touch(t, KindRetired, oldest.Key(), oldest)
		t.release(oldest)
	}
}

// release lets a link ID be given out again.
func (t *tx) release(r *Retired) {
	t.next.resting.drop(restKey(r))
	t.next.retired.drop(linkKey(r.LinkID))
	add(&t.next.tallies, tallyKey('q', r.Tenant, ""), -1)
}

func restKey(r *Retired) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(r.At.UnixNano())), linkKey(r.LinkID)...)
}

func bothKey(network, service, endpoint ID) []byte {
	return append(append(within(network, string(service)), 0), endpoint...)
}

func portKey(p Protocol, a netip.Addr, port uint16) []byte {
	return binary.BigEndian.AppendUint16(append(within(ID(p), ""), family(a.Is6())), port)
}

func socketKey(p Protocol, a netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(append(within(ID(p), ""), addrKey(a.Addr())...), a.Port())
}

func addrKey(a netip.Addr) []byte {
	b := a.As16()
	return b[:]
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
