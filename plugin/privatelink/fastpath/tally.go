package fastpath

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// tally is what was answered in one batch, to be counted once instead of query by query: counters are shared by all sockets.
type tally struct {
	counters []count
	sizes    []sizes
}

type count struct {
	of prometheus.Counter
	n  float64
}

type sizes struct{ request, response float64 }

// start begins a batch of a target and returns when that was.
func (c *tally) start(t *Target) time.Time {
	if t.Duration == nil {
		return time.Time{}
	}
	return time.Now()
}

// add counts one answer to a query of the given size.
func (c *tally) add(a *Answer, request int) {
	for _, of := range a.Counts {
		c.raise(of)
	}
	c.sizes = append(c.sizes, sizes{float64(request), a.Size})
}

func (c *tally) raise(of prometheus.Counter) {
	for i := range c.counters {
		if c.counters[i].of == of {
			c.counters[i].n++
			return
		}
	}
	c.counters = append(c.counters, count{of, 1})
}

// end tells the counters what was answered.
func (c *tally) end(t *Target, began time.Time) {
	for _, n := range c.counters {
		n.of.Add(n.n)
	}
	if t.Answered != nil {
		t.Answered.Add(float64(len(c.sizes)))
	}
	if t.Duration != nil {
		took := time.Since(began).Seconds()
		for _, s := range c.sizes {
			t.Requests.Observe(s.request)
			t.Responses.Observe(s.response)
			t.Duration.Observe(took)
		}
	}
	clear(c.counters)
	c.counters, c.sizes = c.counters[:0], c.sizes[:0]
}
