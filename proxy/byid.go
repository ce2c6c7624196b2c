package proxy

import (
	"hash/maphash"
	"iter"
	"slices"

	"github.com/postern-link/postern/link"
)

// byID is an immutable map from IDs to V: one with a change shares with the one before all but the way there, so that a change
// costs the same however many there are. The zero byID is empty.
type byID[V any] struct {
	top *[idWays]*[idWays][]idEntry[V]
}

type idEntry[V any] struct {
	id link.ID
	of *V
}

// idWays is how many ways there are at each of two steps.
const idWays = 64

var idSeed = maphash.MakeSeed()

func idStep(id link.ID) (first, second uint64) {
	h := maphash.String(idSeed, string(id))
	return h % idWays, h / idWays % idWays
}

// get returns what is kept for an ID, nil for nothing.
func (m byID[V]) get(id link.ID) *V {
	if m.top == nil {
		return nil
	}
	first, second := idStep(id)
	if m.top[first] == nil {
		return nil
	}
	for _, e := range m.top[first][second] {
		if e.id == id {
			return e.of
		}
	}
	return nil
}

// with returns the map with v for an ID, or without the ID where v is nil.
func (m byID[V]) with(id link.ID, v *V) byID[V] {
	if v == m.get(id) {
		return m
	}
	first, second := idStep(id)
	top, row := new([idWays]*[idWays][]idEntry[V]), new([idWays][]idEntry[V])
	if m.top != nil {
		*top = *m.top
	}
	if top[first] != nil {
		*row = *top[first]
	}
	entries := slices.DeleteFunc(slices.Clone(row[second]), func(e idEntry[V]) bool { return e.id == id })
	if v != nil {
		entries = append(entries, idEntry[V]{id, v})
	}
	row[second], top[first] = entries, row
	return byID[V]{top}
}

// all yields all in no order.
func (m byID[V]) all() iter.Seq2[link.ID, *V] {
	return func(yield func(link.ID, *V) bool) {
		if m.top == nil {
			return
		}
		for _, row := range m.top {
			if row == nil {
				continue
			}
			for _, entries := range row {
				for _, e := range entries {
					if !yield(e.id, e.of) {
						return
					}
				}
			}
		}
	}
}
