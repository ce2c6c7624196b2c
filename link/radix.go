package link

import (
	"iter"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// radix is an ordered map from byte strings to V that is edited by copying the path to what changes:
// the cost of a change doesn't grow with the size. The zero radix is empty. A copy is a second map
// once seal was called on both.
type radix[V any] struct {
	tree *iradix.Tree[V]
	txn  *iradix.Txn[V] // set while the map is being edited
}

func (r *radix[V]) get(key []byte) (V, bool) {
	switch {
	case r.txn != nil:
		return r.txn.Get(key)
	case r.tree != nil:
		return r.tree.Get(key)
	}
	var zero V
	return zero, false
}

func (r *radix[V]) edit() *iradix.Txn[V] {
	if r.txn == nil {
		if r.tree == nil {
			r.tree = iradix.New[V]()
		}
		r.txn = r.tree.Txn()
	}
	return r.txn
}

func (r *radix[V]) put(key []byte, v V) { r.edit().Insert(key, v) }

func (r *radix[V]) drop(key []byte) { r.edit().Delete(key) }

// add adds n to the counter at key of a map of counters; a counter of 0 is no entry.
func add(r *radix[int], key []byte, n int) {
	old, _ := r.get(key)
	if old+n == 0 {
		r.drop(key)
		return
	}
	r.put(key, old+n)
}

// counter returns the one at key of a map of counters, 0 where there is none.
func counter(r *radix[int], key []byte) int {
	n, _ := r.get(key)
	return n
}

// seal ends the editing.
func (r *radix[V]) seal() {
	if r.txn != nil {
		r.tree, r.txn = r.txn.CommitOnly(), nil
	}
}

// all yields what begins with prefix, in order of the keys. The map must not be edited meanwhile.
func (r *radix[V]) all(prefix []byte) iter.Seq2[[]byte, V] {
	return func(yield func([]byte, V) bool) {
		var root *iradix.Node[V]
		switch {
		case r.txn != nil:
			root = r.txn.Root()
		case r.tree != nil:
			root = r.tree.Root()
		default:
			return
		}
		it := root.Iterator()
		it.SeekPrefix(prefix)
		for k, v, ok := it.Next(); ok; k, v, ok = it.Next() {
			if !yield(k, v) {
				return
			}
		}
	}
}

// values yields the values of all.
func (r *radix[V]) values(prefix []byte) iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range r.all(prefix) {
			if !yield(v) {
				return
			}
		}
	}
}
