package link

import (
	"errors"
	"fmt"
	"maps"
	"time"
)

// Ref names an object.
type Ref struct {
	Kind Kind
	Key  string
}

// errWhole: [tx.follow] leaves it to [Load].
var errWhole = errors.New("not step by step")

// Follow returns the snapshot of the given revision that another node's commit led to from s: put are the
// objects that it wrote, as they are stored, gone those that it deleted. The result is that of [Load], every rule is
// checked, and what is gone must have been there. The cost doesn't grow with the number of endpoints,
// other than those of a service or network that was put, unless one object got in one commit what
// another had and kept until then: then it is that of Load.
func (s *Snapshot) Follow(revision uint64, put []Object, gone []Ref) (*Snapshot, error) {
	for _, r := range gone {
		if s.object(r.Kind, r.Key) == nil {
			return nil, fmt.Errorf("follow to revision %d: %w: %s/%s, which is gone", revision, ErrNotFound, r.Kind, r.Key)
		}
	}
	t := begin(s, time.Time{})
	if err := t.follow(put, gone); err != nil {
		// Most likely something that moved between two objects; else Load says what is wrong.
		return s.followWhole(revision, put, gone)
	}
	t.next.revision = revision
	return t.seal(), nil
}

func (s *Snapshot) followWhole(revision uint64, put []Object, gone []Ref) (*Snapshot, error) {
	all := map[Ref]Object{}
	for o := range s.Objects() {
		all[Ref{o.Kind(), o.Key()}] = o
	}
	for _, r := range gone {
		delete(all, r)
	}
	for _, o := range put {
		all[Ref{o.Kind(), o.Key()}] = o
	}
	return Load(revision, maps.Values(all))
}

// follow takes away what is gone and what is replaced, endpoints before what they refer to, and puts in
// the other direction.
func (t *tx) follow(put []Object, gone []Ref) error {
	for _, r := range gone {
		if r.Kind == KindEndpoint {
			t.lift(ID(r.Key))
		}
	}
	for _, o := range put {
		if e, ok := o.(*Endpoint); ok {
			t.lift(e.ID)
		}
	}
	if err := t.followPrivateGone(gone); err != nil {
		return err
	}
	for _, r := range gone {
		if err := t.followGone(r); err != nil {
			return err
		}
	}
	for _, o := range put {
		if n, ok := o.(*Network); ok {
			if err := t.followNetwork(n); err != nil {
				return err
			}
		}
	}
	if err := t.followPrivate(put); err != nil {
		return err
	}
	for _, o := range put {
		if v, ok := o.(*Service); ok {
			if err := t.followService(v); err != nil {
				return err
			}
		}
	}
	for _, o := range put {
		if err := t.followOther(o); err != nil {
			return err
		}
	}
	return nil
}

// lift takes an endpoint out, if there is one, without retiring its link ID: the commit that we follow
// has done that.
func (t *tx) lift(id ID) {
	if e := t.next.Endpoint(id); e != nil {
		t.unindex(e)
		t.next.endpoints.drop([]byte(id))
	}
}

func (t *tx) followGone(r Ref) error {
	switch r.Kind {
	case KindEndpoint, KindZone, KindRecord, KindDocument:
		return nil
	case KindService:
		return t.setService(t.next.Service(ID(r.Key)), nil)
	case KindNetwork:
		n := t.next.Network(ID(r.Key))
		if _, ok := first(t.next.EndpointsIn(n.ID)); ok {
			return errWhole
		}
		return t.setNetwork(n, nil)
	case KindRetired:
		id, err := ParseLinkID(r.Key)
		if err != nil {
			return err
		}
		if old, ok := t.next.retired.get(linkKey(id)); ok {
			t.release(old)
		}
		return nil
	}
	return errWhole
}

// followNetwork and followService put an object as it is: the rules of a change, which let it inherit of
// the one before, have been applied where the change was made.
func (t *tx) followNetwork(n *Network) error {
	if err := checkID(n.ID); err != nil {
		return err
	}
	facet := n.Facet
	err := t.setNetwork(t.next.Network(n.ID), n)
	n.Facet = facet
	return err
}

func (t *tx) followService(v *Service) error {
	facet := v.Facet
	err := t.placeService(t.next.Service(v.ID), v)
	v.Facet = facet
	return err
}

func (t *tx) followOther(o Object) error {
	switch o := o.(type) {
	case *Network, *Service, *PrivateZone, *RecordSet, *Document:
		return nil
	case *Endpoint:
		return t.loadEndpoint(o)
	case *Retired:
		t.retire(o)
		return nil
	}
	return errWhole
}
