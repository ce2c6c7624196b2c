package engine

import (
	"sync/atomic"
	"time"
)

// streaming says when a direction is a stream, and how much is moved at once then. A stream is told of when much of it has come, by
// SO_RCVLOWAT: it costs fewer turns, and larger pieces on the way through the kernel.
//
// What is less than that mark and has nothing behind it would wait for ever. So a direction is a stream only while nothing comes from the other side, which
// may be what its sender waits for; and a stream that has stood still for a tick is none any more.
type streaming struct {
	after int64 // bytes without one of the other direction
	low   int   // the mark, in bytes
	most  int   // bytes at once, of which the receiver must have said that it has room
}

// usual is how it is done. A tick is what the last bytes of a stream that doesn't end may be late by, twice at most.
var usual = streaming{after: 4 << 20, low: 1 << 20, most: 1 << 20}

const tick = 2 * time.Millisecond

// lowered is the pairs of a loop with a stream. It is the loop's goroutine's, but for due.
type lowered struct {
	pairs []*pair
	timed bool
	due   atomic.Bool // a tick is over
}

// moved notes that bytes of a direction were given to its receiver.
func (p *pair) moved(d *direction, n int) {
	if n <= 0 {
		return
	}
	p.note(d.to, n)
	d.run += int64(n)
	other := p.other(d)
	other.run = 0
	if other.heighten() {
		p.more = true
	}
}

// lower makes a direction a stream, if it is one. Only the loop's goroutine does: the first turn of a pair may be another's.
func (p *pair) lower(d *direction, l *loop) {
	if p.starting || d.low || d.run < l.engine.streams.after || !d.src.lowat(l.engine.streams.low) {
		return
	}
	d.low, d.seen = true, d.run
	if !p.listed {
		p.listed = true
		l.lowered.pairs = append(l.lowered.pairs, p)
		l.await()
	}
}

// heighten ends that a direction is a stream. It reports whether it was one: then there may be bytes that nobody was told of.
func (d *direction) heighten() bool {
	if !d.low {
		return false
	}
	d.low, d.run = false, 0
	d.src.lowat(1)
	return true
}

// await has the loop look at its streams after a tick.
func (l *loop) await() {
	if l.lowered.timed {
		return
	}
	l.lowered.timed = true
	time.AfterFunc(tick, func() {
		l.lowered.due.Store(true)
		l.wake()
	})
}

// look ends the streams that have stood still since the last look, and gives their pairs a turn.
func (l *loop) look() {
	pairs := l.lowered.pairs
	l.lowered.pairs, l.lowered.timed = nil, false
	var left, still []*pair
	for _, p := range pairs {
		p.mu.Lock()
		ended := false
		for _, d := range []*direction{&p.up, &p.down} {
			if d.low && d.seen == d.run {
				ended = d.heighten() || ended
			}
			d.seen = d.run
		}
		p.listed = !p.over && (p.up.low || p.down.low)
		if p.listed {
			left = append(left, p)
		}
		if ended && !p.over {
			still = append(still, p)
		}
		p.mu.Unlock()
	}
	l.lowered.pairs = left
	for _, p := range still {
		l.turn(p) // which may make streams of others
	}
	if len(l.lowered.pairs) > 0 {
		l.await()
	}
}

// lowat sets how many bytes epoll waits for. At 1 the connection may have some, whatever epoll has told.
func (c *conn) lowat(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 || c.loop.kernel.lowat(c.fd, n) != nil {
		return false
	}
	if n == 1 {
		c.in = true
	}
	return true
}

// room is how many bytes the connection takes at once, as far as it says.
func (c *conn) room() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return 0
	}
	return c.loop.kernel.room(c.fd)
}

// piece is how many bytes are to be spliced at once.
func (d *direction) piece(s *streaming) int {
	if !d.low {
		return spliceSize
	}
	return max(spliceSize, min(s.most, d.dst.room()))
}
