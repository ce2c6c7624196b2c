package privatelink_test

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/coremain"
	"github.com/postern-link/postern/internal/dnstest"
	_ "github.com/postern-link/postern/plugin/privatelink"
)

// public is an upstream that has a public address for every name, and counts what it is asked.
type public struct {
	addr  string
	asked atomic.Int64
	dead  atomic.Bool   // answers nothing any more
	ttl   atomic.Uint32 // of the answers; 0: 300
}

func startPublic(t *testing.T) *public {
	t.Helper()
	u := new(public)
	u.addr = dnstest.Serve(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if r.Question[0].Name == "." { // forward's health check
			_ = w.WriteMsg(new(dns.Msg).SetReply(r))
			return
		}
		if !strings.HasPrefix(r.Question[0].Name, "postern-loop-") { // a probe, which may come at any time
			u.asked.Add(1)
		}
		if u.dead.Load() {
			return
		}
		m := new(dns.Msg).SetReply(r)
		m.RecursionAvailable = true
		if r.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: cmp.Or(u.ttl.Load(), 300)}, A: net.IPv4(203, 0, 113, 1)}}
		}
		_ = w.WriteMsg(m)
	})
	return u
}

// start runs a Corefile and returns the addresses of its first server.
func start(t *testing.T, corefile string) (udp, tcp string) {
	t.Helper()
	instance := startInstance(t, caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(corefile), ServerTypeName: "dns"})
	t.Cleanup(func() { end(t, instance) })
	first := firstServer(instance)
	if first.LocalAddr() != nil { // nil: TLS
		udp = first.LocalAddr().String()
	}
	return udp, first.Addr().String()
}

// firstServer returns the first server that listens.
func firstServer(instance *caddy.Instance) caddy.ServerListener {
	all := instance.Servers()
	return all[slices.IndexFunc(all, func(s caddy.ServerListener) bool { return s.Addr() != nil })]
}

// startInstance starts a server on a state of its own. The caller ends it, or its successor.
func startInstance(t *testing.T, in caddy.Input) *caddy.Instance {
	t.Helper()
	if err := coremain.Setup(); err != nil {
		t.Fatal(err)
	}
	caddy.Quiet, dnsserver.Quiet = true, true
	t.Setenv("STATE_DIRECTORY", t.TempDir())
	instance, err := caddy.Start(in)
	if err != nil {
		t.Fatal(err)
	}
	return instance
}

// end ends a server as SIGTERM does.
func end(t *testing.T, instance *caddy.Instance) {
	for _, err := range instance.ShutdownCallbacks() {
		t.Error(err)
	}
	if err := instance.Stop(); err != nil {
		t.Error(err)
	}
}

// client asks from one address.
type client struct {
	t    *testing.T
	conn *dns.Conn
}

func dial(t *testing.T, from, to string) *client {
	t.Helper()
	return dialBy(t, "udp", from, to)
}

// dialBy returns a client that asks from one address by UDP or TCP.
func dialBy(t *testing.T, network, from, to string) *client {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
	if network == "tcp" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := d.Dial(network, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t, &dns.Conn{Conn: conn}}
}

