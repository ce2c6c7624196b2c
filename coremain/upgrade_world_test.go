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
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/internal/tcptest"
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

// newUpgraded makes the directory of a server that isn't started yet. text makes its Corefile of the port of DNS, which is returned too,
// and the target.
func newUpgraded(t *testing.T, text func(dns, target string) string) (u *upgraded, port string) {
	t.Helper()
	dir, target, port := t.TempDir(), echo(t), freePort(t)
	for _, sub := range []string{"bin", "state"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "Corefile"), []byte(text(port, target)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, p, _ := net.SplitHostPort(target)
	return &upgraded{dir: dir, binary: filepath.Join(dir, "bin", "postern"), at: "127.0.98.5:" + p}, port
}

// startUpgraded starts one.
func startUpgraded(t *testing.T, text func(dns, target string) string) *upgraded {
	t.Helper()
	u, port := newUpgraded(t, text)
	u.install(t)
	u.server = startPath(t, u.binary, u.dir, port)
	t.Cleanup(func() { // before that of startPath, which waits for all that write to the output
		for _, m := range reProcess.FindAllStringSubmatch(u.output(), -1) {
			if pid, err := strconv.Atoi(m[1]); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	u.pid = u.cmd.Process.Pid
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
	t.Helper()
	return tcptest.Serve(t, "127.0.0.1:0", tcptest.Echo).Addr.String()
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

// command runs a command of postern in the server's directory.
func (u *upgraded) command(args ...string) (string, error) {
	cmd := exec.Command(u.binary, args...)
	cmd.Dir, cmd.Env = u.dir, programEnv()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// pace calls a function every so often until it says no, or stop is closed.
func pace(stop <-chan struct{}, every time.Duration, f func() bool) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		if !f() {
			return
		}
	}
}
