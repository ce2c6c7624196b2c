package proxy

import (
	"context"
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
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/resolve"
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
		g := serveAt(t, netip.AddrPortFrom(netip.MustParseAddr(host), port), func(c *net.TCPConn) {
			for b := make([]byte, 1); ; {
				if _, err := c.Read(b); err != nil {
					return
				}
				fmt.Fprintf(c, "%-16s", host)
			}
		})
		port = g.Port()
	}
	return port
}

// serveAt is serve at an address, of which the port may be 0.
func serveAt(t testing.TB, at netip.AddrPort, f func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			stop := context.AfterFunc(t.Context(), func() { c.Close() })
			all.Go(func() {
				defer stop()
				defer c.Close()
				f(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
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

// Each address of a name is a target. One that it leads to no more gets no flow, and those that it has go on; they end with
// the name.
func TestNamesAreTargets(t *testing.T) {
	t.Parallel()
	z, port := newZone(t), tellers(t, "127.0.0.2", "127.0.0.3", "127.0.0.4")
	z.set("db.example", "127.0.0.2", "127.0.0.3")
	w := newNamed(t, z, port)
	if !w.proxy.Published("svc") || !w.proxy.Healthy("svc") {
		t.Error("not published")
	}
	if got := []string{w.newFlow(), w.newFlow()}; !slices.Contains(got, "127.0.0.2") || !slices.Contains(got, "127.0.0.3") {
		t.Fatalf("flows end at %v", got)
	}
	c := dial(t, w.first())
	at, err := where(c)
	if err != nil {
		t.Fatal(err)
	}
	z.set("db.example", "127.0.0.4")
	w.again()
	w.leads("127.0.0.4")
	for range 4 {
		if got := w.newFlow(); got != "127.0.0.4" {
			t.Fatalf("a flow ends at %s", got)
		}
	}
	w.apply(service("other", 7002, netip.AddrPort{}, byName(port, "db.example"))) // a review finds nothing against the flow
	if again, err := where(c); again != at || err != nil {
		t.Fatalf("the flow of before: %s, %v, was at %s", again, err, at)
	}
	w.apply(service("svc", 7001, netip.AddrPort{}, byName(port, "other.example")))
	if _, err := where(c); !isResetError(err) {
		t.Errorf("the flow outlives its name: %v", err)
	}
	eventually(t, "the service isn't healthy by a name that leads nowhere", func() bool { return !w.proxy.Healthy("svc") })
	eventually(t, "metrics of what is gone are gone", func() bool {
		return w.metric(t, "postern_proxy_name_addresses", "svc", fmt.Sprintf("db.example:%d", port)) == -1 &&
			w.metric(t, "postern_proxy_name_addresses", "svc", fmt.Sprintf("other.example:%d", port)) == 0 &&
			w.metric(t, "postern_proxy_target_up", "svc", fmt.Sprintf("127.0.0.4:%d", port)) == -1
	})
}

// A name that was never found makes its service unpublished; one that isn't found any more leads where it led.
func TestNamesNotFound(t *testing.T) {
	t.Parallel()
	z, port := newZone(t), tellers(t, "127.0.0.2")
	z.fail(true)
	w := newNamed(t, z, port)
	if w.proxy.Published("svc") || w.proxy.Healthy("svc") {
		t.Error("published")
	}
	w.noTarget(t)
	z.fail(false)
	z.set("db.example", "127.0.0.2")
	w.again()
	w.leads("127.0.0.2")
	eventually(t, "the service is published", func() bool { return w.proxy.Published("svc") })
	for _, fails := range []bool{true, false} { // it can't say, or there is nothing
		z.fail(fails)
		z.set("db.example")
		w.again()
		eventually(t, "the lookup has failed", func() bool {
			n := w.proxy.Names("svc")
			return n[0].Err != nil && (n[0].Err == resolve.ErrNone) == !fails
		})
		if at := w.newFlow(); at != "127.0.0.2" {
			t.Errorf("a flow ends at %s", at)
		}
	}
	if w.metric(t, "postern_proxy_name_stale_seconds", "svc", fmt.Sprintf("db.example:%d", port)) <= 0 || w.metric(t, "postern_proxy_name_lookups_total", "failed") < 2 || w.metric(t, "postern_proxy_name_lookups_total", "empty") < 1 {
		t.Error("the metrics say nothing of it")
	}
	if len(w.log.lines("isn't found", "stay")) != 1 {
		t.Error("it isn't logged once")
	}
}

// E23, A21, X: whoever holds a name, it leads nowhere where the service may not send, not even the operator's.
func TestNamesRebind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		leads, rule string
		edit        func(*link.Service)
	}{
		{"127.0.0.1", "loopback", anywhere},
		{"::1", "loopback", anywhere},
		{"::ffff:127.0.0.1", "loopback", anywhere},
		{"64:ff9b::7f00:1", "loopback", anywhere},
		{"2002:7f00:1::1", "loopback", anywhere},
		{"169.254.169.254", "metadata", anywhere},
		{"64:ff9b::a9fe:a9fe", "metadata", anywhere},
		{"fe80::1", "link-local", anywhere},
		{"0.0.0.0", "this host", anywhere},
		{"224.0.0.1", "multicast", anywhere},
		{"127.77.200.200", link.TargetIsPool, nil},
		{"64:ff9b::7f4d:c8c8", link.TargetIsPool, anywhere},
		{"192.0.2.1", link.TargetIsOutside, nil},
	} {
		t.Run(tt.leads, func(t *testing.T) {
			t.Parallel()
			z, was := newZone(t), newTarget(t)
			z.set("db.example", tt.leads)
			edit := []func(*link.Service){}
			if tt.edit != nil {
				edit = append(edit, tt.edit)
			}
			w := newNamed(t, z, was.addr().Port(), edit...)
			if w.proxy.Published("svc") {
				t.Error("published")
			}
			n := w.proxy.Names("svc")
			if len(n) != 1 || len(n[0].Addrs) > 0 || len(n[0].Refused) != 1 || !strings.Contains(n[0].Refused[netip.MustParseAddr(tt.leads).Unmap()], tt.rule) {
				t.Errorf("%+v", n)
			}
			w.noTarget(t)
			w.again()
			w.apply(endpoint("e", "svc", w.host(), "127.0.0.0/9"))
			if lines := w.log.lines("leads where the service may not send"); len(lines) != 1 || !strings.Contains(lines[0], tt.rule) {
				t.Errorf("log %q", lines)
			}
			if w.metric(t, "postern_proxy_name_refused_total", "rule") != 1 || w.metric(t, "postern_proxy_name_addresses_refused", "svc", fmt.Sprintf("db.example:%d", was.addr().Port())) != 1 {
				t.Error("not counted once")
			}
			select {
			case c := <-was.conns:
				t.Errorf("something has connected from %v", c.RemoteAddr())
			default:
			}
		})
	}
}

// What a name leads to is judged on each snapshot, and flows with it; and where it leads to another tenant's backend, on each
// dial.
func TestNamesAreJudgedAgain(t *testing.T) {
	t.Parallel()
	z, port := newZone(t), tellers(t, "127.0.0.2")
	z.set("db.example", "127.0.0.2")
	w := newNamed(t, z, port)
	c := dial(t, w.first())
	if _, err := where(c); err != nil {
		t.Fatal(err)
	}
	w.apply(service("svc", 7001, netip.AddrPort{}, byName(port, "db.example"), anywhere))
	if _, err := where(c); !isResetError(err) {
		t.Errorf("the flow goes on where the service may not send: %v", err)
	}
	if n := w.proxy.Names("svc"); len(n[0].Addrs) > 0 || w.proxy.Healthy("svc") {
		t.Errorf("%+v", n)
	}
	reach := func(s *link.Service) { s.Tenant, s.Reach = "b", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }
	w.apply(service("svc", 7001, netip.AddrPort{}, byName(port, "db.example"), anywhere, reach))
	w.leads("127.0.0.2")
	guard := w.proxy.guardDial(w.now.Load().Service("svc"))
	to := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), port)
	if err := guard(to); err != nil {
		t.Fatal(err)
	}
	w.apply(service("theirs", 7002, to, func(s *link.Service) { s.Tenant = "c" }))
	if err := guard(to); err == nil || !strings.Contains(err.Error(), link.TargetIsAnothers) {
		t.Errorf("error %v", err)
	}
}

