package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestP15KilledWithManyEndpoints: a node with 10,000 endpoints is killed and started again. It serves by itself, with the
// addresses that it gave out before. How soon is in the log: what is promised is 2 s on a machine with nothing else to do.
func TestP15KilledWithManyEndpoints(t *testing.T) {
	const services, endpoints = 1000, 10_000
	g := newGround(t)
	g.echoes("provider", "10.20.0.4:7000")
	if err := ip(g.net.hosts["edge"].ns, "route add local 10.202.0.0/16 dev lo"); err != nil {
		t.Fatal(err)
	}
	if err := ip(g.net.hosts["corp-a"].ns, "route add 10.202.0.0/16 via 10.1.0.1"); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(".:53 {\n bind 10.1.0.1\n linknetwork corp 10.1.0.0/16 {\n  endpoints 10.202.0.0/16\n }\n")
	for i := range services {
		fmt.Fprintf(&b, " linkservice s%d {\n  pin address\n  target 10.20.0.4:7000\n  approve corp\n  proxy_protocol off\n  names n%d.example.com\n }\n", i, i)
	}
	for i := range endpoints { // without an address: one of the pool is given out, and kept
		fmt.Fprintf(&b, " linkendpoint e%d {\n  service s%d\n  network corp\n }\n", i, i%services)
	}
	b.WriteString(" privatelink\n linkproxy\n prometheus 127.0.0.1:9153\n errors\n}\n")
	corefile, path := g.file("Corefile", b.String()), plain(t)

	addresses := map[string]bool{}
	for round := range 2 {
		began := time.Now()
		node, err := launch("node", g.dir, g.env, g.net.hosts["edge"].command(path, "-conf", corefile))
		if err != nil {
			t.Fatal(err)
		}
		kill := func() {
			_ = node.signal(unix.SIGKILL)
			<-node.done
		}
		t.Cleanup(kill)
		if node.out.find(serving, 0, time.Minute, node.done) == "" {
			t.Fatalf("the node doesn't serve:\n%s", tail(node.out.String(), 2000))
		}
		t.Logf("serves %d endpoints after %v", endpoints, time.Since(began).Round(time.Millisecond))
		for _, name := range []string{"n0.example.com", "n500.example.com", "n999.example.com"} {
			var out string
			for end := time.Now().Add(eventuallyTimeout); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if out, err = g.output("corp-a", "dig", "+short", "@10.1.0.1", name); strings.Count(out, "10.202.") == endpoints/services {
					break // the target has been seen by now
				}
			}
			found := strings.Fields(out)
			if len(found) != endpoints/services {
				t.Fatalf("%s: %v: %s", name, err, out)
			}
			for _, addr := range found {
				if round > 0 && !addresses[addr] {
					t.Errorf("%s has %s, which it didn't have before", name, addr)
				}
				addresses[addr] = true
			}
			g.carries(found[0] + ":7000")
		}
		kill()
	}
}
