//go:build linux

// Command bench measures Postern against its peers on one machine: its DNS answers against CoreDNS,
// its proxy against HAProxy and nginx. Every server runs for a few seconds at a time, all of them in
// turn, for several rounds; what counts is the ratio within a round. README.md has the method.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/postern-link/postern/policy/policyplugin"
)

// bench is a whole run.
type bench struct {
	ctx     context.Context
	rounds  int
	seconds float64 // of each measurement
	retries int
	flows   int            // to open where many are wanted
	filter  *regexp.Regexp // of "test/server"

	root     string // the checkout
	dir      string // temporary
	self     string // this program
	hello    []byte // a record with a ClientHello
	coredns  string // the peer
	postern  string // "": the peers alone
	limit    uint64 // of open descriptors
	isolated bool
	net      addresses

	serverCPUs, loadCPUs string // "": not pinned
	share                *share // of the server's core; nil: all of it

	sink    *role
	results results
}

func main() {
	runtime.LockOSThread() // children die with the thread that started them
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	only := flag.String("only", "", "`part` to measure: dns, proxy or control (default all)")
	rounds := flag.Int("rounds", 5, "how often each server is measured")
	secs := flag.Float64("seconds", 3, "of each measurement")
	retries := flag.Int("retries", 2, "how often a disturbed measurement is repeated")
	flows := flag.Int("flows", 50000, "flows to open where many are wanted, if the descriptor limit allows")
	filter := flag.String("run", "", "`regexp` of the test/server pairs to measure, such as up-16/nginx")
	peers := flag.Bool("peers", false, "measure the peers alone")
	out := flag.String("o", "", "`directory` for the report and the raw values (default bench/out)")
	part := flag.String("role", "", "for the benchmark's own processes")
	flag.Parse()
	if *part != "" {
		return play(*part, flag.Args())
	}
	pattern, err := regexp.Compile(*filter)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if *only != "" && *only != "dns" && *only != "proxy" && *only != "control" || *rounds < 1 || *secs <= 0 || *flows < 1 || flag.NArg() > 0 {
		flag.Usage()
		return errors.New("bad arguments")
	}
	isolated := os.Getenv(isolatedEnv) != ""
	if !isolated {
		if code, ok := isolate(); ok {
			os.Exit(code)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{ctx: ctx, rounds: *rounds, seconds: *secs, retries: *retries, flows: *flows, filter: pattern, isolated: isolated}
	if err := b.prepare(*peers); err != nil {
		return err
	}
	defer b.close()
	for round := range b.rounds {
		if (*only == "" || *only == "dns") && b.has("dnsperf") {
			b.runDNS(round)
			if b.isolated && b.postern != "" {
				b.runChange(round)
			}
		}
		if *only == "" || *only == "proxy" {
			b.runProxy(round)
			if b.postern != "" {
				b.runCut(round)
				if b.isolated {
					b.runFlooded(round)
				}
			}
		}
		// The clients of a network have its addresses: without a namespace they can't be had.
		if (*only == "" || *only == "control") && b.isolated && b.postern != "" {
			b.runControl(round)
		}
	}
	return b.report(*out)
}

// play is what one of the benchmark's own processes does.
func play(part string, args []string) error {
	switch part {
	case "load":
		return runLoad()
	case "burst":
		return runBurst(args)
	case "etcd":
		return runMember(args)
	case "policy":
		policyplugin.Serve(allowAll{})
		return nil
	case "echo":
		return runEcho(args)
	case "relay":
		return runRelay(args)
	case "sink":
		var addrs []netip.AddrPort
		for _, arg := range args {
			a, err := netip.ParseAddrPort(arg)
			if err != nil {
				return err
			}
			addrs = append(addrs, a)
		}
		return runSink(addrs)
	}
	return fmt.Errorf("no such role: %q", part)
}

// prepare builds the servers and starts the backend.
func (b *bench) prepare(peersOnly bool) error {
	removeShares("/sys/fs/cgroup/cpu", "/sys/fs/cgroup")
	b.limit = raiseLimit(uint64(2*b.flows + 2000))
	// A proxy has two sockets per flow, and the generator and the backend one each.
	b.flows = min(b.flows, (int(b.limit)-1000)/2/100*100)
	b.serverCPUs, b.loadCPUs = cpus()
	first := byte(127)
	if b.isolated {
		if err := furnish(); err != nil {
			return err
		}
		first = 10
	}
	b.net = plan(first)
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	b.root = filepath.Dir(strings.TrimSpace(string(mod)))
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "postern-bench-"); err != nil {
		return err
	}
	// nginx's workers are not root and have to pass.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	if b.hello, err = clientHello(); err != nil {
		return err
	}
	if b.coredns, err = b.build("coredns", "./bench/coredns"); err != nil {
		return err
	}
	if !peersOnly {
		if b.postern, err = b.build("postern", "."); err != nil {
			return err
		}
	}
	return b.startSink()
}

