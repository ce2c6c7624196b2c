package export

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A log may take nothing for as long as it likes: a pipe that nobody reads, a disk that is full. A receiver that has to end doesn't wait for it.
const (
	linesAside = 64          // lines that wait; what comes then is lost
	lastLines  = time.Second // that the end of a receiver waits for them
)

// aside is a [slog.Handler] that hands lines on in order and never waits.
type aside struct {
	to slog.Handler
	*asideLines
}

// asideLines are those that wait. A goroutine hands them on for as long as there are any.
type asideLines struct {
	mu    sync.Mutex
	lines []asideLine
	idle  chan struct{} // closed when all are handed on; nil: they are
}

type asideLine struct {
	to     slog.Handler
	record slog.Record
}

func newAside(to slog.Handler) aside { return aside{to, new(asideLines)} }

// Enabled implements [slog.Handler].
func (a aside) Enabled(ctx context.Context, level slog.Level) bool { return a.to.Enabled(ctx, level) }

// WithAttrs implements [slog.Handler].
func (a aside) WithAttrs(attrs []slog.Attr) slog.Handler {
	return aside{a.to.WithAttrs(attrs), a.asideLines}
}

// WithGroup implements [slog.Handler].
func (a aside) WithGroup(name string) slog.Handler { return aside{a.to.WithGroup(name), a.asideLines} }

// Handle implements [slog.Handler].
func (a aside) Handle(_ context.Context, r slog.Record) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.lines) < linesAside {
		a.lines = append(a.lines, asideLine{a.to, r.Clone()})
	}
	if a.idle == nil {
		a.idle = make(chan struct{})
		go a.handOn()
	}
	return nil
}

func (l *asideLines) handOn() {
	for {
		l.mu.Lock()
		lines := l.lines
		l.lines = nil
		if len(lines) == 0 {
			close(l.idle)
			l.idle = nil
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		for _, one := range lines {
			_ = one.to.Handle(context.Background(), one.record)
		}
	}
}

// settle waits until all lines are handed on, for a time.
func (l *asideLines) settle(within time.Duration) {
	l.mu.Lock()
	idle := l.idle
	l.mu.Unlock()
	if idle == nil {
		return
	}
	select {
	case <-idle:
	case <-time.After(within):
	}
}
