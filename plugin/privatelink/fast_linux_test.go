package privatelink

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/coredns/coredns/plugin/metrics/vars"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/privatelink/fastpath"
)

// fastServer is a handler behind two addresses: by the plugins alone, and with a fast path.
type fastServer struct {
	*server
	now         atomic.Pointer[link.Snapshot]
	mu          sync.Mutex // guards the maps and the ages of server
	fast        *fast
	turn        atomic.Uint64
	slow, quick string // addresses
}

// publicUpstream is the next plugin of a fastServer.
type publicUpstream struct{}

func (publicUpstream) Name() string { return "upstream" }

func (publicUpstream) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg).SetReply(r)
	m.Answer = records(r.Question[0].Name + " 300 IN A 203.0.113.1")
	return m.Rcode, w.WriteMsg(m)
}

// The clients of these tests, in the networks corp, lab and none.
const (
	corpLoop  = "127.1.0.9"
	labLoop   = "127.2.0.9"
	otherLoop = "127.3.0.9"
)

// loops is the world of these tests, whose clients are on the loopback.
func loops(t testing.TB) *link.Snapshot {
	t.Helper()
	fallback := service("fallback", "fallback.database.windows.net")
	fallback.FallbackPublic = true
	return apply(t, link.Empty(),
		link.PutNetwork{Network: link.Network{ID: "corp", Prefixes: prefixes("127.1.0.0/16"), Pools: prefixes("10.200.0.0/24", "fd00:200::/64"),
			Sites: sites(t, "paris=127.1.0.0/24", "paris=10.200.0.96/27", "lyon=127.1.1.0/24", "lyon=10.200.0.128/25")}},
		link.PutNetwork{Network: link.Network{ID: "lab", Prefixes: prefixes("127.2.0.0/16"), Pools: prefixes("10.201.0.0/24")}},
		link.PutService{Service: service("sql", "contoso.database.windows.net")}, to("sql", "corp", "10.200.0.5"), to("sql", "lab", "10.201.0.5"),
		link.PutService{Service: service("vault", "kv.vault.azure.net")},
		to("vault", "corp", "10.200.0.6"), to("vault", "corp", "10.200.0.66"), to("vault", "corp", "fd00:200::6"),
		link.PutService{Service: service("twice", "twice.database.windows.net")},
		to("twice", "corp", "10.200.0.100"), to("twice", "corp", "10.200.0.130"), to("twice", "corp", "10.200.0.131"),
		link.PutService{Service: service("plain", "db.example.com")}, to("plain", "corp", "10.200.0.7"),
		link.PutService{Service: service("apps", "*.azurewebsites.net")}, to("apps", "corp", "10.200.0.8"),
		link.PutService{Service: service("bus", "a.b.servicebus.windows.net")}, to("bus", "corp", "10.200.0.10"),
		link.PutService{Service: service("down", "down.database.windows.net")}, to("down", "corp", "10.200.0.16"),
		link.PutService{Service: fallback}, to("fallback", "corp", "10.200.0.17"),
		link.PutService{Service: service("unproven", "unproven.database.windows.net")}, to("unproven", "corp", "10.200.0.15"),
	)
}

func startFast(t testing.TB, s *link.Snapshot) *fastServer {
	t.Helper()
	return startFastBefore(t, s, publicUpstream{}, nil)
}

