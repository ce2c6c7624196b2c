package integration

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// recipe is a resolver of docs/resolvers.md: how the text there becomes a configuration, and what serves it. In text and base, NODE is
// the address of the node, HERE that of the resolver, and DIR a directory of its own.
type recipe struct {
	heading string
	port    int
	file    string
	// wrap puts the text of the document, as it stands there, into a configuration that asks 203.0.113.53 for all else, validates below a
	// trust anchor for net. (dnsmasq: the root) that nobody has a key to, and so rejects whatever the text doesn't exempt.
	wrap func(text string) string
	argv []string
	// validates: CoreDNS doesn't. merges: dnsmasq answers all who ask for a name at the same time in the spelling of one of them.
	validates, merges bool
}

// A digest that no key has.
const foreignDigest = "49AAC11D7B6F6446702E54A1607371607A1A41855200FD2CE1CDDE32F24E8FB5"

var recipes = []recipe{
	{"Unbound", 5301, "unbound.conf", func(text string) string {
		return `server:
    interface: HERE@5301
    access-control: 0.0.0.0/0 allow
    module-config: "validator iterator"
    trust-anchor: "net. DS 12345 8 2 ` + foreignDigest + `"
    use-caps-for-id: yes
    qname-minimisation: yes
    qname-minimisation-strict: yes
    private-address: 10.0.0.0/8
    username: ""
    chroot: ""
    directory: "DIR"
    pidfile: ""
    use-syslog: no
    num-threads: 1
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-addr: 203.0.113.53
` + text
	}, []string{"unbound", "-d", "-p", "-c", "DIR/unbound.conf"}, true, false},
	{"BIND", 5302, "named.conf", func(text string) string {
		return strings.Replace(text, "options {", `options {
    directory "DIR";
    listen-on port 5302 { HERE; };
    listen-on-v6 { none; };
    allow-query { any; };
    recursion yes;
    dnssec-validation yes;
    qname-minimization strict;
    require-server-cookie no;
    send-cookie yes;
    empty-zones-enable no;
    pid-file none;
    session-keyfile none;
`, 1) + `
trust-anchors { net. static-ds 12345 8 2 "` + foreignDigest + `"; };
controls { };
zone "." {
    type forward;
    forward only;
    forwarders { 203.0.113.53; };
};
`
	}, []string{"named", "-g", "-c", "DIR/named.conf"}, true, false},
	{"dnsmasq", 5303, "dnsmasq.conf", func(text string) string {
		return `listen-address=HERE
bind-interfaces
port=5303
no-resolv
no-hosts
user=root
pid-file=
stop-dns-rebind
dnssec
trust-anchor=.,12345,8,2,` + foreignDigest + `
server=203.0.113.53
server=/example.com/203.0.113.53
rebind-domain-ok=/example.com/
` + text
	}, []string{"dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file=DIR/dnsmasq.conf"}, true, true},
	{"Knot Resolver", 5304, "kresd.conf", func(text string) string {
		return `net.listen('HERE', 5304, { kind = 'dns' })
cache.open(16 * MB, 'lmdb://DIR/cache')
trust_anchors.remove('.')
trust_anchors.add('net. 3600 IN DS 12345 8 2 ` + foreignDigest + `')
` + text + `policy.add(policy.all(policy.FORWARD('203.0.113.53')))
`
	}, []string{"kresd", "-n", "-c", "DIR/kresd.conf", "DIR"}, true, false},
	{"CoreDNS, in Kubernetes too", 53, "Corefile.resolver", func(text string) string {
		return text + "\n.:53 {\n    cache 30\n    forward . 203.0.113.53\n}\n"
	}, []string{"COREDNS", "DIR/Corefile.resolver"}, false, false},
	{"systemd-resolved", 5305, "eth0.network", func(text string) string {
		return `[Match]
Name=eth0

[Network]
KeepConfiguration=yes
LinkLocalAddressing=no
IPv6AcceptRA=no

` + text
	}, []string{"unshare", "-m", "--propagation", "private", "sh", "-ec", resolvedScript}, true, false},
}

// unpackedResolved is where .ci/deps puts systemd-resolved: its package, installed, makes itself the resolver of the machine.
const unpackedResolved = "/usr/local/lib/postern-deps/systemd-resolved"

