package link

import (
	"fmt"
	"slices"
)

// Change is one step from a snapshot to the next: one of the types below, or of those in decide.go
// and declare.go.
type Change interface {
	apply(*tx) error
}

// PutNetwork creates a network or replaces the one of its ID.
type PutNetwork struct{ Network Network }

// DeleteNetwork deletes a network that has no endpoints.
type DeleteNetwork struct{ ID ID }

// PutService creates a service or replaces the one of its ID, whose alias it keeps. Pending
// connections that its lists now approve are approved. A service of a declaration is the operator's
// word: there a connection that a rule had approved and that the lists no longer name goes back to
// Pending, or to Rejected where the reject list names it, and each network that a list names must exist.
// Of another service, a connection that the reject list names is Rejected whoever had approved it; an approved connection goes back to Pending when a target, a name or another port is
// added or its pin is loosened, unless the lists approve it, it is Lasting, or Approver is named.
type PutService struct {
	Service  Service
	Approver string // who makes the change, where they may approve connections too
}

// DeleteService deletes a service; its connections become Disconnected. Without Force it is
// refused while there are others.
type DeleteService struct {
	ID    ID
	Force bool
}

// PutEndpoint asks for an endpoint, or replaces the allow-list, the zone group and the API's part of the one
// of its ID. A new endpoint
// without an address is given one of its network's pools. The connection of Endpoint is ignored: a
// new one starts Pending, or Approved where the service says so. Tenant, network, service and address
// of an endpoint never change.
type PutEndpoint struct {
	Endpoint Endpoint
	Message  string // the consumer's words to the provider
	// Sees: whoever asks has rights on the service, so that it need not be visible to the network.
	Sees bool
	// Approver is who asks, where they may approve connections of the service and do so with the request.
	Approver string
	// Reviewed takes the place of an approval by the service's list; nil: the list has the last word.
	Reviewed *Reviewed
}

// Reviewed is what somebody else has said of a request that a list would approve. It can only narrow: where
// no list approves it is unused.
type Reviewed struct {
	State    State // Pending or Rejected
	Decision Decision
}

// DeleteEndpoint deletes an endpoint; its address is free and its link ID retired.
type DeleteEndpoint struct{ ID ID }

func (c PutNetwork) apply(t *tx) error {
	n := c.Network
	old := t.next.Network(n.ID)
	if old != nil {
		if err := sameOrigin(old.Origin, n.Origin); err != nil {
			return about(&n, n.ID, n.Origin, err)
		}
	}
	return t.putNetwork(old, &n)
}

func (t *tx) putNetwork(old, n *Network) error {
	if err := checkID(n.ID); err != nil {
		return about(n, n.ID, n.Origin, err)
	}
	if err := n.checkSize(); err != nil && !t.loading {
		return about(n, n.ID, n.Origin, err)
	}
	if err := t.setNetwork(old, n); err != nil {
		return about(n, n.ID, n.Origin, err)
	}
	return nil
}

func (c DeleteNetwork) apply(t *tx) error {
	n := t.next.Network(c.ID)
	if n == nil {
		return about(n, c.ID, Origin{}, ErrNotFound)
	}
	if err := sameOrigin(n.Origin, Origin{}); err != nil {
		return about(n, n.ID, n.Origin, err)
	}
	return t.deleteNetwork(n)
}

func (t *tx) deleteNetwork(n *Network) error {
	if e, ok := first(t.next.EndpointsIn(n.ID)); ok {
		return about(n, n.ID, n.Origin, fmt.Errorf("%w: endpoint %s (%s) is in it", ErrConflict, e.ID, e.Origin))
	}
	if err := t.setNetwork(n, nil); err != nil {
		return about(n, n.ID, n.Origin, err)
	}
	return nil
}

func (c PutService) apply(t *tx) error {
	v := c.Service
	old := t.next.Service(v.ID)
	if old != nil {
		if err := sameOrigin(old.Origin, v.Origin); err != nil {
			return about(&v, v.ID, v.Origin, err)
		}
	}
	if err := t.putService(old, &v); err != nil || old == nil || c.Approver != "" || !widens(old, &v) {
		return err
	}
	return t.rethink(&v)
}

// placeService puts a service without a look at the connections to it.
func (t *tx) placeService(old, v *Service) error {
	err := checkID(v.ID)
	if err == nil && v.Alias == "" {
		err = fmt.Errorf("%w: no alias", ErrInvalid)
	}
	if err == nil {
		err = t.setService(old, v)
	}
	if err != nil {
		return about(v, v.ID, v.Origin, err)
	}
	return nil
}

