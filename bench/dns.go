//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// What is asked. The zone is one of those that Postern knows; every name has one address.
const (
	dnsNames    = 1000
	publicZone  = "database.windows.net"
	privateZone = "privatelink." + publicZone
)

// The figures of a DNS test.
const (
	keyQPS       = "qps"
	keyQueryCPU  = "cpu_per_query"
	keyLatency   = "latency"
	keyServerCPU = "server_cpu" // of the core that it has
	keyLost      = "lost"
)

var dnsColumns = []column{
	{key: keyQPS, head: "k queries/s", scale: 1e3, digits: 1, better: higher},
	{key: keyQueryCPU, head: "CPU us/query", scale: 1e-6, digits: 2, better: lower},
	{key: keyLatency, head: "average us", scale: 1e-6},
	{key: keyServerCPU, head: "core %", scale: 0.01},
}

// rateColumns are those of a test at a fixed rate.
var rateColumns = []column{
	{key: keyLatency, head: "average us", scale: 1e-6, digits: 1, better: lower},
	{key: keyP99, head: "p99 us", scale: 1e-6, better: lower},
	{key: keyQueryCPU, head: "CPU us/query", scale: 1e-6, digits: 2, better: lower},
	{key: keyServerCPU, head: "core %", scale: 0.01},
}

// dnsRate is the rate of the test at a fixed one, in queries a second.
const dnsRate = 20000

// dnsTest is a mix of queries.
type dnsTest struct {
	test
	public bool // the public names, whose answer is a CNAME and an address
	misses int  // every how many names is unknown; 0: none
	edns   bool // with EDNS and a client cookie
	burst  bool // the generator of bursts instead of dnsperf
	rate   int  // of the generator, in queries a second; 0: as fast as can be
	wide   bool // the server has two cores, which it shares with the load where there are no more
	part   bool // the server has a part of its core, so that it is the limit and not dnsperf
	many   bool // manyNames instead of dnsNames
	// servers that take part
	servers []string
}

func dnsTests() []dnsTest {
	servers := []string{serverEcho, serverFile, serverNSD, serverKnot, serverPosternChain, serverPostern}
	all := append(slices.Clone(servers), serverPosternOff, serverHosts, serverUnbound)
	of := func(name, title string) test {
		return test{name: name, title: title, baseline: serverFile, columns: dnsColumns, saturates: true}
	}
	rate := test{name: "dns-rate", title: fmt.Sprintf("DNS: %d queries/s", dnsRate), baseline: serverNSD, columns: rateColumns}
	wide := of("dns-two", "DNS: privatelink name, A, two cores")
	wideBurst := of("dns-two-burst", "DNS: privatelink name, A, two cores, in bursts")
	wideBurst.baseline, wideBurst.saturates = serverNSD, false
	many := of("dns-many", fmt.Sprintf("DNS: privatelink name, A, %d names, in bursts", manyNames))
	many.baseline = serverNSD
	manyServers := []string{serverNSD, serverKnot, serverPosternChain, serverPostern}
	wide.saturates = false // the load has no core of its own
	part := of("dns-part", "DNS: privatelink name, A, a quarter of a core")
	part.saturates = false // it has no core to fill
	return []dnsTest{
		{test: of("dns-private", "DNS: privatelink name, A"), servers: append(slices.Clone(all), serverPosternProxy)},
		// hosts knows no CNAME, and Unbound's local data follows none.
		{test: of("dns-public", "DNS: public name, CNAME and A"), public: true, servers: servers},
		{test: of("dns-misses", "DNS: privatelink name, A, every tenth unknown"), misses: 10, servers: all},
		{test: of("dns-edns", "DNS: public name, EDNS and a cookie"), public: true, edns: true, servers: servers},
		{test: of("dns-burst", "DNS: privatelink name, A, in bursts"), burst: true, servers: servers},
		{test: of("dns-burst-public", "DNS: public name, CNAME and A, in bursts"), burst: true, public: true, servers: servers},
		{test: of("dns-burst-edns", "DNS: public name, EDNS and a cookie, in bursts"), burst: true, public: true, edns: true, servers: servers},
		{test: of("dns-burst-misses", "DNS: privatelink name, A, every tenth unknown, in bursts"), burst: true, misses: 10, servers: servers},
		{test: many, burst: true, many: true, servers: manyServers},
		{test: wide, wide: true, servers: servers[1:]}, // the echo has one thread
		{test: wideBurst, wide: true, burst: true, servers: []string{serverNSD, serverKnot, serverPosternChain, serverPostern}},
		{test: part, part: true, servers: servers},
		{test: rate, burst: true, rate: dnsRate, servers: all},
	}
}

