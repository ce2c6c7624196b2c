package integration

import (
	wire "encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	// privateSoon and privateSlow are how long a private name may take in general, and nearly always (D19).
	privateSoon, privateSlow = time.Millisecond, 5 * time.Millisecond
	// servfailWithin is the deadline of forward, 5 s, with a last try that begins before it and takes 2 s, and what a busy machine needs.
	servfailWithin = 15 * time.Second
	// mostWaiting is how many queries of a server block may wait for others, and mostProbes how many probes may beside them.
	mostWaiting, mostProbes = 2048, 40
)

// upstreamKinds are servers that a node may be left with, by the port of 203.0.113.53 that they are at. Nobody is at that of "dead".
var upstreamKinds = []struct {
	name   string
	port   int
	answer dns.HandlerFunc
	rcode  int // of what isn't private
	waits  bool
}{
	{"healthy", 53, public, dns.RcodeSuccess, false},
	{"dead", 54, nil, dns.RcodeServerFailure, false},
	{"silent", 55, func(dns.ResponseWriter, *dns.Msg) {}, dns.RcodeServerFailure, true},
	{"slow", 56, func(w dns.ResponseWriter, r *dns.Msg) { time.Sleep(5 * time.Second); public(w, r) }, dns.RcodeServerFailure, true},
	{"failing", 57, func(w dns.ResponseWriter, r *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeServerFailure))
	}, dns.RcodeServerFailure, false},
	{"crowded", 58, func(dns.ResponseWriter, *dns.Msg) {}, dns.RcodeServerFailure, true}, // silent, and asked by too many
}

// others asks one server for names that aren't private, and notes how each was answered.
type others struct {
	conn  net.Conn
	rcode int // expected

	mu      sync.Mutex
	asked   []otherQuery // by ID
	left    int          // without an answer
	full    int          // were told that there is no room for them
	wrong   []string     // answers
	slowest time.Duration
}

// otherQuery is one of them.
type otherQuery struct {
	wire []byte
	sent time.Time
	over bool
}

// others begins to read what a server answers.
func (g *ground) others(hostName, to string, rcode int) *others {
	g.t.Helper()
	o := &others{rcode: rcode}
	if err := g.net.hosts[hostName].enter(func() (err error) { o.conn, err = net.Dial("udp", to); return err }); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { o.conn.Close() })
	go o.read()
	return o
}

// ask sends n queries, one after each pause.
func (o *others) ask(n int, pause time.Duration) {
	for next := time.Now(); n > 0; n-- {
		next = next.Add(pause)
		// Late where others had the processor: not all at once then, which buffers have no room for.
		time.Sleep(max(time.Until(next), 100*time.Microsecond))
		m := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.p%d.database.windows.net.", n, rand.Uint32()), dns.TypeA).SetEdns0(1232, false)
		o.mu.Lock()
		m.Id = uint16(len(o.asked))
		b, err := m.Pack()
		if err == nil {
			_, err = o.conn.Write(b)
		}
		if err != nil {
			o.wrong = append(o.wrong, err.Error())
		}
		o.asked = append(o.asked, otherQuery{wire: b, sent: time.Now()})
		o.left++
		o.mu.Unlock()
	}
}

// again sends again what has no answer, as clients do: it may have been lost on its way there or back, or dropped where there was no
// processor for it. It returns how many there were.
func (o *others) again() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.asked {
		if !o.asked[i].over {
			o.asked[i].sent = time.Now()
			if _, err := o.conn.Write(o.asked[i].wire); err != nil {
				o.wrong = append(o.wrong, err.Error())
			}
		}
	}
	return o.left
}

func (o *others) read() {
	buf := make([]byte, 4096)
	for {
		n, err := o.conn.Read(buf)
		if err != nil {
			return
		}
		m := new(dns.Msg)
		err = m.Unpack(buf[:n])
		o.mu.Lock()
		if err != nil || int(m.Id) >= len(o.asked) || m.Rcode != o.rcode {
			o.wrong = append(o.wrong, fmt.Sprintf("%v %v", err, m))
		} else if q := &o.asked[m.Id]; !q.over {
			q.over = true
			o.left--
			took := time.Since(q.sent)
			o.slowest = max(o.slowest, took)
			if strings.Contains(m.String(), "too many queries wait") {
				o.full++
			}
		}
		o.mu.Unlock()
	}
}

// waitForOthers waits until all are answered, or longer than that takes.
func waitForOthers(all map[string]*others) {
	for end := time.Now().Add(servfailWithin); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		left := 0
		for _, o := range all {
			o.mu.Lock()
			left += o.left
			o.mu.Unlock()
		}
		if left == 0 {
			return
		}
	}
}

// way is a server block: what it passes on to, and how.
type way struct {
	kind   int // of upstreamKinds
	cached bool
	fast   string
	addr   string
}

