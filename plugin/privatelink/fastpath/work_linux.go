package fastpath

import (
	"runtime"
	"sync"
	"time"
)

// work is the queries of one socket that the plugins are to answer, and their answers.
//
// A worker takes one query after the other, so that most are answered by one goroutine, whose stack has grown, and their answers leave
// with one system call. At any query it may have to wait, as for an upstream server. So before it begins with one while anything is left to do,
// be it queries or answers, another worker is called, which goes on when there is a processor for it. No query and no answer waits for a plugin
// that waits.
type work struct {
	socket *socket

	mu       sync.Mutex
	called   sync.Cond // a worker is called, or all are to end
	waiting  []*miss
	taken    int // of waiting
	answers  []reply
	oldest   time.Time // when the first of answers was there
	spare    []reply   // room for answers
	idle     int       // workers that wait to be called
	coming   bool      // a worker is called that hasn't looked yet
	flushing bool      // a worker sends answers
	open     int       // queries that the plugins have not done with
	ended    bool
	done     chan struct{} // closed when it has ended and nothing is left

	out  outbox // of the one who flushes
	send func(fd uintptr) bool
}

// reply is an answer to be sent.
type reply struct {
	to   *parcel
	wire []byte
}

const (
	// maxWaiting is how many queries wait for a worker at most. They wait for a processor alone: what has to wait for something else has a worker.
	maxWaiting = 1024
	// maxKept is for how long an answer waits for others at most, but for the query that is with the plugins then.
	maxKept = time.Millisecond
	// maxIdle is how many workers of a socket wait for work at most.
	maxIdle = 16
)

func newWork(s *socket) *work {
	w := &work{socket: s, done: make(chan struct{})}
	w.called.L = &w.mu
	w.send = func(fd uintptr) bool { return w.out.send(fd, true) }
	return w
}

// add has queries answered. It returns how many of them, the last, are not, for too many wait.
func (w *work) add(queries []*miss) (dropped int) {
	w.mu.Lock()
	if room := maxWaiting - (len(w.waiting) - w.taken); room < len(queries) {
		queries, dropped = queries[:room], len(queries)-room
	}
	if w.taken > 0 && len(w.waiting)+len(queries) > cap(w.waiting) {
		left := copy(w.waiting, w.waiting[w.taken:])
		clear(w.waiting[left:])
		w.waiting, w.taken = w.waiting[:left], 0
	}
	w.waiting = append(w.waiting, queries...)
	w.open += len(queries)
	if !w.coming {
		w.call()
	}
	many := len(w.waiting)-w.taken > maxWaiting/2
	w.mu.Unlock()
	if many {
		runtime.Gosched() // they need the processor that reading takes
	}
	return dropped
}

// call has another worker come.
func (w *work) call() {
	w.coming = true
	if w.idle > 0 {
		w.called.Signal()
		return
	}
	go w.run()
}

// run is a worker.
func (w *work) run() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.coming = false
	for {
		if n := len(w.answers); n > 0 && !w.flushing && (n >= batch || time.Since(w.oldest) > maxKept) {
			w.flush() // the queue may never be empty
			continue
		}
		m := w.take()
		switch {
		case m != nil:
			w.serve(m)
		case len(w.answers) > 0 && !w.flushing:
			w.flush()
		case w.ended:
			w.finish()
			return
		case w.idle == maxIdle:
			return
		default:
			w.idle++
			w.called.Wait()
			w.idle--
			w.coming = false
		}
	}
}

// serve has the plugins answer a query. They may end the goroutine.
func (w *work) serve(m *miss) {
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		if w.open--; w.ended {
			w.finish()
		}
	}()
	w.socket.serveMiss(m)
}

// take returns the oldest query, nil if none waits. If then anything is left to do, another worker comes.
func (w *work) take() *miss {
	if w.taken == len(w.waiting) {
		return nil
	}
	m := w.waiting[w.taken]
	w.waiting[w.taken] = nil
	w.taken++
	left := len(w.waiting) - w.taken
	if left == 0 {
		w.waiting, w.taken = w.waiting[:0], 0
	}
	if !w.coming && (left > 0 || len(w.answers) > 0) {
		w.call()
	}
	return m
}

// reply sends an answer, at once or with those that follow: when the worker that is coming has nothing else to do.
func (w *work) reply(to *parcel, wire []byte) error {
	w.mu.Lock()
	coming := w.coming
	if coming {
		if len(w.answers) == 0 {
			w.oldest = time.Now()
		}
		w.answers = append(w.answers, reply{to, wire})
	}
	w.mu.Unlock()
	if coming {
		return nil
	}
	return to.send(w.socket.raw, wire)
}

// flush sends the answers, and waits while the socket is full. Another worker goes on with the queries.
func (w *work) flush() {
	if w.taken < len(w.waiting) && !w.coming {
		w.call()
	}
	all := w.answers
	w.answers, w.spare, w.flushing = w.spare, nil, true
	w.mu.Unlock()
	for rest := all; len(rest) > 0; {
		n := min(batch, len(rest))
		for _, r := range rest[:n] {
			w.out.add(r.wire, &r.to.to, r.to.size, r.to.from.Bytes()[:r.to.told])
		}
		if w.socket.raw.Write(w.send) != nil { // the socket is closed
			w.out.drop()
			break
		}
		rest = rest[n:]
	}
	w.mu.Lock()
	clear(all)
	w.spare, w.flushing = all[:0], false
}

// finish tells end when nothing is left.
func (w *work) finish() {
	if w.open > 0 || len(w.answers) > 0 || w.flushing {
		return
	}
	select {
	case <-w.done:
	default:
		close(w.done)
	}
}

// end waits until all queries are answered, at most for the given time. No more come.
func (w *work) end(atMost time.Duration) {
	w.mu.Lock()
	w.ended = true
	w.called.Broadcast()
	w.finish()
	w.mu.Unlock()
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
	}
}
