package external

import (
	"log/slog"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of what a program prints: lines that are logged in a second, bytes of a line, bytes that are kept to
// say why it couldn't start.
const (
	linesPerSecond = 20
	maxLine        = 1024
	maxTail        = 4096
)

// output takes what a program prints, on any stream, and logs it line by line. What is too much is dropped and
// counted; nothing waits.
type output struct {
	log     *slog.Logger
	dropped prometheus.Counter
	now     func() time.Time

	mu     sync.Mutex
	second time.Time // in which lines were logged
	lines  int
	tail   []byte // the last of all lines, with escapes, as few as needed
}

// stream returns a writer for one stream of the program. It isn't safe for concurrent use.
func (o *output) stream() *lineWriter { return &lineWriter{out: o} }

// lineWriter cuts a stream into lines.
type lineWriter struct {
	out  *output
	line []byte
	long bool // the line goes on beyond maxLine: the rest is dropped
}

// Write takes the next bytes. It never fails.
func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := indexNewline(p)
		part := p[:end]
		room := maxLine - len(w.line)
		if len(part) > room {
			part, w.long = part[:room], true
		}
		w.line = append(w.line, part...)
		if end == len(p) {
			break
		}
		w.flush()
		p = p[end+1:]
	}
	return n, nil
}

// flush ends the line.
func (w *lineWriter) flush() {
	if len(w.line) > 0 {
		w.out.take(w.line, w.long)
	}
	w.line, w.long = w.line[:0], false
}

func indexNewline(p []byte) int {
	for i, b := range p {
		if b == '\n' {
			return i
		}
	}
	return len(p)
}

// take logs a line, or counts it.
func (o *output) take(line []byte, cut bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := o.now(); now.Sub(o.second) >= time.Second {
		o.second, o.lines = now, 0
	}
	o.lines++
	if o.lines > linesPerSecond {
		o.dropped.Inc()
		return
	}
	text := escaped(line)
	if cut {
		text += "..."
	}
	o.keep(text)
	o.log.Info("policy program says", "line", text)
}

// keep adds to the tail.
func (o *output) keep(text string) {
	o.tail = append(append(o.tail, text...), '\n')
	if extra := len(o.tail) - maxTail; extra > 0 {
		o.tail = append(o.tail[:0], o.tail[extra:]...)
		for len(o.tail) > 0 && !utf8.RuneStart(o.tail[0]) {
			o.tail = o.tail[1:]
		}
	}
}

// last returns the last that was printed, at most 4 KiB, as one line.
func (o *output) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := o.tail
	if n := len(text); n > 0 {
		text = text[:n-1]
	}
	out := make([]byte, 0, len(text)+16)
	for _, b := range text {
		if b == '\n' {
			out = append(out, " | "...)
		} else {
			out = append(out, b)
		}
	}
	return string(out[max(0, len(out)-maxTail):])
}

// escaped returns text that can't be taken for anything else in a log or on a terminal: what isn't a printable
// character of ASCII is spelt, as in a Go string.
func escaped(line []byte) string {
	q := strconv.QuoteToASCII(string(line))
	return q[1 : len(q)-1]
}

// clipped returns at most n bytes of text, with escapes.
func clipped(text string, n int) string {
	text = escaped([]byte(text[:min(len(text), n)]))
	if len(text) > n {
		text = text[:n]
	}
	return text
}
