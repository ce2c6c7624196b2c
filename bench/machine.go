//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cpus decides who runs where: the server on the first CPU that we may use, the load on all others;
// nobody is pinned if there is one CPU or no taskset.
func cpus() (server, load string) {
	if _, err := exec.LookPath("taskset"); err != nil {
		return "", ""
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			return splitCPUs(strings.TrimSpace(list))
		}
	}
	return "", ""
}

// splitCPUs splits a list such as "0-3,8" into its first CPU and the others.
func splitCPUs(list string) (first, others string) {
	head, rest, more := strings.Cut(list, ",")
	from, to, isRange := strings.Cut(head, "-")
	var remain []string
	if a, err := strconv.Atoi(from); err == nil && isRange {
		if next := strconv.Itoa(a + 1); next == to {
			remain = append(remain, to)
		} else {
			remain = append(remain, next+"-"+to)
		}
	}
	if more {
		remain = append(remain, rest)
	}
	if len(remain) == 0 {
		return "", ""
	}
	return from, strings.Join(remain, ",")
}

// raiseLimit raises the limit of open descriptors as far as we may, for the servers too, and
// returns it.
func raiseLimit(want uint64) uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	// Beyond the hard limit only with the privilege; then up to it.
	if l.Max < want && syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: want, Max: want}) == nil {
		return want
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return l.Cur
}

// isolate runs the benchmark again in a network namespace of its own and returns its exit code, or
// false if that can't be had: there it has all ports and addresses for itself and nobody's traffic.
func isolate() (int, bool) {
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		return 0, false
	}
	self, err := os.Executable()
	if err != nil {
		return 0, false
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolatedEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	// The second run gets the signals and reports what it has; we only wait for it.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return 0, false // no right to make a namespace
	}
	go forward(signals, cmd.Process)
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), true
}

func forward(signals <-chan os.Signal, to *os.Process) {
	for s := range signals {
		_ = to.Signal(s)
	}
}

// isolatedEnv tells the second run that it is in the namespace.
const isolatedEnv = "POSTERN_BENCH_ISOLATED"

// furnish makes 10.0.0.0/8 local to the new namespace, with all ports, and chooses a
// congestion control that doesn't pace: BBR would measure itself on loopback.
func furnish() error {
	for _, args := range []string{"link set lo up", "route add local 10.0.0.0/8 dev lo"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	const ipv4 = "/proc/sys/net/ipv4/"
	for name, value := range map[string]string{"ip_local_port_range": "10000 65535", "tcp_max_syn_backlog": "4096"} {
		if err := os.WriteFile(ipv4+name, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	// A namespace may only choose among those that the host allows to everyone; Reno always is.
	if os.WriteFile(ipv4+"tcp_congestion_control", []byte("cubic"), 0) != nil {
		_ = os.WriteFile(ipv4+"tcp_congestion_control", []byte("reno"), 0) // the report says what it is
	}
	return nil
}

// describe says on what and with what the figures were taken, as Markdown.
func (b *bench) describe() string {
	var s strings.Builder
	line := func(name, value string) { fmt.Fprintf(&s, "- %s: %s\n", name, value) }
	line("date", time.Now().UTC().Format("2006-01-02 15:04 MST"))
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	meminfo, _ := os.ReadFile("/proc/meminfo")
	line("machine", fmt.Sprintf("%d CPUs, %s, %.1f GiB", runtime.NumCPU(), cpuModel(string(cpuinfo)),
		float64(parseKB(string(meminfo), "MemTotal"))/(1<<30)))
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	line("kernel", strings.TrimSpace(string(kernel)))
	line("Go", runtime.Version())
	line("Postern", revision(b.root))
	line("CoreDNS", b.module("github.com/coredns/coredns"))
	for _, c := range [][]string{{"dnsperf", "-h"}, {"haproxy", "-v"}, {"nginx", "-v"}} {
		line(c[0], version(c))
	}
	line("CPUs", pinning(b.serverCPUs, b.loadCPUs))
	line("network", map[bool]string{true: "a namespace of its own, 10.0.0.0/8 on lo", false: "127.0.0.0/8, shared"}[b.isolated])
	congestion, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	line("congestion control", strings.TrimSpace(string(congestion)))
	line("descriptors", strconv.FormatUint(b.limit, 10))
	line("rounds", fmt.Sprintf("%d of %g s each", b.rounds, b.seconds))
	return s.String()
}

func pinning(server, load string) string {
	if server == "" {
		return "not pinned"
	}
	return fmt.Sprintf("server on %s, load and backend on %s", server, load)
}

func cpuModel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// revision returns the commit of the tree, with a mark if it was changed since.
func revision(root string) string {
	out, err := exec.Command("git", "-C", root, "describe", "--always", "--dirty", "--tags").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// module returns the version of a module that the checkout requires.
func (b *bench) module(path string) string {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Version}}", path)
	cmd.Dir = b.root
	out, err := cmd.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out)) + ", only the plugins file and hosts linked"
}

// version returns the line in which a program says its version.
func version(command []string) string {
	if _, err := exec.LookPath(command[0]); err != nil {
		return "not installed"
	}
	out, _ := exec.Command(command[0], command[1:]...).CombinedOutput() // dnsperf says it with an error
	for line := range strings.Lines(string(out)) {
		if strings.Contains(strings.ToLower(line), "version") {
			return strings.TrimSpace(line)
		}
	}
	return "unknown"
}
