package proxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/postern-link/postern/internal/tcptest"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// zone is a DNS server whose answers change.
type zone struct {
	addr  netip.AddrPort
	mu    sync.Mutex
	now   map[string][]string // addresses by name
	fails bool                // it can't say anything
	asked int
}

func newZone(t testing.TB) *zone {
	t.Helper()
	z := &zone{now: map[string][]string{}}
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z.addr = netip.MustParseAddrPort(p.LocalAddr().String())
	started, done := make(chan struct{}), make(chan error, 1)
	s := &dns.Server{PacketConn: p, Handler: dns.HandlerFunc(z.serve), NotifyStartedFunc: func() { close(started) }}
	go func() { done <- s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		s.Shutdown()
		<-done
	})
	return z
}

func (z *zone) set(name string, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.now[name+"."] = addrs
}

func (z *zone) fail(fails bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.fails = fails
}

func (z *zone) serve(w dns.ResponseWriter, m *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	r := new(dns.Msg).SetReply(m)
	r.Compress = true
	if z.fails {
		r.Rcode = dns.RcodeServerFailure
	}
	q := m.Question[0]
	for _, a := range z.now[q.Name] {
		addr, h := netip.MustParseAddr(a), dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 3600}
		switch {
		case q.Qtype == dns.TypeA && addr.Is4():
			r.Answer = append(r.Answer, &dns.A{Hdr: h, A: addr.AsSlice()})
		case q.Qtype == dns.TypeAAAA && addr.Is6():
			r.Answer = append(r.Answer, &dns.AAAA{Hdr: h, AAAA: addr.AsSlice()})
		}
	}
	w.WriteMsg(r)
}

// byName has targets by a name alone, which may lead to loopback.
func byName(port uint16, names ...link.Name) func(*link.Service) {
	return func(s *link.Service) {
		s.Targets, s.Within = nil, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		for _, n := range names {
			s.TargetNames = append(s.TargetNames, link.NamePort{Name: n, Port: port})
		}
	}
}

// anywhere lets names lead where the rules about targets allow it.
func anywhere(s *link.Service) { s.Within = nil }

// tellers are targets on several addresses, which say where they are to who says something.
func tellers(t testing.TB, hosts ...string) (port uint16) {
	t.Helper()
	for _, host := range hosts {
		g := tcptest.Serve(t, netip.AddrPortFrom(netip.MustParseAddr(host), port).String(), func(c *net.TCPConn) {
			for b := make([]byte, 1); ; {
				if _, err := c.Read(b); err != nil {
					return
				}
				fmt.Fprintf(c, "%-16s", host)
			}
		})
		port = g.Addr.Port()
	}
	return port
}

// resolvConf writes a file of the system's servers.
func resolvConf(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// where asks the other end of a flow where it is.
func where(c *net.TCPConn) (string, error) {
	b := make([]byte, 16)
	if _, err := c.Write([]byte{1}); err != nil {
		return "", err
	}
	_, err := io.ReadFull(c, b)
	return strings.TrimSpace(string(b)), err
}

// newFlow returns where a new flow ends.
func (w *world) newFlow() string {
	w.t.Helper()
	c := dial(w.t, w.first())
	defer c.Close()
	at, err := where(c)
	if err != nil {
		return err.Error()
	}
	return at
}

// noTarget has one flow refused for want of a target.
func (w *world) noTarget(t *testing.T) {
	t.Helper()
	c, err := net.DialTimeout("tcp", w.first(), patience)
	if err != nil { // reset before the dial was over
		checkRefused(t, w, nil, policy.NoTarget)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	checkRefused(t, w, c.(*net.TCPConn), policy.NoTarget)
}

// again has names looked up now.
func (w *world) again() { w.proxy.names.known.Again() }

// leads waits until the names of service svc lead to these addresses.
func (w *world) leads(addrs ...string) {
	w.t.Helper()
	eventually(w.t, fmt.Sprint("the names lead to ", addrs), func() bool {
		var now []string
		for _, n := range w.proxy.Names("svc") {
			for _, a := range n.Addrs {
				now = append(now, a.String())
			}
		}
		return slices.Equal(now, addrs)
	})
}

// newNamed starts a proxy with a service by a name, and waits until it is published.
func newNamed(t *testing.T, z *zone, port uint16, edit ...func(*link.Service)) *world {
	t.Helper()
	w := newWorld(t, Settings{Resolvers: []netip.AddrPort{z.addr}, ProbeInterval: 100 * time.Millisecond},
		service("svc", 7001, netip.AddrPort{}, append([]func(*link.Service){byName(port, "db.example")}, edit...)...), endpoint("e", "svc", nextAddr(t)))
	if err := w.proxy.Probed(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}
