//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The servers, as they stand in the tables.
const (
	serverFile         = "CoreDNS file"
	serverHosts        = "CoreDNS hosts"
	serverPostern      = "Postern"
	serverPosternProxy = "Postern, proxying too"
	serverDirect       = "direct, no proxy"
	serverHAProxy      = "HAProxy"
	serverHAProxyTuned = "HAProxy tuned"
	serverNginx        = "nginx stream"
	serverNginxTuned   = "nginx stream tuned"
	serverNginxV1      = "nginx stream, PROXY v1"
	serverRelay        = "Go, io.Copy"
)

// server is one contestant: how to write its configuration to a new directory, and the command that
// runs it in the foreground.
type server struct {
	name    string
	command func(dir string) ([]string, error)
}

// process is a running server.
type process struct {
	cmd  *exec.Cmd
	dir  string
	done chan struct{} // closed when it has ended
}

// pinned returns a command line that runs on some CPUs, or anywhere if the machine has but one.
func (b *bench) pinned(cpus string, args ...string) []string {
	if cpus == "" {
		return args
	}
	return append([]string{"taskset", "-c", cpus}, args...)
}

// start runs a server on the server's core, in a new directory below the benchmark's.
func (b *bench) start(s server) (*process, error) {
	dir, err := os.MkdirTemp(b.dir, "run-")
	if err != nil {
		return nil, err
	}
	// nginx's workers are not root and have to reach what is in here.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	args, err := s.command(dir)
	if err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", s.name, err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args = b.share.of(b.pinned(b.serverCPUs, args...))
	p := &process{cmd: exec.Command(args[0], args[1:]...), dir: dir, done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name, err)
	}
	go p.wait()
	return p, nil
}

func (p *process) wait() {
	_ = p.cmd.Wait() // how it ended is in its log
	close(p.done)
}

// stop ends a server and what it started, and removes its directory.
func (p *process) stop() {
	pids := tree(p.cmd.Process.Pid)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(3 * time.Second):
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		<-p.done
	}
	_ = os.RemoveAll(p.dir)
}

// errEnded says that a server ended by itself.
var errEnded = errors.New("the server ended")

// await tries until ready returns nil, the server ends, or 15 s are over; then it returns an error
// with the end of the server's log.
func (p *process) await(ready func() error) error {
	deadline := time.Now().Add(15 * time.Second)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			err = errEnded
		case <-time.After(20 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
		}
		return fmt.Errorf("%w; its log ends: %s", err, p.tail())
	}
}

// tail returns the end of the server's log on one line.
func (p *process) tail() string {
	text, _ := os.ReadFile(filepath.Join(p.dir, "log"))
	text = bytes.TrimSpace(text)
	text = text[max(0, len(text)-300):]
	return strings.Join(strings.Fields(string(text)), " ")
}

// config writes a file to dir and returns its path.
func config(dir, name, text string) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// haproxy returns HAProxy in TCP mode on one thread; with lines of the global and the defaults section.
func (b *bench) haproxy(name, global, defaults string) server {
	return b.haproxyBy(name, global, defaults, "  default_backend b")
}

// haproxyBy is haproxy with lines that say where a connection goes.
func (b *bench) haproxyBy(name, global, defaults, to string) server {
	return server{name, func(dir string) ([]string, error) {
		var backends strings.Builder
		for i, t := range b.net.targets {
			fmt.Fprintf(&backends, "\n  server s%d %s", i, t)
		}
		path, err := config(dir, "haproxy.cfg", fmt.Sprintf(`global
  nbthread 1
  maxconn %d
%s
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
%s
frontend f
  bind %s
%s
backend b%s
`, b.flows+300, global, defaults, b.net.endpoint, to, backends.String()))
		return []string{"haproxy", "-db", "-f", path}, err
	}}
}

// nginx returns nginx with its stream module, one worker, everything else at its default.
func (b *bench) nginx() server { return b.nginxBy(serverNginx, "", "proxy_pass b;") }

// relay returns the proxy that this program is itself.
func (b *bench) relay() server {
	return server{serverRelay, func(string) ([]string, error) {
		args := []string{b.self, "-role", "relay", b.net.endpoint.String()}
		for _, t := range b.net.targets {
			args = append(args, t.String())
		}
		return args, nil
	}}
}

// nginxBy is nginx with lines of the stream section, and words that say where a connection goes.
func (b *bench) nginxBy(name, stream, to string) server {
	return server{name, func(dir string) ([]string, error) {
		module := ""
		for _, m := range []string{"/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"} {
			if _, err := os.Stat(m + "/ngx_stream_module.so"); err == nil {
				module = "load_module " + m + "/ngx_stream_module.so;\n"
				break // elsewhere the module is built in
			}
		}
		var backends strings.Builder
		for _, t := range b.net.targets {
			fmt.Fprintf(&backends, " server %s;", t)
		}
		path, err := config(dir, "nginx.conf", fmt.Sprintf(`%sdaemon off;
pid %s/nginx.pid;
error_log %s/error.log;
worker_processes 1;
worker_rlimit_nofile %d;
events { worker_connections %d; }
stream {
  upstream b {%s }
%s  server { listen %s; %s proxy_timeout 1h; }
}
`, module, dir, dir, b.limit, 2*b.flows+300, backends.String(), stream, b.net.endpoint, to))
		return []string{"nginx", "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", path}, err
	}}
}

// addresses are where everything is: 10.0.0.0/8 in a network namespace of our own, else loopback.
type addresses struct {
	dns      netip.AddrPort   // where DNS is served
	endpoint netip.AddrPort   // where proxies listen; the first address of the pool
	pool     netip.Prefix     // endpoint addresses
	clients  netip.Prefix     // client addresses
	sources  []netip.Addr     // those of the load generator
	targets  []netip.AddrPort // the backend's
}

// plan returns the addresses below a first byte.
func plan(first byte) addresses {
	at := func(second, last byte) netip.Addr { return netip.AddrFrom4([4]byte{first, second, 0, last}) }
	a := addresses{
		dns:      netip.AddrPortFrom(at(76, 1), 5300),
		endpoint: netip.AddrPortFrom(at(77, 1), 9000),
		pool:     netip.PrefixFrom(at(77, 0), 16),
		clients:  netip.PrefixFrom(at(78, 0), 16),
	}
	for i := range byte(32) {
		a.sources = append(a.sources, at(78, i+1))
	}
	for i := range byte(4) {
		a.targets = append(a.targets, netip.AddrPortFrom(at(79, i+1), 9100))
	}
	return a
}

// address returns the address of the endpoint number i, counted from 0.
func (a addresses) address(i int) netip.Addr {
	b := a.pool.Addr().As4()
	b[2], b[3] = byte(i/250), byte(i%250+1)
	return netip.AddrFrom4(b)
}
