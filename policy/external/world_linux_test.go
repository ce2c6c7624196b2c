package external

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

var self = sync.OnceValues(func() (string, [32]byte) {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	f, err := os.Open(path)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		panic(err)
	}
	return path, [32]byte(h.Sum(nil))
})

// config is that of a program of the tests, by what is wrong with it. The race detector needs more memory than
// a program may have.
func config(kind string) Config {
	path, sum := self()
	return Config{Name: "test", Path: path, Args: []string{kind}, Checksum: sum, Memory: -1}
}

// world is a running program with what it counts.
type world struct {
	*Program
	log     *logged
	metrics *prometheus.Registry
}

func start(t testing.TB, c Config) *world {
	t.Helper()
	w := &world{log: &logged{}, metrics: prometheus.NewRegistry()}
	m, err := NewMetrics(w.metrics)
	if err != nil {
		t.Fatal(err)
	}
	if w.Program, err = Start(t.Context(), c, w.log.logger(), m); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(w.log.String()[:min(4096, len(w.log.String()))])
		}
	})
	return w
}

// count returns the sum of a metric's values, of the label value given, or of all where it is "".
func (w *world) count(t testing.TB, name, label string) float64 {
	t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "postern_policy_program_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			is := label == ""
			for _, l := range m.GetLabel() {
				is = is || l.GetValue() == label
			}
			if is {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

var (
	aNetwork  = &link.Network{ID: "corp", Tenant: "contoso", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	anService = &link.Service{ID: "db", Tenant: "fabrikam", Port: 1433, Names: []link.ResourceName{{Public: "db.example"}}}
	anEnd     = &link.Endpoint{
		ID: "sql", Tenant: "contoso", Network: "corp", Service: "db", Address: netip.MustParseAddr("10.200.0.5"),
		Connection: link.Connection{LinkID: 7, State: link.Approved},
	}
)

// about is a question about a flow whose server name is what the program shall do.
func about(do string) policy.Question {
	return policy.Question{
		Flow: "f1",
		Request: policy.Request{
			Source: netip.MustParseAddrPort("10.1.2.3:40000"), Local: netip.MustParseAddrPort("10.200.0.5:1433"), Judged: true, Name: link.Name(do),
		},
		Verdict: policy.Verdict{Allow: true, Endpoint: anEnd, Service: anService},
	}
}

// ask asks, and holds the program to its time.
func (w *world) ask(t testing.TB, do string) policy.Answer {
	t.Helper()
	began := time.Now()
	a := w.Authorize(t.Context(), about(do))
	if took := time.Since(began); took > 10*w.config.Timeout {
		t.Errorf("%q took %s", do, took)
	}
	if a.Allow == (a.Reason != "") {
		t.Errorf("%q: %+v", do, a)
	}
	return a
}

// says returns what the program says to what it shall do.
func (w *world) says(t testing.TB, do string) string {
	t.Helper()
	a := w.ask(t, do)
	if a.Allow || a.Reason != policy.PolicyDenied {
		t.Fatalf("%q: %+v", do, a)
	}
	return strings.TrimPrefix(a.Rule, "policy test: ")
}

// until waits for a condition that will come by itself.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
