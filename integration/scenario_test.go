package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// scenario is one script in the making: its networks and what it started.
type scenario struct {
	net       *topology
	dir       string // $WORK
	env       []string
	processes []*process // in order of their start
	node      *process   // the one that reload, logged and end speak of by default
	backends  map[string]*backend
	flows     map[string]*flows
	loads     map[string]*load
	// acted is when the script last changed something: what "cut" and "gone" are measured from.
	acted  atomic.Pointer[time.Time]
	fds    map[string]int // open descriptors of the node at a mark
	mounts []string
}

type scenarioKey struct{}

func of(ts *testscript.TestScript) *scenario { return ts.Value(scenarioKey{}).(*scenario) }

// commands are what scripts can say beyond the commands of testscript. README.md describes them.
var commands = map[string]func(*testscript.TestScript, bool, []string){
	"host":        cmdHost,
	"act":         cmdAct,
	"eventually":  cmdEventually,
	"resolvconf":  cmdResolvConf,
	"edit":        cmdEdit,
	"save":        cmdSave,
	"daemon":      cmdDaemon,
	"end":         cmdEnd,
	"ended":       cmdEnded,
	"signal":      cmdSignal,
	"upstream":    cmdUpstream,
	"datagram":    cmdDatagram,
	"idle":        cmdIdle,
	"disk":        cmdDisk,
	"listening":   cmdListening,
	"postgres":    cmdPostgres,
	"etcd":        cmdEtcd,
	"start":       cmdStart,
	"reload":      cmdReload,
	"logged":      cmdLogged,
	"descriptors": cmdDescriptors,
	"backend":     cmdBackend,
	"seen":        cmdSeen,
	"flows":       cmdFlows,
	"queries":     cmdQueries,
	"connects":    cmdConnects,
	"probe":       cmdProbe,
	"scan":        cmdScan,
	"metrics":     cmdMetrics,
	"program":     cmdProgram,
	"alternate":   cmdAlternate,
	"clock":       cmdClock,
	"interrupt":   cmdInterrupt,
}

func TestScenarios(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Cmds:                commands,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup:               setup,
		Condition:           condition,
	})
}

// setup gives a script its networks and ends everything that it started.
func setup(env *testscript.Env) error {
	tb := env.T().(testing.TB)
	net, err := newTopology()
	if err != nil {
		return err
	}
	// Peers that run as a user of their own read their files here.
	if err := os.Chmod(filepath.Dir(env.WorkDir), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(pki.dir, filepath.Join(env.WorkDir, "certs")); err != nil {
		return err
	}
	env.Setenv("CERTS", pki.dir)
	env.Setenv("POSTERN", binary)
	// Without the second that the race detector otherwise adds to the end of a process.
	env.Setenv("GORACE", "halt_on_error=0 atexit_sleep_ms=0")
	env.Setenv("HOME", env.WorkDir)
	s := &scenario{
		net: net, dir: env.WorkDir, env: env.Vars, fds: map[string]int{},
		backends: map[string]*backend{}, flows: map[string]*flows{}, loads: map[string]*load{},
	}
	s.act()
	env.Values[scenarioKey{}] = s
	env.Defer(func() { s.finish(tb) })
	return nil
}

// finish ends clients, then processes, newest first, then the networks, and looks at how the nodes fared.
func (s *scenario) finish(tb testing.TB) {
	for _, l := range s.loads {
		l.end()
	}
	for _, f := range s.flows {
		f.close()
	}
	for i := len(s.processes) - 1; i >= 0; i-- {
		p := s.processes[i]
		if err := p.end(20 * time.Second); err != nil {
			tb.Error(err)
		}
		if !strings.HasPrefix(p.name, "node") {
			continue
		}
		if trouble := troubleIn(p.out.String()); trouble != "" {
			tb.Errorf("%s said:\n%s", p.name, trouble)
		}
	}
	for _, b := range s.backends {
		b.close()
	}
	if tb.Failed() {
		for _, p := range s.processes {
			tb.Logf("output of %s:\n%s", p.name, tail(p.out.String(), 6000))
		}
		for name, b := range s.backends {
			tb.Logf("output of backend %s:\n%s", name, tail(b.out.String(), 2000))
		}
	}
	for _, dir := range s.mounts {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			tb.Errorf("unmount %s: %v", dir, err)
		}
	}
	if err := s.net.remove(); err != nil {
		tb.Error(err)
	}
}

var trouble = regexp.MustCompile(`(?m)^(WARNING: DATA RACE|panic: |fatal error: |\[PANIC\])`)

// troubleIn returns the part of a node's output that no scenario may produce.
func troubleIn(out string) string {
	at := trouble.FindStringIndex(out)
	if at == nil {
		return ""
	}
	return head(out[at[0]:], 6000)
}

func (s *scenario) act() {
	now := time.Now()
	s.acted.Store(&now)
}

func (s *scenario) since() time.Duration { return time.Since(*s.acted.Load()) }

// host returns the host of a name, or ends the script.
func (s *scenario) host(ts *testscript.TestScript, name string) *host {
	h := s.net.hosts[name]
	if h == nil {
		var names []string
		for n := range s.net.hosts {
			names = append(names, n)
		}
		sort.Strings(names)
		ts.Fatalf("no host %q: there are %s", name, strings.Join(names, ", "))
	}
	return h
}

// process returns the newest process of a name, or ends the script.
func (s *scenario) process(ts *testscript.TestScript, name string) *process {
	for i := len(s.processes) - 1; i >= 0; i-- {
		if s.processes[i].name == name {
			return s.processes[i]
		}
	}
	ts.Fatalf("no process %q was started", name)
	return nil
}

// usage ends the script where a command was given the wrong number of words, or a "!" that it doesn't know.
func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func pattern(ts *testscript.TestScript, s string) *regexp.Regexp {
	re, err := regexp.Compile("(?m)" + s)
	ts.Check(err)
	return re
}

func signalOf(ts *testscript.TestScript, name string) syscall.Signal {
	sig, ok := map[string]syscall.Signal{
		"TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "USR1": syscall.SIGUSR1, "HUP": syscall.SIGHUP, "INT": syscall.SIGINT,
		"STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT,
	}[name]
	if !ok {
		ts.Fatalf("no signal %q", name)
	}
	return sig
}

func duration(ts *testscript.TestScript, s string) time.Duration {
	d, err := time.ParseDuration(s)
	ts.Check(err)
	return d
}

func head(s string, n int) string {
	if len(s) > n {
		return s[:n] + "\n..."
	}
	return s
}

func tail(s string, n int) string {
	if len(s) > n {
		return "...\n" + s[len(s)-n:]
	}
	return s
}

// say writes a line to the command's standard output, where the stdout command finds it.
func say(ts *testscript.TestScript, format string, args ...any) {
	fmt.Fprintf(ts.Stdout(), format+"\n", args...)
}