// label returns the first label of name number i.
func label(i int) string { return fmt.Sprintf("n%04d", i) }

// queries returns what dnsperf reads: one name and type a line, each name once.
func (t dnsTest) queries() string {
	var b strings.Builder
	for i := range t.names() {
		fmt.Fprintf(&b, "%s A\n", t.question(i))
	}
	return b.String()
}

// names is how many there are.
func (t dnsTest) names() int {
	if t.many {
		return manyNames
	}
	return dnsNames
}

func (t dnsTest) missing(i int) bool { return t.misses > 0 && i%t.misses == t.misses-1 }

func (t dnsTest) question(i int) string {
	switch {
	case t.missing(i):
		return "un" + label(i) + "." + privateZone
	case t.public:
		return label(i) + "." + publicZone
	default:
		return label(i) + "." + privateZone
	}
}

// runDNS measures every server in every test once per round, in turn.
func (b *bench) runDNS(round int) {
	for _, t := range dnsTests() {
		servers := b.dnsServers(t)
		for _, name := range rotated(t.servers, round) {
			s, ok := servers[name]
			if !ok || !b.wants(t.name, name) {
				continue
			}
			b.cell(round, t.name, name, func() (map[string]float64, float64, error) { return b.measureDNS(t, s) })
		}
	}
}

// measureDNS runs one server in one test.
func (b *bench) measureDNS(t dnsTest, s server) (_ map[string]float64, _ float64, err error) {
	on := *b
	if t.wide {
		on.serverCPUs = "" // all of them
	}
	p, stop, err := on.startPart(s, t.part)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	// Every answer is right before any is counted.
	check := func(i int) error { return b.checkAnswer(t, i) }
	if s.name == serverEcho {
		check = func(int) error { return b.checkEcho() }
	}
	if err := p.await(func() error { return check(0) }); err != nil {
		return nil, 0, err
	}
	for i := 0; i < t.names(); i += t.names() / dnsNames {
		if err := check(i); err != nil {
			return nil, 0, err
		}
	}
	data, err := config(p.dir, "queries", t.queries())
	if err != nil {
		return nil, 0, err
	}
	warm := max(1, b.seconds/3)
	if t.many {
		warm = manyWarm
	}
	if _, _, err := b.loadDNS(t, data, warm); err != nil {
		return nil, 0, err
	}
	w := observe(tree(p.cmd.Process.Pid), nil)
	report, spent, err := b.loadDNS(t, data, b.seconds)
	if err != nil {
		return nil, 0, err
	}
	u := w.end(spent)
	if report.completed == 0 {
		return nil, 0, errors.New("no query was answered")
	}
	values := map[string]float64{
		keyQPS:       report.qps,
		keyQueryCPU:  u.server.Seconds() / report.completed,
		keyServerCPU: u.server.Seconds() / report.seconds,
		keyLost:      report.lost,
	}
	if report.latency > 0 {
		values[keyLatency] = report.latency
	}
	if report.p99 > 0 {
		values[keyP99] = report.p99
	}
	return values, u.others, nil
}

// loadDNS has the load of a test asked, and returns what came of it and the CPU time that the load used.
func (b *bench) loadDNS(t dnsTest, data string, seconds float64) (dnsperfReport, time.Duration, error) {
	if t.burst {
		r, spent, err := b.burst(burstJob{To: b.net.dns, From: b.net.sources[0], Queries: data, EDNS: t.edns, Seconds: seconds, Rate: t.rate})
		return dnsperfReport{
			completed: float64(r.Completed), lost: float64(r.Lost), qps: r.QPS, latency: r.Average, seconds: r.Seconds, p99: r.P99,
		}, spent, err
	}
	out, spent, err := b.dnsperf(t, data, seconds)
	if err != nil {
		return dnsperfReport{}, 0, err
	}
	report, err := parseDnsperf(out)
	return report, spent, err
}

