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
	"slices"
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
	keyTimes       = "times"       // CPU time of a request, in that of the test with few flows
)

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
	b.results.costOfMany()
}

// serversOf returns the servers of a test.
func (b *bench) serversOf(t proxyTest) []server {
	if t.servers != nil {
		return t.servers(b)
	}
	servers := b.proxyServers()
	if t.part {
		servers = slices.DeleteFunc(servers, func(s server) bool { return s.command == nil })
	}
	// Splicing with io.Copy holds two pipes for each flow.
	if uint64(t.conns)*6+100 > b.limit {
		servers = slices.DeleteFunc(servers, func(s server) bool { return s.name == serverRelay })
	}
	return servers
}

// measureProxy runs one server under one load.
func (b *bench) measureProxy(t proxyTest, s server) (_ map[string]float64, _ float64, err error) {
	target, pids := b.net.targets[0], []int(nil)
	if s.command != nil {
		var p *process
		var stop func() error
		if p, stop, err = b.startPart(s, t.part); err != nil {
			return nil, 0, err
		}
		defer func() { err = errors.Join(err, stop()) }()
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
	if t.kind == loadRate {
		o.Warm = max(o.Warm, 1.2*float64(t.conns)/fixedRate) // each connection has its first request before
	}
	if t.kind == loadIdle {
		return b.measureIdle(o, pids)
	}
	loads := []int{b.sink.cmd.Process.Pid}
	var bulk *role // whose window is around the other one
	if t.beside > 0 {
		if bulk, err = b.begun(order{Kind: loadUpload, Target: target, Sources: o.Sources, Conns: t.beside, Seconds: o.Warm + o.Seconds + 0.5, Warm: 0.2}); err != nil {
			return nil, 0, err
		}
		defer bulk.stop()
		loads = append(loads, tree(bulk.cmd.Process.Pid)...)
	}
	l, err := b.begun(o)
	if err != nil {
		return nil, 0, err
	}
	defer l.stop()
	w := observe(pids, append(loads, tree(l.cmd.Process.Pid)...))
	out, err := l.outcome()
	if err != nil {
		return nil, 0, err
	}
	u := w.end(0)
	if out.Count == 0 && out.Bytes == 0 {
		return nil, 0, errors.New("nothing came through")
	}
	v := figures(t, out, u, pids != nil)
	if bulk != nil {
		out, err := bulk.outcome()
		if err != nil {
			return nil, 0, err
		}
		v[keyGbit] = 8 * float64(out.Bytes) / 1e9 / out.Seconds
	}
	return v, u.others, nil
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
		v[keyRate], v[keyP50], v[keyP99], v[keyFlows] = n/out.Seconds, out.P50, out.P99, float64(t.conns)
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

// begun starts a load and waits for its window.
func (b *bench) begun(o order) (*role, error) {
	l, err := b.startLoad(o)
	if err != nil {
		return nil, err
	}
	return l, l.awaitBegan()
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
