package coremain

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// A source that comes again whenever its connections are ended fills the line of those that wait to be accepted, where everybody stands in turn.
// So it is told nothing for a while: the kernel drops what begins a connection from there. Clients send that again, after a second at first.
const (
	paceTime   = time.Second // in which so many of a source's connections are ended as it may have: it comes again too fast
	leastPause = 2 * time.Second
	mostPause  = 32 * time.Second
	mostPaused = 64  // sources at a time: the kernel charges the filter to each connection that is accepted meanwhile
	mostPacers = 512 // sources that are remembered
)

// pacer is a source some of whose connections were ended.
type pacer struct {
	since time.Time // from when they are counted
	ended int
	long  time.Duration // of its last pause, 0: it had none
	until time.Time     // the end of that
}

// pauses is which sources connect too fast. The watch alone has it.
type pauses map[netip.Prefix]*pacer

// note takes how many connections of each source were ended because it had more than its share, which is so many, and returns how many
// sources have a pause from now on.
func (p pauses) note(ended map[netip.Prefix]int, share int, now time.Time) (paused int) {
	p.forget(now)
	in := len(p.current(now))
	for source, n := range ended {
		of := p[source]
		if of == nil {
			if len(p) >= mostPacers {
				continue
			}
			of = &pacer{since: now}
			p[source] = of
		}
		if now.Sub(of.since) > paceTime {
			of.since, of.ended = now, 0
		}
		of.ended += n
		if of.ended <= share || now.Before(of.until) || in >= mostPaused {
			continue
		}
		of.long = min(max(leastPause, 2*of.long), mostPause) // one that is remembered has come again soon after its last
		of.until, of.ended = now.Add(of.long), 0
		in++
		paused++
	}
	return paused
}

// forget drops those that have been calm for as long as a pause can be.
func (p pauses) forget(now time.Time) {
	maps.DeleteFunc(p, func(_ netip.Prefix, of *pacer) bool {
		last := of.since
		if of.until.After(last) {
			last = of.until
		}
		return now.Sub(last) > mostPause
	})
}

// current returns the sources that have a pause, in order.
func (p pauses) current(now time.Time) (sources []netip.Prefix) {
	for source, of := range p {
		if now.Before(of.until) {
			sources = append(sources, source)
		}
	}
	slices.SortFunc(sources, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return sources
}

// overs returns the sources that have more connections than their share.
func overs(all []caller, share int) map[netip.Prefix]bool {
	of, over := make(map[netip.Prefix]int), make(map[netip.Prefix]bool)
	for _, c := range all {
		s := c.source()
		if of[s]++; of[s] > share {
			over[s] = true
		}
	}
	return over
}