// checkAnswer asks for name number i and compares the answer with what the test expects.
func (b *bench) checkAnswer(t dnsTest, i int) error {
	q := t.question(i)
	m := new(dns.Msg).SetQuestion(dns.Fqdn(q), dns.TypeA)
	c := dns.Client{Timeout: 500 * time.Millisecond, Dialer: b.dialer("udp")}
	r, _, err := c.Exchange(m, b.net.dns.String())
	if err != nil {
		return fmt.Errorf("query %s: %w", q, err)
	}
	if t.missing(i) {
		// hosts has no SOA to say NXDOMAIN with, and answers SERVFAIL.
		if r.Rcode == dns.RcodeSuccess || len(r.Answer) > 0 {
			return fmt.Errorf("query %s: %s with %d records for an unknown name", q, dns.RcodeToString[r.Rcode], len(r.Answer))
		}
		return nil
	}
	want := 1
	if t.public {
		want = 2
	}
	if r.Rcode != dns.RcodeSuccess || len(r.Answer) != want {
		return fmt.Errorf("query %s: %s with %d records, not %d", q, dns.RcodeToString[r.Rcode], len(r.Answer), want)
	}
	a, ok := r.Answer[want-1].(*dns.A)
	if got, _ := netip.AddrFromSlice(addressOf(a)); !ok || got.Unmap() != b.net.addressOf(t, i) {
		return fmt.Errorf("query %s: answered %v, not %s", q, r.Answer[want-1], b.net.addressOf(t, i))
	}
	return nil
}

// checkEcho asks whether the echo answers.
func (b *bench) checkEcho() error {
	c := dns.Client{Timeout: 500 * time.Millisecond, Dialer: b.dialer("udp")}
	r, _, err := c.Exchange(new(dns.Msg).SetQuestion("echo.example.", dns.TypeA), b.net.dns.String())
	switch {
	case err != nil:
		return err
	case len(r.Answer) != 1:
		return fmt.Errorf("echo: %v", r)
	}
	return nil
}

func addressOf(a *dns.A) []byte {
	if a == nil {
		return nil
	}
	return a.A
}

// dnsperf runs the load: 100 queries outstanding over 20 sockets. It returns its report and the CPU
// time it used.
func (b *bench) dnsperf(t dnsTest, data string, seconds float64) (string, time.Duration, error) {
	args := b.pinned(b.loadCPUs, "dnsperf", "-s", b.net.dns.Addr().String(), "-p", strconv.Itoa(int(b.net.dns.Port())),
		"-a", b.net.sources[0].String(), "-d", data, "-l", strconv.FormatFloat(seconds, 'f', -1, 64),
		"-q", "100", "-c", "20", "-T", "1", "-t", "2")
	if t.edns {
		args = append(args, "-e", "-E", fmt.Sprintf("%d:%s", dns.EDNS0COOKIE, dnsCookie))
	}
	return b.generate(args)
}

// generate runs a load generator to its end. It returns what it printed and the CPU time it used.
func (b *bench) generate(args []string) (string, time.Duration, error) {
	cmd := exec.Command(args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", 0, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// dnsperfReport is what dnsperf says at its end.
type dnsperfReport struct {
	completed, lost, qps, latency, seconds float64
	p99                                    float64 // of our generator alone
}

var dnsperfLine = regexp.MustCompile(`(?m)^\s*(Queries completed|Queries lost|Queries per second|Average Latency \(s\)|Run time \(s\)):\s+([0-9.]+)`)

func parseDnsperf(out string) (dnsperfReport, error) {
	var r dnsperfReport
	fields := map[string]*float64{
		"Queries completed": &r.completed, "Queries lost": &r.lost, "Queries per second": &r.qps,
		"Average Latency (s)": &r.latency, "Run time (s)": &r.seconds,
	}
	for _, m := range dnsperfLine.FindAllStringSubmatch(out, -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return r, fmt.Errorf("dnsperf's report: %w", err)
		}
		*fields[m[1]] = v
		delete(fields, m[1])
	}
	for missing := range fields {
		return r, fmt.Errorf("dnsperf's report has no %q", missing)
	}
	return r, nil
}
