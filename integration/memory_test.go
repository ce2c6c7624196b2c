package integration

import (
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const crowdCorefile = `.:53 {
    bind 10.1.0.1
    linknetwork corp 10.1.0.0/16 {
        endpoints 10.200.0.0/24
    }
    linkservice app {
        names   app.example.com
        pin     address
        target  10.20.0.4:7000
        approve corp
        proxy_protocol off
    }
    linkendpoint app-corp {
        service app
        network corp
        address 10.200.0.5
    }
    privatelink
    linkproxy {
        SETTINGS
    }
    prometheus 127.0.0.1:9153
    errors
}
`

// asked is how many flows are asked for.
const asked = 20_000

// TestP11MemoryLimit: a node in a control group is asked for more flows than there is memory for. It refuses those beyond with
// a reason; nothing is killed, and the others go on.
func TestP11MemoryLimit(t *testing.T) {
	path := plain(t)
	for _, test := range []struct {
		name, settings string
		megabytes      int
		most           int    // flows that may be carried
		why            string // others are refused
	}{
		{"256 MB", "max_per_source 20000", 256, 4096, "max_flows"},
		{"64 MB", "max_per_source 20000", 64, 1024, "max_flows"},
		{"64 MB, and more flows allowed than fit", "max_flows 8500\n max_per_source 8500", 64, 8499, "memory is short"},
	} {
		t.Run(test.name, func(t *testing.T) {
			limit := test.megabytes << 20
			group := newMemoryGroup(t, limit)
			if group == nil {
				t.Skip("no control group for memory can be made here")
			}
			g := newGround(t)
			g.echoes("provider", "10.20.0.4:7000")
			node := g.inGroup(group, path, strings.ReplaceAll(crowdCorefile, "SETTINGS", test.settings))
			var alive []net.Conn
			for range asked / 1000 {
				alive = append(alive, answered(g.crowd("corp-a", "10.200.0.5:7000", 1000))...)
			}
			t.Logf("%d of %d flows are carried with max_flows %d; %d MB of %d are used", len(alive), asked,
				g.metric("postern_proxy_flows_limit"), group.used(t)>>20, test.megabytes)
			if len(alive) == 0 || len(alive) > test.most {
				t.Errorf("at most %d flows should be carried", test.most)
			}
			if refused := g.metric(`postern_proxy_refused_total\{[^}]*reason="limit"\}`); refused < asked-len(alive) {
				t.Errorf("%d refused with a reason", refused)
			}
			if g.metric("postern_proxy_memory_limit_bytes") != limit {
				t.Error("the metric says another limit")
			}
			if node.out.find(regexp.MustCompile("flow refused.*"+test.why), 0, eventuallyTimeout, node.done) == "" {
				t.Errorf("no line says %q", test.why)
			}
			if still := answered(alive); len(still) != len(alive) {
				t.Errorf("%d of %d flows go on", len(still), len(alive))
			}
			if out, err := g.output("corp-b", "dig", "+short", "+tries=1", "@10.1.0.1", "app.example.com"); strings.TrimSpace(out) != "10.200.0.5" {
				t.Errorf("DNS: %v: %s", err, out)
			}
			if kills := group.kills(t); kills != 0 || !node.running() {
				t.Errorf("%d killed, the node runs: %v", kills, node.running())
			}
		})
	}
}

// inGroup starts a node in a control group and waits until it serves.
func (g *ground) inGroup(group *memoryGroup, path, corefile string) *process {
	g.t.Helper()
	// Not by ip-netns, which shows a program another /sys than ours, without control groups.
	c := exec.Command("sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(group.dir, "cgroup.procs"),
		"nsenter", "--net=/run/netns/"+g.net.hosts["edge"].ns, path, "-conf", g.file("Corefile", corefile))
	node, err := launch("node", g.dir, append(g.env, "GOMEMLIMIT="), c)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		_ = node.signal(9) // with thousands of flows; how it ends is for other tests
		<-node.done
		if g.t.Failed() {
			g.t.Logf("output of the node:\n%s", tail(node.out.String(), 4000))
		}
	})
	if node.out.find(serving, 0, startTimeout, node.done) == "" {
		g.t.Fatalf("the node doesn't serve:\n%s", node.out)
	}
	g.carries("10.200.0.5:7000")
	return node
}

// carries waits until the node carries flows.
func (g *ground) carries(addr string) {
	g.t.Helper()
	for end := time.Now().Add(eventuallyTimeout); ; time.Sleep(20 * time.Millisecond) {
		c := g.crowd("corp-a", addr, 8)
		alive := answered(c)
		for _, one := range alive {
			one.Close()
		}
		if len(c) > 0 && len(alive) == len(c) {
			return
		}
		if time.Now().After(end) {
			g.t.Fatal("nothing is carried")
		}
	}
}