// startFastBefore starts a server whose plugin behind privatelink is next. If there is a reason, no answer is given again.
func startFastBefore(t testing.TB, s *link.Snapshot, next plugin.Handler, why *reason) *fastServer {
	t.Helper()
	srv := &fastServer{server: newServer(t, s)}
	srv.now.Store(s)
	down, unproven := srv.down, srv.unproven
	p := srv.Privatelink
	p.Next, p.Snapshot, p.Turn = next, srv.now.Load, srv.turn.Load
	is := func(of map[link.ID]bool, id link.ID) bool {
		srv.mu.Lock()
		defer srv.mu.Unlock()
		return of[id]
	}
	p.Published = func(id link.ID) bool { return !is(unproven, id) }
	p.Healthy = func(id link.ID) bool { return !is(unproven, id) && !is(down, id) }
	p.HealthyAt = func(id link.ID, site string) bool { return p.Healthy(id) && !is(down, id+"@"+link.ID(site)) }
	p.Stale = func(strict bool) string {
		srv.mu.Lock()
		defer srv.mu.Unlock()
		if strict {
			return srv.stale[1]
		}
		return srv.stale[0]
	}
	p.miss, p.missIn["privatelink.vaultcore.azure.net"] = missNXDomain, missRefuse
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(freeport.Get(t)))
	config := &dnsserver.Config{Zone: ".", Transport: "dns", Port: fmt.Sprint(at.Port()), ListenHosts: []string{"127.0.0.1"}}
	m := metrics.New("127.0.0.1:0")
	m.AddZone(".")
	config.AddPlugin(func(next plugin.Handler) plugin.Handler { m.Next = next; return m })
	config.AddPlugin(func(plugin.Handler) plugin.Handler { return p })
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv.slow, srv.quick = conn.LocalAddr().String(), at.String()
	chain, err := dnsserver.NewServer("dns://"+srv.slow, []*dnsserver.Config{config})
	if err != nil {
		t.Fatal(err)
	}
	if srv.fast, err = newFast(p, config, "127.0.0.1", at, why); err != nil { // before anything is served, as at a start
		t.Fatal(err)
	}
	srv.fast.meter()
	done := make(chan error, 1)
	go func() { done <- chain.ServePacket(conn) }()
	g, err := fastpath.Open(at, srv.fast.target)
	if err != nil {
		t.Fatal(err)
	}
	srv.raw(t, corpLoop, srv.slow, packed(t, "ready.example. A", nil)) // the chain's server has begun
	t.Cleanup(func() {
		g.Close(time.Second)
		_ = chain.Stop()
		<-done
	})
	return srv
}

// raw sends a query and returns the answer to it, nil where none comes.
func (s *fastServer) raw(t testing.TB, from, to string, b []byte) []byte {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatalf("%s to %s: %x: %v", from, to, b, err)
	}
	return buf[:n]
}

func (s *fastServer) answered() float64 { return testutil.ToFloat64(s.fast.target.Answered) }

// known asks until the answer comes from the table, if that has any, and returns it.
func (s *fastServer) known(t testing.TB, from string, b []byte) []byte {
	t.Helper()
	if s.fast.why != nil {
		return s.raw(t, from, s.quick, b)
	}
	for range 100 {
		before := s.answered()
		got := s.raw(t, from, s.quick, b)
		for range 100 { // it is counted when it is sent
			if s.answered() > before {
				return got
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
	t.Fatalf("%x never comes from the table", b)
	return nil
}

// Shaped returns a question in all ways in which the table may have it, for tests of whole servers; apart from them those that take no place of
// others there.
func Shaped(t testing.TB, ask string) (usual, odd [][]byte) {
	for _, shape := range shapes {
		switch {
		case !shape.known:
		case shape.name == "EDNS 777":
			odd = append(odd, packed(t, ask, shape.change))
		default:
			usual = append(usual, packed(t, ask, shape.change))
		}
	}
	return usual, odd
}

// FastAnswered returns how many queries to a server were answered from the table, for tests of whole servers.
func FastAnswered(t testing.TB, server string) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(fastAnswers)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if m.Label[0].GetValue() == server {
				return m.Counter.GetValue()
			}
		}
	}
	return 0
}

// FastDropped returns how many queries to a server were dropped before the plugins, for tests of whole servers.
func FastDropped(server string) float64 {
	return testutil.ToFloat64(fastDropped.WithLabelValues(server))
}

// fromBoth makes a test with a fast path that gives answers again, and with one whose plugins answer every query.
func fromBoth(t *testing.T, test func(t *testing.T, srv *fastServer)) {
	t.Helper()
	for name, why := range map[string]*reason{"table": nil, "plugins": {word: "plugins", sockets: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, startFastBefore(t, loops(t), publicUpstream{}, why))
		})
	}
}