func (c *client) ask(name string, rrtype uint16) *dns.Msg {
	c.t.Helper()
	m, err := c.exchange(new(dns.Msg).SetQuestion(name, rrtype))
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// exchange is for any goroutine.
func (c *client) exchange(r *dns.Msg) (*dns.Msg, error) {
	m, _, err := (&dns.Client{Timeout: 10 * time.Second}).ExchangeWithConn(r, c.conn)
	return m, err
}

// lastA returns the address of the last record.
func lastA(m *dns.Msg) string {
	if n := len(m.Answer); n > 0 {
		if a, ok := m.Answer[n-1].(*dns.A); ok {
			return a.A.String()
		}
	}
	return fmt.Sprint(m.Rcode)
}

// asker is a client of a network, and the addresses that it gets for some names. Its exchange is for any goroutine.
type asker struct {
	name     string
	want     []string
	exchange func(r *dns.Msg) (*dns.Msg, error)
}

// eachItsOwn has clients ask for the same names, in turn and at once.
func eachItsOwn(t *testing.T, names []string, all []asker) {
	t.Helper()
	ask := func(a asker, i int) {
		i %= len(names)
		m, err := a.exchange(new(dns.Msg).SetQuestion(names[i], dns.TypeA))
		if err != nil {
			t.Errorf("%s: %v", a.name, err)
			return
		}
		if got := lastA(m); got != a.want[i] {
			t.Errorf("%s: %s is %s, want %s", a.name, names[i], got, a.want[i])
		}
		for _, rr := range m.Answer { // whatever comes first, nothing of the others is in it
			if a4, ok := rr.(*dns.A); ok && a4.A.String() != a.want[i] {
				t.Errorf("%s: %s: %v", a.name, names[i], m.Answer)
			}
		}
	}
	for i := range 20 * len(names) {
		for _, a := range all {
			ask(a, i)
		}
	}
	var wg sync.WaitGroup
	for _, a := range all {
		wg.Go(func() {
			for i := range 40 * len(names) {
				ask(a, i)
			}
		})
	}
	wg.Wait()
}

const twoNetworks = `.:0 {
    bind 127.0.0.1
    linknetwork one 127.0.0.1/32 {
        endpoints 10.200.0.0/24
    }
    linknetwork two 127.0.0.2/32 {
        endpoints 10.201.0.0/24
    }
    linkservice sql {
        names contoso.database.windows.net
        target 10.20.0.4:1433
        approve *
    }
    linkendpoint sql-one {
        service sql
        network one
        address 10.200.0.5
    }
    linkendpoint sql-two {
        service sql
        network two
        address 10.201.0.5
    }
    privatelink {
        PROPERTY
    }
    cache 30
    forward . UPSTREAM {
        prefer_udp
    }
}
`

// D13: two networks ask the same name in turn, through a cache; D14: nobody asks the upstream for it;
// D19: private names are answered while the upstream is dead.
func TestServer(t *testing.T) {
	up := startPublic(t)
	addr, _ := start(t, strings.NewReplacer("UPSTREAM", up.addr, "PROPERTY", "ttl 5").Replace(twoNetworks))
	one, two, stranger := dial(t, "127.0.0.1", addr), dial(t, "127.0.0.2", addr), dial(t, "127.0.0.3", addr)
	names := []string{"contoso.database.windows.net.", "contoso.privatelink.database.windows.net."}

	for i := range 1000 {
		name := names[i/2%2]
		if got := lastA(one.ask(name, dns.TypeA)); got != "10.200.0.5" {
			t.Fatalf("D13: turn %d: network one got %s", i, got)
		}
		if got := lastA(two.ask(name, dns.TypeA)); got != "10.201.0.5" {
			t.Fatalf("D13: turn %d: network two got %s", i, got)
		}
	}
	for _, name := range names {
		for _, rrtype := range []uint16{dns.TypeAAAA, dns.TypeHTTPS, dns.TypeTXT, dns.TypeSVCB, dns.TypeMX} {
			if m := one.ask(name, rrtype); m.Rcode != dns.RcodeSuccess || len(m.Ns) != 1 || !m.RecursionAvailable || !m.Authoritative {
				t.Errorf("D14: %s %s: %v", name, dns.TypeToString[rrtype], m)
			}
		}
	}
	if n := up.asked.Load(); n != 0 {
		t.Errorf("D14: the upstream was asked %d times", n)
	}

	// Who belongs to no network gets the public address, and the cache keeps it for others of no
	// network only.
	for _, name := range names {
		for range 2 {
			if got := lastA(stranger.ask(name, dns.TypeA)); got != "203.0.113.1" {
				t.Errorf("no network: %s is %s", name, got)
			}
		}
		if got := lastA(one.ask(name, dns.TypeA)); got != "10.200.0.5" {
			t.Errorf("after the cache has the public address: %s is %s", name, got)
		}
	}
	if n := up.asked.Load(); n != 2 {
		t.Errorf("the upstream was asked %d times, not once a name", n)
	}

	up.dead.Store(true)
	for _, name := range names {
		if got := lastA(one.ask(name, dns.TypeA)); got != "10.200.0.5" {
			t.Errorf("D19: %s is %s", name, got)
		}
	}
}

// D15 by way of the whole server.
func TestServerMiss(t *testing.T) {
	up := startPublic(t)
	addr, _ := start(t, strings.NewReplacer("UPSTREAM", up.addr, "PROPERTY", "miss nxdomain").Replace(twoNetworks))
	m := dial(t, "127.0.0.1", addr).ask("x.contoso.privatelink.database.windows.net.", dns.TypeA)
	if m.Rcode != dns.RcodeNameError || len(m.Ns) != 1 || m.Ns[0].Header().Ttl != 10 {
		t.Errorf("%v", m)
	}
	if n := up.asked.Load(); n != 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// A block with network answers all clients as that network; a zone of the Corefile is one for
// services too.
func TestServerNetworkAndZone(t *testing.T) {
	addr, _ := start(t, `.:0 {
    bind 127.0.0.1
    linknetwork corp 10.1.0.0/16 {
        endpoints 10.200.0.0/24
        by_listener
    }
    linkservice db {
        names db.corp.example
        target 10.20.0.4:5432
        approve corp
    }
    linkendpoint db-corp {
        service db
        network corp
    }
    privatelink {
        network corp
        zone pl.corp.example corp.example
        miss refuse pl.corp.example
    }
}
`)
	c := dial(t, "127.0.0.1", addr)
	m := c.ask("db.corp.example.", dns.TypeA)
	if len(m.Answer) != 2 || m.Answer[0].(*dns.CNAME).Target != "db.pl.corp.example." || m.RecursionAvailable {
		t.Errorf("%v", m)
	}
	if m := c.ask("x.pl.corp.example.", dns.TypeA); m.Rcode != dns.RcodeRefused {
		t.Errorf("%v", m)
	}
}

// A reload renames the network of a server block, or moves the block. The new servers begin before the state follows: until
// then they answer as the block before them, or not at all.
func TestServerNetworkRenamed(t *testing.T) {
	for name, tt := range map[string]struct{ bind, between string }{
		"renamed": {"127.0.0.1", "10.200.0.5"},
		"moved":   {"127.0.0.2", fmt.Sprint(dns.RcodeServerFailure)},
	} {
		t.Run(name, func(t *testing.T) { testNetworkRenamed(t, tt.bind, tt.between) })
	}
}

// testNetworkRenamed goes to a Corefile with another name of a network and another address, and wants an answer in between.
func testNetworkRenamed(t *testing.T, bind, between string) {
	up := startPublic(t)
	input := func(network string) caddy.Input {
		text := strings.NewReplacer("network one", "network "+network, "linknetwork one", "linknetwork "+network,
			"UPSTREAM", up.addr, "PROPERTY", "network "+network).Replace(twoNetworks)
		if network != "one" {
			text = strings.Replace(text, "bind 127.0.0.1", "bind "+bind, 1)
		}
		return caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(text)}
	}
	ask := func(inst *caddy.Instance) string {
		t.Helper()
		return lastA(dial(t, "127.0.0.1", firstServer(inst).LocalAddr().String()).ask("contoso.database.windows.net.", dns.TypeA))
	}
	old := startInstance(t, input("one"))
	if got := ask(old); got != "10.200.0.5" {
		t.Fatalf("before: %s", got)
	}
	looked := false
	old.OnShutdown = slices.Insert(old.OnShutdown, 0, func() error { // before the callback that commits
		for _, inst := range caddy.Instances() {
			if inst == old {
				continue
			}
			looked = true
			if got := ask(inst); got != between {
				t.Errorf("before the state follows: %s, want %s", got, between)
			}
		}
		return nil
	})
	renamed, err := old.Restart(input("uno"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, renamed) })
	if got := ask(renamed); got != "10.200.0.5" || !looked {
		t.Errorf("after: %s; asked in between: %v", got, looked)
	}
	if n := up.asked.Load(); n != 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// AXFR of zones of other plugins is theirs and the transfer plugin's, of those of other servers nobody's: they aren't asked.
func TestServerTransfersOfOthers(t *testing.T) {
	up := startPublic(t)
	zone := filepath.Join(t.TempDir(), "file.example.db")
	if err := os.WriteFile(zone, []byte("$ORIGIN file.example.\n@ 60 IN SOA ns.file.example. a.file.example. 1 60 60 60 60\n@ 60 IN NS ns\nns 60 IN A 192.0.2.7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, transfer, zone string
		records              int
	}{
		{"zone of another plugin", "transfer file.example {\nto *\n}", "file.example.", 4},
		{"the peer isn't named", "transfer file.example {\nto 192.0.2.8\n}", "file.example.", 0},
		{"no transfer", "", "file.example.", 0},
		{"zone of another server", "transfer file.example {\nto *\n}", "www.example.", 0},
		{"zone of another server, no transfer", "", "www.example.", 0},
		{"the root", "transfer . {\nto *\n}", ".", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.NewReplacer("UPSTREAM", up.addr, "PROPERTY", "", "cache 30", tt.transfer+"\nfile "+zone+" file.example").Replace(twoNetworks)
			inst := startInstance(t, caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(text)})
			defer func() { end(t, inst) }()
			at := firstServer(inst).Addr().String()
			for _, from := range []string{"127.0.0.1", "127.0.0.9"} { // of a network and of none
				tcp := &dns.Transfer{Conn: &dns.Conn{Conn: dialTCP(t, from, at)}}
				records := 0
				ch, err := tcp.In(new(dns.Msg).SetAxfr(tt.zone), "")
				if err != nil {
					t.Fatal(err)
				}
				for e := range ch {
					records += len(e.RR)
				}
				if records != tt.records {
					t.Errorf("%s gets %d records, want %d", from, records, tt.records)
				}
			}
		})
	}
	if n := up.asked.Load(); n != 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// dialTCP connects from an address of this host.
func dialTCP(t *testing.T, from, to string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// What a Corefile gets wrong is refused with the line.
func TestServerRefused(t *testing.T) {
	if err := coremain.Setup(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Setenv("STATE_DIRECTORY", dir)
	for _, tt := range []struct{ name, corefile, want string }{
		{"policy for no zone", ".:0 {\n bind 127.0.0.1\n privatelink {\n  miss refuse example.org\n }\n}\n",
			"Corefile:4 - privatelink: miss: example.org is no privatelink zone"},
		{"network of a block", strings.Replace(twoNetworks, "PROPERTY", "network onee", 1),
			"Corefile:25 - privatelink: network: onee is not declared; declared are one, two"},
		{"network of a block, none declared", ".:0 {\n bind 127.0.0.1\n privatelink {\n  network corp\n }\n}\n",
			"Corefile:4 - privatelink: network: corp is not declared; this Corefile declares no network"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(strings.Replace(tt.corefile, "UPSTREAM", "127.0.0.1:1", 1))}
			_, err := caddy.Start(in)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "*")); len(found) > 0 {
		t.Errorf("left behind: %v", found)
	}
}
