//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// The figures of a proxy test.
const (
	keyGbit        = "gbit"
	keyCPUPerGB    = "cpu_per_gb"
	keyRate        = "rate"
	keyEachCPU     = "cpu_each"
	keyP50         = "p50"
	keyP99         = "p99"
	keyFlows       = "flows"
	keyIdleRSS     = "idle_rss"    // bytes per flow, of the proxy's processes
	keyIdleKernel  = "idle_kernel" // bytes per flow, of the kernel, for all three parties
	keyIdleTotal   = "idle_total"  // bytes per flow that the proxy costs
	keyDescriptors = "descriptors" // per flow
	keyOwnKernel   = "idle_own"    // idle_kernel without what the direct flow costs
)

// proxyTest is one kind of load.
type proxyTest struct {
	test
	kind    string
	conns   int
	servers func(b *bench) []server // nil: proxyServers
	hello   bool                    // connections begin with a ClientHello
}

// Requests per second of the test with a fixed rate.
const fixedRate = 5000

var (
	columnGbit = column{key: keyGbit, head: "Gbit/s", digits: 1, better: higher}
	columnIdle = column{key: keyIdleTotal, head: "KiB per flow", scale: 1024, digits: 1, better: lower}
	columnCore = column{key: keyServerCPU, head: "core %", scale: 0.01}
)

func (b *bench) proxyTests() []proxyTest {
	of := func(name, title string, saturates bool, columns ...column) test {
		return test{name: name, title: title, baseline: serverNginx, columns: columns, saturates: saturates}
	}
	bulk := []column{columnGbit, {key: keyCPUPerGB, head: "CPU s/GB", digits: 3, better: lower}, columnCore}
	each := func(head string) []column {
		return []column{
			{key: keyRate, head: head, scale: 1e3, digits: 1, better: higher},
			{key: keyEachCPU, head: "CPU us each", scale: 1e-6, digits: 1, better: lower},
			{key: keyP50, head: "p50 us", scale: 1e-6},
			{key: keyP99, head: "p99 us", scale: 1e-6},
			columnCore,
		}
	}
	tests := []proxyTest{
		{test: of("up-1", "Proxy: client to provider, 1 stream", true, bulk...), kind: loadUpload, conns: 1},
		{test: of("up-16", "Proxy: client to provider, 16 streams", true, bulk...), kind: loadUpload, conns: 16},
		{test: of("down-1", "Proxy: provider to client, 1 stream", true, bulk...), kind: loadDownload, conns: 1},
		{test: of("down-16", "Proxy: provider to client, 16 streams", true, bulk...), kind: loadDownload, conns: 16},
		{test: of("connect", "Proxy: connect, one request and response, close; 32 at a time", true, each("k connections/s")...), kind: loadConnect, conns: 32},
		{test: of("request", "Proxy: requests on 64 persistent connections", true, each("k requests/s")...), kind: loadRequest, conns: 64},
		{test: of("rate", fmt.Sprintf("Proxy: %d requests/s on 64 persistent connections", fixedRate), false,
			column{key: keyP50, head: "p50 us", scale: 1e-6, digits: 0, better: lower},
			column{key: keyP99, head: "p99 us", scale: 1e-6, digits: 0, better: lower},
			column{key: keyEachCPU, head: "CPU us each", scale: 1e-6, digits: 1, better: lower},
			columnCore), kind: loadRate, conns: 64},
		{test: of("idle", fmt.Sprintf("Proxy: %d idle flows", b.flows), false, columnIdle,
			column{key: keyIdleRSS, head: "resident KiB", scale: 1024, digits: 1},
			column{key: keyOwnKernel, head: "kernel KiB", scale: 1024, digits: 1},
			column{key: keyDescriptors, head: "descriptors", digits: 1},
			column{key: keyFlows, head: "flows"}), kind: loadIdle, conns: b.flows},
	}
	return append(tests, b.tlsTests()...)
}

// proxyServers returns the servers of the proxy tests that can be run.
func (b *bench) proxyServers() []server {
	servers := []server{{name: serverDirect}}
	if b.has("haproxy") {
		servers = append(servers, b.haproxy(serverHAProxy, "", ""),
			b.haproxy(serverHAProxyTuned, "  tune.bufsize 262144\n  tune.pipesize 1048576\n  maxpipes 128", "  option splice-auto"))
	}
	if b.has("nginx") {
		servers = append(servers, b.nginx())
	}
	if b.postern != "" {
		servers = append(servers, server{serverPostern, b.posternProxy})
	}
	return servers
}

