package proxy

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// linesQueued is how many log lines may wait: those of as many flows that are cut at once. A line
	// takes about a kilobyte while it waits.
	linesQueued = 16 << 10
	// linesAtOnce is how many of them are given to a handler in one call, linesKept for how many room is kept.
	linesAtOnce = 256
	linesKept   = 1024
	// linesDrain is how long Close waits for a log that takes nothing.
	linesDrain = time.Second
)

// lines stands between the proxy and its log, which may block for as long as it likes: a pipe that
// nobody reads, a disk that is full. Lines are queued and one goroutine writes them in order. Where
// the queue is full they are dropped and counted: a revocation, a snapshot, a new flow never wait
// for the log.
type lines struct {
	dropped prometheus.Counter
	wake    chan struct{} // of size one: something was queued
	closing chan struct{} // closed by close: write what is queued and end
	once    sync.Once
	done    chan struct{} // closed when the writer has ended
	tap     func() Tap    // nil: nobody takes flows

	mu    sync.Mutex
	queue []line
	lost  int64 // dropped since the log was told
}

// line is a record and where it goes, or the mark of a flush.
type line struct {
	to      slog.Handler
	record  slog.Record
	written chan struct{} // of a flush: closed when what was queued before is written
}

// Tap takes the records of flows as they are logged, in order, and how many lines of the log were dropped, most of them flows. It must not
// block, nor keep the slice.
type Tap func(flows []slog.Record, lost int64)

// batcher is a [slog.Handler] that has a cheaper way to handle many records.
type batcher interface {
	HandleAll(ctx context.Context, records []slog.Record) error
}

func newLines(dropped prometheus.Counter, tap func() Tap) *lines {
	l := &lines{dropped: dropped, tap: tap, wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{})}
	go l.write()
	return l
}

// add queues a line, or the mark of a flush, and reports whether there was room.
func (l *lines) add(one line) bool {
	l.mu.Lock()
	room := len(l.queue) < linesQueued
	if room {
		l.queue = append(l.queue, one)
	} else if one.written == nil {
		l.lost++
	}
	l.mu.Unlock()
	if !room {
		return false
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

// write is the goroutine that writes the lines.
func (l *lines) write() {
	defer close(l.done)
	var spare []line
	var records []slog.Record
	for closing := false; ; {
		l.mu.Lock()
		queue, lost := l.queue, l.lost
		l.queue, l.lost = spare, 0
		l.mu.Unlock()
		if len(queue) == 0 {
			if closing {
				return
			}
			select {
			case <-l.wake:
			case <-l.closing:
				closing = true
			}
			spare = queue
			continue
		}
		if l.tap != nil {
			if take := l.tap(); take != nil { // first: the log may block
				records = tapped(take, queue, lost, records[:0])
			}
		}
		for rest := queue; len(rest) > 0; {
			rest, records = l.some(rest, records[:0])
		}
		if lost > 0 {
			l.tellLost(queue, lost)
		}
		clear(queue)
		clear(records[:cap(records)])
		if spare = queue[:0]; cap(spare) > linesKept {
			spare, records = nil, nil
		}
	}
}

// tapped gives what a queue has of flows to a tap. The records are room to work with.
func tapped(take Tap, queue []line, lost int64, records []slog.Record) []slog.Record {
	for _, one := range queue {
		if one.written != nil {
			continue
		}
		switch one.record.Message {
		case flowEnded, flowRefused, moreRefused:
			records = append(records, one.record)
		}
	}
	if len(records) > 0 || lost > 0 {
		take(records, lost)
	}
	return records
}

// some writes the first lines of a queue that go to one handler, and returns the others.
func (l *lines) some(queue []line, records []slog.Record) (rest []line, _ []slog.Record) {
	ctx := context.Background()
	first := queue[0]
	if first.written != nil {
		close(first.written)
		return queue[1:], records
	}
	all, ok := first.to.(batcher)
	if !ok {
		_ = first.to.Handle(ctx, first.record) // errors of a log can't be logged
		return queue[1:], records
	}
	n := 0
	for n < len(queue) && n < linesAtOnce && queue[n].written == nil && queue[n].to == first.to {
		records = append(records, queue[n].record)
		n++
	}
	_ = all.HandleAll(ctx, records)
	return queue[n:], records
}

// tellLost says how many lines were dropped, to whom the last one went.
func (l *lines) tellLost(queue []line, lost int64) {
	for _, one := range slices.Backward(queue) {
		if one.written == nil {
			r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines of the proxy were dropped, the log is too slow", 0)
			r.AddAttrs(slog.Int64("lines", lost))
			_ = one.to.Handle(context.Background(), r)
			return
		}
	}
}

// flush waits until what is queued by now is written, at most for so long.
func (l *lines) flush(most time.Duration) {
	late := time.NewTimer(most)
	defer late.Stop()
	mark := line{written: make(chan struct{})}
	if !l.add(mark) {
		return
	}
	select {
	case <-mark.written:
	case <-l.done:
	case <-late.C:
	}
}

// close has what is queued written and waits for it, but not longer than linesDrain: a writer that
// hangs in the log ends when the log lets it go.
func (l *lines) close() {
	l.once.Do(func() { close(l.closing) })
	late := time.NewTimer(linesDrain)
	defer late.Stop()
	select {
	case <-l.done:
	case <-late.C:
	}
}

// logger returns a logger whose lines go through l.
func (l *lines) logger(to *slog.Logger) *slog.Logger { return slog.New(queued{l, to.Handler()}) }

// queued is the [slog.Handler] of lines. It never blocks.
type queued struct {
	lines *lines
	to    slog.Handler
}

func (q queued) Enabled(ctx context.Context, level slog.Level) bool {
	return q.to.Enabled(ctx, level) || level == slog.LevelInfo && q.lines.tap != nil && q.lines.tap() != nil
}

func (q queued) WithAttrs(a []slog.Attr) slog.Handler { return queued{q.lines, q.to.WithAttrs(a)} }

func (q queued) WithGroup(name string) slog.Handler { return queued{q.lines, q.to.WithGroup(name)} }

func (q queued) Handle(_ context.Context, r slog.Record) error {
	if !q.lines.add(line{to: q.to, record: r.Clone()}) {
		q.lines.dropped.Inc()
	}
	return nil
}
