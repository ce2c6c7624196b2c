package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// The networks of every scenario. Each scenario has its own copy of all of them, so that several run at
// once with the same addresses, and nothing of it touches the network of the machine.
//
//	corp-a  10.1.0.10 ─┐ 10.1.0.0/16, fd00:1::/64
//	corp-b  10.1.0.11 ─┤            ┌──────────────┐
//	resolver 10.1.0.53 ┴─ 10.1.0.1 ─┤     edge     ├─ 10.20.0.1 ── provider 10.20.0.4, .5, fd00:20::4
//	branch-a 10.2.0.10 ── 10.2.0.1 ─┤ pools local  ├─ 203.0.113.1 ─ upstream 203.0.113.53, .80
//	mgmt-a  10.30.0.11 ─┬─ 10.30.0.1 ┤              │
//	mgmt-b  10.30.0.12 ─┤            └──────────────┘
//	quorum  10.30.0.21, .22, .23
//
// The edge owns the endpoint pools 10.200.0.0/24, 10.201.0.0/24 and fd00:200::/64, and 10.20.0.101 and
// .102 to be source addresses towards the provider. Consumers route the pools and the public network through
// the edge; they have no route to the provider, and the provider has none to them.
var segments = []segment{
	{name: "corp", edge: []string{"10.1.0.1/16", "fd00:1::1/64"}, hosts: []member{
		{"corp-a", []string{"10.1.0.10/16", "fd00:1::10/64"}},
		{"corp-b", []string{"10.1.0.11/16", "fd00:1::11/64"}},
		{"resolver", []string{"10.1.0.53/16", "fd00:1::53/64"}},
	}, routes: consumerRoutes("10.1.0.1", "fd00:1::1"), dns: "10.1.0.1"},
	{name: "branch", edge: []string{"10.2.0.1/16", "fd00:2::1/64"}, hosts: []member{
		{"branch-a", []string{"10.2.0.10/16", "fd00:2::10/64"}},
	}, routes: consumerRoutes("10.2.0.1", "fd00:2::1"), dns: "10.2.0.1"},
	{name: "prov", edge: []string{"10.20.0.1/16", "10.20.0.101/32", "10.20.0.102/32", "fd00:20::1/64"}, hosts: []member{
		{"provider", []string{"10.20.0.4/16", "10.20.0.5/16", "fd00:20::4/64"}},
	}, dns: "203.0.113.53"},
	{name: "mgmt", edge: []string{"10.30.0.1/24"}, hosts: []member{
		{"mgmt-a", []string{"10.30.0.11/24"}},
		{"mgmt-b", []string{"10.30.0.12/24"}},
		{"quorum", []string{"10.30.0.21/24", "10.30.0.22/24", "10.30.0.23/24"}},
	}, routes: []string{"203.0.113.0/24 via 10.30.0.1"}, dns: "203.0.113.53"},
	{name: "public", edge: []string{"203.0.113.1/24"}, hosts: []member{
		{"upstream", []string{"203.0.113.53/24", "203.0.113.80/24"}},
	}, routes: []string{"default via 203.0.113.1"}, dns: "203.0.113.53"},
}

var poolRoutes = []string{"local 10.200.0.0/24 dev lo", "local 10.201.0.0/24 dev lo", "local fd00:200::/64 dev lo"}

type segment struct {
	name   string
	edge   []string // addresses of the edge on it
	hosts  []member
	routes []string // of its hosts
	dns    string   // what its hosts have in resolv.conf
}

type member struct {
	name  string
	addrs []string
}

func consumerRoutes(v4, v6 string) []string {
	return []string{"10.200.0.0/15 via " + v4, "203.0.113.0/24 via " + v4, "fd00:200::/48 via " + v6}
}

// topology is one copy of the networks.
type topology struct {
	prefix string // of the names of its namespaces
	hosts  map[string]*host
}

// host is one machine of a topology: a network namespace.
type host struct {
	name string
	ns   string   // its name for ip-netns
	file *os.File // the namespace
}

var (
	topologies atomic.Uint32
	// home is the namespace that the test itself runs in.
	home = func() *os.File {
		f, err := os.Open("/proc/self/ns/net")
		if err != nil {
			panic(err)
		}
		return f
	}()
)

const nsPrefix = "postern-"

