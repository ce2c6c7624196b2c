package identity

import (
	"sync"
	"time"
)

// refusalLines is how many lines about sign-ins that were refused or couldn't be judged a minute may have: anybody
// can cause them.
const refusalLines = 60

// refusalLog bounds the lines of each minute. Its zero value is ready.
type refusalLog struct {
	mu     sync.Mutex
	begun  time.Time // of the minute
	lines  int       // of the minute
	silent int       // sign-ins without a line since the last count
}

// admit reports whether there is a line for one more, and how many before it had none and haven't been told yet.
func (l *refusalLog) admit(now time.Time) (ok bool, silent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := now.Sub(l.begun); l.begun.IsZero() || d < 0 || d >= time.Minute {
		l.begun, l.lines = now, 0
		silent, l.silent = l.silent, 0
	}
	if l.lines++; l.lines > refusalLines {
		l.silent++
		return false, silent
	}
	return true, silent
}
