package proxy

import (
	"context"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/prometheus/client_golang/prometheus"
)

// gate is a log that takes nothing while it is shut, as a pipe does that nobody reads.
type gate struct {
	slog.Handler
	open    chan struct{}
	waiting chan struct{} // closed when a line waits
	once    sync.Once
}

func newGate(out io.Writer) *gate {
	return &gate{Handler: slog.NewTextHandler(out, nil), open: make(chan struct{}), waiting: make(chan struct{})}
}

func (g *gate) Handle(ctx context.Context, r slog.Record) error {
	g.once.Do(func() { close(g.waiting) })
	<-g.open
	return g.Handler.Handle(ctx, r)
}

// gatedWorld is a world whose log is shut.
func gatedWorld(t *testing.T, changes ...link.Change) (*world, *gate) {
	t.Helper()
	var g *gate
	w := newWorldLog(t, Settings{}, func(out io.Writer) slog.Handler {
		g = newGate(out)
		return g
	}, changes...)
	return w, g
}

// A log that stands still stops nothing: not the end of a flow, a revocation, a snapshot, new flows.
func TestBlockedLog(t *testing.T) {
	w, g := gatedWorld(t, service("svc", 7001, echo(t)), endpoint("e", "svc", nextAddr(t)), endpoint("f", "svc", nextAddr(t)))
	defer close(g.open)
	other := w.now.Load().Endpoint("f").Address.String() + ":7001"
	carried := func(addr string) *net.TCPConn {
		t.Helper()
		c := dial(t, addr)
		io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatalf("not carried: %v", err)
		}
		return c
	}
	live := carried(w.first())
	carried(w.first()).Close()
	<-g.waiting // the line of the target that is up, or of the flow that ended
	eventually(t, "the flow that ended is gone", func() bool { return w.proxy.Flows() == 1 })

	updated := make(chan struct{})
	go func() {
		w.apply(link.Suspend{Endpoint: "e", LinkID: w.connection("e").LinkID})
		// A listener that can't be had is logged while listeners are changed.
		w.apply(service("taken", 7001, echo(t)), endpoint("t", "taken", "127.77.9.40"))
		close(updated)
	}()
	select {
	case <-updated:
	case <-time.After(patience):
		t.Fatal("Update waits for the log")
	}
	if !isReset(live) {
		t.Error("X32: a suspended flow lives on beside a log that stands still")
	}
	carried(other)
}

// Every line is written once the log takes lines again.
func TestLinesWait(t *testing.T) {
	w, g := gatedWorld(t, service("svc", 7001, echo(t)), endpoint("e", "svc", nextAddr(t)))
	const n = 20
	for range n {
		c := dial(t, w.first())
		c.CloseWrite()
		io.Copy(io.Discard, c)
	}
	eventually(t, "the flows are gone", func() bool { return w.proxy.Flows() == 0 })
	close(g.open)
	eventually(t, "every flow has its line", func() bool { return len(w.log.lines("flow ended")) == n })
}

// Beyond the queue lines are dropped and counted, and the log says so when it can. Close doesn't
// wait for a log that never comes back.
func TestLinesDropped(t *testing.T) {
	var out logBuffer
	out.settle = func() {}
	g := newGate(&out)
	dropped := prometheus.NewCounter(prometheus.CounterOpts{Name: "dropped_total"})
	registry := prometheus.NewRegistry()
	registry.MustRegister(dropped)
	w := &world{registry: registry}
	l := newLines(dropped, nil)
	log := l.logger(slog.New(g))
	log.Info("first")
	<-g.waiting
	for range linesQueued + 7 {
		log.Info("more", "two", 2)
	}
	if n := w.metric(t, "dropped_total"); n != 7 {
		t.Errorf("%v lines were counted as dropped", n)
	}
	l.close() // which doesn't wait for a log that takes nothing
	close(g.open)
	<-l.done
	if n := len(out.lines("msg=more", "two=2")); n != linesQueued {
		t.Errorf("%d lines", n)
	}
	if n := len(out.lines("were dropped", "lines=7")); n != 1 {
		t.Errorf("the log doesn't say that lines were dropped: %q", out.lines("dropped"))
	}
}

// What a refusal says stands in its line once.
func TestRefusalSaysItOnce(t *testing.T) {
	w := newWorld(t, Settings{}, service("svc", 7001, echo(t)), endpoint("e", "svc", nextAddr(t), "192.0.2.0/24"))
	if c, err := net.DialTimeout("tcp", w.first(), patience); err == nil {
		io.Copy(io.Discard, c)
		c.Close()
	}
	eventually(t, "the line of the flow", func() bool { return len(w.log.lines("flow refused")) == 1 })
	if line := w.log.lines("flow refused")[0]; strings.Count(line, "not in the allow-list") != 1 {
		t.Error(line)
	}
}

// P18: who takes the records of flows gets them in order, with what was dropped, and nothing else of the log; also while the log stands still.
func TestTap(t *testing.T) {
	type taken struct {
		messages []string
		lost     int64
	}
	var mu sync.Mutex
	var got taken
	var in atomic.Bool
	all := func() taken {
		mu.Lock()
		defer mu.Unlock()
		return taken{slices.Clone(got.messages), got.lost}
	}
	tap := Tap(func(flows []slog.Record, lost int64) {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range flows {
			got.messages = append(got.messages, r.Message)
		}
		got.lost += lost
	})
	var out logBuffer
	out.settle = func() {}
	g := newGate(&out)
	l := newLines(prometheus.NewCounter(prometheus.CounterOpts{Name: "dropped_total"}), func() Tap {
		if in.Load() {
			return tap
		}
		return nil
	})
	log := l.logger(slog.New(g))
	log.Info(flowEnded)
	<-g.waiting // nobody took that one
	in.Store(true)
	log.Info("limits of the data plane")
	for range linesQueued {
		log.Info(flowRefused)
	}
	close(g.open)
	eventually(t, "the queue is taken", func() bool { return len(all().messages) == linesQueued-1 })
	log.Info(moreRefused)
	l.close()
	if len(all().messages) != linesQueued || all().messages[0] != flowRefused || all().messages[linesQueued-1] != moreRefused || all().lost != 1 {
		t.Errorf("%d records, %d lost", len(all().messages), all().lost)
	}
}
