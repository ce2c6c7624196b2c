package integration

import (
	"fmt"
	"strings"
	"testing"
)

// cachesNode answers in the networks corp and branch: to whom is told apart by the address (port 53 and 5301), by the subnet that the
// resolver says, or, on port 5302, as branch.
const cachesNode = `.:53 {
    bind 10.1.0.1
    linknetwork corp 10.1.0.0/16 {
        endpoints 10.200.0.0/24
    }
    linknetwork branch 10.2.0.0/16 {
        endpoints 10.201.0.0/24
    }
SERVICES    privatelink {
        ttl 1
        ecs_from 10.1.0.53/32
    }
    cache 30
    forward . 203.0.113.53
    errors
}
.:5301 {
    bind 10.1.0.1
    privatelink {
        ttl 1
        fastpath plugins
    }
    cache 30
    forward . 203.0.113.53
    errors
}
.:5302 {
    bind 10.1.0.1
    privatelink {
        ttl 1
        network branch
    }
    cache 30
    forward . 203.0.113.53
    errors
}
`

// shared are resolvers of which one serves both networks, by configurations in which HERE is its address: those whose cache knows the
// subnet that an answer is for (RFC 7871), those that don't keep such answers, and one with a cache for each network. Knot Resolver has
// none of that.
var shared = []struct {
	name, port, file, conf string
	argv                   []string
	merges                 bool
}{
	{"Unbound, client subnet", "5401", "unbound.conf", `server:
    interface: HERE@5401
    access-control: 0.0.0.0/0 allow
    module-config: "subnetcache iterator"
    send-client-subnet: 10.1.0.1
    client-subnet-always-forward: yes
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
    forward-addr: 10.1.0.1
`, []string{"unbound", "-d", "-p", "-c", "DIR/unbound.conf"}, false},
	{"PowerDNS Recursor, client subnet", "5402", "recursor.conf", `local-address=HERE:5402
allow-from=0.0.0.0/0
dont-query=
forward-zones-recurse=.=10.1.0.1
dnssec=off
edns-subnet-allow-list=10.1.0.1
ecs-add-for=0.0.0.0/0
ecs-ipv4-bits=24
ecs-ipv4-cache-bits=24
ecs-cache-limit-ttl=0
ecs-minimum-ttl-override=1
disable-packetcache=no
security-poll-suffix=
socket-dir=DIR
webserver=no
threads=1
`, []string{"pdns_recursor", "--config-dir=DIR", "--daemon=no"}, false},
	{"dnsmasq, client subnet", "5403", "dnsmasq.conf", `listen-address=HERE
bind-interfaces
port=5403
no-resolv
no-hosts
user=root
pid-file=
add-subnet=24,64
dns-forward-max=1000
server=10.1.0.1
`, []string{"dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file=DIR/dnsmasq.conf"}, true},
	{"BIND, a view for each network", "5404", "named.conf", `options {
    directory "DIR";
    listen-on port 5404 { HERE; };
    listen-on-v6 { none; };
    allow-query { any; };
    recursion yes;
    dnssec-validation no;
    empty-zones-enable no;
    pid-file none;
    session-keyfile none;
};
controls { };
view "branch" {
    match-clients { 10.2.0.0/16; };
    zone "." { type forward; forward only; forwarders { 10.1.0.1 port 5302; }; };
};
view "corp" {
    match-clients { any; };
    zone "." { type forward; forward only; forwarders { 10.1.0.1; }; };
};
`, []string{"named", "-g", "-c", "DIR/named.conf"}, false},
}

// TestSharedCaches (D13): two networks ask one cache at full rate, in random order and spelling, for names that are private in both, with
// another address in each, or in one of them alone. Every client has the answers of its own network: through the cache of the node
// itself, which sees no private answer, and through resolvers that serve both.
func TestSharedCaches(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	g.answers("upstream", "203.0.113.53:53", public)
	services, rushed := rush(20)
	g.postern(strings.Replace(cachesNode, "SERVICES", services, 1), "10.1.0.1:53")
	// Clients of branch ask the node and the resolver at the addresses that those of corp ask.
	for host, route := range map[string]string{"branch-a": "10.1.0.0/16 via 10.2.0.1", "resolver": "10.2.0.0/16 via 10.1.0.1"} {
		if err := ip(g.net.hosts[host].ns, "route add "+route); err != nil {
			t.Fatal(err)
		}
	}
	corp, branch, resolver := g.net.hosts["corp-a"], g.net.hosts["branch-a"], g.net.hosts["resolver"]
	for _, r := range shared {
		fill := strings.NewReplacer("HERE", "10.1.0.53", "DIR", g.dir)
		g.file(r.file, fill.Replace(r.conf))
		argv := make([]string, len(r.argv))
		for i, a := range r.argv {
			argv[i] = fill.Replace(a)
		}
		g.daemon(r.name, "resolver", "10.1.0.53:"+r.port, argv...)
	}
	rushed.inRush(t, "the node", [2]oneOf{{host: corp, addr: "10.1.0.1:53"}, {host: branch, addr: "10.1.0.1:53"}})
	rushed.inRush(t, "the node, by its plugins", [2]oneOf{{host: corp, addr: "10.1.0.1:5301"}, {host: branch, addr: "10.1.0.1:5301"}})
	rushed.inRush(t, "the node, client subnet",
		[2]oneOf{{host: resolver, addr: "10.1.0.1:53", ecs: "10.1.7.0"}, {host: resolver, addr: "10.1.0.1:53", ecs: "10.2.7.0"}})
	for _, r := range shared {
		addr := fmt.Sprint("10.1.0.53:", r.port)
		rushed.inRush(t, r.name, [2]oneOf{{host: corp, addr: addr, merges: r.merges}, {host: branch, addr: addr, merges: r.merges}})
	}
}
