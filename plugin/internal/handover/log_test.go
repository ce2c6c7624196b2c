package handover

import (
	"bytes"
	"encoding/json"
	golog "log"
	"log/slog"
	"testing"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// logTo sends CoreDNS's log to a buffer for the test.
func logTo(t *testing.T, format string) *bytes.Buffer {
	var out bytes.Buffer
	writer, flags := golog.Writer(), golog.Flags()
	if err := clog.Configure(format, &out); err != nil {
		t.Fatal(err)
	}
	if format == "text" {
		golog.SetFlags(0)
	}
	t.Cleanup(func() {
		_ = clog.Configure("text", writer)
		golog.SetFlags(flags)
	})
	return &out
}

func TestLogText(t *testing.T) {
	out := logTo(t, "text")
	log := NewLogger("linkproxy")
	for _, tc := range []struct {
		name string
		emit func()
		want string
	}{
		{"plain", func() { log.Info("flow ended", "reason", "idle", "bytes", 12) }, "[INFO] plugin/linkproxy: flow ended reason=idle bytes=12\n"},
		{"warning", func() { log.Warn("late") }, "[WARNING] plugin/linkproxy: late\n"},
		{"error", func() { log.Error("commit", "err", errEnding) }, "[ERROR] plugin/linkproxy: commit err=\"the process is ending\"\n"},
		{"debug is off", func() { log.Debug("hidden") }, ""},
		{"forged line", func() { log.Info("flow", "sni", "a\n[ERROR] b", "x", "a=b", "e", "") },
			"[INFO] plugin/linkproxy: flow sni=\"a\\n[ERROR] b\" x=\"a=b\" e=\"\"\n"},
		{"groups", func() {
			log.With("a", 1).WithGroup("g").With("b", 2).Info("m", slog.Group("h", "c", 3))
		}, "[INFO] plugin/linkproxy: m a=1 g.b=2 g.h.c=3\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out.Reset()
			tc.emit()
			if out.String() != tc.want {
				t.Errorf("got  %q\nwant %q", out, tc.want)
			}
		})
	}
}

func TestLogJSON(t *testing.T) {
	out := logTo(t, "json")
	NewLogger("linkproxy").Info("flow ended", "bytes", 12)
	var record map[string]any
	if err := json.Unmarshal(out.Bytes(), &record); err != nil {
		t.Fatal(err)
	}
	if record["plugin"] != "linkproxy" || record["msg"] != "flow ended" || record["bytes"] != 12.0 {
		t.Errorf("record %v", record)
	}
}