// newTopology makes the namespaces and wires them. What was made before an error is removed.
func newTopology() (_ *topology, err error) {
	t := &topology{prefix: fmt.Sprintf("%s%d-%d-", nsPrefix, os.Getpid(), topologies.Add(1)), hosts: map[string]*host{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.remove())
		}
	}()
	edge, err := t.addHost("edge", "203.0.113.53")
	if err != nil {
		return nil, err
	}
	var edgeCmds []string
	for _, s := range segments {
		bridge := "br-" + s.name
		edgeCmds = append(edgeCmds, "link add "+bridge+" type bridge", "link set "+bridge+" up")
		for _, a := range s.edge {
			edgeCmds = append(edgeCmds, addrCmd(a, bridge))
		}
		for _, m := range s.hosts {
			h, err := t.addHost(m.name, s.dns)
			if err != nil {
				return nil, err
			}
			port := "to-" + m.name
			if err := ip("", fmt.Sprintf("link add eth0 netns %s type veth peer name %s netns %s", h.ns, port, edge.ns)); err != nil {
				return nil, err
			}
			edgeCmds = append(edgeCmds, fmt.Sprintf("link set %s master %s up", port, bridge))
			cmds := []string{"link set lo up", "link set eth0 up"}
			for _, a := range m.addrs {
				cmds = append(cmds, addrCmd(a, "eth0"))
			}
			for _, r := range s.routes {
				cmds = append(cmds, "route add "+r)
			}
			if err := ip(h.ns, cmds...); err != nil {
				return nil, err
			}
		}
	}
	edgeCmds = append(edgeCmds, "link set lo up")
	for _, r := range poolRoutes {
		edgeCmds = append(edgeCmds, "route add "+r)
	}
	if err := ip(edge.ns, edgeCmds...); err != nil {
		return nil, err
	}
	return t, edge.enter(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
}

func addrCmd(addr, dev string) string {
	if strings.Contains(addr, ":") {
		return "addr add " + addr + " dev " + dev + " nodad"
	}
	return "addr add " + addr + " dev " + dev
}

// addHost makes a namespace whose processes have dns in their resolv.conf.
func (t *topology) addHost(name, dns string) (*host, error) {
	h := &host{name: name, ns: t.prefix + name}
	t.hosts[name] = h
	if err := h.resolvConf(dns); err != nil {
		return nil, err
	}
	if err := ip("", "netns add "+h.ns); err != nil {
		return nil, err
	}
	var err error
	h.file, err = os.Open("/run/netns/" + h.ns)
	return h, err
}

// resolvConf writes the file that ip-netns shows the host's processes as /etc/resolv.conf.
func (h *host) resolvConf(server string) error {
	dir := "/etc/netns/" + h.ns
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(dir+"/resolv.conf", []byte("nameserver "+server+"\noptions timeout:2 attempts:2\n"), 0o644)
}

func (t *topology) remove() error {
	var errs []error
	for _, h := range t.hosts {
		if h.file != nil {
			h.file.Close()
			errs = append(errs, ip("", "netns del "+h.ns))
		}
		errs = append(errs, os.RemoveAll("/etc/netns/"+h.ns))
	}
	return errors.Join(errs...)
}

// ip runs commands of ip(8) in one process, in a namespace or, for "", where the test runs.
func ip(ns string, cmds ...string) error {
	args := []string{"-batch", "-"}
	if ns != "" {
		args = append([]string{"-n", ns}, args...)
	}
	c := exec.Command("ip", args...)
	c.Stdin = strings.NewReader(strings.Join(cmds, "\n") + "\n")
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		return fmt.Errorf("ip %s: %w: %s (of: %s)", strings.Join(args, " "), err, strings.TrimSpace(out.String()), strings.Join(cmds, "; "))
	}
	return nil
}

// enter runs f on a thread that is in the host's namespace. Sockets that f opens stay in it; goroutines
// that f starts are outside.
func (h *host) enter(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(h.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter %s: %w", h.ns, err)
			return // with the thread, which is still locked
		}
		err := f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// command returns a command that runs in the host's namespace; its process is the command itself.
func (h *host) command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", h.ns, name}, args...)...)
}

// removeStale removes the namespaces of tests whose process is gone.
func removeStale() error {
	for _, dir := range []string{"/run/netns", "/etc/netns"} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		for _, e := range entries {
			rest, ours := strings.CutPrefix(e.Name(), nsPrefix)
			number, _, _ := strings.Cut(rest, "-")
			pid, err := strconv.Atoi(number)
			if !ours || err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				continue
			}
			if dir == "/run/netns" {
				err = ip("", "netns del "+e.Name())
			} else {
				err = os.RemoveAll(filepath.Join(dir, e.Name()))
			}
			if err != nil {
				return fmt.Errorf("remove what a dead test left: %w", err)
			}
		}
	}
	return nil
}
