package coremain

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/coredns/caddy"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// failures reads coredns_reload_failed_total as a scrape would.
func failures(t *testing.T) float64 {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "coredns_reload_failed_total" && f.GetType() == dto.MetricType_COUNTER {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("no coredns_reload_failed_total")
	return 0
}

// TestLoaderReportsOnce: the reload plugin looks again and again and drops the error, so each bad
// file is logged and counted once, however often it is looked at (C13).
func TestLoaderReportsOnce(t *testing.T) {
	var log bytes.Buffer
	clog.SetOutput(&log)
	defer clog.SetOutput(os.Stdout)
	path := filepath.Join(t.TempDir(), "Corefile")
	l, err := newLoader(path)
	if err != nil {
		t.Fatal(err)
	}
	before := failures(t)
	for i, step := range []struct {
		body  string
		fails float64 // in all, so far
	}{
		{".:53 {\n privatelink\n}\n", 0},
		{"", 1},
		{"", 1},
		{"}}}\n", 2},
		{"}}}\n", 2},
		{".:53 {\n privatelink\n}\n", 2},
		{"}}}\n", 3},
	} {
		if err := os.WriteFile(path, []byte(step.body), 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := l.Load("dns")
		if good := strings.Contains(step.body, "privatelink"); good != (err == nil) || good != (in != nil) {
			t.Errorf("step %d: input %v, error %v", i, in, err)
		}
		if got := failures(t) - before; got != step.fails {
			t.Errorf("step %d: %g failures counted, want %g", i, got, step.fails)
		}
	}
	if n := strings.Count(log.String(), "reload refused"); n != 3 {
		t.Errorf("%d lines of refusal, want 3:\n%s", n, &log)
	}
}

func TestLoaderWithoutFile(t *testing.T) {
	l, err := newLoader("no/such/Corefile")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.read(); err == nil || err.Error() != "no/such/Corefile - can't be read: no such file or directory" {
		t.Errorf("error %v", err)
	}
}

// TestSignalDuringStart: a reload or an end that is asked for while the server starts is put off, not lost (C14, P13).
func TestSignalDuringStart(t *testing.T) {
	for _, want := range []os.Signal{syscall.SIGUSR1, syscall.SIGTERM} {
		r := &runner{signals: make(chan os.Signal, 1)}
		r.signals <- want
		if err := r.start(func() error {
			_, err := caddy.Start(caddy.CaddyfileInput{Contents: []byte(".:0 {\n nosuch\n}\n"), ServerTypeName: serverType})
			return err
		}); err == nil {
			t.Fatal("started without a Corefile")
		}
		select {
		case s := <-r.signals:
			if s != want {
				t.Errorf("got %v, want %v", s, want)
			}
		default:
			t.Errorf("%v is lost", want)
		}
	}
}
