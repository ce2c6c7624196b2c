package link

import (
	"encoding/binary"
	"iter"
	"maps"
)

// Since is where one snapshot may differ from another: at the same places as [Snapshot.Has] sees, and with the same
// collisions, which let something else look changed too.
type Since struct {
	now    *Snapshot
	places []uint32
	all    bool
}

// Since returns where s may differ from an earlier snapshot, or from any other one. Nil differs everywhere. The cost is that of
// what has changed.
func (s *Snapshot) Since(old *Snapshot) Since {
	c := Since{now: s}
	if old != nil {
		c.places, c.all = s.marks.since(&old.marks)
	}
	c.all = c.all || old == nil
	return c
}

// Services yields the IDs of services of the newer snapshot that are new or have changed.
func (c Since) Services() iter.Seq[ID] {
	return func(yield func(ID) bool) {
		if c.all {
			for v := range c.now.Services() {
				if !yield(v.ID) {
					return
				}
			}
			return
		}
		for _, p := range c.places {
			for id := range c.now.placed.values(binary.BigEndian.AppendUint32(nil, p)) {
				if !yield(id) {
					return
				}
			}
		}
	}
}

// placeKey is where a service is found by its place.
func placeKey(id ID) []byte {
	return append(binary.BigEndian.AppendUint32(nil, placeOf(ofServices, []byte(id))), id...)
}

// since returns the places where m differs from old. all says that they are too many, or all of them.
func (m *marks) since(old *marks) (places []uint32, all bool) {
	if m.rest != old.rest {
		return nil, true
	}
	if m.rows == old.rows {
		return nil, false
	}
	for i := range uint32(1 << markTop) {
		a, b := m.middle(i), old.middle(i)
		if a == b {
			continue
		}
		for j := range uint32(1 << markMiddle) {
			if a.low(j) == b.low(j) {
				continue
			}
			for k := range uint32(1 << markLow) {
				if p := (i<<markMiddle|j)<<markLow | k; m.at(p) != old.at(p) {
					places = append(places, p)
				}
			}
			if len(places) > mostMarked {
				return nil, true
			}
		}
	}
	return places, false
}

// middle and low return a part of the tree, nil where it has none.
func (m *marks) middle(i uint32) *markRows {
	if m.rows == nil {
		return nil
	}
	return m.rows[i]
}

func (r *markRows) low(j uint32) *markRow {
	if r == nil {
		return nil
	}
	return r[j]
}

// Watchers remembers what each of many things was made of, and finds those for which that has changed: what it costs
// depends on these, and not on how many there are. The zero value is ready. It is for one goroutine at a time.
type Watchers[K comparable] struct {
	of    map[K]Reads
	at    map[uint32]map[K]struct{}
	whole map[K]struct{} // those that read more than can be told
}

// Watch notes what k was made of, in place of what was noted before.
func (w *Watchers[K]) Watch(k K, t *Trace) {
	w.Leave(k)
	if w.of == nil {
		w.of, w.at, w.whole = make(map[K]Reads), make(map[uint32]map[K]struct{}), make(map[K]struct{})
	}
	reads, ok := t.Reads()
	if !ok {
		w.whole[k] = struct{}{}
		return
	}
	w.of[k] = reads
	for _, r := range reads {
		there := w.at[r.place]
		if there == nil {
			there = make(map[K]struct{})
			w.at[r.place] = there
		}
		there[k] = struct{}{}
	}
}

// Leave forgets k.
func (w *Watchers[K]) Leave(k K) {
	delete(w.whole, k)
	for _, r := range w.of[k] {
		w.leave(k, r.place)
	}
	delete(w.of, k)
}

// Touched yields those for which something may have changed, some of them more than once.
func (w *Watchers[K]) Touched(c Since) iter.Seq[K] {
	return func(yield func(K) bool) {
		for k := range w.whole {
			if !yield(k) {
				return
			}
		}
		if c.all {
			maps.Keys(w.of)(yield)
			return
		}
		for _, p := range c.places {
			for k := range w.at[p] {
				if !yield(k) {
					return
				}
			}
		}
	}
}

func (w *Watchers[K]) leave(k K, place uint32) {
	if delete(w.at[place], k); len(w.at[place]) == 0 {
		delete(w.at, place)
	}
}