// TestFastpathAnswers: whatever is asked, in whatever way, the fast path answers byte for byte as the plugins do, the first time
// and again; and what is asked plainly comes from the table (D07, D08, D09, D14, D15).
func TestFastpathAnswers(t *testing.T) {
	t.Parallel()
	fromBoth(t, testFastpathAnswers)
}

func testFastpathAnswers(t *testing.T, srv *fastServer) {
	t.Helper()
	names := []string{
		"contoso.database.windows.net.", "contoso.privatelink.database.windows.net.", "privatelink.database.windows.net.",
		"nobody.privatelink.database.windows.net.", "kv.vault.azure.net.", "kv.privatelink.vaultcore.azure.net.", "nobody.privatelink.vaultcore.azure.net.",
		"db.example.com.", "x.azurewebsites.net.", "x.privatelink.azurewebsites.net.", "b.privatelink.servicebus.windows.net.",
		"twice.database.windows.net.", "down.database.windows.net.", "fallback.database.windows.net.", "unproven.database.windows.net.", "5.0.200.10.in-addr.arpa.", "www.example.net.", ".",
	}
	types := []string{"A", "AAAA", "HTTPS", "SOA", "NS", "CNAME", "TXT", "DS", "ANY", "PTR", "AXFR", "NID"}
	for _, shape := range shapes {
		for i, from := range []string{corpLoop, labLoop, otherLoop} {
			for j, name := range names {
				for k, rrtype := range types {
					if i > 0 && (j+k)%7 != 0 || shape.change != nil && (j+k)%5 != 0 {
						continue // enough of them
					}
					b := packed(t, name+" "+rrtype, shape.change)
					want := srv.raw(t, from, srv.slow, b)
					for again := range 3 {
						b[0], b[1], want[0], want[1] = byte(again), byte(j), byte(again), byte(j)
						if got := srv.raw(t, from, srv.quick, b); !bytes.Equal(got, want) {
							t.Fatalf("%s: %s %s from %s:\ngot\n%x\nwant\n%x", shape.name, name, rrtype, from, got, want)
						}
					}
				}
			}
		}
		b := packed(t, "contoso.database.windows.net A", shape.change)
		if shape.known {
			srv.known(t, corpLoop, b)
			srv.known(t, corpLoop, packed(t, "www.privatelink.database.windows.net A", shape.change)) // NXDOMAIN
			srv.known(t, corpLoop, packed(t, "contoso.database.windows.net HTTPS", shape.change))     // no data
		}
	}
	if srv.fast.why != nil && srv.answered() != 0 {
		t.Errorf("%v answers were given again", srv.answered())
	}
}

// TestFastpathFuzzed: queries with bytes changed, cut and added are answered as by the plugins, or by neither (D21).
func TestFastpathFuzzed(t *testing.T) {
	t.Parallel()
	fromBoth(t, testFastpathFuzzed)
}

func testFastpathFuzzed(t *testing.T, srv *fastServer) {
	t.Helper()
	var bases [][]byte
	for _, shape := range shapes {
		b := packed(t, "contoso.database.windows.net A", shape.change)
		bases = append(bases, b)
		if shape.known {
			srv.known(t, corpLoop, b)
		}
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	slow, quick := open(t, srv.slow), open(t, srv.quick)
	for i := range 1200 {
		b := bytes.Clone(bases[r.IntN(len(bases))])
		for range 1 + r.IntN(2) {
			switch r.IntN(6) {
			case 0:
				b = b[:r.IntN(len(b))]
			case 1:
				b = append(b, make([]byte, r.IntN(600))...)
			default:
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			}
			if len(b) < 3 {
				break
			}
		}
		if len(b) < 2 {
			continue
		}
		binary.BigEndian.PutUint16(b, uint16(i))
		if got, want := quick.ask(b, bases[0]), slow.ask(b, bases[0]); !bytes.Equal(got, want) {
			t.Fatalf("seed %d: %x:\ngot\n%x\nwant\n%x", seed, b, got, want)
		}
	}
}

// line is a client that can tell silence from an answer without a wait.
type line struct {
	t    *testing.T
	conn net.Conn
}

func open(t *testing.T, to string) line {
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(corpLoop)}}
	conn, err := d.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return line{t, conn}
}