// build compiles a program of the checkout.
func (b *bench) build(name, pkg string) (string, error) {
	path := filepath.Join(b.dir, name)
	cmd := exec.CommandContext(b.ctx, "go", "build", "-o", path, pkg)
	cmd.Dir = b.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

func (b *bench) close() {
	if b.sink != nil {
		b.sink.stop()
	}
	_ = os.RemoveAll(b.dir)
}

// has reports whether a program is installed.
func (b *bench) has(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// wants reports whether a measurement was asked for.
func (b *bench) wants(test, server string) bool {
	return b.ctx.Err() == nil && b.filter.MatchString(test+"/"+server)
}

// cell is one measurement. It is repeated when other work on the machine disturbed it, and the least
// disturbed run is kept.
func (b *bench) cell(round int, test, server string, measure func() (values map[string]float64, others float64, err error)) {
	best := sample{Round: round, Test: test, Server: server}
	for try := 1; try <= 1+b.retries && b.ctx.Err() == nil; try++ {
		values, others, err := measure()
		if err == nil && (best.Values == nil || others < best.Others) {
			best.Values, best.Others, best.Err = values, others, ""
		}
		if err != nil && best.Values == nil {
			best.Err = err.Error()
		}
		best.Tries = try
		if err == nil && others <= disturbance {
			break
		}
	}
	fmt.Fprintf(os.Stderr, "%s round %d %s, %s: %s\n", time.Now().Format("15:04:05"), round+1, test, server, best.brief())
	b.results = append(b.results, best)
}

// brief is a sample on a line, to see that something happens.
func (s sample) brief() string {
	if s.Err != "" {
		return "failed: " + s.Err
	}
	var words []string
	for _, key := range []string{keyQPS, keyGbit, keyRate, keyQueryCPU, keyCPUPerGB, keyEachCPU, keyP50, keyP99, keyIdleRSS, keyIdleKernel, keyDescriptors, keyFlows, keyTimes, keyDNS, keyAPI, keyMetrics, keyCut, keyAdded, keyStart, keyMemory, keyPage} {
		if v, ok := s.Values[key]; ok {
			words = append(words, fmt.Sprintf("%s %.4g", key, v))
		}
	}
	return fmt.Sprintf("%s (others %.2f CPU)", strings.Join(words, ", "), s.Others)
}

// rotated returns the items beginning with another one in each round, so that none is always first.
func rotated[T any](items []T, round int) []T {
	if len(items) == 0 {
		return nil
	}
	n := round % len(items)
	return append(append([]T(nil), items[n:]...), items[:n]...)
}

// report prints the tables and the goals, and keeps them with the raw values.
func (b *bench) report(dir string) error {
	if len(b.results) == 0 {
		return errors.New("nothing was measured")
	}
	var s strings.Builder
	fmt.Fprintf(&s, "# Postern and its peers\n\n%s\n", b.describe())
	if err := b.ctx.Err(); err != nil {
		s.WriteString("The run was interrupted; some figures are missing.\n\n")
	}
	for _, t := range b.tests() {
		if len(b.results.servers(t.name)) > 0 {
			fmt.Fprintf(&s, "%s\n", t.table(b.results))
		}
	}
	s.WriteString("Ratios are to the server with 1.00 in the same round, above 1 is better. `*`: the load was the limit, not the server.\n\n### Goals\n\n")
	for _, g := range goals {
		fmt.Fprintln(&s, g.verdict(b.results))
	}
	fmt.Print(s.String())
	if dir == "" {
		dir = filepath.Join(b.root, "bench", "out")
	}
	raw, err := json.MarshalIndent(b.results, "", " ")
	if err != nil {
		return err
	}
	base := filepath.Join(dir, time.Now().UTC().Format("20060102-150405"))
	return errors.Join(
		os.MkdirAll(dir, 0o755),
		os.WriteFile(base+".md", []byte(s.String()), 0o644),
		os.WriteFile(base+".json", raw, 0o644),
	)
}

// tests returns all tables in the order of the report.
func (b *bench) tests() []test {
	var all []test
	for _, t := range dnsTests() {
		all = append(all, t.test)
	}
	all = append(all, changeTest())
	for _, t := range append(b.proxyTests(), b.cutTests()...) {
		all = append(all, t.test)
	}
	all = append(all, floodedTest())
	return append(all, controlTests()...)
}