// A node doesn't ask itself: it would be told the addresses of its endpoints.
func TestResolverIsThisNode(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	w := newWorld(t, Settings{})
	for _, own := range []Settings{{Own: []netip.AddrPort{z.addr}}, {OwnUDP: []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), z.addr.Port())}}} {
		own.Resolvers = []netip.AddrPort{z.addr}
		if _, err := w.proxy.Prepare(w.now.Load(), own); err == nil || !strings.Contains(err.Error(), "resolver "+z.addr.String()) {
			t.Errorf("error %v", err)
		}
	}
	own := Settings{Own: []netip.AddrPort{z.addr}}.withDefaults(w.proxy.memory)
	w.proxy.settings.Store(&own)
	w.proxy.names.system.File = resolvConf(t, "nameserver 127.0.0.1\n")
	if servers, err := w.proxy.names.servers(); err != nil || len(servers) != 1 {
		t.Errorf("%v, %v", servers, err)
	}
	own.Own = []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")}
	if _, err := w.proxy.names.servers(); err == nil || !strings.Contains(err.Error(), "this node itself") {
		t.Errorf("error %v", err)
	}
}

// Until the first lookup is over, a service that was published before the start counts as healthy: no name of it passes to
// public addresses meanwhile.
func TestNamesAfterARestart(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	z.mu.Lock() // it doesn't answer
	w := newWorld(t, Settings{})
	w.proxy.Inherit("svc")
	next, err := w.proxy.Prepare(w.now.Load(), Settings{Resolvers: []netip.AddrPort{z.addr}})
	if err != nil {
		t.Fatal(err)
	}
	next.Commit()
	w.apply(service("svc", 7001, netip.AddrPort{}, byName(1, "db.example")), endpoint("e", "svc", nextAddr(t)))
	if !w.proxy.Published("svc") || !w.proxy.Healthy("svc") {
		t.Error("not published, or not healthy")
	}
	z.mu.Unlock()
	if err := w.proxy.Probed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !w.proxy.Published("svc") || w.proxy.Healthy("svc") {
		t.Error("not published, or healthy with a name that isn't found")
	}
}

