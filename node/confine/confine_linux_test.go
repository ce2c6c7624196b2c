package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// asChild tells this test binary to be a process that confines itself: its value is the scene as JSON.
const asChild = "POSTERN_TEST_CONFINED"

func TestMain(m *testing.M) {
	if text := os.Getenv(asChild); text != "" {
		os.Exit(child(text))
	}
	os.Exit(m.Run())
}

// scene is a directory with what the child tries.
type scene struct{ Dir string }

func (s scene) path(name ...string) string {
	return filepath.Join(append([]string{s.Dir}, name...)...)
}

func (s scene) rules() Rules {
	return Rules{
		Read:    []string{s.path("read"), s.path("link"), s.path("nowhere"), "/proc", "/etc"},
		Execute: []string{"/usr", "/lib", "/lib64", "/bin"},
		Write:   []string{s.path("state")},
		Create:  []string{s.path("pid")},
		Devices: []string{"/dev/null"},
	}
}

// child confines itself and prints what it could do, a name and an error a line.
func child(text string) int {
	var s scene
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		fmt.Println(err)
		return 2
	}
	runtime.LockOSThread() // the sleeper ends with this thread; once it is out of reach nobody here can end it
	before := exec.Command("sleep", "60")
	before.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := before.Start(); err != nil {
		fmt.Println(err)
		return 2
	}
	ready, release := threads(8)
	<-ready
	if err := Harden(); err != nil {
		fmt.Println(err)
		return 2
	}
	box, err := Apply(s.rules())
	if err != nil {
		fmt.Println(err)
		return 2
	}
	for _, a := range s.attempts() {
		fmt.Printf("%s\t%v\n", a.name, a.do())
	}
	fmt.Printf("signal one that was there\t%v\n", before.Process.Signal(syscall.SIGCONT))
	var wrong error
	for err := range release(s.path("secret", "file")) {
		if !errors.Is(err, fs.ErrPermission) {
			wrong = fmt.Errorf("a thread could read: %v", err)
		}
	}
	fmt.Printf("all threads\t%v\n", wrong)
	fmt.Printf("reads\t%v %v %v %v\n", box.Reads(s.path("read", "file")), box.Reads(s.path("link", "file")), box.Reads(s.path("secret", "file")), box.Reads(s.path("read", "out")))
	fmt.Printf("scopes\t%v\n", scopes(box.ABI)&ll.ScopeSignal != 0 && box.ABI >= 6)
	return 0
}

// threads starts n threads that exist before the sandbox does. release has each read a file, and returns the errors.
func threads(n int) (ready <-chan struct{}, release func(path string) <-chan error) {
	var up, down sync.WaitGroup
	paths, errs, all := make(chan string), make(chan error, n), make(chan struct{})
	for range n {
		up.Add(1)
		down.Go(func() {
			runtime.LockOSThread() // and never unlocked: a thread of its own until it ends
			up.Done()
			_, err := os.ReadFile(<-paths)
			errs <- err
		})
	}
	go func() { up.Wait(); close(all) }()
	return all, func(path string) <-chan error {
		for range n {
			paths <- path
		}
		down.Wait()
		close(errs)
		return errs
	}
}

type attempt struct {
	name    string
	allowed bool
	do      func() error
}

