// Package fastpath answers DNS queries over UDP from the answers that were given before, without the plugins.
//
// It has sockets of its own beside CoreDNS's on the same address (SO_REUSEPORT), to which a filter in the kernel leads all
// datagrams. What the [Table] has is answered at once; everything else goes to the plugins as if it had come by
// CoreDNS's socket, and what they answer is kept in the table if they say that it may be ([Answer]). So an answer is
// never made here: it is theirs, byte for byte, with the ID and the spelling of the new query.
//
// Whether an answer still holds is asked anew for each query. One of another [Moment] is asked for what it was made from, once in
// each moment: it is found where that is still the same. Nothing is rebuilt when the state changes, and nothing has to be.
//
// Correctness never depends on the filter: a datagram that comes to CoreDNS's socket is answered there.
package fastpath

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// Backend is the plugins, and what their answers depend on. Its methods are called from many goroutines at once;
// Now and View take no lock and allocate nothing.
type Backend interface {
	// Now returns the moment whose answers hold, nil while none does.
	Now() *Moment
	// View returns what else an answer depends on: who asks. False: nothing is kept for this client.
	View(m *Moment, client netip.Addr) (view string, ok bool)
	// Serve answers as the plugins do. If learn is set it returns what there is to know of the answer, nil if
	// it may not be kept.
	Serve(w dns.ResponseWriter, r *dns.Msg, learn bool) *Answer
}

// Moment is a time in which answers don't change. It is immutable.
type Moment struct {
	Epoch uint64 // another one in each moment, and never 0
	State any    // of the backend
	// Serial is that of the zones, which all answers tell that have it: see [Answer].
	Serial uint32
	Names  int // about how many have answers of their own, for which the table has room
}

// Answer is what the plugins say of an answer that they gave.
type Answer struct {
	Epoch uint64 // of the moment that it was made in; 0: of one that is over
	View  string
	// Still reports whether it would be made so in another moment, but for the serial; nil: it holds in its own alone. It takes no lock
	// and allocates nothing.
	Still func(m *Moment) bool
	// Keeps is how much memory Still keeps, in bytes.
	Keeps int
	// Serial is that of the moment that it was made in. SOA records with this serial get that of the moment in which it is given.
	Serial uint32
	// Holds reports whether the answer still holds within its moment; nil: always.
	Holds func() bool
	// Counts are the counters that the plugins have raised by one.
	Counts []prometheus.Counter
	// Size is the size of the answer as the plugins have counted it, in bytes.
	Size float64
	// Loose: the client has chosen what it asks, or how, so that there may be any number of such answers. This one takes
	// the place of none that isn't loose.
	Loose bool
}

// Target is what the sockets of an address serve: one configuration. It is not changed once it is in use.
type Target struct {
	Backend Backend
	// Always has the plugins answer every query: no answer is given again.
	Always bool
	// NoOptions sends queries with EDNS options to the plugins, NoSubnets those with a client subnet.
	NoOptions, NoSubnets bool
	// Requests, Responses and Duration take the sizes in bytes and the time in seconds of what is answered here; nil:
	// nobody wants to know.
	Requests, Responses, Duration prometheus.Observer
	// Answered counts what is answered here, Dropped the queries for which the plugins had no time; nil: nobody wants to know.
	Answered, Dropped prometheus.Counter

	table Table

	// serving is how many queries are with the plugins. Once retired is set, done is closed when there are none.
	serving atomic.Int64
	retired atomic.Bool
	once    sync.Once
	done    chan struct{}
}

// NewTarget returns a target with an empty table.
func NewTarget(b Backend) *Target { return &Target{Backend: b, done: make(chan struct{})} }

// now returns the moment whose answers may be given again, nil where none may.
func (t *Target) now() *Moment {
	if t.Always {
		return nil
	}
	return t.Backend.Now()
}

// enter notes a query that goes to the plugins.
func (t *Target) enter() { t.serving.Add(1) }

func (t *Target) leave() {
	if t.serving.Add(-1) == 0 && t.retired.Load() {
		t.once.Do(func() { close(t.done) })
	}
}

// Drain waits until the plugins have answered all that they were asked, at most for the given time. Another target is
// in the place of this one before.
func (t *Target) Drain(atMost time.Duration) {
	t.retired.Store(true)
	if t.serving.Load() == 0 {
		return
	}
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-t.done:
	case <-timer.C:
	}
}

// find returns the answer to a query in a moment, which may be nil, and how long the name is. If there is none, learn says whether
// that of the plugins may be kept. The key is made in the given place.
func (t *Target) find(key []byte, m *Moment, client netip.Addr, query []byte) (e *entry, n int, learn bool) {
	if m == nil {
		return nil, 0, false
	}
	head := len(key)
	key, n, ok := t.parse(key, query)
	if !ok {
		return nil, 0, false
	}
	if client.Is6() {
		key[head+2] |= six
	}
	view, ok := t.Backend.View(m, client)
	if !ok {
		return nil, 0, false
	}
	e = t.table.get(append(key, view...), m)
	if e == nil || e.answer.Holds != nil && !e.answer.Holds() {
		return nil, n, true
	}
	return e, n, false
}

// keep puts an answer of the plugins into the table if it can be given again, to clients of IPv6 or of IPv4.
func (t *Target) keep(query, wire []byte, a *Answer, ipv6 bool) {
	m := t.Backend.Now()
	if m == nil || m.Epoch != a.Epoch && (a.Still == nil || !a.Still(m)) {
		return // it would take the place of a newer one
	}
	var buf [maxKey]byte
	key, n, ok := t.parse(buf[:0], query)
	if !ok {
		return
	}
	if ipv6 {
		key[2] |= six
	}
	spelt, ok := spellings(query[headerSize:headerSize+n], wire)
	if !ok || len(wire) > maxWire {
		return
	}
	serials, ok := serials(wire, headerSize+n+4, a.Serial)
	if !ok {
		return
	}
	a.Loose = a.Loose || unusual(key)
	e := &entry{key: string(append(key, a.View...)), wire: wire, spelt: spelt, serials: serials, answer: a}
	t.table.put(e, m, room(m.Names))
}