// runProxy measures every server under every load once per round, in turn.
func (b *bench) runProxy(round int) {
	for _, t := range b.proxyTests() {
		for _, s := range rotated(b.serversOf(t), round) {
			if !b.wants(t.name, s.name) {
				continue
			}
			b.cell(round, t.name, s.name, func() (map[string]float64, float64, error) { return b.measureProxy(t, s) })
		}
	}
	b.results.ownKernel()
	b.results.addedLatency()
}

// serversOf returns the servers of a test.
func (b *bench) serversOf(t proxyTest) []server {
	if t.servers != nil {
		return t.servers(b)
	}
	return b.proxyServers()
}

// measureProxy runs one server under one load.
func (b *bench) measureProxy(t proxyTest, s server) (map[string]float64, float64, error) {
	target, pids := b.net.targets[0], []int(nil)
	if s.command != nil {
		p, err := b.start(s)
		if err != nil {
			return nil, 0, err
		}
		defer p.stop()
		if err := p.await(func() error { return b.ask(t) }); err != nil {
			return nil, 0, err
		}
		target, pids = b.net.endpoint, tree(p.cmd.Process.Pid)
	}
	o := order{
		Kind: t.kind, Target: target, Sources: b.net.sources, Conns: t.conns, Rate: fixedRate,
		Seconds: b.seconds, Warm: max(0.3, b.seconds/5),
	}
	if t.hello {
		o.First = b.hello
	}
	if t.kind == loadIdle {
		return b.measureIdle(o, pids)
	}
	l, err := b.startLoad(o)
	if err != nil {
		return nil, 0, err
	}
	defer l.stop()
	if err := l.awaitBegan(); err != nil {
		return nil, 0, err
	}
	w := observe(pids, append(tree(l.cmd.Process.Pid), b.sink.cmd.Process.Pid))
	out, err := l.outcome()
	if err != nil {
		return nil, 0, err
	}
	u := w.end(0)
	return figures(t, out, u, pids != nil), u.others, nil
}

// figures turns what was seen into the values of a sample.
func figures(t proxyTest, out outcome, u usage, proxied bool) map[string]float64 {
	v := map[string]float64{keyLost: float64(out.Errors)}
	n, key := float64(out.Count), keyEachCPU
	switch t.kind {
	case loadUpload, loadDownload:
		n, key = float64(out.Bytes)/1e9, keyCPUPerGB
		v[keyGbit] = 8 * n / out.Seconds
	default:
		v[keyRate], v[keyP50], v[keyP99] = n/out.Seconds, out.P50, out.P99
	}
	if proxied {
		v[keyServerCPU] = u.server.Seconds() / u.elapsed.Seconds()
		if n > 0 {
			v[key] = u.server.Seconds() / n
		}
	}
	return v
}

// measureIdle opens the flows and compares the memory before and after.
func (b *bench) measureIdle(o order, pids []int) (map[string]float64, float64, error) {
	if b.isolated {
		// Connections in TIME_WAIT, here or left by the tests before, would count as memory.
		defer noTimeWait()()
	}
	l, err := b.startLoad(order{Kind: loadIdle, Target: o.Target, Sources: o.Sources, Conns: 0})
	if err != nil {
		return nil, 0, err
	}
	l.stop() // a generator's own cost, once, so that what it caches is there before we look
	settle()
	kernel, resident, open := kernelMemory(), rss(pids...), descriptors(pids...)
	if l, err = b.startLoad(o); err != nil {
		return nil, 0, err
	}
	defer l.stop()
	// Other work is watched here as well: what it has the kernel cache would count as memory.
	w := observe(pids, append(tree(l.cmd.Process.Pid), b.sink.cmd.Process.Pid))
	if err := l.awaitBegan(); err != nil {
		return nil, 0, err
	}
	out, err := l.outcome()
	if err != nil {
		return nil, 0, err
	}
	if out.Count == 0 {
		return nil, 0, errors.New("no idle flow could be opened")
	}
	settle()
	u := w.end(0)
	n := float64(out.Count)
	v := map[string]float64{
		keyFlows:      n,
		keyLost:       float64(out.Errors),
		keyIdleKernel: float64(kernelMemory()-kernel) / n,
	}
	if pids != nil {
		v[keyIdleRSS] = float64(rss(pids...)-resident) / n
		v[keyDescriptors] = float64(descriptors(pids...)-open) / n
	}
	return v, u.others, nil
}

