package export

import (
	"log/slog"
	"sync"
	"time"
)

// batchRecords is how many flow records are sent at once, at most.
const batchRecords = 512

// flow is a record of the flow log as it waits: its words are made when it is sent.
type flow struct {
	at      time.Time
	message string
	fields  slog.Value
}

func flowOf(r slog.Record) flow {
	f := flow{at: r.Time, message: r.Message}
	var all []slog.Attr
	r.Attrs(func(a slog.Attr) bool {
		if r.NumAttrs() == 1 && a.Key == "" {
			f.fields = a.Value // all that the line of a flow has
			return false
		}
		all = append(all, a)
		return true
	})
	if all != nil {
		f.fields = slog.GroupValue(all...)
	}
	return f
}

// queue holds the flow records that wait, at most so many, and one batch beside them that is being sent. Where there is no room the oldest give
// way: who looks at what happens now is served when the receiver is back, and the log has the others. A gap in the records is told
// to the receiver with the next batch.
type queue struct {
	metrics receiverMetrics
	most    int
	wake    chan struct{} // of size one: something was added
	full    chan struct{} // of size one: there is enough for a batch

	mu    sync.Mutex
	ring  []flow // grows up to most
	first int    // of those in ring
	n     int
	hand  []flow // taken, and neither sent nor dropped yet
	gap   int64  // records that were lost and whose gap the receiver doesn't know of
	next  *queue // that has taken all over; nil: none
	shut  bool   // nothing is sent any more
}

func newQueue(most int, m receiverMetrics) *queue {
	return &queue{most: most, metrics: m, wake: make(chan struct{}, 1), full: make(chan struct{}, 1)}
}

// add takes records, and how many were lost before they came here.
func (q *queue) add(records []slog.Record, lost int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.next != nil:
		q.next.add(records, lost)
		return
	case q.shut:
		q.metrics.drop(ReasonEnd, len(records))
		return
	}
	q.lose(ReasonLog, lost)
	for _, r := range records {
		q.push(flowOf(r))
	}
	q.noticeLocked()
}

// lose counts records as lost. The caller holds mu.
func (q *queue) lose(why Reason, n int64) {
	if n > 0 {
		q.gap += n
		q.metrics.drop(why, int(n))
	}
}

// push appends a record. The caller holds mu.
func (q *queue) push(f flow) {
	if q.n == q.most {
		q.ring[q.first] = flow{}
		q.first = (q.first + 1) % len(q.ring)
		q.n--
		q.lose(ReasonQueue, 1)
	}
	if q.n == len(q.ring) {
		larger := make([]flow, min(q.most, max(64, 2*len(q.ring))))
		for i := range q.n {
			larger[i] = q.ring[(q.first+i)%len(q.ring)]
		}
		q.ring, q.first = larger, 0
	}
	q.ring[(q.first+q.n)%len(q.ring)] = f
	q.n++
}

// noticeLocked wakes who sends, and shows the length. The caller holds mu.
func (q *queue) noticeLocked() {
	q.metrics.queue.Set(float64(q.n + len(q.hand)))
	if q.n > 0 {
		signal(q.wake)
	}
	if q.n >= batchRecords {
		signal(q.full)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take returns the oldest records, at most a batch, and the gap before them. They are in hand until settle.
func (q *queue) take() (batch []flow, gap int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.hand) < batchRecords && q.n > 0 {
		q.hand = append(q.hand, q.ring[q.first])
		q.ring[q.first] = flow{}
		q.first = (q.first + 1) % len(q.ring)
		q.n--
	}
	if q.n == 0 {
		q.ring, q.first = nil, 0 // the room of a bad hour isn't kept
	}
	return q.hand, q.gap
}

// settle says what has become of the batch in hand: told is the gap that the receiver knows of now. Records that are dropped have a reason.
func (q *queue) settle(told int64, why Reason) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gap -= told; why != "" {
		q.lose(why, int64(len(q.hand)))
	}
	clear(q.hand)
	q.hand = q.hand[:0]
	q.noticeLocked()
}

// inherit takes over what waits in a queue that nobody sends from any more, and what is still added there.
func (q *queue) inherit(old *queue) {
	old.mu.Lock()
	defer old.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	var newer []flow // that came here already
	for i := range q.n {
		newer = append(newer, q.ring[(q.first+i)%len(q.ring)])
	}
	q.ring, q.first, q.n = nil, 0, 0
	q.gap += old.gap
	for _, f := range old.hand {
		q.push(f)
	}
	for i := range old.n {
		q.push(old.ring[(old.first+i)%len(old.ring)])
	}
	for _, f := range newer {
		q.push(f)
	}
	old.ring, old.hand, old.n, old.next = nil, nil, 0, q
	q.noticeLocked()
}

// count has what happens counted elsewhere.
func (q *queue) count(m receiverMetrics) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.metrics = m
}

// discard drops what is left. What is added later is dropped too.
func (q *queue) discard() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.n + len(q.hand)
	q.metrics.drop(ReasonEnd, n)
	q.ring, q.hand, q.n, q.shut = nil, nil, 0, true
	q.metrics.queue.Set(0)
	return n
}
