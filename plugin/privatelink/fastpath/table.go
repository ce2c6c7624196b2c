package fastpath

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// entry is one answer. It is immutable but for what is known of it.
type entry struct {
	hash uint64 // of key; the table sets it
	key  string
	wire []byte // as it was sent
	// spelt is where in the wire, beside the question, the name stands as it was asked, serials where the serial does.
	spelt, serials []int
	answer         *Answer
	epoch          atomic.Uint64 // of a moment that the answer is known to hold in; 0: none yet
}

// in reports whether the answer holds in a moment.
func (e *entry) in(m *Moment) bool { return e.epoch.Load() == m.Epoch || e.still(m) }

// still is in where it isn't known yet. Two sockets may have two moments for a while: each is told what is so in its own.
func (e *entry) still(m *Moment) bool {
	if a := e.answer; a.Epoch != m.Epoch && (a.Still == nil || !a.Still(m)) {
		return false
	}
	e.epoch.Store(m.Epoch)
	return true
}

// appendTo appends the answer to a query whose name has n bytes, in a moment.
func (e *entry) appendTo(dst, query []byte, n int, m *Moment) []byte {
	at := len(dst)
	dst = append(dst, e.wire...)
	w := dst[at:]
	copy(w, query[:2])
	name := query[headerSize : headerSize+n]
	copy(w[headerSize:], name)
	for _, off := range e.spelt {
		copy(w[off:], name)
	}
	for _, off := range e.serials {
		binary.BigEndian.PutUint32(w[off:], m.Serial)
	}
	return dst
}

// size is about how much memory the answer takes, in bytes.
func (e *entry) size() int {
	return entrySize + len(e.key) + len(e.wire) + 8*len(e.spelt) + 8*len(e.serials) + 16*cap(e.answer.Counts) + e.answer.Keeps
}

// Table is the answers that were given before, by what was asked. A reader takes no lock. It grows with what is asked
// up to maxSets * ways answers and a bound in bytes; then one takes the place of another. The zero Table is empty.
type Table struct {
	sets atomic.Pointer[[]set]

	mu      sync.Mutex // held to change
	evicted int        // answers that have lost their places since the table has grown
	bytes   int        // of all answers
	swept   uint64     // the epoch of the last sweep
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
	// beside its bytes: three objects, and what is observed.
	leastBytes   = 32 << 20
	bytesPerName = 1 << 10
	mostBytes    = 256 << 20
	entrySize    = 512
)

// room returns how many bytes the answers of a table may take where there are as many names.
func room(names int) int { return min(leastBytes+max(0, names)*bytesPerName, mostBytes) }

var seed = maphash.MakeSeed()

// get returns the answer for a key in a moment, nil where there is none.
func (t *Table) get(key []byte, m *Moment) *entry {
	p := t.sets.Load()
	if p == nil {
		return nil
	}
	h := maphash.Bytes(seed, key)
	s := &(*p)[h&uint64(len(*p)-1)]
	for i := range s {
		if e := s[i].Load(); e != nil && e.hash == h && e.key == string(key) {
			if e.in(m) {
				return e
			}
			return nil
		}
	}
	return nil
}

// put adds an answer in a moment, in the place of an older one for the same. All together have as much room.
func (t *Table) put(e *entry, m *Moment, room int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.sets.Load()
	if p == nil {
		all := make([]set, minSets)
		p = &all
		t.sets.Store(p)
	}
	if t.bytes+e.size() > room && !t.sweep(*p, e, m, room) {
		return
	}
	e.hash = maphash.String(seed, e.key)
	place, full := (*p)[e.hash&uint64(len(*p)-1)].place(e, m)
	if full {
		most := maxSets
		if e.answer.Loose {
			most = looseSets
		}
		if t.evicted++; t.evicted > len(*p)/8 && len(*p) < most {
			p = t.grow(*p, m)
			place, _ = (*p)[e.hash&uint64(len(*p)-1)].place(e, m)
		}
	}
	if place != nil {
		t.bytes += e.size()
		if old := place.Swap(e); old != nil {
			t.bytes -= old.size()
		}
	}
}

