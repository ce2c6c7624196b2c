package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

// cutProcess is a child of the test.
type cutProcess struct {
	t    *testing.T
	role string
	in   io.Writer
	out  *bufio.Reader
}

// startCut starts a child, which ends with the test.
func startCut(t *testing.T, role string) *cutProcess {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	c := exec.CommandContext(ctx, os.Args[0])
	c.Env, c.Stderr = append(os.Environ(), asCut+"="+role, "GORACE=atexit_sleep_ms=0"), os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		c.Wait()
		cancel()
	})
	return &cutProcess{t, role, in, bufio.NewReader(out)}
}

// say writes a line.
func (p *cutProcess) say(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatalf("the %s: %v", p.role, err)
	}
}

// hear reads a line, whose words go to where they are to.
func (p *cutProcess) hear(words ...any) {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if n, _ := fmt.Sscan(line, words...); err != nil || n < len(words) {
		p.t.Fatalf("the %s said %q, error %v", p.role, line, err)
	}
}

// id is that of the endpoint and of the service.
func (g *manyFlows) id() link.ID { return link.ID(fmt.Sprintf("%c-%v", g.State, g.Cut)) }

// manyGroups returns the flows, half of those in each state to be cut, and what declares their endpoints.
func manyGroups(t *testing.T, total int, target netip.AddrPort) (groups []*manyFlows, changes []link.Change) {
	for _, s := range manyStates {
		for _, isCut := range []bool{true, false} {
			g := &manyFlows{State: s.state, N: max(1, total*s.share/2000), Cut: isCut}
			addr, name := nextAddr(t), string(g.id())+".example"
			g.Addr = addr + ":7001"
			edit := func(v *link.Service) {
				v.Alias = fmt.Sprintf("%s.%032x.postern", g.id(), len(groups))
				if s.state == 'h' {
					v.Pin, v.Names = link.PinTLS, []link.ResourceName{{Public: link.Name(name)}}
				}
			}
			if s.state == 'h' {
				g.Hello = helloFor(t, name)
			}
			changes = append(changes, service(g.id(), 7001, target, edit), endpoint(g.id(), g.id(), addr))
			groups = append(groups, g)
		}
	}
	return groups, changes
}

// count returns how many flows there are in the groups that are meant.
func count(groups []*manyFlows, meant func(*manyFlows) bool) (n int) {
	for _, g := range groups {
		if meant(g) {
			n += g.N
		}
	}
	return n
}

// X32, X33, X34: 10,000 flows in one process, half of them of connections that are rejected in one change: the clients
// of these, which are another process, see a reset, and of the others none is touched.
func TestCutTenThousand(t *testing.T) {
	total := 10_000
	if raceDetector {
		total /= 10
	}
	// Two descriptors each, one in the hello, and four more for the pipes of those that have bytes on their way.
	if room := roomFor(t, 2*total); room < 2*total {
		t.Skipf("NOT TESTED: the cut of %d flows takes %d descriptors, and this process may have %d (ulimit -Hn)", total, 2*total, room)
	}
	targets, clients := startCut(t, "targets"), startCut(t, "clients")
	var at string
	targets.hear(&at)
	groups, changes := manyGroups(t, total, netip.MustParseAddrPort(at))
	flows := count(groups, func(*manyFlows) bool { return true })
	cut := count(groups, func(g *manyFlows) bool { return g.Cut })
	hellos := count(groups, func(g *manyFlows) bool { return g.State == 'h' })
	halves := count(groups, func(g *manyFlows) bool { return g.State == 't' && !g.Cut })
	w := newWorld(t, Settings{MaxFlows: 2 * total, MaxPerSource: 2 * total, HelloTimeout: time.Minute, ProbeInterval: time.Minute}, changes...)
	order, err := json.Marshal(groups)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	clients.say(string(order))
	var word string
	if clients.hear(&word); word != "open" {
		t.Fatalf("the clients: %s", word)
	}
	eventually(t, "every flow is in its state", func() bool { return w.unjudged() == hellos && w.proxy.Flows() == flows })
	t.Logf("%d flows and %d descriptors after %v", flows, descriptors(t), time.Since(began).Round(time.Millisecond))

	clients.say("watch")
	var reject []link.Change
	for _, g := range groups {
		if g.Cut {
			reject = append(reject, link.Decide{Endpoint: g.id(), LinkID: w.connection(g.id()).LinkID, State: link.Rejected})
		}
	}
	w.swap(reject...)
	changed := uptime()
	w.proxy.Update(w.now.Load())
	walked := uptime() - changed
	var told int64
	var otherwise int
	clients.hear(&told, &otherwise)
	took := time.Duration(told) - changed
	t.Logf("%d of %d flows were cut: the walk took %v, the last client was told after %v",
		cut, flows, walked.Round(time.Millisecond), took.Round(time.Millisecond))
	if took > 5*cutBound { // which is promised for a machine that has nothing else to do
		t.Errorf("the last client was told after %v", took)
	}
	if otherwise > 0 {
		t.Errorf("%d flows ended otherwise than with a reset", otherwise)
	}
	eventually(t, "they have left, and no others", func() bool { return w.proxy.Flows() == flows-cut })

	targets.say("go on")
	var heard, touched int
	targets.hear(&heard)
	clients.say("go on")
	line, err := clients.out.ReadString('\n')
	if n, _ := fmt.Sscan(line, &touched); n < 1 || touched > 0 {
		t.Errorf("of the flows that were to stay: %s (error %v)", line, err)
	}
	eventually(t, "the half-closed ones have carried a byte each", func() bool {
		targets.say("and?")
		targets.hear(&heard)
		return heard == halves
	})
	if n := w.metric(t, "postern_proxy_refused_total", "revoked") + w.metric(t, "postern_proxy_flows_total", "revoked"); n != float64(cut) {
		t.Errorf("%v flows are counted as revoked, %d were", n, cut)
	}
	w.proxy.Close()
}