// ask returns the answer to b, nil for silence: if it is one of those that nobody answers, and no answer to it comes shortly after
// that to a good query sent behind it.
func (l line) ask(b, good []byte) (answer []byte) {
	l.t.Helper()
	good = bytes.Clone(good)
	binary.BigEndian.PutUint16(good, binary.BigEndian.Uint16(b)^0xffff)
	for _, q := range [][]byte{b, good} {
		if _, err := l.conn.Write(q); err != nil {
			l.t.Fatal(err)
		}
	}
	buf := make([]byte, 4096)
	wait := 10 * time.Second
	for seen := false; ; {
		if err := l.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			l.t.Fatal(err)
		}
		n, err := l.conn.Read(buf)
		switch {
		case err != nil && seen:
			return nil
		case err != nil:
			l.t.Fatalf("%x: no answer to the good query either: %v", b, err)
		case bytes.Equal(buf[:2], b[:2]):
			answer = bytes.Clone(buf[:n])
			if seen {
				return answer
			}
		default:
			seen = true
			if len(b) < 12 || b[2]&0x80 != 0 {
				wait = 2 * time.Millisecond
			}
			if answer != nil {
				return answer
			}
		}
	}
}

// addressesOf returns the A records of an answer.
func addressesOf(t testing.TB, b []byte) (all []string) {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatal(err)
	}
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			all = append(all, a.A.String())
		}
	}
	return all
}

// TestFastpathD13: each network gets its own answer, 1,000 times alternating.
func TestFastpathD13(t *testing.T) {
	t.Parallel()
	srv := startFast(t, loops(t))
	b := packed(t, "contoso.database.windows.net A", nil)
	for range 1000 {
		for from, want := range map[string]string{corpLoop: "[10.200.0.5]", labLoop: "[10.201.0.5]", otherLoop: "[203.0.113.1]"} {
			if got := fmt.Sprint(addressesOf(t, srv.raw(t, from, srv.quick, b))); got != want {
				t.Fatalf("%s got %s, want %s", from, got, want)
			}
		}
	}
}

// TestFastpathFollows: no answer from the table outlives what it was made from, for a single query (D16, D22, D23).
func TestFastpathFollows(t *testing.T) {
	t.Parallel()
	srv := startFast(t, loops(t))
	set := func(f func()) func() {
		return func() {
			srv.mu.Lock()
			defer srv.mu.Unlock()
			f()
		}
	}
	change := func(changes ...link.Change) func() {
		return func() { srv.now.Store(apply(t, srv.now.Load(), changes...)) }
	}
	connection := linkID(srv.now.Load(), "sql-10.200.0.5")
	const sql, fallback = "contoso.database.windows.net A", "fallback.database.windows.net A"
	for _, step := range []struct {
		name, ask string
		do        func()
		want      string
		kept      bool
	}{
		{"in the beginning", sql, func() {}, "[10.200.0.5]", true},
		{"D16 suspended", sql, change(link.Suspend{Endpoint: "sql-10.200.0.5", LinkID: connection}), "[203.0.113.1]", false},
		{"resumed", sql, change(link.Resume{Endpoint: "sql-10.200.0.5", LinkID: connection}), "[10.200.0.5]", true},
		{"late for services that are strict", sql, set(func() { srv.stale[1] = "late" }), "[10.200.0.5]", false},
		{"stale for all", sql, set(func() { srv.stale = [2]string{"old", "old"} }), "[]", false},
		{"fresh again", sql, set(func() { srv.stale = [2]string{} }), "[10.200.0.5]", true},
		{"D22 not published", "unproven.database.windows.net A", func() {}, "[203.0.113.1]", false},
		{"D22 published", "unproven.database.windows.net A", set(func() { delete(srv.unproven, "unproven") }), "[10.200.0.15]", true},
		{"not published any more", "unproven.database.windows.net A", set(func() { srv.unproven["unproven"] = true }), "[203.0.113.1]", false},
		{"D23 all targets down", "down.database.windows.net A", func() {}, "[10.200.0.16]", true},
		{"D23 down with fallback", fallback, func() {}, "[203.0.113.1]", false},
		{"up with fallback", fallback, set(func() { delete(srv.down, "fallback") }), "[10.200.0.17]", true},
		{"D23 down again", fallback, set(func() { srv.down["fallback"] = true }), "[203.0.113.1]", false},
		{"D16 rejected", sql, change(link.Decide{Endpoint: "sql-10.200.0.5", LinkID: connection, State: link.Rejected}), "[203.0.113.1]", false},
		{"D16 deleted", sql, change(link.DeleteEndpoint{ID: "sql-10.200.0.5"}), "[203.0.113.1]", false},
		{"no state", sql, func() { srv.now.Store(nil) }, "[]", false},
	} {
		step.do()
		b := packed(t, step.ask, nil)
		if got := fmt.Sprint(addressesOf(t, srv.raw(t, corpLoop, srv.quick, b))); got != step.want {
			t.Fatalf("%s: got %s, want %s", step.name, got, step.want)
		}
		if step.kept {
			if got := fmt.Sprint(addressesOf(t, srv.known(t, corpLoop, b))); got != step.want {
				t.Fatalf("%s: got %s from the table, want %s", step.name, got, step.want)
			}
		}
	}
}