// sweep makes room for an answer in a moment: first go those that don't hold any more and, unless it is loose itself, loose ones; then
// all. False: there is none for a loose one.
func (t *Table) sweep(all []set, next *entry, m *Moment, room int) bool {
	loose := next.answer.Loose
	if loose && t.swept == m.Epoch {
		return false // what is left holds in this moment
	}
	t.swept = m.Epoch
	t.drop(all, func(old *entry) bool { return !old.in(m) || old.answer.Loose && !loose })
	if loose {
		return t.bytes+next.size() <= room
	}
	if t.bytes > room/4*3 { // not to sweep again at once
		t.drop(all, func(*entry) bool { return true })
	}
	return true
}

// drop takes out the answers that which says.
func (t *Table) drop(all []set, which func(*entry) bool) {
	for i := range all {
		for j := range all[i] {
			if e := all[i][j].Load(); e != nil && which(e) {
				all[i][j].Store(nil)
				t.bytes -= e.size()
			}
		}
	}
}

// place returns where an answer goes in a moment; full says that it takes the place of another that holds. A loose one takes that of
// another loose one, and may have none.
func (s *set) place(e *entry, m *Moment) (at *atomic.Pointer[entry], full bool) {
	for i := range s {
		if old := s[i].Load(); old != nil && old.hash == e.hash && old.key == e.key {
			return &s[i], false
		}
	}
	for i := range s {
		if old := s[i].Load(); old == nil || !old.in(m) {
			return &s[i], false
		}
	}
	for i := range s {
		if s[i].Load().answer.Loose {
			return &s[i], true
		}
	}
	if e.answer.Loose {
		return nil, true
	}
	return &s[e.hash>>32%ways], true
}

// grow doubles the table and keeps the answers that hold in a moment.
func (t *Table) grow(old []set, m *Moment) *[]set {
	next := make([]set, 2*len(old))
	t.bytes = 0
	for i := range old {
		for j := range old[i] {
			if e := old[i][j].Load(); e != nil && e.in(m) {
				place, _ := next[e.hash&uint64(len(next)-1)].place(e, m)
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
	ok = records(wire, headerSize+len(name)+4, func(owner, _, _, head int) {
		if bytes.Equal(wire[owner:head], name) {
			at = append(at, owner)
		}
	})
	// It stands nowhere else, where it would have to be changed as well.
	return at, ok && bytes.Count(wire, name) == 1+len(at)
}

// serials returns where an answer, whose records begin at off, has the serial in SOA records. ok is false where nobody can tell.
func serials(wire []byte, off int, serial uint32) (at []int, ok bool) {
	ok = records(wire, off, func(_, rtype, end, head int) {
		// The serial is the first of five numbers at the end (RFC 1035 section 3.3.13).
		if in := end - 20; rtype == typeSOA && in >= head+10 && binary.BigEndian.Uint32(wire[in:]) == serial {
			at = append(at, in)
		}
	})
	return at, ok
}

// records says of each record of a message, the first of which begins at off, where its owner begins, its type, where it ends, and where
// its owner ends. False: the message can't be read so, as where a name is compressed.
func records(wire []byte, off int, each func(owner, rtype, end, head int)) bool {
	if off > len(wire) {
		return false
	}
	n := int(binary.BigEndian.Uint16(wire[6:])) + int(binary.BigEndian.Uint16(wire[8:])) + int(binary.BigEndian.Uint16(wire[10:]))
	for range n {
		head := off
		for {
			if head >= len(wire) || wire[head] > 63 { // also a pointer
				return false
			}
			if wire[head] == 0 {
				head++
				break
			}
			head += 1 + int(wire[head])
		}
		if head+10 > len(wire) {
			return false
		}
		end := head + 10 + int(binary.BigEndian.Uint16(wire[head+8:]))
		if end > len(wire) {
			return false
		}
		each(off, int(binary.BigEndian.Uint16(wire[head:])), end, head)
		off = end
	}
	return off == len(wire)
}
