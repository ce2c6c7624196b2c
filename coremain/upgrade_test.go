package coremain

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestUpgrade (P13): three processes follow on one under load. No connection is refused or cut, no question stays without its
// answer, and flows of the first process end with a change that the last one takes.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	dnsPort, target := "", ""
	u := startUpgraded(t, func(d, to string) string { dnsPort, target = d, to; return upgradeCorefile(d, to, "", false) })
	var flows []net.Conn
	open := func() {
		for range 10 {
			c, err := u.dial()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			flows = append(flows, c)
		}
	}
	stop := make(chan struct{})
	var load sync.WaitGroup
	var connects, questions atomic.Int64
	work := func(count *atomic.Int64, one func() error) {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := one(); err != nil {
					t.Errorf("after %d: %v", count.Load(), err)
					return
				}
				count.Add(1)
			}
		})
	}
	for range 2 {
		work(&connects, func() error {
			c, err := u.dial()
			if err == nil {
				c.Close()
			}
			return err
		})
		work(&questions, func() error {
			if !u.resolves() {
				return fmt.Errorf("no answer")
			}
			return nil
		})
	}
	open()
	for range 3 {
		u.upgrade()
		open()
	}
	close(stop)
	load.Wait()
	t.Logf("%d connections and %d questions while three processes followed on one", connects.Load(), questions.Load())
	for i, c := range flows {
		if err := says(c, "still there"); err != nil {
			t.Errorf("flow %d: %v", i, err)
		}
	}
	if t.Failed() {
		t.Fatal(u.output())
	}

	// Reload the last process with a Corefile that no longer has the endpoint.
	u.write(upgradeCorefile(dnsPort, target, "", true))
	if err := syscall.Kill(u.pid, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	for i, c := range flows {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("flow %d of process %d outlived its endpoint: %v", i, i/10, err)
		}
	}
	u.eventually("end of the processes before", func() bool { return strings.Count(u.output(), "the process before this one has ended") == 3 })
}

// TestUpgradeRefused: a new binary that can't take over leaves the old process as it was, and says why.
func TestUpgradeRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, u *upgraded)
		want  string
	}{
		"no binary": {func(t *testing.T, u *upgraded) { os.Remove(u.binary) }, "no such file"},
		"no program": {func(t *testing.T, u *upgraded) {
			u.replace(t, func(p string) error { return os.WriteFile(p, []byte("x"), 0o755) })
		}, "exec format error"},
		"ends at once":    {func(t *testing.T, u *upgraded) { u.script(t, "exit 3") }, "exit status 3"},
		"ends by signal":  {func(t *testing.T, u *upgraded) { u.script(t, "kill -SEGV $$") }, "signal: segmentation fault"},
		"hangs":           {func(t *testing.T, u *upgraded) { u.script(t, "exec sleep 600") }, "the new process isn't as far as \"claim\" after 30s"},
		"broken Corefile": {func(t *testing.T, u *upgraded) { u.write(".:53 {\n privatelnk\n}\n") }, "Corefile:2 - privatelnk: unknown directive"},
		"another program": {func(t *testing.T, u *upgraded) { u.script(t, "echo no >&3; exec sleep 600") }, "message: invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good := ""
			u := startUpgraded(t, func(d, to string) string { good = upgradeCorefile(d, to, "", false); return good })
			flow, err := u.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer flow.Close()
			c.spoil(t, u)
			if why := u.refused(); !strings.Contains(why, c.want) {
				t.Errorf("refused with %q, want %q", why, c.want)
			}
			if err := says(flow, "still there"); err != nil {
				t.Error("flow: ", err)
			}
			if !u.resolves() {
				t.Error("no answer")
			}
			u.install(t)
			u.write(good)
			u.upgrade()
			if err := says(flow, "still there"); err != nil {
				t.Error("flow after an upgrade: ", err)
			}
		})
	}
}

// TestUpgradeKilled: one of the two processes is killed while the new one has the state and isn't ready: the other one serves.
func TestUpgradeKilled(t *testing.T) {
	for name, old := range map[string]bool{"new": false, "old": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A target that doesn't answer makes the start wait for its first probe.
			at := silent(t)
			u := startUpgraded(t, func(d, to string) string { return upgradeCorefile(d, to, at, false) })
			const opened = "limits of the data plane" // told when the state is open
			if err := syscall.Kill(u.pid, syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			u.eventually("new process with the state", func() bool { return strings.Count(u.output(), opened) == 2 })
			if old {
				if err := syscall.Kill(u.pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				u.pid = u.newest()
				u.eventually("start without the old one", func() bool { return strings.Contains(u.output(), "has taken the place") })
			} else {
				if err := syscall.Kill(u.newest(), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				u.eventually("refusal", func() bool {
					return strings.Contains(u.output(), "upgrade refused, this process goes on: the new process has ended: signal: killed")
				})
			}
			c, err := u.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if !u.resolves() {
				t.Error("no answer")
			}
			// It has the state: the command finds it by the socket beside, and it hands on.
			out, err := u.command("upgrade")
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, u.output())
			}
			if err := says(c, "still there"); err != nil {
				t.Error(err)
			}
			// Nobody is left to say what may go on: a process whose successor is killed ends its flows.
			if err := syscall.Kill(u.newest(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
				t.Errorf("a flow goes on though nobody could revoke it: %v", err)
			}
		})
	}
}