// A service of UDP is published once a name of it leads somewhere.
func TestNamesOfUDP(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	w := newNamed(t, z, 7001, func(s *link.Service) { s.Protocol = link.UDP })
	if w.proxy.Published("svc") || w.proxy.Healthy("svc") {
		t.Error("published")
	}
	z.set("db.example", "127.0.0.2")
	w.again()
	w.leads("127.0.0.2")
	if !w.proxy.Published("svc") || !w.proxy.Healthy("svc") {
		t.Error("not published")
	}
}

// The weight of a name is that of its addresses: with 0 it is drained, and publishes nothing.
func TestNameIsDrained(t *testing.T) {
	t.Parallel()
	z, port := newZone(t), tellers(t, "127.0.0.2", "127.0.0.3")
	z.set("db.example", "127.0.0.2", "127.0.0.3")
	drained := func(s *link.Service) { s.NameWeights = map[link.NamePort]int{s.TargetNames[0]: 0} }
	w := newNamed(t, z, port, drained)
	if w.proxy.Published("svc") || w.proxy.Healthy("svc") {
		t.Error("published")
	}
	w.apply(service("svc", 7001, netip.AddrPort{}, byName(port, "db.example"), func(s *link.Service) {
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port) // written down, to drain one of them
		s.Targets, s.Weights = []link.Target{{Addr: at}}, map[netip.AddrPort]int{at: 0}
	}))
	eventually(t, "the service is published", func() bool { return w.proxy.Published("svc") })
	for range 4 {
		if at := w.newFlow(); at != "127.0.0.3" {
			t.Fatalf("a flow ends at %s", at)
		}
	}
}

// More addresses than a service has by names are left out, and told.
func TestTooManyAddresses(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	var list []link.Name
	for i := range 6 {
		name := link.Name(fmt.Sprintf("n%d.example", i))
		list = append(list, name)
		var all []string
		for j := range resolve.MaxAddrs {
			all = append(all, fmt.Sprintf("127.1.%d.%d", i, j))
		}
		z.set(string(name), all...)
	}
	w := newWorld(t, Settings{Resolvers: []netip.AddrPort{z.addr}}, service("svc", 7001, netip.AddrPort{}, byName(1, list...)), endpoint("e", "svc", nextAddr(t)))
	if err := w.proxy.Probed(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, one := range w.proxy.Names("svc") {
		n += len(one.Addrs)
	}
	if n != maxFound || w.metric(t, "postern_proxy_name_refused_total", "number") != 6*resolve.MaxAddrs-maxFound {
		t.Errorf("%d targets", n)
	}
}