// resolvedScript starts systemd-resolved, with the systemd-networkd that reads its recipe, below a /run of their own, without D-Bus and as the user
// of networkd, which each Debian has. A /sys that is read-only says that there is no udev to wait for.
const resolvedScript = `
mount -t tmpfs tmpfs /run
mount -o remount,bind,ro /sys
mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp /run/systemd/resolve /run/systemd/resolved.conf.d
chown -R systemd-network:systemd-network /run/systemd/netif /run/systemd/resolve
cp DIR/eth0.network /run/systemd/network/
mkdir -p /run/dnssec-trust-anchors.d
echo database.windows.net > /run/dnssec-trust-anchors.d/postern.negative
echo example.com > /run/dnssec-trust-anchors.d/test.negative
echo 'net. IN DS 12345 8 2 ` + foreignDigest + `' > /run/dnssec-trust-anchors.d/test.positive
cat > /run/systemd/resolved.conf.d/test.conf << END
[Resolve]
DNS=203.0.113.53
FallbackDNS=
DNSSEC=yes
LLMNR=no
MulticastDNS=no
DNSStubListener=no
DNSStubListenerExtra=HERE:5305
END
for resolved in /lib/systemd/systemd-resolved ` + unpackedResolved + `; do
	[ ! -x "$resolved" ] || break
done
/lib/systemd/systemd-networkd &
caps=+setpcap,+net_raw,+net_bind_service
exec setpriv --reuid systemd-network --regid systemd-network --clear-groups --inh-caps $caps --ambient-caps $caps "$resolved"
`

// recipeText returns the first block of a section of docs/resolvers.md.
func recipeText(t *testing.T, heading string) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/resolvers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, text, begun := strings.Cut(section, "\n```\n")
	text, _, ended := strings.Cut(text, "\n```")
	if !ok || !begun || !ended || !strings.Contains(text, "database.windows.net") || !strings.Contains(text, "10.1.0.1") {
		t.Fatalf("docs/resolvers.md has no recipe for %s", heading)
	}
	return text + "\n"
}

// recipeNode answers one name with another address in each network, for a second.
const recipeNode = `.:53 {
    linknetwork corp 10.1.0.0/16 {
        endpoints 10.200.0.0/24
    }
    linknetwork branch 10.2.0.0/16 {
        endpoints 10.201.0.0/24
    }
    linkservice sql {
        names   contoso.database.windows.net
        target  10.20.0.4:1433
        approve corp branch
    }
    linkendpoint sql-corp {
        service sql
        network corp
        address 10.200.0.5
    }
    linkendpoint sql-branch {
        service sql
        network branch
        address 10.201.0.5
    }
    privatelink {
        ttl 1
    }
    cache 30
    forward . 203.0.113.53
    errors
}
`

// resolving is a recipe at work on one network.
type resolving struct {
	recipe
	host *host
	addr string
}

// ask asks a question and returns the addresses of the answer.
func (r resolving) ask(name string, qtype uint16) (*dns.Msg, []string, error) {
	var conn net.Conn
	if err := r.host.enter(func() (err error) { conn, err = net.Dial("udp", r.addr); return err }); err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	client := dns.Client{Timeout: 10 * time.Second}
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(1232, false)
	m, _, err := client.ExchangeWithConn(q, &dns.Conn{Conn: conn})
	if err != nil {
		return nil, nil, fmt.Errorf("%s on %s: %s: %w", r.heading, r.host.name, name, err)
	}
	var addrs []string
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			addrs = append(addrs, a.A.String())
		}
	}
	return m, addrs, nil
}

// is asks for an address, which must be one of those wanted.
func (r resolving) is(name string, want ...string) error {
	m, addrs, err := r.ask(name, dns.TypeA)
	if err != nil {
		return err
	}
	for _, w := range want {
		if len(addrs) == 1 && addrs[0] == w {
			return nil
		}
	}
	return fmt.Errorf("%s on %s: %s: %s %v, want %v", r.heading, r.host.name, name, dns.RcodeToString[m.Rcode], addrs, want)
}

// TestRecipes runs what docs/resolvers.md says with the resolvers that it says it for, each on two networks: private answers come
// through validation, two networks asked at full rate in random order never see each other's (D13), no type lets a public hint through (D14), and a
// change is seen without a lost or wrong answer.
func TestRecipes(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	upstream := fmt.Sprintf(upstreamConf, `    local-data: "contoso.database.windows.net. A 203.0.113.80"
    local-data: "contoso.database.windows.net. AAAA 2001:db8::80"
    local-data: "other.database.windows.net. A 203.0.113.82"
    local-data: "www.example.com. A 203.0.113.81"
    local-data: "www.example.net. A 203.0.113.83"
`)
	more, rushed := rush(20)
	for _, name := range rushed.names {
		upstream = strings.Replace(upstream, "remote-control:", fmt.Sprintf("    local-data: \"%s A %s\"\nremote-control:", name, publicAddress), 1)
	}
	g.daemon("upstream", "upstream", "203.0.113.53:53", "unbound", "-d", "-p", "-c", g.file("upstream.conf", upstream))
	corefile := strings.Replace(recipeNode, "    privatelink {", more+"    privatelink {", 1)
	node := g.postern(corefile, "10.1.0.1:53")
	corp, branch := g.startRecipes("resolver", "10.1.0.53", "10.1.0.1"), g.startRecipes("branch-a", "10.2.0.10", "10.2.0.1")

	const name, private = "contoso.database.windows.net", "contoso.privatelink.database.windows.net"
	var wait sync.WaitGroup
	for _, r := range append(slices.Clone(corp), branch...) {
		wait.Go(func() { r.check(t, name, private) })
	}
	wait.Wait()
	if t.Failed() {
		return
	}
	t.Run("D13", func(t *testing.T) {
		for i, r := range corp { // each at its own rate, which the others would lower
			rushed.inRush(t, r.heading, [2]oneOf{{host: r.host, addr: r.addr, merges: r.merges}, {host: branch[i].host, addr: branch[i].addr, merges: r.merges}})
		}
	})
	g.changeUnderLoad(node, corefile, corp, branch, name)
}

