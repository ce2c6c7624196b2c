package linkexit

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// logged is which queries have a line in the log.
type logged string

const (
	logOff     logged = "off"
	logRefused logged = "refused"
	logAll     logged = "all"
)

const (
	// window and linesPerWindow bound the lines about refusals: who floods us doesn't fill the disk.
	window         = 10 * time.Second
	linesPerWindow = 100
	// maxShown is the longest name in a line, in bytes as it is escaped.
	maxShown = 280
)

// journal is the query log of a server block.
type journal struct {
	to *slog.Logger

	mu    sync.Mutex // guards what follows
	end   time.Time  // of the window
	lines int        // in the window
	more  int        // refusals in the window without a line
	timer *time.Timer
}

// verdict writes the line of a query, if the rule wants one. Of a client that is over a limit there is one line
// in a window.
func (j *journal) verdict(q *query, v verdict) {
	switch {
	case q.rule.log == logOff, v.reason == passed && q.rule.log != logAll:
		return
	case v.reason == passed:
		j.write(slog.LevelInfo, "query", q, v)
	case v.reason == rate || v.reason == txt || v.reason == distinct:
		if !v.quiet && j.room() {
			j.write(slog.LevelWarn, "client is over its limit", q, v)
		}
	default:
		if j.room() {
			j.write(slog.LevelInfo, "query", q, v)
		}
	}
}

// dropped writes the line of an answer that has lost records.
func (j *journal) dropped(q *query, n int, example string) {
	if q.rule.log != logOff && j.room() {
		j.to.LogAttrs(context.Background(), slog.LevelWarn, "answer had addresses of the inside", append(attrs(q),
			slog.Int("dropped", n), slog.String("address", example))...)
	}
}

func (j *journal) write(level slog.Level, what string, q *query, v verdict) {
	list := append(attrs(q), slog.String("verdict", v.reason.verdict()))
	if v.reason != passed {
		list = append(list, slog.String("reason", v.reason.String()))
	}
	if v.domain != "" {
		list = append(list, slog.String("domain", clip(v.domain)))
	}
	j.to.LogAttrs(context.Background(), level, what, list...)
}

// attrs are what each line says of a query. Names are escaped by the library that reads them (RFC 4343
// section 2.1), and again by the log where they need it.
func attrs(q *query) []slog.Attr {
	question := q.r.Question[0]
	return append(make([]slog.Attr, 0, 8),
		slog.String("time", time.Now().UTC().Format("2006-01-02T15:04:05.000Z")),
		slog.String("network", string(q.client.Network)),
		slog.String("client", q.client.Addr.String()),
		slog.String("name", clip(question.Name)),
		slog.String("type", dns.Type(question.Qtype).String()),
	)
}

// clip bounds what is shown of a name.
func clip(s string) string {
	if len(s) > maxShown {
		return s[:maxShown] + "..."
	}
	return s
}

// room reports whether the window has room for a line about a refusal. What has none is counted, and told when
// the window is over.
func (j *journal) room() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	if now.After(j.end) {
		j.tell()
		j.end, j.lines = now.Add(window), 0
	}
	if j.lines < linesPerWindow {
		j.lines++
		return true
	}
	if j.more++; j.more == 1 {
		j.timer = time.AfterFunc(j.end.Sub(now), j.flush)
	}
	return false
}

// tell writes how many lines are missing. The caller holds mu.
func (j *journal) tell() {
	if j.timer != nil {
		j.timer.Stop()
		j.timer = nil
	}
	if j.more > 0 {
		j.to.Warn("more was refused or dropped than is logged", "queries", j.more, "window", window)
		j.more = 0
	}
}

// flush tells what isn't told yet.
func (j *journal) flush() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.tell()
}
