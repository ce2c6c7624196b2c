package integration

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var (
	// serving is the line that CoreDNS prints for each zone once every server has its socket.
	serving = regexp.MustCompile(`(?m)^\S*\.:\d+( on \S+)?\s*$`)
	// reloaded is how a reload ends, one way or the other.
	reloaded = regexp.MustCompile(`(?m)^.*(RELOAD NOT IN FORCE.*|\[INFO\] Reloading complete|\[ERROR\] reload refused.*|\[ERROR\] SIGUSR1: .*|\[PANIC\].*)$`)
)

const (
	startTimeout  = 60 * time.Second
	refuseTimeout = 20 * time.Second // C: a wrong Corefile ends the program, within 5 s on a machine with nothing else to do
	reloadTimeout = 60 * time.Second
)

const startForm = "[!] start HOST COREFILE [NAME] [fds=N] [user=NAME] [hostname=NAME] [sandbox=WORD] [tmp=DIR] [clock=FILE]"

// cmdStart: [!] start HOST COREFILE [NAME] [fds=N] [user=NAME] [hostname=NAME] [sandbox=WORD] [tmp=DIR] [clock=FILE] starts the program, with a
// limit of descriptors, as another user, on a host of another name, with that word for its sandbox, that directory for temporary files or
// a clock of its own where that is said, and waits until it serves. With "!" it must end by itself within 20 s with a code other than 0; what it said is the
// standard error then.
func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) >= 2, startForm)
	s := of(ts)
	name, argv, env := "node", []string{binary, "-conf", ts.MkAbs(args[1])}, s.env
	for _, a := range args[2:] {
		switch key, value, _ := strings.Cut(a, "="); key {
		case "fds":
			argv = append([]string{"prlimit", "--nofile=" + value + ":" + value}, argv...)
		case "user":
			argv = append([]string{"setpriv", "--reuid=" + value, "--regid=nogroup", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"}, argv...)
		case "sandbox":
			argv = append(argv, "-sandbox", value)
		case "tmp":
			env = append(env[:len(env):len(env)], "TMPDIR="+value)
		case "clock":
			env = append(env[:len(env):len(env)], clockVariable+"="+ts.MkAbs(value))
			argv = append([]string{program(ts)}, argv...)
		case "hostname":
			argv = append([]string{"unshare", "--uts", "sh", "-c", "hostname " + value + ` && exec "$@"`, "sh"}, argv...)
		default:
			name = a
		}
	}
	s.act()
	p, err := launch(name, ts.MkAbs("."), env, s.host(ts, args[0]).command(argv[0], argv[1:]...))
	ts.Check(err)
	s.processes = append(s.processes, p)
	if neg {
		if !p.wait(refuseTimeout) {
			ts.Fatalf("still running after %v, should have refused to start:\n%s", refuseTimeout, p.out)
		}
		fmt.Fprintf(ts.Stderr(), "%s", p.out)
		if p.code == 0 {
			ts.Fatalf("ended with code 0, should have refused to start")
		}
		ts.Logf("refused after %v with code %d", s.since().Round(time.Millisecond), p.code)
		return
	}
	if p.out.find(serving, 0, startTimeout, p.done) == "" || !p.running() {
		ts.Fatalf("doesn't serve:\n%s", p.out)
	}
	s.node = p
	ts.Setenv("NODE", strconv.Itoa(p.cmd.Process.Pid))
	s.env = append(s.env, "NODE="+strconv.Itoa(p.cmd.Process.Pid))
	ts.Logf("serves after %v", s.since().Round(time.Millisecond))
}

// cmdReload: [!] reload [NAME] has the node read its Corefile again, by SIGUSR1, and waits for the outcome. With
// "!" the file must be rejected; why is the standard error then.
func cmdReload(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) <= 1, "[!] reload [NAME]")
	s := of(ts)
	p := s.node
	if len(args) == 1 {
		p = s.process(ts, args[0])
	}
	from := len(p.out.String())
	s.act()
	ts.Check(p.signal(syscall.SIGUSR1))
	outcome := p.out.find(reloaded, from, reloadTimeout, p.done)
	took := s.since().Round(time.Millisecond)
	if !p.running() {
		ts.Fatalf("ended during the reload:\n%s", p.out.String()[from:])
	}
	accepted := regexp.MustCompile(`Reloading complete`).MatchString(outcome)
	switch {
	case outcome == "":
		ts.Fatalf("no outcome of the reload within %v:\n%s", reloadTimeout, p.out.String()[from:])
	case neg && accepted:
		ts.Fatalf("the Corefile was accepted")
	case neg:
		fmt.Fprintf(ts.Stderr(), "%s\n", outcome)
	case !accepted:
		ts.Fatalf("the Corefile was rejected: %s", outcome)
	}
	ts.Logf("reload took %v", took)
}

