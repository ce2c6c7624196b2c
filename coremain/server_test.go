// As in main.go, since this is the program in tests: TCP_USER_TIMEOUT is of plain TCP alone.
//
//go:debug multipathtcp=0

package coremain

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/internal/freeport"
)

// The tests of this file run the program itself: this test binary, told by the environment to be it.
const asProgram = "POSTERN_TEST_IS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		Run()
	}
	// What runs side by side here waits for most of its time, two tests for half a minute.
	if flag.Parse(); flag.Lookup("test.parallel").Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		flag.Set("test.parallel", "8")
	}
	os.Exit(m.Run())
}

// program returns the command that runs postern in a directory of its own.
func program(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return programAt(ctx, self, dir, args...)
}

// programAt returns the command for a copy of this binary.
func programAt(ctx context.Context, path, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = programEnv()
	return cmd
}

// programEnv has this binary be the program, without the second that the race detector otherwise adds to the end of a process.
func programEnv() []string {
	return append(os.Environ(), asProgram+"=1", "STATE_DIRECTORY=", "GORACE=atexit_sleep_ms=0")
}

// result runs postern to its end.
func result(t *testing.T, dir string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := program(t, dir, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// server is a running postern.
type server struct {
	t    *testing.T
	cmd  *exec.Cmd
	dns  string // its address
	conf string

	mu    sync.Mutex
	lines []string
	seen  int // lines that were waited for
	more  chan struct{}
}

func freePort(t *testing.T) string { return strconv.Itoa(int(freeport.Get(t))) }

// corefileText is a Corefile that answers x.example with an address, so that one sees which is in force.
func corefileText(port, addr string) string {
	return fmt.Sprintf(".:%s {\n bind 127.0.0.1\n linknetwork corp 127.0.0.0/8\n privatelink\n errors\n reload 2s 0s\n hosts {\n  %s x.example\n  ttl 1\n }\n}\n", port, addr)
}

func startServer(t *testing.T, text string, port string) *server {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Corefile"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startIn(t, dir, port)
}

// startIn starts postern with the Corefile of a directory, and flags.
func startIn(t *testing.T, dir, port string, flags ...string) *server {
	t.Helper()
	return startCommand(t, program(t, dir, flags...), dir, port)
}

// startPath starts the copy of postern at a path, which has five minutes.
func startPath(t *testing.T, path, dir, port string) *server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return startCommand(t, programAt(ctx, path, dir), dir, port)
}

func startCommand(t *testing.T, cmd *exec.Cmd, dir, port string) *server {
	t.Helper()
	s := &server{t: t, dns: "127.0.0.1:" + port, conf: filepath.Join(dir, "Corefile"), more: make(chan struct{}, 1), cmd: cmd}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = s.cmd.Stdout
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			s.mu.Lock()
			s.lines = append(s.lines, sc.Text())
			s.mu.Unlock()
			select {
			case s.more <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		<-read
		s.cmd.Wait()
	})
	s.await(Name + "-")
	return s
}

// write replaces the Corefile at once, as an editor does.
func (s *server) write(text string) {
	s.t.Helper()
	if err := os.WriteFile(s.conf+".new", []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.conf+".new", s.conf); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// await waits for a line of the log after those that were awaited before.
func (s *server) await(what string) {
	s.t.Helper()
	limit := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		for i := s.seen; i < len(s.lines); i++ {
			if strings.Contains(s.lines[i], what) {
				s.seen = i + 1
				s.mu.Unlock()
				return
			}
		}
		all := strings.Join(s.lines, "\n")
		s.mu.Unlock()
		select {
		case <-s.more:
		case <-limit:
			s.t.Fatalf("no line with %q:\n%s", what, all)
		}
	}
}

// all returns what the server has said so far.
func (s *server) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

// status returns what the kernel says of the process, proc_pid_status(5).
func (s *server) status() string {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// answers checks what x.example is.
func (s *server) answers(want string) {
	s.t.Helper()
	m := new(dns.Msg).SetQuestion("x.example.", dns.TypeA)
	r, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(m, s.dns)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(r.Answer) != 1 || r.Answer[0].(*dns.A).A.String() != want {
		s.t.Errorf("x.example is %v, want %s", r.Answer, want)
	}
}

// TestReloads goes through C13 and C14: what is refused changes nothing, and reloads by signal and
// by the plugin take turns. In CoreDNS the plugin never looks again after the first signal.
func TestReloads(t *testing.T) {
	port := freePort(t)
	s := startServer(t, corefileText(port, "192.0.2.1"), port)
	s.answers("192.0.2.1")

	for name, bad := range map[string]string{
		"empty":           "",
		"braces":          "}}}\n",
		"cut":             strings.TrimSuffix(corefileText(port, "192.0.2.66"), "}\n"),
		"nothing of ours": ".:" + port + " {\n bind 127.0.0.1\n hosts {\n  192.0.2.66 x.example\n }\n}\n",
		"wrong directive": strings.Replace(corefileText(port, "192.0.2.66"), "127.0.0.0/8", "127.0.0.1/8", 1),
	} {
		t.Log(name)
		s.write(bad)
		s.signal(syscall.SIGUSR1)
		s.await("reload refused, the configuration in force goes on: Corefile:")
		s.answers("192.0.2.1")
	}

	s.write(corefileText(port, "192.0.2.2"))
	s.signal(syscall.SIGUSR1)
	s.await("Reloading complete")
	s.answers("192.0.2.2")

	s.write(corefileText(port, "192.0.2.3")) // the plugin finds it, after a signal
	s.await("Reloading complete")
	s.answers("192.0.2.3")

	s.write("}}}\n") // the plugin finds it, and says so
	s.await("reload refused")
	s.answers("192.0.2.3")

	s.write(corefileText(port, "192.0.2.4"))
	s.await("Reloading complete")
	s.answers("192.0.2.4")

	s.write(corefileText(port, "192.0.2.5"))
	s.signal(syscall.SIGUSR1)
	s.await("Reloading complete")
	s.answers("192.0.2.5")

	s.signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("end: %v", err)
	}
}