// check asks a resolver for what it must know, and for what it must reject or not have.
func (r resolving) check(t *testing.T, name, private string) {
	want := map[string]string{"resolver": "10.200.0.5", "branch-a": "10.201.0.5"}[r.host.name]
	for _, ask := range [][2]string{{name, want}, {private, want}, {"other.database.windows.net", "203.0.113.82"}, {"www.example.com", "203.0.113.81"}} {
		if err := r.is(ask[0], ask[1]); err != nil {
			t.Error(err)
		}
	}
	// Validation is on: what the text doesn't exempt is rejected.
	if m, _, err := r.ask("www.example.net", dns.TypeA); r.validates != (err == nil && m.Rcode == dns.RcodeServerFailure) {
		t.Errorf("%s on %s: www.example.net: %v\n%v", r.heading, r.host.name, err, m)
	}
	for _, qtype := range []uint16{dns.TypeAAAA, dns.TypeHTTPS} {
		m, _, err := r.ask(name, qtype)
		if err != nil || m.Rcode != dns.RcodeSuccess || strings.Contains(m.String(), "2001:db8") {
			t.Errorf("%s on %s: D14: %s: %v\n%v", r.heading, r.host.name, dns.TypeToString[qtype], err, m)
		}
	}
}

// startRecipes starts all resolvers on a host.
func (g *ground) startRecipes(hostName, here, nodeAddr string) (all []resolving) {
	self, err := os.Executable()
	if err != nil {
		g.t.Fatal(err)
	}
	for i, r := range recipes {
		dir := fmt.Sprintf("%s/%s-%d", g.dir, hostName, i)
		if err := os.MkdirAll(dir+"/cache", 0o755); err != nil {
			g.t.Fatal(err)
		}
		fill := strings.NewReplacer("10.1.0.1", nodeAddr, "HERE", here, "DIR", dir, "COREDNS", self)
		text := fill.Replace(r.wrap(recipeText(g.t, r.heading)))
		if err := os.WriteFile(dir+"/"+r.file, []byte(text), 0o644); err != nil {
			g.t.Fatal(err)
		}
		argv := make([]string, len(r.argv))
		for j, a := range r.argv {
			argv[j] = fill.Replace(a)
		}
		if r.argv[0] == "COREDNS" {
			argv = append([]string{"env", coreDNSVariable + "=" + argv[1]}, argv[0])
		}
		addr := fmt.Sprintf("%s:%d", here, r.port)
		g.daemon(r.heading+" on "+hostName, hostName, addr, argv...)
		all = append(all, resolving{r, g.net.hosts[hostName], addr})
	}
	return all
}

// changeUnderLoad moves the endpoint of corp to another address while all resolvers are asked: every answer is the old one or the new
// one, soon all are the new one, and branch notices nothing.
func (g *ground) changeUnderLoad(node *process, corefile string, corp, branch []resolving, name string) {
	const before, after, other = "10.200.0.5", "10.200.0.6", "10.201.0.5"
	l := &load{stop: make(chan struct{})}
	for i := range corp {
		l.run(20*time.Millisecond, func() error { return corp[i].is(name, before, after) })
		l.run(20*time.Millisecond, func() error { return branch[i].is(name, other) })
	}
	g.file("Corefile", strings.Replace(corefile, before, after, 1))
	if err := node.signal(syscall.SIGUSR1); err != nil {
		g.t.Error(err)
	}
	for _, r := range corp {
		var err error
		for end := time.Now().Add(2 * eventuallyTimeout); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if err = r.is(name, after); err == nil {
				break
			}
		}
		if err != nil {
			g.t.Errorf("after the change: %v", err)
		}
	}
	l.end()
	for _, err := range l.errs {
		g.t.Error(err)
	}
	if n := l.count.Load(); n < leastLoad {
		g.t.Errorf("only %d queries under load", n)
	}
	g.t.Logf("%d queries while the endpoint moved, %d lost or wrong", l.count.Load(), len(l.errs))
}
