package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// commandTimeout bounds one run of a client.
const commandTimeout = 30 * time.Second

// cmdHost: [!] host NAME COMMAND [ARG...] runs a command on a host.
func cmdHost(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) >= 2, "[!] host NAME COMMAND [ARG...]")
	out, errOut, err := of(ts).run(ts, args[0], args[1:])
	ts.Stdout().Write(out)
	ts.Stderr().Write(errOut)
	if neg == (err == nil) {
		if neg {
			ts.Fatalf("%s succeeded", args[1])
		}
		ts.Fatalf("%s: %v", args[1], err)
	}
}

// cmdAct: [!] act NAME COMMAND [ARG...] is host for a command that changes something: what "cut" and "gone" are
// measured from.
func cmdAct(ts *testscript.TestScript, neg bool, args []string) {
	of(ts).act()
	cmdHost(ts, neg, args)
}

// run runs a command on a host to its end, in the script's current directory.
func (s *scenario) run(ts *testscript.TestScript, hostName string, argv []string) (out, errOut []byte, err error) {
	var stdout, stderr bytes.Buffer
	c := s.host(ts, hostName).command(argv[0], argv[1:]...)
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	c = exec.CommandContext(ctx, c.Path, c.Args[1:]...)
	c.Dir, c.Env, c.Stdout, c.Stderr = ts.MkAbs("."), s.env, &stdout, &stderr
	c.WaitDelay = time.Second
	err = c.Run()
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	return stdout.Bytes(), stderr.Bytes(), err
}

// eventuallyTimeout bounds how long a condition may take to come true. What is promised sooner is
// logged with the time it took; a loaded machine must not fail a scenario.
const eventuallyTimeout = 30 * time.Second

// cmdEventually: eventually [-for=DURATION] PATTERN HOST COMMAND [ARG...] runs a command again and again until its output
// matches. The pattern '^$' is for no output. It logs how long that took since the last act.
func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	timeout := eventuallyTimeout
	if d, ok := strings.CutPrefix(append(args, "")[0], "-for="); ok {
		timeout, args = duration(ts, d), args[1:]
	}
	usage(ts, !neg && len(args) >= 3, "eventually [-for=DURATION] PATTERN HOST COMMAND [ARG...]")
	s := of(ts)
	re := pattern(ts, args[0])
	var out, errOut []byte
	for end := time.Now().Add(timeout); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		out, errOut, _ = s.run(ts, args[1], args[2:])
		empty := args[0] == "^$"
		if empty && len(bytes.TrimSpace(out)) == 0 || !empty && re.Match(out) {
			ts.Stdout().Write(out)
			ts.Logf("came true %v after the last act", s.since().Round(time.Millisecond))
			return
		}
	}
	ts.Fatalf("%q didn't show within %v; the last run said:\n%s%s", args[0], timeout, out, errOut)
}

// cmdResolvConf: resolvconf HOST ADDRESS has a host's clients ask another resolver.
func cmdResolvConf(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "resolvconf HOST ADDRESS")
	ts.Check(of(ts).host(ts, args[0]).resolvConf(args[1]))
}

// cmdEdit: edit FILE PATTERN REPLACEMENT replaces every match in a file; none is an error. "\n" in the replacement is a
// new line.
func cmdEdit(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 3, "edit FILE PATTERN REPLACEMENT")
	re, old := pattern(ts, args[1]), ts.ReadFile(args[0])
	if !re.MatchString(old) {
		ts.Fatalf("%s has nothing that matches %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(re.ReplaceAllString(old, strings.ReplaceAll(args[2], `\n`, "\n"))), 0o644))
}

// cmdDisk: disk DIR SIZE mounts a file system of a size, in memory, at a new directory.
func cmdDisk(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "disk DIR SIZE")
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o755))
	ts.Check(unix.Mount("postern-scenario", dir, "tmpfs", 0, "size="+args[1]))
	// After the end of the processes that use it: this is called before their end.
	of(ts).mounts = append(of(ts).mounts, dir)
}

// cmdSave: save VARIABLE PATTERN keeps the first group of a match in the last output.
func cmdSave(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "save VARIABLE PATTERN")
	m := pattern(ts, args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) < 2 {
		ts.Fatalf("the last output has nothing that matches %q", args[1])
	}
	ts.Setenv(args[0], m[1])
}

// cmdDaemon: daemon NAME HOST COMMAND [ARG...] starts a server that stays in the foreground.
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 3, "daemon NAME HOST COMMAND [ARG...]")
	s := of(ts)
	p, err := launch(args[0], ts.MkAbs("."), s.env, s.host(ts, args[1]).command(args[2], args[3:]...))
	ts.Check(err)
	s.processes = append(s.processes, p)
}

