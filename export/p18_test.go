package export

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func contextFor(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

var kinds = []Kind{OTLP, Webhook}

// P18: a receiver that is away under load costs bounded memory and nobody's time, what is dropped is counted and told, and of the audit
// record nothing is missing when it is back.
func TestP18ReceiverAway(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			const queue, flood, atOnce = 2000, 200_000, 250
			w, s := newWorld(t), newSIEM(t)
			c := w.config(s, kind)
			c.Queue = queue
			r := w.start(c)
			last := w.commit(300)
			for i := 0; i < flood; i += atOnce {
				r.Add(records(i, atOnce), 0)
			}
			r.Add(nil, 7) // lines that the log was too slow for
			if hand, n := r.queue.length(); n > queue || hand > batchRecords {
				t.Fatalf("%d wait and %d are in hand", n, hand)
			}
			eventually(t, "it was tried", func() bool {
				return w.metric("failures_total", "siem", "flows") > 0 && w.metric("failures_total", "siem", "audit") > 0
			})
			eventually(t, "the lag is told", func() bool { return w.metric("audit_lag", "siem") == float64(last) })
			dropped := w.metric("dropped_total", "siem", "queue")
			if least := float64(flood - queue - batchRecords); dropped < least || dropped > flood-queue || w.metric("dropped_total", "siem", "log") != 7 {
				t.Errorf("%v were counted as dropped, at least %v were", dropped, least)
			}
			if n := strings.Count(w.log.String(), "flow records can't be sent"); n != 1 {
				t.Errorf("%d lines of the log say that it is away", n)
			}

			s.up()
			eventually(t, "all that waited has come", func() bool {
				return float64(len(s.flowsBut(gapMessage))) == flood-dropped && s.verify() == last
			})
			all := s.flowsBut(gapMessage)
			if newest := all[len(all)-1]; newest["to_target"] != float64(flood-1) || newest["duration"] != 1.5 || newest["detail"] != "a \"word\"\n<b>" {
				t.Errorf("the newest is %v", newest)
			}
			// What was in hand may have come first: a record of a gap stands before each batch that has one.
			gap := 0.0
			for _, f := range s.flowsBut("flow ended") {
				gap += f["records"].(float64)
			}
			if gap != dropped+7 {
				t.Errorf("the receiver was told of %v dropped ones", gap)
			}
			eventually(t, "metrics", func() bool {
				return w.metric("sent_total", "siem", "flows") == flood-dropped && w.metric("audit_position", "siem") == float64(last) &&
					w.metric("audit_lag", "siem") == 0 && w.metric("queue_length", "siem") == 0 && w.metric("last_success_timestamp_seconds", "siem", "flows") > 1.7e9
			})
			if problems, err := testutil.GatherAndLint(w.registry); err != nil || len(problems) > 0 {
				t.Errorf("metrics: %v, %v", problems, err)
			}
			w.commit(3)
			eventually(t, "what is committed later comes too", func() bool { return s.verify() == last+3 })
		})
	}
}

