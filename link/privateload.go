package link

import "fmt"

// loadPrivate puts the private zones, then their record sets, and the documents. The networks are there.
func (t *tx) loadPrivate(objects []Object) error {
	for _, o := range objects {
		if _, ok := o.(*PrivateZone); ok {
			if err := t.loadOne(o); err != nil {
				return err
			}
		}
	}
	for _, o := range objects {
		switch o.(type) {
		case *RecordSet, *Document:
			if err := t.loadOne(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadOne puts a zone, a record set or a document as it is, which isn't there yet.
func (t *tx) loadOne(o Object) error {
	if t.next.privateObject(o.Kind(), o.Key()) != nil {
		return about(o, ID(o.Key()), Origin{}, fmt.Errorf("%w: given twice", ErrConflict))
	}
	if err := t.placePrivate(o); err != nil {
		return about(o, ID(o.Key()), Origin{}, err)
	}
	return nil
}

// placePrivate puts a zone, a record set or a document in place of the one of its key, with the facet that it has.
func (t *tx) placePrivate(o Object) error {
	switch o := o.(type) {
	case *PrivateZone:
		facet := o.Facet
		err := t.setZone(t.next.Zone(o.ID), o)
		o.Facet = facet
		return err
	case *RecordSet:
		facet := o.Facet
		err := t.setRecordSet(t.next.RecordSet(o.Zone, o.Type, o.Name), o)
		o.Facet = facet
		return err
	case *Document:
		facet := o.Facet
		err := t.setDocument(t.next.Document(o.Type, o.ID), o)
		o.Facet = facet
		return err
	}
	return fmt.Errorf("%w: object of type %T", ErrInvalid, o)
}

// dropPrivate takes the zone, record set or document of a key away.
func (t *tx) dropPrivate(kind Kind, key string) error {
	switch o := t.next.privateObject(kind, key).(type) {
	case *PrivateZone:
		return t.setZone(o, nil)
	case *RecordSet:
		return t.setRecordSet(o, nil)
	case *Document:
		return t.setDocument(o, nil)
	}
	return fmt.Errorf("%w: %s/%s", ErrNotFound, kind, key)
}

// followPrivateGone takes what another node deleted away: record sets before their zones.
func (t *tx) followPrivateGone(gone []Ref) error {
	for _, kinds := range [...][2]Kind{{KindRecord, KindDocument}, {KindZone}} {
		for _, r := range gone {
			if r.Kind == kinds[0] || r.Kind == kinds[1] {
				if err := t.dropPrivate(r.Kind, r.Key); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// followPrivate puts what another node wrote: zones before their record sets. Links and record sets that
// move from one to another within a commit are left to [Load].
func (t *tx) followPrivate(put []Object) error {
	for _, o := range put {
		if _, ok := o.(*PrivateZone); ok {
			if err := t.placePrivate(o); err != nil {
				return err
			}
		}
	}
	for _, o := range put {
		switch o.(type) {
		case *RecordSet, *Document:
			if err := t.placePrivate(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// privateObject returns the zone, record set or document of a key, a nil interface where there is none.
func (s *Snapshot) privateObject(kind Kind, key string) Object {
	switch kind {
	case KindZone:
		if z := s.Zone(ID(key)); z != nil {
			return z
		}
	case KindRecord:
		if r, ok := s.private.records.get([]byte(key)); ok {
			return r
		}
	case KindDocument:
		if d, ok := s.private.documents.get([]byte(key)); ok {
			return d
		}
	}
	return nil
}
