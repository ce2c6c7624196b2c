package identity

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestRefusalsAreLoggedWithinBounds: anybody can be refused, as often as they like, and fills no disk with it.
func TestRefusalsAreLoggedWithinBounds(t *testing.T) {
	var log bytes.Buffer
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	d := &Directory{log: slog.New(slog.NewTextHandler(&log, nil)), now: func() time.Time { return now }}
	for range 500 {
		d.tell(slog.LevelInfo, "sign-in refused")
	}
	if n := strings.Count(log.String(), "sign-in refused"); n != refusalLines {
		t.Errorf("%d lines, want %d", n, refusalLines)
	}
	now = now.Add(time.Minute)
	log.Reset()
	d.tell(slog.LevelInfo, "sign-in refused")
	if text := log.String(); !strings.Contains(text, "count=440") || strings.Count(text, "\n") != 2 {
		t.Errorf("the next minute begins with %s", text)
	}
	now = now.Add(time.Hour)
	log.Reset()
	d.tell(slog.LevelInfo, "sign-in refused")
	if text := log.String(); strings.Count(text, "\n") != 1 {
		t.Errorf("told twice: %s", text)
	}
}