// cmdLogged: [!] logged PATTERN [NAME] waits until the node has said something. With "!" it must not have, by now.
func cmdLogged(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 1 || len(args) == 2, "[!] logged PATTERN [NAME]")
	s := of(ts)
	p, re := s.node, pattern(ts, args[0])
	if len(args) == 2 {
		p = s.process(ts, args[1])
	}
	if neg {
		if m := re.FindString(p.out.String()); m != "" {
			ts.Fatalf("%s said %q", p.name, m)
		}
		return
	}
	m := p.out.find(re, 0, eventuallyTimeout, p.done)
	if m == "" {
		ts.Fatalf("%s hasn't said %q:\n%s", p.name, args[0], tail(p.out.String(), 4000))
	}
	say(ts, "%s", m)
}

// sparePipes bounds the pipes that a node keeps for later use, two descriptors each.
const sparePipes = 64

// cmdDescriptors: descriptors mark|back counts the node's open descriptors, or waits until no more are open than
// at the mark, the pipes aside that it keeps for later.
func cmdDescriptors(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1 && (args[0] == "mark" || args[0] == "back"), "descriptors mark|back")
	s := of(ts)
	count := func() int {
		dir := fmt.Sprintf("/proc/%d/fd/", s.node.cmd.Process.Pid)
		entries, err := os.ReadDir(dir)
		ts.Check(err)
		pipes := 0
		for _, e := range entries {
			if to, err := os.Readlink(dir + e.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
				pipes++
			}
		}
		return len(entries) - min(pipes, 2*sparePipes)
	}
	if args[0] == "mark" {
		s.fds["mark"] = count()
		return
	}
	now := count()
	for end := time.Now().Add(eventuallyTimeout); now > s.fds["mark"] && time.Now().Before(end); now = count() {
		time.Sleep(50 * time.Millisecond)
	}
	if now > s.fds["mark"] {
		ts.Fatalf("%d descriptors are open, %d were at the mark", now, s.fds["mark"])
	}
}

// cmdIdle: idle PERCENT measures the processor time that the node uses over a second; it must be less than so much
// of one processor. A loop that spins on an error uses all of it.
func cmdIdle(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "idle PERCENT")
	s := of(ts)
	limit, err := strconv.ParseFloat(args[0], 64)
	ts.Check(err)
	before, start := s.node.cpu(ts), time.Now()
	time.Sleep(time.Second) // what is measured
	used := 100 * float64(s.node.cpu(ts)-before) / float64(time.Since(start))
	ts.Logf("%.1f %% of a processor", used)
	if used >= limit {
		ts.Fatalf("the node uses %.1f %% of a processor, want less than %v", used, limit)
	}
}

// cpu returns the processor time that the process has used so far.
func (p *process) cpu(ts *testscript.TestScript) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	ts.Check(err)
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest) // from the third of proc(5) on; utime is the 14th, stime the 15th
	var ticks time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		ts.Check(err)
		ticks += time.Duration(n)
	}
	return ticks * time.Second / 100 // USER_HZ is 100 on every Linux
}

// cmdInterrupt: interrupt TIMES KILL|TERM HOST COREFILE FILE... ends the node while it takes up the given Corefiles in turn, and
// starts it again, so many times. The moment of the signal moves through the reload. After TERM the exit code must be 0.
func cmdInterrupt(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 5, "interrupt TIMES KILL|TERM HOST COREFILE FILE...")
	s := of(ts)
	sig := signalOf(ts, args[1])
	var times int
	_, err := fmt.Sscanf(args[0], "%d", &times)
	ts.Check(err)
	for i := range times {
		next := args[4+i%len(args[4:])]
		ts.Check(os.WriteFile(ts.MkAbs(args[3]), []byte(ts.ReadFile(next)), 0o644))
		from := len(s.node.out.String())
		ts.Check(s.node.signal(syscall.SIGUSR1))
		// From the signal's arrival on, a little later each time: into parsing, prepare, commit, and after.
		s.node.out.find(regexp.MustCompile(`SIGUSR1: `), from, reloadTimeout, s.node.done)
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		ts.Check(s.node.signal(sig))
		if !s.node.wait(commandTimeout) {
			ts.Fatalf("round %d: still running after SIG%s", i, args[1])
		}
		if sig != syscall.SIGKILL && s.node.code != 0 {
			ts.Fatalf("round %d: exit code %d:\n%s", i, s.node.code, s.node.out.String()[from:])
		}
		cmdStart(ts, false, args[2:4])
	}
}
