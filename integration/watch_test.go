package integration

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	// soon is how long after a decision, or the first good probe, answers may be as before (D16, D22).
	soon = time.Second
	// mostTTL is for how long others may keep an answer of ours, or that there is none (D16).
	mostTTL = 10
	// lookEvery is the pause of a client that asks in a loop.
	lookEvery = 5 * time.Millisecond
)

// watched is a service with an endpoint, whose names begin with the label.
type watched struct {
	label, address string
	fallsBack      bool         // its public name is answered publicly, and so is the private one, where it could be but for its targets
	from, until    atomic.Int64 // since when only the endpoint may be answered, and until when it might; 0: not
}

func (w *watched) public() string { return w.label + ".database.windows.net." }

func (w *watched) private() string { return w.label + ".privatelink.database.windows.net." }

// either says that something is being decided: the endpoint may be answered, or not.
func (w *watched) either() {
	w.from.Store(0)
	w.until.Store(0)
}

// isThere says that the endpoint is answered from now on, isGone that it isn't.
func (w *watched) isThere(at time.Time) { w.from.Store(at.UnixNano()) }
func (w *watched) isGone(at time.Time)  { w.until.Store(at.UnixNano()) }

// asks are the questions whose answers depend on the endpoint.
func (w *watched) asks() (all []dns.Question) {
	reverse, err := dns.ReverseAddr(w.address)
	if err != nil {
		panic(err)
	}
	for _, q := range []dns.Question{
		{Name: w.public(), Qtype: dns.TypeA}, {Name: w.public(), Qtype: dns.TypeAAAA}, {Name: w.private(), Qtype: dns.TypeA},
		{Name: reverse, Qtype: dns.TypePTR},
	} {
		if w.fallsBack && q.Qtype == dns.TypePTR {
			continue // the address has its name all the time
		}
		q.Qclass = dns.ClassINET
		all = append(all, q)
	}
	return all
}

// watcher is a client that asks one server block, by UDP or TCP, for everything about the service that is looked at and for something about
// another one.
type watcher struct {
	*watch
	network, to string
	conn        *dns.Conn
	asked       int // by the connection
	turn        int

	streaks map[*watched]streak // guarded by mu of watch
}

// streak is how often in a row all of what was asked about a service was answered with the endpoint, or nothing was.
type streak struct {
	there bool
	n     int
}

// watch is a number of clients that ask in a loop, until the end of the test, and judge each answer.
type watch struct {
	t        *testing.T
	host     *host
	all      []*watched
	at       atomic.Pointer[watched]
	clients  []*watcher
	mu       sync.Mutex
	wrong    []string
	stop     chan struct{}
	wait     sync.WaitGroup
	answers  atomic.Int64
	lastOnes map[*watched]time.Duration // how long after it was gone, or there, an answer was as before
}

// watch has clients on a host ask at addresses, each by UDP and by TCP.
func (g *ground) watch(hostName string, all []*watched, servers ...string) *watch {
	g.t.Helper()
	w := &watch{t: g.t, host: g.net.hosts[hostName], all: all, stop: make(chan struct{}), lastOnes: make(map[*watched]time.Duration)}
	w.at.Store(all[0])
	for _, to := range servers {
		for _, network := range []string{"udp", "tcp"} {
			c := &watcher{watch: w, network: network, to: to, streaks: make(map[*watched]streak)}
			w.clients = append(w.clients, c)
			w.wait.Go(c.loop)
		}
	}
	g.t.Cleanup(w.end)
	return w
}

// end stops the clients and tells what was wrong.
func (w *watch) end() {
	select {
	case <-w.stop:
		return
	default:
	}
	close(w.stop)
	w.wait.Wait()
	for _, what := range w.wrong[:min(len(w.wrong), 5)] {
		w.t.Error(what)
	}
	if n := len(w.wrong) - 5; n > 0 {
		w.t.Errorf("and %d more", n)
	}
	w.t.Logf("%d answers; the last ones as before, after a change was told: %v", w.answers.Load(), w.late())
}

func (w *watch) late() string {
	var all []string
	for _, one := range w.all {
		all = append(all, fmt.Sprint(one.label, " ", w.lastOnes[one].Round(10*time.Microsecond)))
	}
	return strings.Join(all, ", ")
}

func (w *watch) complain(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

// seen waits until every client has the endpoint of a service in all of its answers, or in none, some times in a row.
func (w *watch) seen(one *watched, there bool) {
	w.t.Helper()
	w.at.Store(one)
	seen := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return !slices.ContainsFunc(w.clients, func(c *watcher) bool { return c.streaks[one].there != there || c.streaks[one].n < 5 })
	}
	for end := time.Now().Add(eventuallyTimeout); !seen(); time.Sleep(lookEvery) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: that the endpoint is answered isn't %v for all clients after %v", one.label, there, eventuallyTimeout)
		}
	}
}

