package integration

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/internal/dnstest"
)

// ground is what a test that is written in Go has of a scenario: networks, and processes on their hosts. All ends with the
// test.
type ground struct {
	t   *testing.T
	net *topology
	dir string
	env []string
}

func newGround(t *testing.T) *ground {
	t.Helper()
	n, err := newTopology()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.remove(); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	return &ground{t, n, dir, append(os.Environ(), "GORACE=halt_on_error=0 atexit_sleep_ms=0", "HOME="+dir)}
}

// file writes a file below the test's directory and returns its path. DIR in it is that directory.
func (g *ground) file(name, text string) string {
	g.t.Helper()
	path := g.dir + "/" + name
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", g.dir)), 0o644); err != nil {
		g.t.Fatal(err)
	}
	return path
}

// daemon starts a server that stays in the foreground, and waits until it accepts at addr.
func (g *ground) daemon(name, host, addr string, argv ...string) *process {
	g.t.Helper()
	p, err := launch(name, g.dir, g.env, g.net.hosts[host].command(argv[0], argv[1:]...))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		if err := p.end(20 * time.Second); err != nil {
			g.t.Error(err)
		}
		if g.t.Failed() {
			g.t.Logf("output of %s:\n%s", name, tail(p.out.String(), 4000))
		}
	})
	for end := time.Now().Add(startTimeout); ; time.Sleep(20 * time.Millisecond) {
		conn, err := g.net.hosts[host].dial(addr, time.Second)
		if err == nil {
			conn.Close()
			return p
		}
		if !p.running() || time.Now().After(end) {
			g.t.Fatalf("%s doesn't serve at %s: %v\n%s", name, addr, err, p.out)
		}
	}
}

// postern starts the node on the edge and waits until it serves DNS and the address.
func (g *ground) postern(corefile, addr string) *process {
	g.t.Helper()
	p := g.daemon("node", "edge", addr, binary, "-conf", g.file("Corefile", corefile))
	g.t.Cleanup(func() {
		if trouble := troubleIn(p.out.String()); trouble != "" {
			g.t.Errorf("the node said:\n%s", trouble)
		}
	})
	if p.out.find(serving, 0, startTimeout, p.done) == "" {
		g.t.Fatalf("the node doesn't serve:\n%s", p.out)
	}
	return p
}

func (g *ground) listen(host, addr string) net.Listener {
	g.t.Helper()
	var ln net.Listener
	err := g.net.hosts[host].enter(func() (err error) {
		ln, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { ln.Close() })
	return ln
}

// answers serves DNS by UDP at an address of a host: queries are handled at the same time, and one that the handler doesn't answer gets no answer.
func (g *ground) answers(host, addr string, answer dns.HandlerFunc) {
	g.t.Helper()
	var conn net.PacketConn
	err := g.net.hosts[host].enter(func() (err error) {
		conn, err = net.ListenPacket("udp", addr)
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	dnstest.ServeOn(g.t, conn, answer)
}

// dial connects from a host, with a deadline for all that follows.
func (g *ground) dial(host, addr string) (net.Conn, error) {
	conn, err := g.net.hosts[host].dial(addr, 10*time.Second)
	if err != nil {
		return nil, fmt.Errorf("from %s: %w", host, err)
	}
	return conn, conn.SetDeadline(time.Now().Add(20 * time.Second))
}

// output runs a command on a host to its end and returns all that it said.
func (g *ground) output(host string, argv ...string) (string, error) {
	c := g.net.hosts[host].command(argv[0], argv[1:]...)
	c.Dir, c.Env = g.dir, g.env
	out, err := c.CombinedOutput()
	return string(out), err
}
