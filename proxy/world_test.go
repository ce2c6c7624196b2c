package proxy

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postern-link/postern/internal/tcptest"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

// TestMain: the binary of the tests is the clients and the targets of TestCutTenThousand too.
func TestMain(m *testing.M) {
	if role := os.Getenv(asCut); role != "" {
		if err := cutChild(role); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// What runs side by side here waits for most of its time: for deadlines, for probes, for targets that say nothing.
	if flag.Parse(); flag.Lookup("test.parallel").Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		flag.Set("test.parallel", "8")
	}
	goleak.VerifyTestMain(m)
}

// patience bounds every wait of a test; nothing takes that long unless it is broken.
const patience = 20 * time.Second

// world is a proxy on real sockets, and the snapshot that it follows.
type world struct {
	t        testing.TB
	mu       sync.Mutex // one change at a time
	now      atomic.Pointer[link.Snapshot]
	rules    atomic.Pointer[policy.Policy] // what narrows the state
	proxy    *Proxy
	log      *logBuffer
	registry *prometheus.Registry
}

// logBuffer collects the log of a proxy.
type logBuffer struct {
	settle func() // waits for what is queued
	mu     sync.Mutex
	b      bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// lines returns the log lines with all of the given words in them.
func (l *logBuffer) lines(words ...string) (found []string) {
	l.settle()
	l.mu.Lock()
	defer l.mu.Unlock()
next:
	for line := range strings.Lines(l.b.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// newWorld starts a proxy with a network of 127.0.0.0/8 whose endpoints live in 127.77.0.0/16.
func newWorld(t testing.TB, settings Settings, changes ...link.Change) *world {
	t.Helper()
	return newWorldLog(t, settings, func(out io.Writer) slog.Handler { return slog.NewTextHandler(out, nil) }, changes...)
}

// newWorldLog is newWorld with a log of the test's, which writes to the writer given.
func newWorldLog(t testing.TB, settings Settings, handler func(io.Writer) slog.Handler, changes ...link.Change) *world {
	t.Helper()
	w := &world{t: t, log: new(logBuffer), registry: prometheus.NewRegistry()}
	w.now.Store(link.Empty())
	w.proxy = New(Config{
		Snapshot: w.now.Load, Registerer: w.registry, Policy: w.rules.Load, Portable: settings.Portable,
		Log: slog.New(handler(w.log)),
	})
	w.log.settle = func() { w.proxy.lines.flush(patience) }
	t.Cleanup(func() { w.proxy.Close() })
	w.swap(link.PutNetwork{Network: link.Network{
		ID:       "corp",
		Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		Pools:    []netip.Prefix{netip.MustParsePrefix("127.77.0.0/16")},
		Egress:   []string{"*"},
	}})
	if len(changes) > 0 {
		w.swap(changes...)
	}
	next, err := w.proxy.Prepare(w.now.Load(), settings)
	if err != nil {
		t.Fatalf("Prepare: %v", err)
	}
	next.Commit()
	return w
}

// swap makes a change, and tells nobody.
func (w *world) swap(changes ...link.Change) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	next, _, err := w.now.Load().Apply(time.Unix(1_800_000_000, 0), changes...)
	if err != nil {
		w.t.Fatalf("Apply: %v", err)
	}
	w.now.Store(next)
}

// apply makes a change and lets the proxy follow it.
func (w *world) apply(changes ...link.Change) {
	w.t.Helper()
	w.swap(changes...)
	w.proxy.Update(w.now.Load())
}

// service is a service for tests; edit changes it before use.
func service(id link.ID, port uint16, target netip.AddrPort, edit ...func(*link.Service)) link.PutService {
	s := link.Service{
		ID: id, Alias: fmt.Sprintf("%s.%032x.postern", id, port), Port: port,
		Targets: []link.Target{{Addr: target}}, Pin: link.PinAddress, ProxyProtocol: link.ProxyOff,
		Visible: []link.Party{link.Anyone}, AutoApprove: []link.Party{link.Anyone},
	}
	for _, e := range edit {
		e(&s)
	}
	return link.PutService{Service: s}
}

// endpoint is an endpoint of a service in the network of newWorld.
func endpoint(id, service link.ID, addr string, allow ...string) link.PutEndpoint {
	e := link.Endpoint{ID: id, Network: "corp", Service: service, Address: netip.MustParseAddr(addr)}
	for _, a := range allow {
		e.Allow = append(e.Allow, netip.MustParsePrefix(a))
	}
	return link.PutEndpoint{Endpoint: e}
}

// connection returns the connection of an endpoint.
func (w *world) connection(id link.ID) link.Connection {
	return w.now.Load().Endpoint(id).Connection
}

// dial connects to an address; the connection is closed with the test.
func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// target is a listener that hands out the connections it accepts.
type target struct {
	t     testing.TB
	l     *net.TCPListener
	conns chan *net.TCPConn
	done  chan struct{}
}

// newTarget listens on 127.0.0.1, or on the address given. Connections that end without a byte,
// which are probes, aren't handed out when skipProbes is used by the reader.
func newTarget(t testing.TB, addr ...string) *target {
	t.Helper()
	at := "127.0.0.1:0"
	if len(addr) > 0 {
		at = addr[0]
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	g := &target{t: t, l: l.(*net.TCPListener), conns: make(chan *net.TCPConn, 64), done: make(chan struct{})}
	go func() {
		defer close(g.conns)
		for {
			c, err := g.l.AcceptTCP()
			if err != nil {
				return
			}
			select {
			case g.conns <- c:
			case <-g.done:
				c.Close()
			}
		}
	}()
	t.Cleanup(g.close)
	return g
}

func (g *target) addr() netip.AddrPort { return g.l.Addr().(*net.TCPAddr).AddrPort() }

func (g *target) close() {
	select {
	case <-g.done:
		return
	default:
	}
	close(g.done)
	g.l.Close()
	for c := range g.conns {
		c.Close()
	}
}

// next returns the next connection that brings a byte, and has it read.
func (g *target) next() (*net.TCPConn, byte) {
	g.t.Helper()
	for {
		select {
		case c, ok := <-g.conns:
			if !ok {
				g.t.Fatal("target is closed")
			}
			g.t.Cleanup(func() { c.Close() })
			c.SetDeadline(time.Now().Add(patience))
			var b [1]byte
			if _, err := io.ReadFull(c, b[:]); err != nil {
				c.Close()
				continue // a probe
			}
			return c, b[0]
		case <-time.After(patience):
			g.t.Fatal("no connection arrived at the target")
		}
	}
}

// echo is a target that sends back what comes, until the test ends.
func echo(t testing.TB) netip.AddrPort {
	t.Helper()
	return serve(t, tcptest.Echo)
}

// serve serves every connection with a function, until the test ends.
func serve(t testing.TB, f func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	return tcptest.Serve(t, "127.0.0.1:0", f).Addr
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// lastAddr numbers the endpoint addresses of tests that run side by side.
var lastAddr atomic.Uint32

// nextAddr returns an endpoint address that no other test has.
func nextAddr(testing.TB) string {
	n := lastAddr.Add(1)
	return netip.AddrFrom4([4]byte{127, 77, byte(1 + n/250), byte(1 + n%250)}).String()
}

// host returns the address of endpoint e.
func (w *world) host() string { return w.now.Load().Endpoint("e").Address.String() }

// first returns the address and port of endpoint e.
func (w *world) first() string { return w.host() + ":7001" }

func isResetError(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// reset closes a connection of the test with a TCP reset.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}