func (s scene) attempts() []attempt {
	read := func(path string) func() error {
		return func() error { _, err := os.ReadFile(path); return err }
	}
	write := func(path string) func() error {
		return func() error { return os.WriteFile(path, []byte("x"), 0o600) }
	}
	run := func(path string) func() error {
		return func() error { return exec.Command(path).Run() }
	}
	return []attempt{
		{"read in a directory to read", true, read(s.path("read", "file"))},
		{"read below it", true, read(s.path("read", "below", "file"))},
		{"read through a link that is allowed", true, read(s.path("link", "file"))},
		{"read elsewhere", false, read(s.path("secret", "file"))},
		{"read through a link to elsewhere", false, read(s.path("read", "out"))},
		{"list elsewhere", false, func() error { _, err := os.ReadDir(s.path("secret")); return err }},
		{"read where the rule found nothing", false, func() error {
			return errors.Join(os.Mkdir(s.path("nowhere"), 0o700), read(s.path("nowhere", "file"))())
		}},
		{"write where to read", false, write(s.path("read", "file"))},
		{"truncate where to read", false, func() error { return os.Truncate(s.path("read", "file"), 0) }},
		{"create where to read", false, write(s.path("read", "new"))},
		{"remove where to read", false, func() error { return os.Remove(s.path("read", "file")) }},
		{"write the state", true, write(s.path("state", "file"))},
		{"replace a file of the state", true, func() error {
			return errors.Join(write(s.path("state", "new"))(), os.Rename(s.path("state", "new"), s.path("state", "file")))
		}},
		{"link a file of the state", true, func() error { return os.Link(s.path("state", "file"), s.path("state", "twice")) }},
		{"make a directory in the state", true, func() error { return os.Mkdir(s.path("state", "dir"), 0o700) }},
		{"listen in the state, and connect", true, func() error {
			l, err := net.Listen("unix", s.path("state", "s"))
			if err != nil {
				return err
			}
			defer l.Close()
			c, err := net.Dial("unix", s.path("state", "s"))
			if err == nil {
				err = c.Close()
			}
			return err
		}},
		{"move out of the state", false, func() error { return os.Rename(s.path("state", "file"), s.path("pid", "file")) }},
		{"run what was written", false, func() error {
			return errors.Join(os.WriteFile(s.path("state", "run"), []byte("#!/bin/sh\n"), 0o700), run(s.path("state", "run"))())
		}},
		{"make a pipe in the state", false, func() error { return unix.Mkfifo(s.path("state", "pipe"), 0o600) }},
		{"make and remove a pid file", true, func() error {
			return errors.Join(write(s.path("pid", "new"))(), os.Remove(s.path("pid", "new")))
		}},
		{"read beside the pid file", false, read(s.path("pid", "other"))},
		{"run a program of the system", true, run("/bin/true")},
		{"write to /dev/null", true, write("/dev/null")},
		{"read another device", false, read("/dev/zero")},
		{"listen and connect by TCP", true, func() error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer l.Close()
			c, err := net.Dial("tcp", l.Addr().String())
			if err == nil {
				err = c.Close()
			}
			return err
		}},
		{"what is started is inside", true, func() error {
			if err := exec.Command("/bin/cat", s.path("secret", "file")).Run(); err == nil {
				return errors.New("it could read")
			}
			return exec.Command("/bin/cat", s.path("read", "file")).Run()
		}},
		{"end what was started", true, func() error {
			c := exec.Command("/bin/sleep", "60")
			if err := c.Start(); err != nil {
				return err
			}
			err := c.Process.Kill()
			_ = c.Wait() // ended by a signal
			return err
		}},
		{"no new privileges on any thread", true, func() error {
			tasks, err := filepath.Glob("/proc/self/task/*/status")
			for _, task := range tasks {
				text, rerr := os.ReadFile(task)
				if rerr == nil && !strings.Contains(string(text), "NoNewPrivs:\t1") {
					err = errors.Join(err, errors.New(task+" may gain privileges"))
				}
			}
			if len(tasks) == 0 {
				return errors.New("no task")
			}
			return err
		}},
		{"files are their owner's alone", true, func() error {
			if err := os.WriteFile(s.path("state", "wide"), nil, 0o666); err != nil {
				return err
			}
			info, err := os.Stat(s.path("state", "wide"))
			if err == nil && info.Mode().Perm() != 0o600 {
				err = fmt.Errorf("mode %v", info.Mode())
			}
			return err
		}},
		{"no core, and nobody looks into the memory", true, func() error {
			n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
			if err == nil && n != 0 {
				err = errors.New("dumpable")
			}
			return err
		}},
	}
}

// build makes the directories of the scene.
func (s scene) build(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"read/below", "secret", "state", "pid", "real"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"read/file", "read/below/file", "secret/file", "real/file", "pid/other"} {
		if err := os.WriteFile(s.path(file), []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{"link": "real", "read/out": "../secret/file"} {
		if err := os.Symlink(to, s.path(from)); err != nil {
			t.Fatal(err)
		}
	}
}

// needLandlock skips where the kernel has none. All that is tested of it then is that it is said.
func needLandlock(t *testing.T) {
	t.Helper()
	if abi, err := ll.LandlockGetABIVersion(); err != nil || abi < 3 {
		if box, aerr := Apply(Rules{}); abi < 1 && (!errors.Is(aerr, ErrUnsupported) || box.ABI != 0) {
			t.Errorf("without Landlock: %+v, %v", box, aerr)
		}
		t.Skipf("Landlock of this kernel: version %d, %v", abi, err)
	}
}

// TestConfined: a process that confined itself reads, writes and runs what its rules say and nothing else, on all threads
// and in what it starts.
func TestConfined(t *testing.T) {
	needLandlock(t)
	s := scene{t.TempDir()}
	s.build(t)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asChild+"="+string(text))
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	said := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		said[name] = value
	}
	for _, a := range s.attempts() {
		switch got, ok := said[a.name]; {
		case !ok:
			t.Errorf("%s: not tried", a.name)
		case a.allowed && got != "<nil>":
			t.Errorf("%s: %s", a.name, got)
		case !a.allowed && !strings.Contains(got, "permission denied") && !strings.Contains(got, "cross-device link"):
			t.Errorf("%s: %s, want it refused", a.name, got)
		}
	}
	if said["all threads"] != "<nil>" {
		t.Errorf("threads: %s", said["all threads"])
	}
	if said["reads"] != "true true false false" {
		t.Errorf("Reads says %s", said["reads"])
	}
	if inside := said["scopes"] == "true"; inside == (said["signal one that was there"] == "<nil>") {
		t.Errorf("a signal to a process from before: %q, signals stay inside: %v", said["signal one that was there"], inside)
	}
}

// TestWide: rules that would allow to write everything are refused, and nothing is in force.
func TestWide(t *testing.T) {
	for _, r := range []Rules{{Write: []string{"/"}}, {Create: []string{"/proc/.."}}} {
		if box, err := Apply(r); !errors.Is(err, ErrWide) || box.ABI != 0 {
			t.Errorf("%v: %+v, %v", r, box, err)
		}
	}
	if !(Sandbox{}).Reads("/root/x") {
		t.Error("without a sandbox a file is out of reach")
	}
}

// TestCurrent: this process finds itself as the system calls tell.
func TestCurrent(t *testing.T) {
	p, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	if p.Root != (os.Geteuid() == 0) {
		t.Errorf("root %v, effective user %d", p.Root, os.Geteuid())
	}
}
