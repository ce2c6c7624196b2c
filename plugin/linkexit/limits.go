package linkexit

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/postern-link/postern/plugin/privatelink"
)

// What is tracked has a fixed size, however many clients there are. A key's hash gives its shard and the
// few places where it may stand; when all are taken it takes the one that says least.
const (
	shards = 64
	ways   = 8

	rateSets = 128 // 65,536 clients
	nameSets = 16  // 8,192 pairs of client and domain
	// maxNames is the largest bound of names of a pair, so that all pairs have at most 64 MiB.
	maxNames = 1000

	// reportEvery is how often a client that is over its rate is spoken of.
	reportEvery = int64(time.Minute)
)

// keys makes the keys of clients and domains. Clients can't know its seed, and so can't make theirs meet those
// of others.
type keys struct{ seed maphash.Seed }

func newKeys() keys { return keys{maphash.MakeSeed()} }

// client returns the key of a client: its network and address, of IPv6 the /64, which one host has for itself.
func (k keys) client(c privatelink.Client) uint64 {
	var h maphash.Hash
	h.SetSeed(k.seed)
	h.WriteString(string(c.Network))
	h.WriteByte(0)
	b := source(c.Addr).As16()
	h.Write(b[:])
	return h.Sum64() | 1 // 0 is a free place
}

// source is what a limit holds for: an IPv4 address, or the /64 of an IPv6 address.
func source(a netip.Addr) netip.Addr {
	if !a.Is6() || a.Is4In6() {
		return a
	}
	b := a.As16()
	clear(b[8:])
	return netip.AddrFrom16(b)
}

// pair returns the key of a client and a domain.
func (k keys) pair(client uint64, domain string) uint64 {
	return (maphash.String(k.seed, domain) ^ client*0x9e3779b97f4a7c15) | 1
}

// name returns what stands for a name among those of one pair.
func (k keys) name(folded string) uint32 { return uint32(maphash.String(k.seed, folded)) | 1 }

// rates holds clients to a rate by the generic cell rate algorithm (ITU-T I.371): the time at which a
// client will have paid for what it has sent says everything.
type rates struct {
	interval int64 // nanoseconds for one query
	credit   int64 // nanoseconds that a client may be ahead
	shards   [shards]rateShard
}

type rateShard struct {
	mu      sync.Mutex // guards entries
	entries [rateSets * ways]rateEntry
	_       [64]byte
}

type rateEntry struct {
	key    uint64
	paid   int64 // when the client will be where one is that never asked
	report int64 // until when it isn't spoken of again
}

// newRates allows so many queries a second, and that many at once.
func newRates(perSecond, burst int) *rates {
	interval := int64(time.Second) / int64(perSecond)
	return &rates{interval: interval, credit: interval * int64(burst-1)}
}

// take lets a query pass or not. First says that the client was not refused in the last minute.
func (t *rates) take(key uint64, now int64) (ok, first bool) {
	s := &t.shards[key>>58%shards]
	set := key >> 32 % rateSets * ways
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.place(s.entries[set:set+ways], key)
	paid := max(e.paid, now)
	if paid-now > t.credit {
		first = now >= e.report
		if first {
			e.report = now + reportEvery
		}
		return false, first
	}
	e.paid = paid + t.interval
	return true, false
}

// place returns the entry of a key. A new one takes the place of the client that has sent least lately: one
// whose time is over loses nothing.
func (*rateShard) place(set []rateEntry, key uint64) *rateEntry {
	least := &set[0]
	for i := range set {
		e := &set[i]
		if e.key == key {
			return e
		}
		if e.paid < least.paid {
			least = e
		}
	}
	*least = rateEntry{key: key}
	return least
}

// names bounds how many distinct names a client asks for below one domain in a period. Names that it has
// asked for before don't count, and go on to pass.
type names struct {
	most   int
	period int64 // nanoseconds
	shards [shards]nameShard
}

type nameShard struct {
	mu      sync.Mutex // guards entries
	entries [nameSets * ways]nameEntry
	_       [64]byte
}

type nameEntry struct {
	key      uint64
	end      int64    // of the period, which begins with the first name
	seen     []uint32 // a hash table of the names, 0 is a free place
	count    int      // of names
	reported bool
}

func newNames(most int, period time.Duration) *names {
	return &names{most: most, period: int64(period)}
}

// take lets a name of a pair pass or not. First says that none of the pair was refused in the period.
func (t *names) take(key uint64, name uint32, now int64) (ok, first bool) {
	s := &t.shards[key>>58%shards]
	set := key >> 32 % nameSets * ways
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.place(s.entries[set:set+ways], key, now)
	if now >= e.end {
		e.restart(key, now+t.period)
	}
	switch {
	case e.has(name):
		return true, false
	case e.count >= t.most:
		first = !e.reported
		e.reported = true
		return false, first
	}
	e.add(name)
	return true, false
}

// place returns the entry of a key, with its end in the past where it is new. That takes the place of one
// that is over, or else of the one with the fewest names: who is close to the bound stays.
func (*nameShard) place(set []nameEntry, key uint64, now int64) *nameEntry {
	least := &set[0]
	for i := range set {
		e := &set[i]
		if e.key == key {
			return e
		}
		if over := now >= e.end; over && now < least.end || over == (now >= least.end) && e.count < least.count {
			least = e
		}
	}
	least.end = now
	return least
}

// restart begins a period of a pair.
func (e *nameEntry) restart(key uint64, end int64) {
	seen := e.seen
	if len(seen) > 16 {
		seen = nil
	}
	clear(seen)
	*e = nameEntry{key: key, end: end, seen: seen}
}

// has reports whether the name is among those seen.
func (e *nameEntry) has(name uint32) bool {
	for i := range e.seen {
		switch e.seen[(int(name>>1)+i)%len(e.seen)] {
		case name:
			return true
		case 0:
			return false
		}
	}
	return false
}

// add adds a name that isn't among those seen. A quarter of the table stays free.
func (e *nameEntry) add(name uint32) {
	if (e.count+1)*4 > len(e.seen)*3 {
		old := e.seen
		e.seen, e.count = make([]uint32, max(16, 2*len(old))), 0
		for _, n := range old {
			if n != 0 {
				e.add(n)
			}
		}
	}
	for i := int(name>>1) % len(e.seen); ; i = (i + 1) % len(e.seen) {
		if e.seen[i] == 0 {
			e.seen[i] = name
			e.count++
			return
		}
	}
}
