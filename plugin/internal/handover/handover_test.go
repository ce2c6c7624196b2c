package handover_test

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/plugin/internal/handover"
)

var errTest = errors.New("as the test says")

func fail() error { return errTest }

func TestStartAndExit(t *testing.T) {
	w := newWorld(t)
	w.start(w.corefile("", "127.0.77.5"))
	w.has(draft, "127.0.77.5")
	w.serves("127.0.77.5")
	if !draft.Published("echo") || !draft.Healthy("echo") {
		t.Error("the service isn't published or not healthy")
	}
	w.exit()
	w.closed("127.0.77.5")
	w.stateIsFree()
}

// Before the start a draft has no node: nothing may be answered from it.
func TestNoSnapshotBeforeStart(t *testing.T) {
	d, err := handover.Of(caddy.NewTestController("dns", "linkproxy"))
	if err != nil || d.Snapshot() != nil || d.Published("echo") || d.Healthy("echo") {
		t.Error("a draft without a node has a snapshot")
	}
}

// P12: at the exit, DNS and flows go on until the lame-duck time of health, whose callback stands
// before ours, has passed.
func TestLameDuck(t *testing.T) {
	w := newWorld(t)
	looked := false
	early = func(c *caddy.Controller) {
		c.OnFinalShutdown(func() error {
			looked = true
			w.serves("127.0.77.5")
			return nil
		})
	}
	w.start(w.corefile("", "127.0.77.5"))
	w.exit()
	if !looked {
		t.Error("nobody looked")
	}
	w.closed("127.0.77.5")
}

func TestReload(t *testing.T) {
	w := newWorld(t)
	w.start(w.corefile("", "127.0.77.5"))
	live := w.serves("127.0.77.5")
	first := draft
	if err := w.reload(w.corefile("", "127.0.77.5", "127.0.77.6")); err != nil {
		t.Fatal(err)
	}
	w.serves("127.0.77.6")
	w.has(draft, "127.0.77.5", "127.0.77.6")
	w.has(first, "127.0.77.5", "127.0.77.6") // queries that the old servers still hold
	if err := live.ping(); err != nil {
		t.Errorf("a live flow did not survive the reload: %v", err)
	}

	if err := w.reload(w.corefile("", "127.0.77.6")); err != nil {
		t.Fatal(err)
	}
	w.has(draft, "127.0.77.6")
	if err := live.ping(); err == nil {
		t.Error("a flow goes on whose endpoint is no longer declared")
	}
	w.closed("127.0.77.5")
}

