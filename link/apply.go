package link

import (
	"cmp"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"time"
)

// Delta is what a change did to one object: created (Old nil), deleted (New nil) or replaced.
type Delta struct {
	Kind     Kind
	Key      string
	Old, New Object
}

// Verb returns "created", "deleted" or "updated".
func (d Delta) Verb() string {
	switch {
	case d.Old == nil:
		return "created"
	case d.New == nil:
		return "deleted"
	}
	return "updated"
}

// Load returns the snapshot of the given revision and objects, in any order. Every rule is checked.
func Load(revision uint64, objects iter.Seq[Object]) (*Snapshot, error) {
	t := begin(Empty(), time.Time{})
	t.touched = nil // nobody asks what has changed
	if err := t.load(slices.Collect(objects)); err != nil {
		return nil, fmt.Errorf("load revision %d: %w", revision, err)
	}
	t.next.revision = revision
	return t.seal(), nil
}

// Apply returns the snapshot after changes, all or none, made at the time at, and what they did in
// order of kind and key, one delta an object. The revision is one more, also where nothing changed.
// Errors are [*ObjectError] where they are about one object.
func (s *Snapshot) Apply(at time.Time, changes ...Change) (*Snapshot, []Delta, error) {
	t := begin(s, at.UTC().Round(0))
	for _, c := range changes {
		if err := c.apply(t); err != nil {
			return nil, nil, err
		}
	}
	t.next.revision++
	return t.seal(), t.deltas(), nil
}

// tx is a snapshot under construction.
type tx struct {
	at   time.Time
	next Snapshot
	// touched holds each object that was put or dropped as it was before, nil where it wasn't. A nil map: not kept.
	touched map[objectKey]Object
	loading bool // the objects are those of a state: they were allowed when they were made
	// owns: nobody else has the table of addresses, so it may be edited in place. moved counts what was changed before.
	owns  bool
	moved int
	// changes is what the snapshot says of it.
	changes changes
}

type objectKey struct {
	kind Kind
	key  string
}

func begin(s *Snapshot, at time.Time) *tx {
	t := &tx{at: at, next: *s, touched: map[objectKey]Object{}, changes: changes{stamp: stamps.Add(1)}}
	t.next.watchedBy(&watch{changes: &t.changes})
	return t
}

func (t *tx) seal() *Snapshot {
	n := &t.next
	n.networks.seal()
	n.services.seal()
	n.endpoints.seal()
	n.retired.seal()
	n.private.seal()
	n.links.seal()
	n.resting.seal()
	n.byService.seal()
	n.byBoth.seal()
	n.owners.seal()
	n.exists.seal()
	n.tallies.seal()
	n.backends.seal()
	n.aliases.seal()
	n.claims.seal()
	n.suffixes.seal()
	n.placed.seal()
	n.targeted.seal()
	n.sources.seal()
	n.ports.seal()
	n.loopback.seal()
	n.cursors.seal()
	n.watchedBy(nil)
	n.marks = t.changes.marked(n.marks)
	return n
}

// touch notes how an object was before the transaction. old is a typed nil pointer or an object.
func touch[T interface {
	Object
	comparable
}](t *tx, kind Kind, key string, old T) {
	k := objectKey{kind, key}
	if _, ok := t.touched[k]; ok || t.touched == nil {
		return
	}
	var zero T
	if old == zero {
		t.touched[k] = nil
		return
	}
	t.touched[k] = old
}

// deltas compares what was touched with what is now.
func (t *tx) deltas() []Delta {
	var ds []Delta
	for k, old := range t.touched {
		now := t.next.object(k.kind, k.key)
		if old == nil && now == nil || old != nil && now != nil && reflect.DeepEqual(old, now) {
			continue
		}
		ds = append(ds, Delta{Kind: k.kind, Key: k.key, Old: old, New: now})
	}
	slices.SortFunc(ds, func(a, b Delta) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key))
	})
	return ds
}

// object returns the object of a kind and key, a nil interface where there is none.
func (s *Snapshot) object(kind Kind, key string) Object {
	switch kind {
	case KindNetwork:
		if n := s.Network(ID(key)); n != nil {
			return n
		}
	case KindService:
		if v := s.Service(ID(key)); v != nil {
			return v
		}
	case KindEndpoint:
		if e := s.Endpoint(ID(key)); e != nil {
			return e
		}
	case KindRetired:
		if id, err := ParseLinkID(key); err == nil {
			if r, ok := s.retired.get(linkKey(id)); ok {
				return r
			}
		}
	}
	return s.privateObject(kind, key)
}

// load puts objects as they are, connections included.
func (t *tx) load(objects []Object) error {
	t.loading, t.owns, t.changes.all = true, true, true // next began empty
	defer func() { t.loading = false }()
	for _, o := range objects {
		if n, ok := o.(*Network); ok {
			if t.next.Network(n.ID) != nil {
				return about(n, n.ID, n.Origin, fmt.Errorf("%w: given twice", ErrConflict))
			}
			if err := t.putNetwork(nil, n); err != nil {
				return err
			}
		}
	}
	if err := t.loadPrivate(objects); err != nil {
		return err
	}
	for _, o := range objects {
		if s, ok := o.(*Service); ok {
			if t.next.Service(s.ID) != nil {
				return about(s, s.ID, s.Origin, fmt.Errorf("%w: given twice", ErrConflict))
			}
			if err := t.placeService(nil, s); err != nil {
				return err
			}
		}
	}
	for _, o := range objects {
		switch o := o.(type) {
		case *Network, *Service, *PrivateZone, *RecordSet, *Document:
		case *Endpoint:
			if t.next.Endpoint(o.ID) != nil {
				return about(o, o.ID, o.Origin, fmt.Errorf("%w: given twice", ErrConflict))
			}
			if err := t.loadEndpoint(o); err != nil {
				return about(o, o.ID, o.Origin, err)
			}
		case *Retired:
			t.retire(o)
		default:
			return fmt.Errorf("%w: object of type %T", ErrInvalid, o)
		}
	}
	return nil
}

// loadEndpoint puts an endpoint whose connection was made before.
func (t *tx) loadEndpoint(e *Endpoint) error {
	if err := checkID(e.ID); err != nil {
		return err
	}
	if !e.Address.IsValid() {
		return fmt.Errorf("%w: no address", ErrInvalid)
	}
	c := &e.Connection
	switch c.State {
	case Pending, Approved, Rejected:
		if t.next.Service(e.Service) == nil {
			return fmt.Errorf("%w: connection is %s and service %s isn't there", ErrInvalid, c.State, e.Service)
		}
		if c.LinkID == 0 || t.next.EndpointOf(c.LinkID) != nil {
			return fmt.Errorf("%w: link ID %s is another's", ErrConflict, c.LinkID)
		}
	case Disconnected:
		if c.LinkID != 0 {
			return fmt.Errorf("%w: connection is %s and has a link ID", ErrInvalid, c.State)
		}
	default:
		return fmt.Errorf("%w: connection state %q", ErrInvalid, c.State)
	}
	if c.Suspended != nil && c.State != Approved {
		return fmt.Errorf("%w: connection is %s and suspended", ErrInvalid, c.State)
	}
	if err := t.place(e); err != nil {
		return err
	}
	return t.setEndpoint(nil, e)
}

// about says which object an error is about.
func about(o Object, id ID, origin Origin, err error) error {
	return &ObjectError{Kind: o.Kind(), ID: id, Origin: origin, Err: err}
}
