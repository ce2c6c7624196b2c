package handover_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/bind"
	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/internal/tcptest"
	"github.com/postern-link/postern/plugin/internal/handover"
	_ "github.com/postern-link/postern/plugin/linkendpoint"
	_ "github.com/postern-link/postern/plugin/linknetwork"
	_ "github.com/postern-link/postern/plugin/linkproxy"
	_ "github.com/postern-link/postern/plugin/linkservice"
	_ "github.com/postern-link/postern/plugin/linkstore"
)

// Two directives that do what a test says, before ours (where health stands) and after ours.
var early, late func(*caddy.Controller)

// draft is that of the Corefile which was set up last.
var draft *handover.Draft

func TestMain(m *testing.M) {
	caddy.Quiet, dnsserver.Quiet = true, true
	must(dnsserver.Register())
	must(dnsserver.SetDirectives([]string{"bind", "early",
		"linkstore", "linknetwork", "linkservice", "linkendpoint", "linkproxy", "late"}))
	plugin.Register("early", func(c *caddy.Controller) error {
		if early != nil {
			early(c)
		}
		return nil
	})
	plugin.Register("late", func(c *caddy.Controller) error {
		var err error
		if draft, err = handover.Of(c); err == nil && late != nil {
			late(c)
		}
		return err
	})
	goleak.VerifyTestMain(m)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// world is one server of a test: where its state is, a backend, and an endpoint port that is free.
type world struct {
	t       *testing.T
	state   string
	backend netip.AddrPort
	port    int
	inst    *caddy.Instance
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, state: filepath.Join(t.TempDir(), "postern.db"), backend: echo(t), port: int(freeport.Get(t))}
	t.Cleanup(func() {
		early, late = nil, nil
		w.exit()
		if n := handover.Running(); n != 0 {
			t.Errorf("%d nodes are left", n)
		}
		if handover.Reloading() {
			t.Error("a reload is still under way")
		}
	})
	return w
}

// echo is a backend that returns each line.
func echo(t *testing.T) netip.AddrPort {
	t.Helper()
	return tcptest.Serve(t, "127.0.0.1:0", tcptest.Echo).Addr
}

// corefile returns a Corefile with endpoints on the given addresses, and more lines.
func (w *world) corefile(more string, endpoints ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `.:0 {
	bind 127.0.0.1
	early
	late
	linkstore bolt %q {
		origin test
	}
	linknetwork corp 127.0.0.0/8 {
		endpoints 127.0.77.0/24
	}
	linkservice echo {
		target %s
		port %d
		approve corp
	}
	linkproxy {
		drain 100ms
	}
`, w.state, w.backend, w.port)
	for _, e := range endpoints {
		fmt.Fprintf(&b, "\tlinkendpoint %s {\n\t\tservice echo\n\t\tnetwork corp\n\t\taddress %s\n\t}\n", endpointID(e), e)
	}
	return b.String() + more + "\n}\n"
}

func endpointID(address string) string { return "e-" + strings.ReplaceAll(address, ".", "-") }

func input(corefile string) caddy.Input {
	return caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(corefile), ServerTypeName: "dns"}
}

func (w *world) start(corefile string) {
	w.t.Helper()
	inst, err := caddy.Start(input(corefile))
	if err != nil {
		w.t.Fatal(err)
	}
	w.inst = inst
	w.answers()
}

// reload restarts the instance. On an error the old one stays, as for Caddy.
func (w *world) reload(corefile string) error {
	inst, err := w.inst.Restart(input(corefile))
	w.inst = inst
	if err == nil {
		w.answers()
	}
	return err
}

// answers waits until the DNS servers run: CoreDNS overlooks, when it stops one, that it hasn't
// begun to serve yet, and then waits for it for ever.
func (w *world) answers() {
	w.t.Helper()
	question := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	for _, s := range w.inst.Servers() {
		if s.Addr() == nil {
			continue // it serves nothing
		}
		for network, addr := range map[string]net.Addr{"udp": s.LocalAddr(), "tcp": s.Addr()} {
			client := dns.Client{Net: network, Timeout: 10 * time.Second}
			if _, _, err := client.Exchange(question, addr.String()); err != nil {
				w.t.Fatalf("DNS over %s: %v", network, err)
			}
		}
	}
}

// exit is what SIGTERM does.
func (w *world) exit() {
	if w.inst == nil {
		return
	}
	for _, err := range w.inst.ShutdownCallbacks() {
		w.t.Error(err)
	}
	if err := w.inst.Stop(); err != nil {
		w.t.Error(err)
	}
	w.inst.Wait()
	w.inst = nil
}

// flow is a connection through an endpoint.
type flow struct {
	net.Conn
	r *bufio.Reader
}

func (w *world) dial(address string) (*flow, error) {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", address, w.port), 5*time.Second)
	if err != nil {
		return nil, err
	}
	w.t.Cleanup(func() { c.Close() })
	return &flow{c, bufio.NewReader(c)}, nil
}

// ping sends a line and reads it back.
func (f *flow) ping() error {
	if err := f.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(f, "ping\n"); err != nil {
		return err
	}
	line, err := f.r.ReadString('\n')
	if err == nil && line != "ping\n" {
		err = fmt.Errorf("got %q", line)
	}
	return err
}

// serves checks that the endpoint of an address carries traffic, and returns a live flow.
func (w *world) serves(address string) *flow {
	w.t.Helper()
	f, err := w.dial(address)
	if err == nil {
		err = f.ping()
	}
	if err != nil {
		w.t.Fatalf("endpoint %s: %v", address, err)
	}
	return f
}

// closed checks that nothing listens on the address.
func (w *world) closed(address string) {
	w.t.Helper()
	f, err := w.dial(address)
	if err != nil {
		return
	}
	w.t.Errorf("something listens on %s; ping: %v", address, f.ping())
}

// has checks which endpoints the node of a draft knows.
func (w *world) has(d *handover.Draft, addresses ...string) {
	w.t.Helper()
	s := d.Snapshot()
	if s == nil {
		w.t.Fatal("no snapshot")
	}
	var got, want []string
	for e := range s.Endpoints() {
		got = append(got, e.Address.String())
	}
	want = append(want, addresses...)
	if strings.Join(got, " ") != strings.Join(want, " ") {
		w.t.Errorf("endpoints %v, want %v", got, want)
	}
}

// stateIsFree checks that the state can be had, by renaming nothing and locking nothing: a new
// server starts on it.
func (w *world) stateIsFree() {
	w.t.Helper()
	if _, err := os.Stat(w.state); err != nil {
		w.t.Fatal(err)
	}
	w.start(w.corefile(""))
	w.exit()
}