// C13: whatever refuses a reload, and whenever, nothing has changed, and the next one works.
func TestReloadRefused(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tc := range []struct {
		name string
		bad  func(w *world) string // makes the Corefile that will be refused
		want string
	}{
		{"C11 brace missing", func(w *world) string {
			return strings.TrimRight(w.corefile("", "127.0.77.5", "127.0.77.6"), "}\n")
		}, "EOF"},
		{"C02 setup", func(w *world) string {
			return w.corefile("linkendpoint x {\n color red\n}", "127.0.77.5", "127.0.77.6")
		}, `linkendpoint: unknown property "color"`},
		{"C17 objects", func(w *world) string {
			return w.corefile("linkendpoint x {\n service echo\n network corp\n address 127.0.77.6\n}", "127.0.77.5", "127.0.77.6")
		}, "is that of endpoint"},
		{"C15 state path", func(w *world) string {
			return strings.Replace(w.corefile("", "127.0.77.5", "127.0.77.6"), w.state, w.state+"2", 1)
		}, "takes a restart"},
		{"origin", func(w *world) string {
			return strings.Replace(w.corefile("", "127.0.77.5", "127.0.77.6"), "origin test", "origin other", 1)
		}, "takes a restart"},
		{"prepare", func(w *world) string {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.77.7:%d", w.port))
			if err != nil {
				w.t.Fatal(err)
			}
			w.t.Cleanup(func() { l.Close() })
			return w.corefile("", "127.0.77.5", "127.0.77.6", "127.0.77.7")
		}, "127.0.77.7"},
		{"startup of a directive before ours", func(w *world) string {
			early = func(c *caddy.Controller) { c.OnStartup(fail) }
			return w.corefile("", "127.0.77.5", "127.0.77.6")
		}, errTest.Error()},
		{"startup of a directive after ours", func(w *world) string {
			late = func(c *caddy.Controller) { c.OnStartup(fail) }
			return w.corefile("", "127.0.77.5", "127.0.77.6")
		}, errTest.Error()},
		{"DNS port", func(w *world) string {
			return w.corefile("", "127.0.77.5", "127.0.77.6") + fmt.Sprintf("tls://.:%s {\n bind 127.0.0.1\n}\n", port(taken))
		}, "address already in use"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.start(w.corefile("", "127.0.77.5"))
			first, before := draft, refused(t)
			live := w.serves("127.0.77.5")
			bad := tc.bad(w)
			for range 2 { // C14: a second failure is as harmless as the first
				err := w.reload(bad)
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("error %v, want %q", err, tc.want)
				}
				w.has(first, "127.0.77.5")
				w.serves("127.0.77.5")
				w.closed("127.0.77.6")
				if err := live.ping(); err != nil {
					t.Errorf("live flow: %v", err)
				}
			}
			if got := refused(t) - before; got != 2 {
				t.Errorf("refused reloads went up by %v, want 2", got)
			}
			early, late = nil, nil
			if err := w.reload(w.corefile("", "127.0.77.5", "127.0.77.6")); err != nil {
				t.Fatal(err)
			}
			w.serves("127.0.77.6")
			if err := live.ping(); err != nil {
				t.Errorf("live flow after the good reload: %v", err)
			}
		})
	}
}

func port(l net.Listener) string {
	_, p, _ := net.SplitHostPort(l.Addr().String())
	return p
}

// refused returns the counter of refused reloads.
func refused(t *testing.T) float64 {
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "postern_reloads_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == "refused" {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// The OnShutdown of another plugin fails after the new servers have started: Caddy reports the reload
// as failed and goes on with the new instance. Ours must neither stay between two configurations nor be
// unable to reload.
func TestShutdownOfAnotherFails(t *testing.T) {
	w := newWorld(t)
	early = func(c *caddy.Controller) { c.OnShutdown(fail) }
	w.start(w.corefile("", "127.0.77.5"))
	early = nil
	old := w.inst
	if err := w.reload(w.corefile("", "127.0.77.5", "127.0.77.6")); err == nil {
		t.Fatal("no error")
	}
	w.has(draft, "127.0.77.5")
	w.serves("127.0.77.5")
	w.closed("127.0.77.6")
	for _, inst := range caddy.Instances() {
		if inst != old {
			w.inst = inst // the one that serves
		}
	}
	if err := w.reload(w.corefile("", "127.0.77.6")); err != nil {
		t.Fatal(err)
	}
	w.has(draft, "127.0.77.6")
	w.serves("127.0.77.6")
}

// The OnRestart of another plugin fails, after or before ours ran.
func TestRestartOfAnotherFails(t *testing.T) {
	for name, hook := range map[string]*func(*caddy.Controller){"before ours": &early, "after ours": &late} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			broken := true
			*hook = func(c *caddy.Controller) {
				c.OnRestart(func() error {
					if broken {
						return errTest
					}
					return nil
				})
			}
			w.start(w.corefile("", "127.0.77.5"))
			if err := w.reload(w.corefile("", "127.0.77.6")); !errors.Is(err, errTest) {
				t.Fatalf("error %v", err)
			}
			w.serves("127.0.77.5")
			broken = false
			if err := w.reload(w.corefile("", "127.0.77.6")); err != nil {
				t.Fatal(err)
			}
			w.serves("127.0.77.6")
		})
	}
}

