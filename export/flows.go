package export

import (
	"errors"
	"time"
)

// mostOdd is how often a batch is tried that the receiver answers with an error of its own (5xx but for 502, 503 and 504): one
// that it can't take must not keep all others waiting.
const mostOdd = 8

// tellEvery is the time between two lines of the log about batches that a receiver refuses.
const tellEvery = time.Minute

// sendFlows is the goroutine that sends flow records.
func (r *Receiver) sendFlows() {
	defer close(r.done)
	s := &sender{r: r, what: "flows", tell: complaint{log: r.log, what: "flow records"}}
	for {
		batch, gap := r.queue.take()
		if len(batch) == 0 {
			if !r.moreFlows() {
				return
			}
			continue
		}
		body, err := s.body(r.format.flows(batch, gap))
		if err != nil { // of our own making: no try would be better
			r.log.Error("export: flow records can't be written in the receiver's format", "error", err)
			r.queue.settle(0, ReasonRejected)
			continue
		}
		if !s.flows(body, len(batch), gap) {
			return
		}
	}
}

// moreFlows waits for records, and a moment for more of them. It reports false where there are none and none will come.
func (r *Receiver) moreFlows() bool {
	select {
	case <-r.life.Done():
		return false
	case <-r.closing:
		_, n := r.queue.length()
		return n > 0 && r.life.Err() == nil
	case <-r.queue.wake:
	}
	late := time.NewTimer(r.pace.linger)
	defer late.Stop()
	for {
		select {
		case <-late.C:
		case <-r.life.Done():
		case <-r.closing:
		case <-r.queue.full:
			if _, n := r.queue.length(); n < batchRecords {
				continue // of a batch that was sent meanwhile
			}
		}
		return true
	}
}

// length returns how many records are in hand and how many wait.
func (q *queue) length() (hand, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.hand), q.n
}

// flows sends the batch in hand, as often as it takes. It reports false where nothing more is to be sent.
func (s *sender) flows(body []byte, n int, gap int64) bool {
	r, odd := s.r, 0
	wait := newBackoff(r.pace)
	for {
		got := r.client.post(r.life, r.pace.request, s.what, r.format.contentType(), body)
		if got.err == nil {
			got.reject(r.format)
		}
		if r.life.Err() != nil {
			return false // the batch is in hand for whoever comes next
		}
		if got.odd {
			odd++
		}
		switch {
		case got.err == nil:
			r.metrics.sent("flows", n-int(got.rejected))
			r.queue.settle(gap, "")
			if got.rejected > 0 { // those of a batch aren't told apart
				r.queue.lost(got.rejected)
				s.tell.refused(int(got.rejected), errPartly)
			}
			s.tell.over()
			return true
		case got.refused || odd >= mostOdd:
			r.metrics.failed("flows")
			r.queue.settle(0, ReasonRejected)
			s.tell.refused(n, got.err)
			return true
		}
		r.metrics.failed("flows")
		s.tell.away(got.err)
		select {
		case <-r.closing:
			return false // it isn't there, and nobody is to wait for it
		default:
		}
		select {
		case <-r.life.Done():
			return false
		case <-r.closing: // once more
		case <-time.After(wait.next(got.after)):
		}
	}
}

// lost counts records that the receiver has had and not taken. It knows of them.
func (q *queue) lost(n int64) { q.metrics.drop(ReasonRejected, int(n)) }

// errPartly: the receiver says that it has not taken all.
var errPartly = errors.New("the receiver has taken a part of a batch")
