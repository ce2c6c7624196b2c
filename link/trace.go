package link

import (
	"cmp"
	"slices"
	"unsafe"
)

// Trace notes what is read of a snapshot, so that what was made of it is known to be the same made of another: see
// [Snapshot.Traced]. The zero Trace has noted nothing. It is for one goroutine.
type Trace struct {
	Most  int // places that it notes; 0: mostRead
	reads []read
	whole bool // more was read than reads says
}

// Reset has the trace note anew.
func (t *Trace) Reset() { t.reads, t.whole = t.reads[:0], false }

// Reads is what was read of a snapshot. It is immutable.
type Reads []read

// Bytes is how much memory it takes.
func (r Reads) Bytes() int { return cap(r) * int(unsafe.Sizeof(read{})) }

// read is a place, and the transaction that was the last to change it.
type read struct {
	place uint32
	stamp uint64
}

// mostRead is how many places a trace notes where it doesn't say. What was made of more is taken for made of everything.
const mostRead = 64

// mapID names what is kept by key, for who watches it.
type mapID byte

// What can be traced. Whatever else is read of a traced snapshot counts as everything.
const (
	notTraced mapID = iota
	ofNetworks
	ofSites // of a network: no map, but a part of networks that changes by itself
	ofServices
	ofAddresses
	ofBoth
	ofOwners
	ofExists
	ofTallies
	ofZones
	ofRecords
	ofLinked
	ofNames
	ofBelow
	ofGrouped
	ofAliases
	ofByService // the last of the maps
	ofPools     // all of them, and in which network each is
	ofClients   // the prefixes of networks that are found by address, and whose they are
	ofBackends  // of an address: who sends there
)

// traceable returns the maps of a snapshot that can be traced, by ID.
func (s *Snapshot) traceable() [ofByService + 1]interface{ watched(*watch, mapID) } {
	p := &s.private
	return [...]interface{ watched(*watch, mapID) }{
		ofNetworks: &s.networks, ofServices: &s.services, ofBoth: &s.byBoth, ofOwners: &s.owners, ofExists: &s.exists, ofTallies: &s.tallies,
		ofZones: &p.zones, ofRecords: &p.records, ofLinked: &p.linked, ofNames: &p.atName, ofBelow: &p.below, ofGrouped: &p.grouped, ofAliases: &p.aliases,
		ofByService: &s.byService,
	}
}

// watch is who wants to know what is done to a snapshot: a transaction, what it changes, or a trace, what is read.
type watch struct {
	changes *changes
	marks   *marks
	trace   *Trace
}

// watchedBy has w watch the snapshot, nil for nobody.
func (s *Snapshot) watchedBy(w *watch) {
	s.watch = w
	for id, m := range s.traceable() {
		if m != nil {
			m.watched(w, mapID(id))
		}
	}
	// Of the others it is enough to know that they were read.
	if w == nil || w.trace != nil {
		s.endpoints.watched(w, notTraced)
		s.retired.watched(w, notTraced)
		s.links.watched(w, notTraced)
		s.resting.watched(w, notTraced)
		s.backends.watched(w, notTraced)
		s.aliases.watched(w, notTraced)
		s.claims.watched(w, notTraced)
		s.suffixes.watched(w, notTraced)
		s.placed.watched(w, notTraced)
		s.targeted.watched(w, notTraced)
		s.sources.watched(w, notTraced)
		s.ports.watched(w, notTraced)
		s.loopback.watched(w, notTraced)
		s.cursors.watched(w, notTraced)
		s.private.documents.watched(w, notTraced)
		s.private.members.watched(w, notTraced)
	}
}

// Traced returns the same snapshot for one goroutine, all reading of which t notes. It costs a copy of the maps' heads. What was
// made of what is read, and of nothing else, is the same in each snapshot that [Snapshot.Has] the reads.
func (s *Snapshot) Traced(t *Trace) *Snapshot {
	c := *s
	c.watchedBy(&watch{marks: &s.marks, trace: t})
	return &c
}

// Reads returns what was read; ok is false where that is more than can be told.
func (t *Trace) Reads() (reads Reads, ok bool) { return slices.Clone(t.reads), !t.whole }

// Has reports whether all that was read of another snapshot is here as it was there. False may also be said where it is. It
// doesn't allocate.
func (s *Snapshot) Has(reads Reads) bool {
	for _, r := range reads {
		if s.marks.at(r.place) != r.stamp {
			return false
		}
	}
	return true
}

// traces reports whether what is read is noted. w may be nil.
func (w *watch) traces() bool { return w != nil && w.trace != nil }

// read notes that a key was read. w may be nil.
func (w *watch) read(of mapID, key []byte) {
	if w == nil || w.trace == nil || w.trace.whole {
		return
	}
	t := w.trace
	if of == notTraced || len(t.reads) >= cmp.Or(t.Most, mostRead) {
		t.reads, t.whole = t.reads[:0], true
		return
	}
	p := placeOf(of, key)
	if !slices.ContainsFunc(t.reads, func(r read) bool { return r.place == p }) {
		t.reads = append(t.reads, read{p, w.marks.at(p)})
	}
}

// readPrefix notes that all keys with a prefix were read.
func (w *watch) readPrefix(of mapID, prefix []byte) {
	if len(prefix) == 0 || prefix[len(prefix)-1] != 0 {
		of = notTraced // what changes is noted for whole parts of keys
	}
	w.read(of, prefix)
}

// readAll notes that it isn't known what was read.
func (w *watch) readAll() { w.read(notTraced, nil) }

// changed notes that what is kept for a key has changed, which all see that read the key or a prefix of it that ends in a zero. w may be
// nil.
func (w *watch) changed(of mapID, key []byte) {
	if w == nil || w.changes == nil || w.changes.all || of == notTraced {
		return
	}
	w.changes.note(of, key)
	for i, c := range key {
		if c == 0 && i+1 < len(key) {
			w.changes.note(of, key[:i+1])
		}
	}
}