// A start that fails after ours gets no shutdown call: its node must not stand in the way of the next.
func TestStartFailsAfterOurs(t *testing.T) {
	w := newWorld(t)
	late = func(c *caddy.Controller) { c.OnStartup(fail) }
	if _, err := caddy.Start(input(w.corefile("", "127.0.77.5"))); !errors.Is(err, errTest) {
		t.Fatalf("error %v", err)
	}
	late = nil
	w.start(w.corefile("", "127.0.77.5"))
	w.serves("127.0.77.5")
}

// C15: a second server on the same state is refused at the line of its linkstore; the first goes on.
func TestStateInUse(t *testing.T) {
	w := newWorld(t)
	w.start(w.corefile("", "127.0.77.5"))
	_, err := caddy.Start(input(w.corefile("", "127.0.77.6")))
	if err == nil || !strings.HasPrefix(err.Error(), "Corefile:5 - linkstore: ") {
		t.Errorf("error %v", err)
	}
	w.serves("127.0.77.5")
}

// C12: a state directory that isn't there is named.
func TestStateDirectoryMissing(t *testing.T) {
	w := newWorld(t)
	w.state = filepath.Join(t.TempDir(), "missing", "postern.db")
	_, err := caddy.Start(input(w.corefile("")))
	if err == nil || !strings.HasPrefix(err.Error(), "Corefile:5 - linkstore: ") || !strings.Contains(err.Error(), w.state) {
		t.Errorf("error %v", err)
	}
}

// An endpoint address that can't be had is an error at the line of linkproxy.
func TestEndpointAddressTaken(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.77.5:%d", w.port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = caddy.Start(input(w.corefile("", "127.0.77.5")))
	if err == nil || !strings.HasPrefix(err.Error(), "Corefile:16 - linkproxy: ") || !strings.Contains(err.Error(), "127.0.77.5") {
		t.Errorf("error %v", err)
	}
}

// A Corefile without a directive of ours takes the place of one with: the node ends, and one with
// comes back.
func TestReloadToNothingAndBack(t *testing.T) {
	w := newWorld(t)
	w.start(w.corefile("", "127.0.77.5"))
	if err := w.reload(".:0 {\n bind 127.0.0.1\n}\n"); err != nil {
		t.Fatal(err)
	}
	w.closed("127.0.77.5")
	if n := handover.Running(); n != 0 {
		t.Errorf("%d nodes run", n)
	}
	if err := w.reload(w.corefile("", "127.0.77.5")); err != nil {
		t.Fatal(err)
	}
	w.serves("127.0.77.5")
}

// The data plane goes and comes, the state stays.
func TestReloadWithoutProxyAndBack(t *testing.T) {
	w := newWorld(t)
	w.start(w.corefile("", "127.0.77.5"))
	dnsOnly := strings.Replace(w.corefile("", "127.0.77.5"), "linkproxy {\n\t\tdrain 100ms\n\t}", "", 1)
	if err := w.reload(dnsOnly); err != nil {
		t.Fatal(err)
	}
	w.closed("127.0.77.5")
	w.has(draft, "127.0.77.5")
	if !draft.Published("echo") || !draft.Healthy("echo") {
		t.Error("a node that only answers DNS can't know that a service is down")
	}
	if err := w.reload(w.corefile("", "127.0.77.5")); err != nil {
		t.Fatal(err)
	}
	w.serves("127.0.77.5")
}

// P13: the exit comes in the middle of a reload, after the successor has prepared.
func TestExitDuringReload(t *testing.T) {
	w := newWorld(t)
	w.start(w.corefile("", "127.0.77.5"))
	old := w.inst
	late = func(c *caddy.Controller) {
		c.OnStartup(func() error {
			for _, err := range old.ShutdownCallbacks() {
				t.Error(err)
			}
			return nil
		})
	}
	if err := w.reload(w.corefile("", "127.0.77.5", "127.0.77.6")); err != nil {
		t.Fatal(err)
	}
	w.closed("127.0.77.5")
	w.closed("127.0.77.6")
}