// settle waits until the kernel has freed what was closed and the proxy has done what it does when
// a flow falls silent. Two seconds is also how often Postern probes its targets.
func settle() { time.Sleep(2 * time.Second) }

// ownKernel takes off the kernel memory of idle flows what the load and the backend cost: that of
// the direct run in the same round. What is left, with the resident memory, is the proxy's.
func (r results) ownKernel() {
	for _, s := range r {
		kernel, ok := s.Values[keyIdleKernel]
		resident, proxied := s.Values[keyIdleRSS]
		direct, found := r.find(s.Round, s.Test, serverDirect)
		if !ok || !proxied || !found {
			continue
		}
		own := kernel - direct.Values[keyIdleKernel]
		s.Values[keyOwnKernel], s.Values[keyIdleTotal] = own, own+resident
	}
}

// ask sends what a connection of the test begins with through the proxy, and reads the response.
func (b *bench) ask(t proxyTest) error {
	c, err := b.dialer("tcp").Dial("tcp", b.net.endpoint.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	m := make([]byte, messageSize)
	m[0] = modeEcho
	first := m
	if t.hello {
		first = b.hello
	}
	if _, err := c.Write(first); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, m); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	return nil
}

// role is a running process of our own: the load generator or the backend.
type role struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	err   strings.Builder
}

func (b *bench) startRole(args ...string) (*role, error) {
	args = b.pinned(b.loadCPUs, append([]string{b.self, "-role"}, args...)...)
	r := &role{cmd: exec.Command(args[0], args[1:]...)}
	r.cmd.Stderr = &r.err
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := r.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.stdin, r.out = stdin, bufio.NewReader(stdout)
	return r, r.cmd.Start()
}

// startSink starts the backend and waits until it listens.
func (b *bench) startSink() error {
	args := []string{"sink"}
	for _, t := range b.net.targets {
		args = append(args, t.String())
	}
	r, err := b.startRole(args...)
	if err != nil {
		return fmt.Errorf("the backend: %w", err)
	}
	b.sink = r
	return r.expect("ready")
}

func (b *bench) startLoad(o order) (*role, error) {
	r, err := b.startRole("load")
	if err != nil {
		return nil, fmt.Errorf("the load: %w", err)
	}
	if err := json.NewEncoder(r.stdin).Encode(o); err != nil {
		r.stop()
		return nil, fmt.Errorf("the load: %w", err)
	}
	return r, nil
}

func (r *role) awaitBegan() error { return r.expect(began) }

// expect reads a line; another one, or the end, is an error.
func (r *role) expect(want string) error {
	line, err := r.out.ReadString('\n')
	if strings.TrimSpace(line) != want || err != nil {
		return r.died()
	}
	return nil
}

// died returns why the process ended without what was expected of it.
func (r *role) died() error {
	r.stop()
	return fmt.Errorf("%s ended: %s", r.cmd.Args[len(r.cmd.Args)-1], strings.TrimSpace(r.err.String()))
}

// outcome reads what the load generator saw.
func (r *role) outcome() (outcome, error) {
	var o outcome
	line, err := r.out.ReadBytes('\n')
	if err != nil {
		return o, r.died()
	}
	return o, json.Unmarshal(line, &o)
}

// stop ends the process and waits for it. It may be called again.
func (r *role) stop() {
	if r.cmd.ProcessState != nil {
		return
	}
	r.stdin.Close()
	timer := time.AfterFunc(5*time.Second, func() { _ = r.cmd.Process.Kill() })
	defer timer.Stop()
	_ = r.cmd.Wait() // its errors came on stderr
}

// dialer dials over a network, "udp" or "tcp", from a client address.
func (b *bench) dialer(network string) *net.Dialer {
	source := netip.AddrPortFrom(b.net.sources[0], 0)
	d := &net.Dialer{Timeout: time.Second, LocalAddr: net.UDPAddrFromAddrPort(source)}
	if network == "tcp" {
		d.LocalAddr = net.TCPAddrFromAddrPort(source)
	}
	return d
}

// noTimeWait keeps closed connections of this network namespace from lingering, and returns what undoes it.
func noTimeWait() func() {
	const path = "/proc/sys/net/ipv4/tcp_max_tw_buckets"
	old, err := os.ReadFile(path)
	if err != nil {
		return func() {}
	}
	_ = os.WriteFile(path, []byte("0"), 0) // without it the figure is a little too low
	return func() { _ = os.WriteFile(path, old, 0) }
}
