package external

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"golang.org/x/sys/unix"
)

// open is a directory that anybody may pass and read, which those of tests aren't.
func open(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "open-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestSandbox: G07.
func TestSandbox(t *testing.T) {
	if unprotected() != "" {
		t.Skip("this kernel lacks " + unprotected())
	}
	dir := open(t)
	state := filepath.Join(dir, "state.db")
	if err := os.WriteFile(state, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	socket, err := net.Listen("unix", filepath.Join(dir, "admin"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := os.Chmod(filepath.Join(dir, "admin"), 0o777); err != nil {
		t.Fatal(err)
	}
	w := start(t, config("obeys"))
	for do, want := range map[string]string{
		"read " + state:                       "permission denied",
		"read /etc/passwd":                    "permission denied",
		"read /proc/self/environ":             "permission denied",
		"list /":                              "permission denied",
		"list /proc":                          "permission denied",
		"write " + dir + "/x":                 "permission denied",
		"write /tmp/x":                        "permission denied",
		"dial tcp " + tcp.Addr().String():     "permission denied",
		"dial udp 127.0.0.1:53":               "permission denied",
		"dial unix " + dir + "/admin":         "permission denied",
		"dial unixgram /dev/log":              "permission denied",
		"dial unix @abstract":                 "permission denied",
		"listen":                              "permission denied",
		"signal":                              "operation not permitted",
		"undead":                              "operation not permitted",
		"session":                             "operation not permitted",
		"process":                             "operation not permitted",
		"trace":                               "operation not permitted",
		"environment":                         "POSTERN_POLICY_PROGRAM PLUGIN_MIN_PORT PLUGIN_MAX_PORT PLUGIN_PROTOCOL_VERSIONS PLUGIN_CLIENT_CERT PLUGIN_UNIX_SOCKET_DIR",
		"descriptors":                         "open: ",
		"dump":                                "0 0 <nil>",
		"read /etc/ssl/openssl.cnf.not-there": "no such file",
	} {
		if got := w.says(t, do); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", do, got, want)
		}
	}
	if got := w.says(t, "descriptors"); got != "open: " {
		t.Errorf("it has open %q", got)
	}
	if os.Geteuid() == 0 {
		if got := w.says(t, "who"); got != "65534 65534 []/" {
			t.Errorf("it is %s", got)
		}
	}
}

// TestAllowed: what the Corefile gives a program it has.
func TestAllowed(t *testing.T) {
	dir := open(t)
	rules := filepath.Join(dir, "rules")
	if err := os.WriteFile(rules, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	c := config("obeys")
	c.Network, c.Files = true, []string{dir}
	w := start(t, c)
	for _, do := range []string{"read " + rules, "list " + dir, "dial tcp " + tcp.Addr().String()} {
		if got := w.says(t, do); !strings.HasSuffix(got, ": done") {
			t.Error(got)
		}
	}
	for _, do := range []string{"write " + dir + "/x", "read /etc/passwd", "process", "signal"} {
		if got := w.says(t, do); strings.HasSuffix(got, ": done") && unprotected() == "" {
			t.Error(got)
		}
	}
}

// TestFlood: G06. A program that prints a gigabyte costs some lines, and answers all the while.
func TestFlood(t *testing.T) {
	w := start(t, config("floods"))
	before := resident(t)
	until(t, "dropped lines", func() bool { return w.count(t, "log_dropped_total", "") > 100 })
	for range 20 {
		if !w.ask(t, "allow").Allow {
			t.Error("it refuses")
		}
	}
	if more := resident(t) - before; more > 64<<20 {
		t.Errorf("it cost %d bytes of memory", more)
	}
	if l := w.log.String(); len(l) > 1<<20 || strings.ContainsAny(l, "\x00\x1b") || !strings.Contains(l, `\x1b`) {
		t.Errorf("%d bytes were logged", len(l))
	}
}

// resident returns how much memory this process has, in bytes.
func resident(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// killedNode is a node that runs a program until it is killed.
func killedNode() {
	p, err := Start(context.Background(), config("obeys"), nil, nil)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(strings.TrimPrefix(p.Authorize(context.Background(), about("pid")).Rule, "policy test: "))
	select {}
}

// TestKilledNode: G08. A program doesn't outlive a node that was killed.
func TestKilledNode(t *testing.T) {
	node := exec.Command(os.Args[0])
	node.Env = append(os.Environ(), "POSTERN_TEST_NODE=1")
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(line)
	}
	fd, err := unix.PidfdOpen(pid, 0) // the number may be another's later
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := node.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	n, err := 0, error(unix.EINTR) // by the signals of Go's scheduler
	for err == unix.EINTR && time.Since(began) < 5*time.Second {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
	}
	if n != 1 {
		t.Errorf("the program lives 5 s after the node: %v", err)
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
	t.Logf("gone after %s", time.Since(began))
	_ = node.Wait()
	start(t, config("obeys"))
	nothingLeft(t, 1)
}

// TestReplacedFile: what runs is what was checked, also after a crash, whatever becomes of the file.
func TestReplacedFile(t *testing.T) {
	c := config("obeys")
	file := filepath.Join(t.TempDir(), "program")
	body, err := os.ReadFile(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, body, 0o755); err != nil {
		t.Fatal(err)
	}
	c.Path = file
	w := start(t, c)
	if err := os.WriteFile(file, []byte("#!/bin/false\n"), 0o755); err != nil {
		t.Fatal(err) // not even busy
	}
	w.ask(t, "crash")
	until(t, "another run", func() bool { return w.count(t, "restarts_total", "") == 1 && w.count(t, "up", "") == 1 })
	if !w.ask(t, "allow").Allow {
		t.Error("it refuses")
	}
	if _, err := Start(t.Context(), c, nil, nil); err == nil {
		t.Error("the file that was put in its place was started")
	}
}

// TestUnlaunchable: a binary that doesn't call Launch isn't started over and over.
func TestUnlaunchable(t *testing.T) {
	launchable.Store(false)
	defer launchable.Store(true)
	if p, err := Start(t.Context(), config("obeys"), nil, nil); err == nil {
		p.Close()
		t.Error("it was started")
	}
}

// TestNothingLeft: a program that was closed leaves no process, no directory and no metric.
func TestNothingLeft(t *testing.T) {
	w := &world{log: &logged{}}
	p, err := Start(t.Context(), config("obeys"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Program = p
	pid, err := strconv.Atoi(w.says(t, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Errorf("process %d: %v", pid, err)
	}
	if a := p.Authorize(t.Context(), about("allow")); a.Allow {
		t.Error("a closed program allows")
	}
	p.Changed(link.Empty())
	nothingLeft(t, 0)
}
