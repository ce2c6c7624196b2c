package linkexit

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestLogIsBounded: a flood of refusals has so many lines in a window, and then one that says how many are missing.
func TestLogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, closes, nil)
		for range 10 * linesPerWindow {
			w.ask(t, "corp", "10.1.0.9", question("www.example.com A"))
		}
		time.Sleep(window + time.Second)
		synctest.Wait()
		if n := strings.Count(w.lines.String(), "reason=closed"); n != linesPerWindow {
			t.Errorf("%d lines", n)
		}
		if !strings.Contains(w.lines.String(), "queries=900") {
			t.Errorf("no summary:\n%s", w.lines)
		}
		w.ask(t, "corp", "10.1.0.9", question("later.example.com A"))
		if !strings.Contains(w.lines.String(), "later.example.com") {
			t.Error("the next window has no line")
		}
	})
}

// TestLog: which queries have a line, and what it says. A name can't forge one, nor make it long (D21).
func TestLog(t *testing.T) {
	for _, tt := range []struct {
		log             logged
		passed, refused bool
	}{{logOff, false, false}, {logRefused, false, true}, {logAll, true, true}} {
		w := newWorld(t, func(s *settings) { open(s); s.log = tt.log }, nil)
		w.ask(t, "corp", "10.1.0.9", question("good.example.com A"))
		w.ask(t, "corp", "10.1.0.9", question("bad.example.com NULL"))
		said := w.lines.String()
		if strings.Contains(said, "good.example.com") != tt.passed || strings.Contains(said, "bad.example.com") != tt.refused {
			t.Errorf("%s:\n%s", tt.log, said)
		}
		if tt.refused && !strings.Contains(said, "network=corp client=10.1.0.9 name=bad.example.com. type=NULL verdict=refused reason=type") {
			t.Errorf("%s:\n%s", tt.log, said)
		}
	}
	w := newWorld(t, closes, nil)
	w.ask(t, "corp", "10.1.0.9", question(strings.Repeat(strings.Repeat(`\010`, 60)+".", 4)+" A"))
	said := w.lines.String()
	if strings.Count(said, "\n") != 1 || len(said) > 1000 {
		t.Errorf("%d bytes:\n%s", len(said), said)
	}
}
