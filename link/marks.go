package link

import (
	"hash/maphash"
	"slices"
	"sync/atomic"
)

// marks says for each place which transaction was the last to change what is kept there. A place stands for all keys of all maps with
// one hash: two that share one are taken for changed together. It is edited as the maps are, by copying the path to what changes; a
// marks that is sealed is immutable. The zero marks is that of the empty snapshot.
type marks struct {
	rest uint64 // of the places that have no row
	rows *[1 << markTop]*markRows
}

type (
	markRows [1 << markMiddle]*markRow
	markRow  [1 << markLow]uint64
)

// There are a million places: with 100,000 names, one change is taken for one of a few others.
const (
	markTop, markMiddle, markLow = 8, 6, 6

	markBits = markTop + markMiddle + markLow
	// mostMarked is how many places one transaction marks. One that changes more has changed everything.
	mostMarked = 1 << 15
)

// stamps numbers the transactions of this process. A number that says the same of a place in two snapshots, whichever ways led to
// them, is that of the one transaction which both come from and after which nothing has changed there.
var stamps atomic.Uint64

var markSeed = maphash.MakeSeed()

// placeOf returns the place of a key of a map.
func placeOf(of mapID, key []byte) uint32 {
	return uint32((maphash.Bytes(markSeed, key) ^ uint64(of)*0x9e3779b97f4a7c15) >> (64 - markBits))
}

// at returns the number of the transaction that was the last to change a place.
func (m *marks) at(place uint32) uint64 {
	if m.rows == nil {
		return m.rest
	}
	rows := m.rows[place>>(markMiddle+markLow)]
	if rows == nil {
		return m.rest
	}
	row := rows[place>>markLow%(1<<markMiddle)]
	if row == nil {
		return m.rest
	}
	return row[place%(1<<markLow)]
}

// with returns the marks after a transaction has changed some places. The slice is sorted.
func (m marks) with(stamp uint64, places []uint32) marks {
	if len(places) == 0 {
		return m
	}
	slices.Sort(places)
	top := new([1 << markTop]*markRows)
	if m.rows != nil {
		*top = *m.rows
	}
	m.rows = top
	var rows *markRows
	var row *markRow
	for i, p := range places {
		at, in := p>>(markMiddle+markLow), p>>markLow%(1<<markMiddle)
		if i == 0 || at != places[i-1]>>(markMiddle+markLow) {
			rows = new(markRows)
			if top[at] != nil {
				*rows = *top[at]
			}
			top[at] = rows
		}
		if i == 0 || p>>markLow != places[i-1]>>markLow {
			row = new(markRow)
			if old := rows[in]; old != nil {
				*row = *old
			} else {
				for j := range row {
					row[j] = m.rest
				}
			}
			rows[in] = row
		}
		row[p%(1<<markLow)] = stamp
	}
	return m
}

// changes collects what a transaction changes.
type changes struct {
	stamp  uint64
	places []uint32
	all    bool // more than places says, or nobody knows what
}

// note notes that what is kept for a key of a map has changed. c may be nil.
func (c *changes) note(of mapID, key []byte) {
	switch {
	case c == nil || c.all:
	case len(c.places) >= mostMarked:
		c.all, c.places = true, nil
	default:
		c.places = append(c.places, placeOf(of, key))
	}
}

// marked returns m after the changes.
func (c *changes) marked(m marks) marks {
	if c.all {
		return marks{rest: c.stamp}
	}
	return m.with(c.stamp, c.places)
}
