//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
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

// dnsTest is a mix of queries.
type dnsTest struct {
	test
	public bool // the public names, whose answer is a CNAME and an address
	misses int  // every how many names is unknown; 0: none
	// servers that take part
	servers []string
}

func dnsTests() []dnsTest {
	all := []string{serverFile, serverHosts, serverPostern}
	of := func(name, title string) test {
		return test{name: name, title: title, baseline: serverFile, columns: dnsColumns, saturates: true}
	}
	return []dnsTest{
		{test: of("dns-private", "DNS: privatelink name, A"), servers: append(all, serverPosternProxy)},
		// hosts knows no CNAME.
		{test: of("dns-public", "DNS: public name, CNAME and A"), public: true, servers: []string{serverFile, serverPostern}},
		{test: of("dns-misses", "DNS: privatelink name, A, every tenth unknown"), misses: 10, servers: all},
	}
}

// label returns the first label of name number i.
func label(i int) string { return fmt.Sprintf("n%04d", i) }

// queries returns what dnsperf reads: one name and type a line, each name once.
func (t dnsTest) queries() string {
	var b strings.Builder
	for i := range dnsNames {
		fmt.Fprintf(&b, "%s A\n", t.question(i))
	}
	return b.String()
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
	servers := b.dnsServers()
	for _, t := range dnsTests() {
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
func (b *bench) measureDNS(t dnsTest, s server) (map[string]float64, float64, error) {
	p, err := b.start(s)
	if err != nil {
		return nil, 0, err
	}
	defer p.stop()
	// Every answer is right before any is counted.
	if err := p.await(func() error { return b.checkAnswer(t, 0) }); err != nil {
		return nil, 0, err
	}
	for i := range dnsNames {
		if err := b.checkAnswer(t, i); err != nil {
			return nil, 0, err
		}
	}
	data, err := config(p.dir, "queries", t.queries())
	if err != nil {
		return nil, 0, err
	}
	if _, _, err := b.dnsperf(data, max(1, b.seconds/3)); err != nil {
		return nil, 0, err
	}
	w := observe(tree(p.cmd.Process.Pid), nil)
	out, spent, err := b.dnsperf(data, b.seconds)
	if err != nil {
		return nil, 0, err
	}
	u := w.end(spent)
	report, err := parseDnsperf(out)
	if err != nil {
		return nil, 0, err
	}
	if report.completed == 0 {
		return nil, 0, errors.New("dnsperf: no query was answered")
	}
	return map[string]float64{
		keyQPS:       report.qps,
		keyQueryCPU:  u.server.Seconds() / report.completed,
		keyLatency:   report.latency,
		keyServerCPU: u.server.Seconds() / report.seconds,
		keyLost:      report.lost,
	}, u.others, nil
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
	if got, _ := netip.AddrFromSlice(addressOf(a)); !ok || got.Unmap() != b.net.address(i) {
		return fmt.Errorf("query %s: answered %v, not %s", q, r.Answer[want-1], b.net.address(i))
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
func (b *bench) dnsperf(data string, seconds float64) (string, time.Duration, error) {
	args := b.pinned(b.loadCPUs, "dnsperf", "-s", b.net.dns.Addr().String(), "-p", strconv.Itoa(int(b.net.dns.Port())),
		"-a", b.net.sources[0].String(), "-d", data, "-l", strconv.FormatFloat(seconds, 'f', -1, 64),
		"-q", "100", "-c", "20", "-T", "1", "-t", "2")
	cmd := exec.Command(args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", 0, fmt.Errorf("dnsperf: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return string(out), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// dnsperfReport is what dnsperf says at its end.
type dnsperfReport struct {
	completed, lost, qps, latency, seconds float64
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

// dnsServers returns the servers of the DNS tests that can be run.
func (b *bench) dnsServers() map[string]server {
	servers := map[string]server{
		serverFile:  {serverFile, b.coreFile},
		serverHosts: {serverHosts, b.coreHosts},
	}
	if b.postern != "" {
		servers[serverPostern] = server{serverPostern, func(dir string) ([]string, error) { return b.posternDNS(dir, false) }}
		servers[serverPosternProxy] = server{serverPosternProxy, func(dir string) ([]string, error) { return b.posternDNS(dir, true) }}
	}
	return servers
}

// coreFile configures CoreDNS with one zone file per zone.
func (b *bench) coreFile(dir string) ([]string, error) {
	const head = "@ 3600 IN SOA ns.%[1]s. admin.%[1]s. 1 3600 1200 604800 10\n@ 3600 IN NS ns.%[1]s.\n"
	var private, public strings.Builder
	fmt.Fprintf(&private, "$TTL 10\n"+head, privateZone)
	fmt.Fprintf(&public, "$TTL 10\n"+head, publicZone)
	for i := range dnsNames {
		fmt.Fprintf(&private, "%s A %s\n", label(i), b.net.address(i))
		fmt.Fprintf(&public, "%[1]s CNAME %[1]s.privatelink\n%[1]s.privatelink A %[2]s\n", label(i), b.net.address(i))
	}
	if err := errors.Join(
		os.WriteFile(dir+"/private.zone", []byte(private.String()), 0o644),
		os.WriteFile(dir+"/public.zone", []byte(public.String()), 0o644),
	); err != nil {
		return nil, err
	}
	return b.corefile(b.coredns, dir, fmt.Sprintf("%s:%d {\n bind %s\n file %s/private.zone\n}\n%s:%d {\n bind %s\n file %s/public.zone\n}\n",
		privateZone, b.net.dns.Port(), b.net.dns.Addr(), dir, publicZone, b.net.dns.Port(), b.net.dns.Addr(), dir))
}

// coreHosts configures CoreDNS with a hosts file.
func (b *bench) coreHosts(dir string) ([]string, error) {
	var hosts strings.Builder
	for i := range dnsNames {
		fmt.Fprintf(&hosts, "%s %s.%s\n", b.net.address(i), label(i), privateZone)
	}
	if err := os.WriteFile(dir+"/hosts", []byte(hosts.String()), 0o644); err != nil {
		return nil, err
	}
	return b.corefile(b.coredns, dir, fmt.Sprintf("%s:%d {\n bind %s\n hosts %s/hosts\n}\n",
		privateZone, b.net.dns.Port(), b.net.dns.Addr(), dir))
}

func (b *bench) corefile(program, dir, text string) ([]string, error) {
	path, err := config(dir, "Corefile", text)
	return []string{program, "-conf", path}, err
}