// P18: what a full queue holds. The figure is in the README.
func TestP18QueueMemory(t *testing.T) {
	w := newWorld(t)
	c := w.config(newSIEM(t), OTLP)
	c.Queue, c.Audit = 100_000, false
	r := w.new(c)
	before := heap()
	for i := 0; i < 3*c.Queue; i += 250 {
		r.Add(records(i, 250), 0)
	}
	each := float64(heap()-before) / float64(c.Queue)
	t.Logf("%.0f bytes a record, the fields of a flow aside", each)
	if each > 200 {
		t.Errorf("%.0f bytes a record", each)
	}
	runtime.KeepAlive(r)
	r.queue.discard()
	close(r.done)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What a receiver may do to a request, and what becomes of a batch of flow records and of the audit record.
func TestAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		does    func(s *siem, done <-chan struct{})
		dropped bool // the flow records are
		told    string
	}{
		"500 once": {does: func(s *siem, _ <-chan struct{}) { s.fails(500, 2) }, told: "the receiver answers 500"},
		"429":      {does: func(s *siem, _ <-chan struct{}) { s.fails(429, 4) }, told: "429 Too Many Requests"},
		"408":      {does: func(s *siem, _ <-chan struct{}) { s.fails(408, 4) }, told: "408"},
		"503":      {does: func(s *siem, _ <-chan struct{}) { s.fails(503, 40) }, told: "503"},
		"redirect": {does: func(s *siem, _ <-chan struct{}) {
			s.answers(func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.URL.Path == "/elsewhere" {
					s.t.Error("a redirect is followed")
				}
				s.answer.Store(nil)
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
				return false
			})
		}, told: "307"},
		"hangs": {does: func(s *siem, done <-chan struct{}) {
			s.answers(func(http.ResponseWriter, *http.Request, []byte) bool {
				s.answer.Store(nil)
				<-done
				return false
			})
		}, told: "deadline exceeded"},
		"resets": {does: func(s *siem, _ <-chan struct{}) {
			s.answers(func(http.ResponseWriter, *http.Request, []byte) bool {
				s.answer.Store(nil)
				panic(http.ErrAbortHandler)
			})
		}, told: "can't be sent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, s, done := newWorld(t), newSIEM(t).up(), make(chan struct{})
			defer close(done)
			tt.does(s, done)
			c := w.config(s, Webhook)
			last := w.commit(5)
			r := w.new(c)
			if name == "hangs" {
				r.pace.request = 2 * time.Second
			}
			w.run(r)
			r.Add(records(0, 3), 0)
			eventually(t, "all has come", func() bool {
				flows, _ := s.has()
				return flows == 3 && s.verify() == last
			})
			eventually(t, "the log says so", func() bool {
				return strings.Contains(w.log.String(), tt.told) && strings.Contains(w.log.String(), "sent again")
			})
		})
	}
}

// A batch that a receiver doesn't want is dropped with its reason and a line of the log; the audit record is tried until it is taken.
func TestRefused(t *testing.T) {
	for _, status := range []int{400, 401, 404, 413, 422, 501} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			w, s := newWorld(t), newSIEM(t)
			last := w.commit(20)
			s.answers(func(rw http.ResponseWriter, _ *http.Request, body []byte) bool {
				rw.WriteHeader(status)
				return false
			})
			s.up()
			r := w.start(w.config(s, Webhook))
			for i := range 3 {
				r.Add(records(10*i, 10), 0)
				eventually(t, "the batch is dropped", func() bool { return w.metric("dropped_total", "siem", "rejected") == float64(10*(i+1)) })
			}
			if n := strings.Count(w.log.String(), "refuses flow records"); n != 1 {
				t.Errorf("%d lines", n)
			}
			eventually(t, "the audit record was tried again", func() bool { return w.metric("failures_total", "siem", "audit") > 5 })
			s.answer.Store(nil)
			eventually(t, "the audit record has come", func() bool { return s.verify() == last })
			r.Add(records(30, 1), 0)
			eventually(t, "the gap is told", func() bool { flows, _ := s.has(); return flows == 2 })
			if f := s.flow(0); f["message"] != gapMessage || f["records"] != 30.0 {
				t.Errorf("%v", f)
			}
		})
	}
}

// A page that is too large is made smaller; a collector that says it has taken a part gets the audit record again.
func TestLargePages(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t), newSIEM(t)
	last := w.commit(40)
	s.answers(func(rw http.ResponseWriter, r *http.Request, body []byte) bool {
		if len(body) > 2000 {
			rw.WriteHeader(http.StatusRequestEntityTooLarge)
			return false
		}
		return true
	})
	w.start(w.config(s.up(), Webhook))
	eventually(t, "all has come in smaller pages", func() bool { return s.verify() == last })
}

