package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/internal/tcptest"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/bolt"
)

// ageing is a store whose view is as old as a test says.
type ageing struct {
	store.Store
	age atomic.Int64 // in nanoseconds
}

func (a *ageing) Confirmed() time.Time { return time.Now().Add(-time.Duration(a.age.Load())) }

func (a *ageing) set(age time.Duration) { a.age.Store(int64(age)) }

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// count returns how often the log says something.
func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), what)
}

// echo is a target that returns each line.
func echo(t *testing.T) netip.AddrPort {
	t.Helper()
	return tcptest.Serve(t, "127.0.0.1:0", tcptest.Echo).Addr
}

// conn is a live flow.
type conn struct {
	net.Conn
	r *bufio.Reader
}

// dial opens a flow and sees that it is carried.
func dial(t *testing.T, addr string, port uint16) *conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", addr, port), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	f := &conn{c, bufio.NewReader(c)}
	if err := f.ping(); err != nil {
		t.Fatalf("%s:%d: %v", addr, port, err)
	}
	return f
}

func (c *conn) ping() error {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "ping\n"); err != nil {
		return err
	}
	_, err := c.r.ReadString('\n')
	return err
}

// cutWithin waits for the end of a flow.
func (c *conn) cutWithin(t *testing.T, most time.Duration) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(most))
	_, err := c.r.ReadByte()
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the flow is still there after %v: %v", most, err)
	}
}

// openAgeing opens a node on a store that it takes for a shared one.
func openAgeing(t *testing.T, c Config) (*Node, *ageing) {
	t.Helper()
	st, err := bolt.Open(c.State.Bolt, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := &ageing{Store: st}
	c.State = Place{Etcd: Etcd{Endpoints: "http://127.0.0.1:1"}}
	n, err := openOn(t.Context(), c, func(context.Context) (store.Store, error) { return a, nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNode(t, n) })
	return n, a
}

// X35, S10: what the age of the view does, in either mode and to services that demand more. The age jumps and
// is judged when it is asked for, as after a pause of the machine: no step waits for anything to notice.
func TestFreshness(t *testing.T) {
	best, strict := policy.Limits{Bound: 15 * time.Minute}, policy.Limits{Bound: 30 * time.Second, Strict: true}
	tests := []struct {
		name                    string
		limits                  policy.Limits
		demands                 bool // the service
		late, stale, cut, never time.Duration
	}{
		{name: "best effort", limits: best, late: 10 * time.Second, stale: 15 * time.Minute, never: time.Hour},
		{name: "strict", limits: strict, late: 10 * time.Second, stale: 30 * time.Second, cut: time.Minute},
		{name: "best effort, service demands strict", limits: best, demands: true, late: 10 * time.Second, stale: 30 * time.Second, cut: time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			port := freeport.Get(t)
			c := config(t, filepath.Join(t.TempDir(), "state.db"), port, echo(t), "127.77.0.5")
			c.Declaration.Services[0].Strict = tt.demands
			c.Stale = tt.limits
			log, registry := new(lines), prometheus.NewPedanticRegistry()
			c.Log, c.Registerer = slog.New(slog.NewTextHandler(log, nil)), registry
			n, store := openAgeing(t, c)
			live := dial(t, "127.77.0.5", port)
			carries := func(stale bool) {
				t.Helper()
				if (n.Stale(tt.demands) != "") != stale {
					t.Errorf("stale: %q, want %v", n.Stale(tt.demands), stale)
				}
				if stale {
					wantRefused(t, "127.77.0.5", port)
				} else {
					dial(t, "127.77.0.5", port)
				}
			}
			const moment = time.Second // less than what a slow machine takes between two lines
			for _, age := range []time.Duration{0, tt.late + moment, tt.stale - 10*moment} {
				store.set(age)
				carries(false)
			}
			store.set(tt.stale)
			carries(true)
			waitFor(t, "a refusal in the log", func() bool {
				return log.count(`reason=policy_error`) > 0 && log.count(`rule="state not confirmed for `) > 0
			})
			if err := live.ping(); err != nil {
				t.Fatalf("a live flow at the bound: %v", err)
			}
			if tt.cut > 0 {
				store.set(tt.cut)
				live.cutWithin(t, 5*time.Second)
				waitFor(t, "the cut in the log", func() bool { return log.count(`reason=revoked`) > 0 })
			} else {
				store.set(tt.never)
				carries(true)
				time.Sleep(1500 * time.Millisecond) // more than what a cut takes
				if err := live.ping(); err != nil {
					t.Fatalf("a live flow, best effort: %v", err)
				}
			}
			store.set(0)
			carries(false)
		})
	}
}

// The operator hears of each level once, and sees it.
func TestFreshnessIsTold(t *testing.T) {
	c := config(t, filepath.Join(t.TempDir(), "state.db"), freeport.Get(t), echo(t), "127.77.0.5")
	c.Stale = policy.Limits{Bound: 30 * time.Second, Strict: true}
	log, registry := new(lines), prometheus.NewPedanticRegistry()
	c.Log, c.Registerer = slog.New(slog.NewTextHandler(log, nil)), registry
	n, store := openAgeing(t, c)
	for _, step := range []struct {
		age   time.Duration
		level policy.Level
		says  string
	}{
		{11 * time.Second, policy.Late, "the store doesn't confirm the state"},
		{31 * time.Second, policy.Stale, "the state is too old"},
		{61 * time.Second, policy.Expired, "twice as old as its bound"},
		{0, policy.Fresh, "the store confirms the state again"},
	} {
		store.set(step.age)
		if got := n.Freshness().Level(false); got != step.level {
			t.Errorf("age %v: %v, want %v", step.age, got, step.level)
		}
		waitFor(t, step.says, func() bool { return log.count(step.says) > 0 })
		want := ""
		for _, l := range policy.Levels() {
			is := 0
			if l == step.level {
				is = 1
			}
			want += fmt.Sprintf("postern_state_freshness{level=%q} %d\n", l.String(), is)
		}
		want = "# HELP postern_state_freshness 1 for what the age of the state means, 0 for all else.\n# TYPE postern_state_freshness gauge\n" + want
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "postern_state_freshness"); err != nil {
			t.Error(err)
		}
	}
	if n := log.count("the store doesn't confirm the state"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// A state file is always fresh, whatever the limits.
func TestBoltIsFresh(t *testing.T) {
	n := open(t, config(t, filepath.Join(t.TempDir(), "state.db"), freeport.Get(t), echo(t), "127.77.0.5"))
	defer closeNode(t, n)
	if f := n.Freshness(); f.Worst() != policy.Fresh || n.Stale(true) != "" {
		t.Errorf("%+v", f)
	}
}

// BenchmarkFreshness is what each query and each new flow pay.
func BenchmarkFreshness(b *testing.B) {
	for name, limits := range map[string]policy.Limits{"file": {}, "shared": {Bound: time.Minute}} {
		b.Run(name, func(b *testing.B) {
			now := time.Now()
			at := new(confirmed)
			at.at.Store(&now)
			n := &Node{store: at}
			n.limits.Store(&limits)
			b.ReportAllocs()
			for b.Loop() {
				if n.Stale(true) != "" {
					b.Fatal("stale")
				}
			}
		})
	}
}

// confirmed keeps the time as package etcd does.
type confirmed struct {
	store.Store
	at atomic.Pointer[time.Time]
}

func (c *confirmed) Confirmed() time.Time { return *c.at.Load() }
