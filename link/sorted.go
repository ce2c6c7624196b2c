package link

import (
	"iter"
	"strings"
	"unsafe"

	"github.com/tidwall/btree"
)

// sorted is an ordered map from byte strings to V that is edited by copying the path to what changes:
// the cost of a change doesn't grow with the size. The zero map is empty. A copy of a sealed map is a
// second map, and neither sees what is done to the other.
type sorted[V any] struct {
	tree *btree.Map[string, V]
	own  bool // being edited: nodes that were made since the last seal may be changed in place
	// who is told what is read or changed, and by which name it knows the map; nil: nobody
	watch *watch
	id    mapID
}

// degree of the trees: a node has up to 31 entries, few enough that copying a path is cheap.
const degree = 16

func (m *sorted[V]) get(key []byte) (V, bool) {
	m.watch.read(m.id, key)
	return m.peek(key)
}

// peek is get that nobody is told of.
func (m *sorted[V]) peek(key []byte) (V, bool) {
	if m.tree == nil {
		var zero V
		return zero, false
	}
	return m.tree.Get(view(key))
}

// watched has w watch the map.
func (m *sorted[V]) watched(w *watch, id mapID) { m.watch, m.id = w, id }

// view returns the bytes as a string without copying them: for looking up, never for keeping.
func view(key []byte) string { return unsafe.String(unsafe.SliceData(key), len(key)) }

// edit makes the tree one that nobody else sees.
func (m *sorted[V]) edit() *btree.Map[string, V] {
	if !m.own {
		if m.tree == nil {
			m.tree = btree.NewMap[string, V](degree)
		} else {
			// Copy marks the map that it is called on too, which others may be reading: that is a copy here.
			mine := *m.tree
			m.tree = mine.Copy()
		}
		m.own = true
	}
	return m.tree
}

func (m *sorted[V]) put(key []byte, v V) {
	m.watch.changed(m.id, key)
	m.edit().Set(string(key), v)
}

func (m *sorted[V]) drop(key []byte) {
	m.watch.changed(m.id, key)
	m.edit().Delete(view(key))
}

// add adds n to the counter at key of a map of counters; a counter of 0 is no entry. Whoever watches is told where one begins or ends.
func add(m *sorted[int], key []byte, n int) {
	switch old, _ := m.peek(key); {
	case old+n == 0:
		m.drop(key)
	case old == 0:
		m.put(key, n)
	default:
		m.edit().Set(string(key), old+n)
	}
}

// counter returns the one at key of a map of counters, 0 where there is none.
func counter(m *sorted[int], key []byte) int {
	m.watch.readAll() // whether it is 0 is noted, how much it is isn't
	n, _ := m.peek(key)
	return n
}

// some reports whether the counter at key isn't 0.
func some(m *sorted[int], key []byte) bool {
	_, ok := m.get(key)
	return ok
}

// seal ends the editing.
func (m *sorted[V]) seal() { m.own = false }

// none reports whether it is plain that there are no entries: not where it would have to be noted.
func (m *sorted[V]) none() bool { return !m.watch.traces() && m.size() == 0 }

// size returns the number of entries.
func (m *sorted[V]) size() int {
	m.watch.readAll()
	if m.tree == nil {
		return 0
	}
	return m.tree.Len()
}

// all yields what begins with prefix, in order of the keys. The map must not be edited meanwhile.
func (m *sorted[V]) all(prefix []byte) iter.Seq2[string, V] { return m.from(prefix, prefix) }

// from yields what begins with prefix and isn't before first, in order of the keys.
func (m *sorted[V]) from(prefix, first []byte) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		m.watch.readPrefix(m.id, prefix)
		if m.tree == nil {
			return
		}
		end := string(prefix)
		m.tree.Ascend(max(end, string(first)), func(k string, v V) bool {
			return strings.HasPrefix(k, end) && yield(k, v)
		})
	}
}

// values yields the values of all.
func (m *sorted[V]) values(prefix []byte) iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range m.all(prefix) {
			if !yield(v) {
				return
			}
		}
	}
}