func (w way) String() string {
	return fmt.Sprintf("%s, cache %v, fastpath %s", upstreamKinds[w.kind].name, w.cached, w.fast)
}

// TestD19DeadUpstreams: the servers that a node passes on to are dead, silent, 5 s late or fail, and hundreds of queries for other names
// wait for them. Private names are answered as fast as beside a server that is well: by the fast path and by plugins on its sockets, with
// and without a cache. The others get SERVFAIL within the deadline, and no more of them wait than may.
func TestD19DeadUpstreams(t *testing.T) { // parallel once it has measured
	const names, rounds = 20, 150
	g := newGround(t)
	var ways []way
	var text strings.Builder
	fmt.Fprint(&text, ".:5299 {\n bind 10.1.0.1\n prometheus 127.0.0.1:9153\n",
		" linknetwork corp 10.1.0.0/16 {\n  endpoints 10.200.0.0/24\n }\n linknetwork branch 10.2.0.0/16\n")
	for i := range names {
		fmt.Fprintf(&text, " linkservice s%d {\n  names s%d.database.windows.net\n  target 10.20.0.4:1433\n  approve corp\n }\n", i, i)
		fmt.Fprintf(&text, " linkendpoint e%d {\n  service s%d\n  network corp\n  address 10.200.0.%d\n }\n", i, i, i+4)
	}
	fmt.Fprint(&text, " privatelink\n}\n")
	for kind, k := range upstreamKinds {
		if k.answer != nil {
			g.answers("upstream", fmt.Sprint("203.0.113.53:", k.port), k.answer)
		}
		for _, cached := range []bool{true, false} {
			for _, fast := range []string{"on", "plugins"} {
				w := way{kind, cached, fast, fmt.Sprint("10.1.0.1:", 5300+len(ways))}
				ways = append(ways, w)
				cache := ""
				if cached {
					cache = " cache 30\n"
				}
				fmt.Fprintf(&text, ".:%d {\n bind 10.1.0.1 10.2.0.1\n privatelink {\n  fastpath %s\n }\n%s forward . 203.0.113.53:%d\n}\n",
					5299+len(ways), fast, cache, k.port)
				if k.name == "crowded" {
					break
				}
			}
			if k.name == "crowded" {
				break
			}
		}
	}
	binary := plain(t)
	node := g.daemon("node", "edge", "127.0.0.1:9153", binary, "-conf", g.file("Corefile", text.String()))
	if node.out.find(serving, 0, startTimeout, node.done) == "" {
		t.Fatalf("the node doesn't serve:\n%s", node.out)
	}
	private := make([]*privateClient, len(ways))
	for i, w := range ways {
		private[i] = g.privateClient("corp-a", w.addr)
		for n := range 2 * names { // none of them is new when it is measured
			if _, err := private[i].ask(n % names); err != nil {
				t.Fatalf("%v: %v", w, err)
			}
		}
	}

	// Others ask. Those that must wait are many and do so while private names are measured; the rest goes on meanwhile. Of the crowd,
	// which is more than may wait, it is judged how many do and what they are told, and not whether some are lost on a busy machine.
	all, crowd := make(map[string]*others), make(map[string]*others)
	var asking, going sync.WaitGroup
	for _, w := range ways {
		k := upstreamKinds[w.kind]
		for _, from := range []string{"corp-b", "branch-a"} {
			if from == "branch-a" && k.name != "crowded" {
				continue
			}
			to := w.addr
			if from == "branch-a" {
				to = strings.Replace(to, "10.1.", "10.2.", 1)
			}
			o := g.others(from, to, k.rcode)
			if what := fmt.Sprint(w, ", from ", from); k.name == "crowded" {
				crowd[what] = o
			} else {
				all[what] = o
			}
			switch {
			case k.name == "crowded": // 1,024 may be of one network
				asking.Go(func() { o.ask(1500, 1200*time.Microsecond) })
			case k.waits:
				asking.Go(func() { o.ask(300, 6*time.Millisecond) })
			default:
				going.Go(func() { o.ask(200, 15*time.Millisecond) })
			}
		}
	}
	asking.Wait()
	waiting := g.sockets("203.0.113.53:58")
	took := make([][]time.Duration, len(ways))
	for range rounds {
		for _, i := range rand.Perm(len(ways)) {
			d, err := private[i].ask(rand.IntN(names))
			if err != nil {
				t.Fatalf("%v: %v", ways[i], err)
			}
			took[i] = append(took[i], d)
		}
	}
	waiting = max(waiting, g.sockets("203.0.113.53:58"))
	judgePrivate(t, ways, took)
	if waiting > mostWaiting+mostProbes {
		t.Errorf("%d queries of a server block waited for others at once, %d may", waiting, mostWaiting)
	}
	t.Parallel() // what is left is to wait for those that wait
	going.Wait()
	full, again := 0, 0
	for what, o := range crowd {
		o.mu.Lock()
		full += o.full
		if len(o.wrong) > 0 {
			t.Errorf("%s: %d answers aren't SERVFAIL: %s", what, len(o.wrong), o.wrong[0])
		}
		o.mu.Unlock()
	}
	waitForOthers(all)
	for _, o := range all {
		again += o.again()
	}
	waitForOthers(all)
	for what, o := range all {
		o.mu.Lock()
		if o.left > 0 || len(o.wrong) > 0 || o.slowest > servfailWithin {
			t.Errorf("%s: %d of %d other names aren't answered, the slowest took %v; %d answers aren't %s: %s",
				what, o.left, len(o.asked), o.slowest, len(o.wrong), dns.RcodeToString[o.rcode],
				strings.Join(o.wrong[:min(3, len(o.wrong))], "\n"))
		}
		o.mu.Unlock()
	}
	if full == 0 {
		t.Error("nobody was told that too many wait")
	}
	for end := time.Now().Add(servfailWithin); g.sockets("203.0.113.53:58") > mostProbes; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("queries wait for nobody")
		}
	}
	t.Logf("%d waited at once, %d were told that too many do; %d were sent again", waiting, full, again)
}