func (c *watcher) loop() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	defer func() {
		if c.conn != nil {
			c.conn.Close()
		}
	}()
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}
		if err := c.look(); err != nil {
			c.complain("%s to %s: %v", c.network, c.to, err)
			return
		}
	}
}

// look asks all about the service that is looked at at once, and one thing about another one.
func (c *watcher) look() error {
	if c.asked > 100 && c.network == "tcp" {
		c.conn.Close() // a connection is for so many queries
		c.conn = nil
	}
	if c.conn == nil {
		var conn net.Conn
		err := c.host.enter(func() (err error) { conn, err = net.DialTimeout(c.network, c.to, 10*time.Second); return err })
		if err != nil {
			return err
		}
		c.conn, c.asked = &dns.Conn{Conn: conn}, 0
	}
	now := c.at.Load()
	c.turn++
	other := c.all[c.turn%len(c.all)]
	asks := now.asks()
	extra := other.asks()
	asks = append(asks, extra[c.turn/len(c.all)%len(extra)])
	began := time.Now()
	if err := c.conn.SetDeadline(began.Add(10 * time.Second)); err != nil {
		return err
	}
	for i, q := range asks {
		m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: uint16(i), RecursionDesired: true}, Question: []dns.Question{q}}
		if err := c.conn.WriteMsg(m); err != nil {
			return err
		}
		c.asked++
	}
	there := 0
	for range asks {
		m, err := c.conn.ReadMsg()
		if err != nil {
			return err
		}
		c.answers.Add(1)
		if int(m.Id) >= len(asks) || len(m.Question) != 1 || m.Question[0] != asks[m.Id] {
			return fmt.Errorf("answer to no question: %v", m)
		}
		about := now
		if int(m.Id) == len(asks)-1 {
			about = other
		}
		if c.judge(about, m, began) && int(m.Id) < len(asks)-1 {
			there++
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streaks[now]
	if there > 0 && there < len(asks)-1 { // as things change, between two of the questions
		s = streak{}
	} else if is := there > 0; s.there != is {
		s = streak{is, 1}
	} else {
		s.n++
	}
	c.streaks[now] = s
	return nil
}

// judge reports whether an answer is the endpoint's, or what goes with it, and whether it may be by now.
func (c *watcher) judge(one *watched, m *dns.Msg, asked time.Time) bool {
	there := m.Authoritative && m.Rcode == dns.RcodeSuccess
	q := m.Question[0]
	what := fmt.Sprintf("%s %s by %s from %s", q.Name, dns.TypeToString[q.Qtype], c.network, c.to)
	if a := lastA(m); q.Qtype == dns.TypeA {
		switch {
		case there && a == one.address, !there && q.Name == one.public() && a == publicAddress:
		case !there && q.Name == one.private() && m.Authoritative && m.Rcode == dns.RcodeNameError:
		case !there && one.fallsBack && a == publicAddress:
		default:
			c.complain("%s: %v", what, m)
		}
	}
	if m.Authoritative {
		for _, rr := range append(m.Answer, m.Ns...) {
			if soa, ok := rr.(*dns.SOA); rr.Header().Ttl > mostTTL || ok && soa.Minttl > mostTTL {
				c.complain("%s may be kept too long: %v", what, rr)
			}
		}
		if _, is := last(m).(*dns.CNAME); len(m.Ns) != 1 && (last(m) == nil || is) {
			c.complain("%s: nobody knows how long this may be kept: %v", what, m)
		}
	}
	since := one.from.Load()
	if there {
		since = one.until.Load()
	}
	if since == 0 || asked.UnixNano() < since {
		return there
	}
	late := time.Duration(asked.UnixNano() - since)
	if late > soon {
		c.complain("%s: %v after it was told, the endpoint is answered: %v", what, late, there)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastOnes[one] = max(c.lastOnes[one], late)
	return there
}

// last returns the last record of an answer, nil where there is none.
func last(m *dns.Msg) dns.RR {
	if n := len(m.Answer); n > 0 {
		return m.Answer[n-1]
	}
	return nil
}

// lastA returns the address of the last record, or the code.
func lastA(m *dns.Msg) string {
	if a, ok := last(m).(*dns.A); ok {
		return a.A.String()
	}
	return dns.RcodeToString[m.Rcode]
}