// TestFastpathCounts: what comes from the table is counted as the plugins count it.
func TestFastpathCounts(t *testing.T) {
	t.Parallel()
	srv := startFast(t, loops(t))
	for _, ask := range []string{"contoso.database.windows.net A", "contoso.database.windows.net NID", "nobody.privatelink.database.windows.net AAAA"} {
		for _, shape := range shapes[:6] {
			if !shape.known {
				continue
			}
			b := packed(t, ask, shape.change)
			srv.known(t, corpLoop, b)
			quickBefore, slowBefore := srv.counted(t, srv.quick), srv.counted(t, srv.slow)
			srv.known(t, corpLoop, b)
			srv.raw(t, corpLoop, srv.slow, b)
			deadline := time.Now().Add(10 * time.Second)
			for {
				quick, slow := diff(quickBefore, srv.counted(t, srv.quick)), diff(slowBefore, srv.counted(t, srv.slow))
				if quick == slow && quick != "" {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s, %s: counted\n%s\nwant\n%s", ask, shape.name, quick, slow)
				}
				time.Sleep(time.Millisecond)
			}
		}
	}
}

// counted returns all counters and histograms of a server that these tests look at, by labels; those of time without their sum.
func (s *fastServer) counted(t testing.TB, addr string) map[string]float64 {
	t.Helper()
	all := make(map[string]float64)
	for _, c := range []prometheus.Collector{vars.RequestCount, vars.RequestDo, vars.ResponseRcode, vars.RequestSize, vars.ResponseSize, vars.RequestDuration,
		s.stats.answers, s.stats.misses} {
		r := prometheus.NewRegistry()
		r.MustRegister(c)
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.Metric {
				labels := ""
				of := false
				for _, l := range m.Label {
					of = of || l.GetName() == "server" && l.GetValue() == "dns://"+addr
					if l.GetName() != "server" {
						labels += " " + l.GetName() + "=" + l.GetValue()
					}
				}
				if !of {
					continue
				}
				if h := m.Histogram; h != nil {
					all[f.GetName()+labels+" count"] = float64(h.GetSampleCount())
					if !strings.Contains(f.GetName(), "duration") {
						all[f.GetName()+labels+" sum"] = h.GetSampleSum()
					}
					continue
				}
				all[f.GetName()+labels] = m.Counter.GetValue()
			}
		}
	}
	return all
}

// diff says by how much counters have grown.
func diff(before, after map[string]float64) string {
	var lines []string
	for k, v := range after {
		if v != before[k] {
			lines = append(lines, fmt.Sprintf("%s +%v", k, v-before[k]))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