func (t *tx) putService(old, v *Service) error {
	if old != nil {
		v.Alias = old.Alias
	}
	if err := v.checkPin(); err != nil {
		return about(v, v.ID, v.Origin, err)
	}
	if err := v.checkProtocol(); err != nil {
		return about(v, v.ID, v.Origin, err)
	}
	if v.Origin.Declaration != "" {
		for _, p := range slices.Concat(v.Visible, v.AutoApprove, v.Reject) {
			if p != Anyone && t.next.Network(ID(p)) == nil && !isGroup(p) {
				return about(v, v.ID, v.Origin, fmt.Errorf("%w: network %s", ErrNotFound, p))
			}
		}
	}
	if err := t.placeService(old, v); err != nil {
		return err
	}
	return t.reconsider(v)
}

func (c DeleteService) apply(t *tx) error {
	v := t.next.Service(c.ID)
	if v == nil {
		return about(v, c.ID, Origin{}, ErrNotFound)
	}
	if err := sameOrigin(v.Origin, Origin{}); err != nil {
		return about(v, v.ID, v.Origin, err)
	}
	if !c.Force {
		var blockers []ID
		for e := range t.next.EndpointsOf(v.ID) {
			if e.Connection.State != Disconnected {
				blockers = append(blockers, e.ID)
			}
		}
		if len(blockers) > 0 {
			return about(v, v.ID, v.Origin, fmt.Errorf("%w: endpoints are connected to it: %v", ErrConflict, blockers))
		}
	}
	return t.deleteService(v)
}

func (t *tx) deleteService(v *Service) error {
	for _, e := range slices.Collect(t.next.EndpointsOf(v.ID)) {
		if e.Connection.State == Disconnected {
			continue
		}
		if err := t.disconnect(e, Decision{Rule: "service deleted"}); err != nil {
			return err
		}
	}
	if err := t.setService(v, nil); err != nil {
		return about(v, v.ID, v.Origin, err)
	}
	return nil
}

func (c PutEndpoint) apply(t *tx) error {
	e := c.Endpoint
	old := t.next.Endpoint(e.ID)
	if old != nil {
		if err := sameOrigin(old.Origin, e.Origin); err != nil {
			return about(&e, e.ID, e.Origin, err)
		}
	}
	return t.putEndpoint(old, &e, asking{c.Message, c.Sees, c.Approver, c.Reviewed})
}

func (t *tx) putEndpoint(old, e *Endpoint, a asking) error {
	if err := checkID(e.ID); err != nil {
		return about(e, e.ID, e.Origin, err)
	}
	if old == nil {
		if err := t.ask(e, a); err != nil {
			return about(e, e.ID, e.Origin, err)
		}
		return nil
	}
	if e.Tenant != old.Tenant || !samePlace(old, e) {
		return about(e, e.ID, e.Origin, fmt.Errorf("%w: network, service and address of an endpoint never change", ErrConflict))
	}
	e.Address, e.Connection = old.Address, old.Connection
	if err := t.setEndpoint(old, e); err != nil {
		return about(e, e.ID, e.Origin, err)
	}
	return nil
}

// samePlace reports whether e stands where old does; an address left out is the one it has.
func samePlace(old, e *Endpoint) bool {
	return e.Network == old.Network && e.Subnet == old.Subnet && e.Service == old.Service && (!e.Address.IsValid() || e.Address == old.Address)
}

func (c DeleteEndpoint) apply(t *tx) error {
	e := t.next.Endpoint(c.ID)
	if e == nil {
		return about(e, c.ID, Origin{}, ErrNotFound)
	}
	if err := sameOrigin(e.Origin, Origin{}); err != nil {
		return about(e, e.ID, e.Origin, err)
	}
	return t.deleteEndpoint(e)
}

func (t *tx) deleteEndpoint(e *Endpoint) error {
	if err := t.setEndpoint(e, nil); err != nil {
		return about(e, e.ID, e.Origin, err)
	}
	return nil
}

// sameOrigin refuses that an object of one origin is changed by another.
func sameOrigin(old, now Origin) error {
	if old.Declaration == now.Declaration {
		return nil
	}
	if old.Declaration == "" {
		return fmt.Errorf("%w: it was made through %s", ErrConflict, old)
	}
	return fmt.Errorf("%w: it is declared in %s by %s", ErrConflict, old, old.Declaration)
}

func checkID(id ID) error {
	p, err := ParseID(string(id))
	if err == nil && p != id {
		err = fmt.Errorf("%w: name %q is not in canonical form", ErrInvalid, clip(string(id)))
	}
	return err
}