// judgePrivate judges how long private names took beside each kind of server. A machine may stop everything for a while, or be busy with
// something else, so that they are also held against those that were asked in between beside a server that is well. A quarter is in time
// whatever else goes on. A half is, or where that of the healthy ones isn't, it takes half as much more at most. Of those that take very
// long there may be one in a hundred, and two for each of the healthy ones.
func judgePrivate(t *testing.T, ways []way, took [][]time.Duration) {
	t.Helper()
	slow := func(all []time.Duration) (n int) {
		for _, d := range all {
			if d > privateSlow {
				n++
			}
		}
		return n
	}
	var healthy []time.Duration
	for i, w := range ways {
		if w.kind == 0 {
			healthy = append(healthy, took[i]...)
		}
	}
	slices.Sort(healthy)
	share := float64(slow(healthy)) / float64(len(healthy))
	for kind, k := range upstreamKinds {
		var all []time.Duration
		for i, w := range ways {
			if w.kind != kind {
				continue
			}
			slices.Sort(took[i])
			all = append(all, took[i]...)
			quarter, half := took[i][len(took[i])/4], took[i][len(took[i])/2]
			t.Logf("%v: half of the private names within %v, 99 of 100 within %v", w, half, took[i][len(took[i])*99/100])
			if quarter > privateSoon || half > max(privateSoon, healthy[len(healthy)/2]*3/2) {
				t.Errorf("%v: a quarter of the private names took up to %v, a half up to %v; of those with a healthy server a half up to %v", w,
					quarter, half, healthy[len(healthy)/2])
			}
		}
		if n, may := slow(all), float64(len(all))*(0.01+2*share); float64(n) > max(may, 3) {
			t.Errorf("%s: %d of %d private names took more than %v, of those with a healthy server %d of %d", k.name,
				n, len(all), privateSlow, slow(healthy), len(healthy))
		}
	}
}

// privateClient asks one server for private names, one after the other.
type privateClient struct {
	conn    net.Conn
	queries [][]byte
	id      uint16
	buf     [1024]byte
}

func (g *ground) privateClient(hostName, to string) *privateClient {
	g.t.Helper()
	c := new(privateClient)
	if err := g.net.hosts[hostName].enter(func() (err error) { c.conn, err = net.Dial("udp", to); return err }); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.conn.Close() })
	for i := range 20 {
		b, err := new(dns.Msg).SetQuestion(fmt.Sprintf("s%d.database.windows.net.", i), dns.TypeA).Pack()
		if err != nil {
			g.t.Fatal(err)
		}
		c.queries = append(c.queries, b)
	}
	return c
}

// ask returns how long it took until the answer was there, whose address must be that of the endpoint.
func (c *privateClient) ask(i int) (time.Duration, error) {
	c.id++
	q := c.queries[i]
	wire.BigEndian.PutUint16(q, c.id)
	began := time.Now()
	if err := c.conn.SetReadDeadline(began.Add(10 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := c.conn.Write(q); err != nil {
		return 0, err
	}
	n, err := c.conn.Read(c.buf[:])
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	m := new(dns.Msg)
	if err := m.Unpack(c.buf[:n]); err != nil || m.Id != c.id || lastA(m) != fmt.Sprint("10.200.0.", i+4) {
		return 0, fmt.Errorf("s%d: %v, %v", i, err, m)
	}
	return took, nil
}

// sockets counts those of UDP on the edge that are connected to an address: a query that waits for it has one.
func (g *ground) sockets(to string) int {
	g.t.Helper()
	out, err := g.output("edge", "ss", "-Hun", "dst", to)
	if err != nil {
		g.t.Fatalf("%v: %s", err, out)
	}
	return strings.Count(out, to)
}
