package coremain

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/freeport"
)

// upgraded is a running postern that stands at a path of its own, so that another binary can be put there, with an
// endpoint that leads to an echo.
type upgraded struct {
	*server
	dir, binary, at string // at: the endpoint and its port
	pid             int    // of the newest process
}

// upgradeCorefile declares the endpoint unless it was withdrawn. silent is the target of another service, "" for none.
func upgradeCorefile(dns, target, silent string, withdrawn bool) string {
	_, port, _ := net.SplitHostPort(target)
	text := fmt.Sprintf(".:%s {\n bind 127.0.0.1\n linkstore bolt state/postern.db\n linknetwork here 127.0.0.0/8 {\n  endpoints 127.0.98.0/24\n }\n"+
		" linkservice app {\n  names app.example.com\n  pin address\n  target %s\n  port %s\n  approve here\n }\n privatelink\n linkproxy\n errors\n", dns, target, port)
	if !withdrawn {
		text += " linkendpoint e {\n  service app\n  network here\n  address 127.0.98.5\n }\n"
	}
	if silent != "" {
		_, port, _ := net.SplitHostPort(silent)
		text += fmt.Sprintf(" linkservice silent {\n  names silent.example.com\n  pin address\n  target %s\n  port %s\n  approve here\n }\n"+
			" linkendpoint s {\n  service silent\n  network here\n  address 127.0.98.6\n }\n", silent, port)
	}
	return text + "}\n"
}

// startUpgraded starts it; text makes the Corefile of the port of DNS and the target.
func startUpgraded(t *testing.T, text func(dns, target string) string) *upgraded {
	t.Helper()
	dir, target := t.TempDir(), echo(t)
	for _, sub := range []string{"bin", "state"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	u := &upgraded{dir: dir, binary: filepath.Join(dir, "bin", "postern")}
	u.install(t)
	port := freePort(t)
	if err := os.WriteFile(filepath.Join(dir, "Corefile"), []byte(text(port, target)), 0o600); err != nil {
		t.Fatal(err)
	}
	u.server = startPath(t, u.binary, dir, port)
	t.Cleanup(func() { // before that of startPath, which waits for all that write to the output
		for _, m := range reProcess.FindAllStringSubmatch(u.output(), -1) {
			if pid, err := strconv.Atoi(m[1]); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	u.pid = u.cmd.Process.Pid
	_, p, _ := net.SplitHostPort(target)
	u.at = "127.0.98.5:" + p
	u.eventually("an answer", func() bool { return u.resolves() })
	return u
}

// install puts the real binary at the path, as a new file.
func (u *upgraded) install(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	u.replace(t, func(path string) error {
		from, err := os.Open(self)
		if err != nil {
			return err
		}
		defer from.Close()
		to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			return err
		}
		if _, err := io.Copy(to, from); err != nil {
			return err
		}
		return to.Close()
	})
}

// replace puts another file at the path of the binary, at once. Nothing is forked meanwhile: a child of another test would have the
// file open for writing until it executes something, and what is written to can't be executed (ETXTBSY).
func (u *upgraded) replace(t *testing.T, write func(path string) error) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := write(u.binary + ".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(u.binary+".new", u.binary); err != nil {
		t.Fatal(err)
	}
}

// script replaces the binary by a script of the shell.
func (u *upgraded) script(t *testing.T, text string) {
	u.replace(t, func(path string) error { return os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755) })
}

func (u *upgraded) output() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return strings.Join(u.lines, "\n")
}

var reProcess = regexp.MustCompile(`upgrade: process (\d+), `)

// newest returns the process that was started last.
func (u *upgraded) newest() int {
	all := reProcess.FindAllStringSubmatch(u.output(), -1)
	if len(all) == 0 {
		return 0
	}
	pid, _ := strconv.Atoi(all[len(all)-1][1])
	return pid
}

// eventually waits until ok.
func (u *upgraded) eventually(what string, ok func() bool) {
	u.t.Helper()
	for end := time.Now().Add(50 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			u.t.Fatalf("no %s\n%s", what, u.output())
		}
	}
}

// upgrade has the newest process followed by another.
func (u *upgraded) upgrade() {
	u.t.Helper()
	before := u.newest()
	if err := syscall.Kill(u.pid, syscall.SIGUSR2); err != nil {
		u.t.Fatal(err)
	}
	u.eventually("new process", func() bool {
		return u.newest() != before && strings.Contains(u.output(), fmt.Sprintf("process %d serves now", u.newest()))
	})
	u.pid = u.newest()
}

// refused has an upgrade fail, and returns why.
func (u *upgraded) refused() string {
	u.t.Helper()
	const words = "upgrade refused, this process goes on: "
	before := strings.Count(u.output(), words)
	if err := syscall.Kill(u.pid, syscall.SIGUSR2); err != nil {
		u.t.Fatal(err)
	}
	u.eventually("refusal", func() bool { return strings.Count(u.output(), words) > before })
	text := u.output()
	text = text[strings.LastIndex(text, words)+len(words):]
	why, _, _ := strings.Cut(text, "\n")
	return why
}

// resolves asks once whether the endpoint is answered.
func (u *upgraded) resolves() bool {
	c := dns.Client{Timeout: 10 * time.Second}
	q := new(dns.Msg).SetQuestion("app.example.com.", dns.TypeA)
	r, _, err := c.Exchange(q, u.dns)
	return err == nil && strings.Contains(fmt.Sprint(r.Answer), "127.0.98.5")
}

// dial opens a flow and says something on it.
func (u *upgraded) dial() (net.Conn, error) {
	c, err := net.DialTimeout("tcp", u.at, 20*time.Second)
	if err != nil {
		return nil, err
	}
	if err := says(c, "hello"); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// says sends a word and reads it back.
func says(c net.Conn, word string) error {
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, word); err != nil {
		return err
	}
	b := make([]byte, len(word))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != word {
		return fmt.Errorf("%q: %w", b, err)
	}
	return nil
}

// echo returns the address of a server that sends back what it reads.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

// silent returns the address of a listener whose queue is full: nobody gets an answer from it.
func silent(t *testing.T) string {
	port := freeport.Get(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("127.0.0.1:%d", port)
	for {
		c, err := net.DialTimeout("tcp", at, 300*time.Millisecond)
		if err != nil {
			return at
		}
		t.Cleanup(func() { c.Close() })
	}
}

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

// command runs a command of postern in the server's directory.
func (u *upgraded) command(args ...string) (string, error) {
	cmd := exec.Command(u.binary, args...)
	cmd.Dir, cmd.Env = u.dir, programEnv()
	out, err := cmd.CombinedOutput()
	return string(out), err
}