// cmdSignal: signal NAME SIGNAL sends a signal and doesn't wait.
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "signal NAME SIGNAL")
	s := of(ts)
	s.act()
	ts.Check(s.process(ts, args[0]).signal(signalOf(ts, args[1])))
}

// cmdEnded: ended NAME waits for the end of a process, and prints the exit code and how long after the last act it came.
func cmdEnded(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "ended NAME")
	s := of(ts)
	p := s.process(ts, args[0])
	if !p.wait(commandTimeout) {
		ts.Fatalf("%s hasn't ended within %v", p.name, commandTimeout)
	}
	say(ts, "exit %d after %v", p.code, s.since().Round(time.Millisecond))
}

// cmdEnd: end NAME [SIGNAL] sends a signal, TERM by default, and waits for the end of the process as ended does.
func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && (len(args) == 1 || len(args) == 2), "end NAME [SIGNAL]")
	cmdSignal(ts, false, []string{args[0], append(args[1:], "TERM")[0]})
	cmdEnded(ts, false, args[:1])
}

// upstreamConf is the DNS of the world: it knows what it is told and nothing else, and logs each question.
const upstreamConf = `server:
    interface: 203.0.113.53
    access-control: 0.0.0.0/0 allow
    username: ""
    chroot: ""
    directory: "."
    pidfile: ""
    use-syslog: no
    log-queries: yes
    num-threads: 1
    local-zone: "." static
%sremote-control:
    control-enable: no
`

// cmdUpstream: upstream RECORD... starts Unbound on the host upstream as the public DNS with these records.
func cmdUpstream(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) > 0, "upstream RECORD...")
	var records strings.Builder
	for _, r := range args {
		fmt.Fprintf(&records, "    local-data: %q\n", r)
	}
	conf := ts.MkAbs("upstream.conf")
	ts.Check(os.WriteFile(conf, fmt.Appendf(nil, upstreamConf, records.String()), 0o644))
	cmdDaemon(ts, false, []string{"upstream", "upstream", "unbound", "-d", "-p", "-c", conf})
	cmdListening(ts, false, []string{"upstream", "203.0.113.53:53"})
}

// cmdListening: [!] listening HOST ADDR:PORT waits until a host's socket accepts connections there, as seen
// on that host. With "!", until it doesn't.
func cmdListening(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 2, "[!] listening HOST ADDR:PORT")
	h := of(ts).host(ts, args[0])
	addr, err := netip.ParseAddrPort(args[1])
	ts.Check(err)
	for end := time.Now().Add(eventuallyTimeout); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		conn, err := h.dial(addr.String(), time.Second)
		if err == nil {
			conn.Close()
		}
		if neg == (err != nil) {
			return
		}
	}
	ts.Fatalf("%s after %v: want listening %v", addr, eventuallyTimeout, !neg)
}

// cmdPostgres: postgres HOST ADDR PORT makes a database cluster and runs PostgreSQL on it, as the
// user postgres, since it refuses to run as root. Everybody may sign in: the test is of the way there.
func cmdPostgres(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 3, "postgres HOST ADDR PORT")
	s := of(ts)
	dir, err := os.MkdirTemp("", "postern-postgres-")
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	asUser := []string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"}
	if out, err := exec.Command("chown", "postgres", dir).CombinedOutput(); err != nil {
		ts.Fatalf("chown: %v: %s", err, out)
	}
	data := dir + "/data"
	_, errOut, err := s.run(ts, args[0], append(asUser, "env", "-C", dir, "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C"))
	if err != nil {
		ts.Fatalf("initdb: %v: %s", err, errOut)
	}
	hba := "host all all 0.0.0.0/0 trust\nlocal all all trust\n"
	ts.Check(os.WriteFile(data+"/pg_hba.conf", []byte(hba), 0o644))
	server := append(asUser, "env", "-C", dir, "postgres", "-D", data, "-k", dir, "-h", args[1], "-p", args[2], "-F",
		"-c", "shared_buffers=16MB", "-c", "max_connections=20")
	cmdDaemon(ts, false, append([]string{"postgres", args[0]}, server...))
	cmdListening(ts, false, []string{args[0], args[1] + ":" + args[2]})
	for end := time.Now().Add(eventuallyTimeout); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		out, _, _ := s.run(ts, args[0], []string{"pg_isready", "-h", args[1], "-p", args[2]})
		if strings.Contains(string(out), "accepting connections") {
			return
		}
	}
	ts.Fatalf("PostgreSQL isn't ready")
}