// TestRefusedStart: exit code 1, one line, nothing served (C01, C05, C06, C10, C11, C12).
func TestRefusedStart(t *testing.T) {
	for name, c := range map[string]struct{ text, line, lint string }{
		"empty":        {"", "Corefile:1 - no server block", "Corefile:1: no server block"},
		"unknown":      {".:0 {\n privatelnk\n}\n", "Corefile:2 - privatelnk: unknown directive", "Corefile:2: privatelnk: unknown directive"},
		"ours":         {".:0 {\n bind 127.0.0.1\n linknetwork corp 10.0.0.7/8\n}\n", "Corefile:3 - linknetwork: ", "Corefile:3: linknetwork: "},
		"certificate":  {"tls://.:0 {\n bind 127.0.0.1\n tls nowhere.pem nowhere.key\n privatelink\n}\n", "Corefile:3 - tls: could not load TLS cert: open ", "Corefile:3: tls: could not load TLS cert: open "},
		"metrics":      {".:0 {\n bind 127.0.0.1\n linknetwork a 10.1.0.0/16 {\n  endpoints 127.0.9.0/24\n }\n prometheus 127.0.9.1:9153\n}\n", "Corefile:6 - prometheus: \"127.0.9.1:9153\" is in the pool 127.0.9.0/24 at Corefile:4", "Corefile:6: prometheus: "},
		"one of Caddy": {".:0 {\n bind 127.0.0.1\n privatelink\n cache {\n  bogus\n }\n}\n", "Corefile:5 - cache: ", "Corefile:5: cache: "},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "Corefile"), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			code, _, stderr := result(t, dir)
			if code != 1 || !strings.HasPrefix(stderr, c.line) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("start: code %d, %q, want %q", code, stderr, c.line)
			}
			code, _, stderr = result(t, dir, "validate", "Corefile")
			if code != 1 || !strings.HasPrefix(stderr, c.lint) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("validate: code %d, %q, want %q", code, stderr, c.lint)
			}
		})
	}
}

// TestValidateTouchesNothing: no state is made, and ports that are taken don't matter.
func TestValidateTouchesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Corefile"), []byte(corefileText("1", "192.0.2.1")), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := result(t, dir, "validate")
	if code != 0 || stdout != "Corefile: ok (1 server block, 1 network, 0 services, 0 endpoints)\n" || stderr != "" {
		t.Errorf("code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

// TestBackupAndRestore goes through both ways to the state, and what is refused (S02, S03).
func TestBackupAndRestore(t *testing.T) {
	port := freePort(t)
	s := startServer(t, corefileText(port, "192.0.2.1"), port)
	dir := filepath.Dir(s.conf)
	run := func(want int, contains string, args ...string) {
		t.Helper()
		code, stdout, stderr := result(t, dir, args...)
		if code != want || !strings.Contains(stdout+stderr, contains) {
			t.Errorf("postern %v: code %d, want %d\n%s%s", args, code, want, stdout, stderr)
		}
	}
	state := filepath.Join(dir, "postern.db")
	run(0, "revision 1, 1 object", "backup", "-o", "online.backup")
	run(1, "a node is running with it; -replace", "restore", "online.backup")
	run(0, "restored 1 object of revision 1", "restore", "-replace", "online.backup")
	s.signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		t.Fatalf("end: %v", err)
	}
	run(0, `"magic":"postern backup"`, "backup", "-state", state)
	run(1, "-replace makes it that of the backup", "restore", "-state", state, "online.backup")
	run(0, "restored 1 object", "restore", "-state", state, "-replace", "online.backup")
	run(1, "no such file", "backup", "-state", "nothing.db")
	run(2, "give one", "backup", "-conf", "Corefile", "-state", state)
	run(2, "1 arguments given, 0 allowed", "backup", "x")

	if err := os.WriteFile(state, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(1, "restore -replace", "restore", "-state", state, "online.backup")
	cut, err := os.ReadFile(filepath.Join(dir, "online.backup"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cut.backup"), cut[:len(cut)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	run(1, "damaged", "restore", "-state", state, "-replace", "cut.backup")
	run(0, "damaged, kept as "+state+".damaged-", "restore", "-state", state, "-replace", "online.backup")
	run(0, "corp", "backup", "-state", state)
	kept, err := filepath.Glob(state + ".damaged-*Z")
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept %v, %v", kept, err)
	}
	if b, err := os.ReadFile(kept[0]); err != nil || string(b) != "something else" {
		t.Errorf("kept %q, %v", b, err)
	}
}

// TestEnds: a second signal does not wait for the drain, SIGQUIT for nothing at all.
func TestEnds(t *testing.T) {
	port := freePort(t)
	text := strings.Replace(corefileText(port, "192.0.2.1"), "errors", "health 127.0.0.1:0 {\n  lameduck 1h\n }", 1)
	s := startServer(t, text, port)
	s.signal(syscall.SIGHUP)
	s.signal(syscall.SIGTERM)
	s.await("SIGTERM: ending")
	s.answers("192.0.2.1")
	s.signal(syscall.SIGINT)
	s.await("second signal")
	s.cmd.Wait()
	if code := s.cmd.ProcessState.ExitCode(); code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
}
