package link

import (
	"net/netip"
	"reflect"
)

// sameIndex reports whether all that is computed from old and from e is the same but for the pointer, so that [tx.point]
// does. A line more at the head of a large Corefile changes nothing but the origin of all that comes after it.
func sameIndex(old, e *Endpoint) bool {
	return old.Tenant == e.Tenant && samePlace(old, e) && old.Address == e.Address && reflect.DeepEqual(old.Connection, e.Connection) &&
		old.Zones == nil && e.Zones == nil
}

// point has all that finds an endpoint find this one.
func (t *tx) point(e *Endpoint) {
	s := &t.next
	s.endpoints.put([]byte(e.ID), e)
	t.setAddress(e.Address, e)
	s.byService.put(within(e.Service, string(e.ID)), e)
	s.byBoth.put(bothKey(e.Network, e.Service, e.ID), e)
	if e.Connection.LinkID != 0 {
		s.links.put(linkKey(e.Connection.LinkID), e)
	}
}

// setAddress makes an address that of an endpoint, nil for none. A change of many addresses has a table of its own: to copy
// it once costs less than to copy the path to each.
func (t *tx) setAddress(a netip.Addr, e *Endpoint) {
	all := &t.next.addresses
	t.changes.note(ofAddresses, addrKey(a))
	if !t.owns {
		if t.moved++; t.moved > few+(*all).Size()/16 {
			*all, t.owns = (*all).Clone(), true
		}
	}
	switch {
	case t.owns && e == nil:
		(*all).Delete(host(a))
	case t.owns:
		(*all).Insert(host(a), e)
	case e == nil:
		*all = (*all).DeletePersist(host(a))
	default:
		*all = (*all).InsertPersist(host(a), e)
	}
}

// few is how many addresses change one by one in any table.
const few = 32
