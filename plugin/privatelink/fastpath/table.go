package fastpath

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// entry is one answer, immutable.
type entry struct {
	key  string
	wire []byte // as it was sent
	// spelt is where in the wire, beside the question, the name stands as it was asked.
	spelt  []int
	answer *Answer
}

// appendTo appends the answer to a query whose name has n bytes.
func (e *entry) appendTo(dst, query []byte, n int) []byte {
	at := len(dst)
	dst = append(dst, e.wire...)
	w := dst[at:]
	copy(w, query[:2])
	name := query[headerSize : headerSize+n]
	copy(w[headerSize:], name)
	for _, off := range e.spelt {
		copy(w[off:], name)
	}
	return dst
}

// size is about how much memory the answer takes, in bytes.
func (e *entry) size() int {
	return entrySize + len(e.key) + len(e.wire) + 8*len(e.spelt) + 16*cap(e.answer.Counts)
}

// Table is the answers that were given before, by what was asked. A reader takes no lock. It grows with what is asked
// up to maxSets * ways answers and a bound in bytes; then one takes the place of another. The zero Table is empty.
type Table struct {
	sets atomic.Pointer[[]set]

	mu      sync.Mutex // held to change
	evicted int        // answers that have lost their places since the table has grown
	bytes   int        // of all answers
	swept   uint64     // the moment of the last sweep
}

// set is the places of the answers with one hash. What was put last is found first.
type set [ways]atomic.Pointer[entry]

const (
	ways    = 4
	minSets = 1 << 8
	maxSets = 1 << 17
	// looseSets is up to where the table grows for loose answers.
	looseSets = 1 << 12
	// leastBytes and bytesPerName bound the answers of a table, and mostBytes whatever there is to answer; entrySize is what one takes
	// beside its bytes: three objects and what is observed.
	leastBytes   = 32 << 20
	bytesPerName = 1 << 10
	mostBytes    = 256 << 20
	entrySize    = 384
)

// room returns how many bytes the answers of a table may take where there are as many names.
func room(names int) int { return min(leastBytes+max(0, names)*bytesPerName, mostBytes) }

var seed = maphash.MakeSeed()

// get returns the answer for a key in a moment, nil where there is none.
func (t *Table) get(key []byte, epoch uint64) *entry {
	p := t.sets.Load()
	if p == nil {
		return nil
	}
	s := &(*p)[maphash.Bytes(seed, key)&uint64(len(*p)-1)]
	for i := range s {
		if e := s[i].Load(); e != nil && e.answer.Epoch == epoch && e.key == string(key) {
			return e
		}
	}
	return nil
}

// put adds an answer, in the place of an older one for the same. All together have as much room.
func (t *Table) put(e *entry, room int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.sets.Load()
	if p == nil {
		all := make([]set, minSets)
		p = &all
		t.sets.Store(p)
	}
	if t.bytes+e.size() > room && !t.sweep(*p, e, room) {
		return
	}
	h := maphash.String(seed, e.key)
	place, full := (*p)[h&uint64(len(*p)-1)].place(e, h)
	if full {
		most := maxSets
		if e.answer.Loose {
			most = looseSets
		}
		if t.evicted++; t.evicted > len(*p)/8 && len(*p) < most {
			p = t.grow(*p, e.answer.Epoch)
			place, _ = (*p)[h&uint64(len(*p)-1)].place(e, h)
		}
	}
	if place != nil {
		t.bytes += e.size()
		if old := place.Swap(e); old != nil {
			t.bytes -= old.size()
		}
	}
}

// sweep makes room for an answer: first go those of other moments and, unless it is loose itself, loose ones; then all. False: there
// is none for a loose one.
func (t *Table) sweep(all []set, next *entry, room int) bool {
	a := next.answer
	if a.Loose && t.swept == a.Epoch {
		return false // what is left is of this moment
	}
	t.swept = a.Epoch
	t.drop(all, func(old *Answer) bool { return old.Epoch != a.Epoch || old.Loose && !a.Loose })
	if a.Loose {
		return t.bytes+next.size() <= room
	}
	if t.bytes > room/4*3 { // not to sweep again at once
		t.drop(all, func(*Answer) bool { return true })
	}
	return true
}

// drop takes out the answers that which says.
func (t *Table) drop(all []set, which func(*Answer) bool) {
	for i := range all {
		for j := range all[i] {
			if e := all[i][j].Load(); e != nil && which(e.answer) {
				all[i][j].Store(nil)
				t.bytes -= e.size()
			}
		}
	}
}

// place returns where an answer goes; full says that it takes the place of another that holds. A loose one takes that of another
// loose one, and may have none.
func (s *set) place(e *entry, h uint64) (at *atomic.Pointer[entry], full bool) {
	for i := range s {
		if old := s[i].Load(); old != nil && old.key == e.key {
			return &s[i], false
		}
	}
	for i := range s {
		if old := s[i].Load(); old == nil || old.answer.Epoch < e.answer.Epoch {
			return &s[i], false
		}
	}
	if !e.answer.Loose {
		return &s[h>>32%ways], true
	}
	for i := range s {
		if s[i].Load().answer.Loose {
			return &s[i], true
		}
	}
	return nil, true
}

// grow doubles the table and keeps the answers of a moment.
func (t *Table) grow(old []set, epoch uint64) *[]set {
	next := make([]set, 2*len(old))
	t.bytes = 0
	for i := range old {
		for j := range old[i] {
			if e := old[i][j].Load(); e != nil && e.answer.Epoch == epoch {
				h := maphash.String(seed, e.key)
				place, _ := next[h&uint64(len(next)-1)].place(e, h)
				if place != nil { // an empty one: a set comes from one of half as many
					place.Store(e)
					t.bytes += e.size()
				}
			}
		}
	}
	t.evicted = 0
	t.sets.Store(&next)
	return &next
}

// spellings returns where an answer repeats the name of its question as it was asked, as the owner of records. An answer to a
// name in lower case, which is kept for that spelling alone, needs none. ok is false where
// the answer can't be given again for another spelling.
func spellings(name, wire []byte) (at []int, ok bool) {
	if len(wire) < headerSize+len(name)+4 || !bytes.Equal(wire[headerSize:headerSize+len(name)], name) || binary.BigEndian.Uint16(wire[4:]) != 1 {
		return nil, false
	}
	if !bytes.ContainsFunc(name, func(c rune) bool { return c >= 'A' && c <= 'Z' }) {
		return nil, true
	}
	records := int(binary.BigEndian.Uint16(wire[6:])) + int(binary.BigEndian.Uint16(wire[8:])) + int(binary.BigEndian.Uint16(wire[10:]))
	off := headerSize + len(name) + 4
	for range records {
		end := off
		for {
			if end >= len(wire) || wire[end] > 63 { // also a pointer
				return nil, false
			}
			if wire[end] == 0 {
				end++
				break
			}
			end += 1 + int(wire[end])
		}
		if end+10 > len(wire) {
			return nil, false
		}
		if bytes.Equal(wire[off:end], name) {
			at = append(at, off)
		}
		off = end + 10 + int(binary.BigEndian.Uint16(wire[end+8:]))
		if off > len(wire) {
			return nil, false
		}
	}
	// It stands nowhere else, where it would have to be changed as well.
	return at, off == len(wire) && bytes.Count(wire, name) == 1+len(at)
}
