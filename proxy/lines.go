package proxy

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// linesQueued is how many log lines may wait: those of as many flows that are cut at once. A line
	// takes about a kilobyte while it waits.
	linesQueued = 16 << 10
	// linesDrain is how long Close waits for a log that takes nothing.
	linesDrain = time.Second
)

// lines stands between the proxy and its log, which may block for as long as it likes: a pipe that
// nobody reads, a disk that is full. Lines are queued and one goroutine writes them in order. Where
// the queue is full they are dropped and counted: a revocation, a snapshot, a new flow never wait
// for the log.
type lines struct {
	queue   chan line
	dropped prometheus.Counter
	lost    atomic.Int64  // dropped since the log was told
	closing chan struct{} // closed by close: write what is queued and end
	once    sync.Once
	done    chan struct{} // closed when the writer has ended
}

// line is a record and where it goes, or the mark of a flush.
type line struct {
	to      slog.Handler
	record  *slog.Record
	written chan struct{} // of a flush: closed when what was queued before is written
}

func newLines(dropped prometheus.Counter) *lines {
	l := &lines{
		queue: make(chan line, linesQueued), dropped: dropped,
		closing: make(chan struct{}), done: make(chan struct{}),
	}
	go l.write()
	return l
}

// write is the goroutine that writes the lines.
func (l *lines) write() {
	defer close(l.done)
	for closing := false; !closing || len(l.queue) > 0; {
		select {
		case one := <-l.queue:
			l.one(one)
		case <-l.closing:
			closing = true
		}
	}
}

func (l *lines) one(one line) {
	if one.written != nil {
		close(one.written)
		return
	}
	ctx := context.Background()
	// Errors of a log can't be logged.
	_ = one.to.Handle(ctx, *one.record)
	if n := l.lost.Swap(0); n > 0 {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines of the proxy were dropped, the log is too slow", 0)
		r.AddAttrs(slog.Int64("lines", n))
		_ = one.to.Handle(ctx, r)
	}
}

// flush waits until what is queued by now is written, at most for so long.
func (l *lines) flush(most time.Duration) {
	late := time.NewTimer(most)
	defer late.Stop()
	mark := line{written: make(chan struct{})}
	select {
	case l.queue <- mark:
	case <-l.done:
		return
	case <-late.C:
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

func (q queued) Enabled(ctx context.Context, level slog.Level) bool { return q.to.Enabled(ctx, level) }

func (q queued) WithAttrs(a []slog.Attr) slog.Handler { return queued{q.lines, q.to.WithAttrs(a)} }

func (q queued) WithGroup(name string) slog.Handler { return queued{q.lines, q.to.WithGroup(name)} }

func (q queued) Handle(_ context.Context, r slog.Record) error {
	r = r.Clone()
	select {
	case q.lines.queue <- line{to: q.to, record: &r}:
	default:
		q.lines.lost.Add(1)
		q.lines.dropped.Inc()
	}
	return nil
}