func TestPartlyTaken(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t), newSIEM(t)
	last := w.commit(4)
	partly := map[string]bool{}
	s.answers(func(rw http.ResponseWriter, r *http.Request, body []byte) bool {
		if kind := r.Header.Get(headerRecords); !partly[kind] {
			partly[kind] = true
			rw.Write([]byte("\x0a\x02\x08\x02")) // partial_success { rejected_log_records: 2 }
			return kind == "flows"
		}
		return true
	})
	c := w.config(s.up(), OTLP)
	c.Audit = false
	r := w.start(c)
	r.Add(records(0, 5), 0)
	eventually(t, "what wasn't taken is counted", func() bool {
		return w.metric("dropped_total", "siem", "rejected") == 2 && w.metric("sent_total", "siem", "flows") == 3
	})
	c.Audit = true
	next := w.new(c)
	next.Succeed(r)
	w.run(next)
	eventually(t, "the audit record has come after all", func() bool { return s.verify() == last })
	if flows, _ := s.has(); flows != 5 {
		t.Errorf("%d flow records", flows)
	}
}

// The end of a process sends what waits where the receiver is there, and waits no longer than it may where it hangs.
func TestClose(t *testing.T) {
	t.Run("there", func(t *testing.T) {
		t.Parallel()
		w, s := newWorld(t), newSIEM(t).up()
		r := w.new(w.config(s, OTLP))
		r.pace.linger = patience
		w.run(r)
		r.Add(records(0, 700), 0)
		end(r, patience)
		if flows, _ := s.has(); flows != 700 {
			t.Errorf("%d of 700 have come", flows)
		}
		r.Add(records(0, 5), 0)
		if n := w.metric("dropped_total", "siem", "end"); n != 5 {
			t.Errorf("%v were counted", n)
		}
	})
	t.Run("away", func(t *testing.T) {
		t.Parallel()
		w, s := newWorld(t), newSIEM(t)
		r := w.start(w.config(s, OTLP))
		r.Add(records(0, 700), 0)
		end(r, patience) // one more try, and no wait
		if n := w.metric("dropped_total", "siem", "end"); n != 700 {
			t.Errorf("%v were counted", n)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		t.Parallel()
		w, s, asked, done := newWorld(t), newSIEM(t), make(chan struct{}, 8), make(chan struct{})
		defer close(done)
		s.answers(func(http.ResponseWriter, *http.Request, []byte) bool { asked <- struct{}{}; <-done; return false })
		c := w.config(s.up(), OTLP)
		c.Audit = false
		r := w.new(c)
		r.pace.request = 10 * patience
		w.run(r)
		r.Add(records(0, 700), 0)
		<-asked
		began := time.Now()
		end(r, 100*time.Millisecond)
		if took := time.Since(began); took > patience {
			t.Errorf("it took %v", took)
		}
		if n := w.metric("dropped_total", "siem", "end"); n != 700 {
			t.Errorf("%v were counted", n)
		}
	})
}

// A receiver that takes the place of another one of its name has what waits there, in order, and what comes to the one before meanwhile.
func TestSucceed(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t), newSIEM(t)
	last := w.commit(10)
	old := w.new(w.config(s, Webhook)) // away
	old.Start(true)
	old.Add(records(0, 600), 0)
	eventually(t, "a batch is in hand", func() bool { hand, _ := old.queue.length(); return hand > 0 })
	c := w.config(s, OTLP)
	next := w.new(c)
	next.Add(records(600, 10), 0)
	next.Succeed(old)
	old.Add(records(610, 5), 0)
	w.run(next)
	s.up()
	eventually(t, "all has come", func() bool { flows, _ := s.has(); return flows == 615 && s.verify() == last })
	for i := range 615 {
		if s.flow(i)["to_target"] != float64(i) {
			t.Fatalf("record %d is %v", i, s.flow(i))
		}
	}
	eventually(t, "the position is kept", func() bool { _, err := os.Stat(c.Position); return err == nil })
}
