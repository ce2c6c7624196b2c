package integration

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"
)

// load is something done over and over while a scenario changes the world. It never may fail.
type load struct {
	stop  chan struct{}
	once  sync.Once
	wait  sync.WaitGroup
	count atomic.Int64
	mu    sync.Mutex
	errs  []error
}

// leastLoad is how many times a load is done before its stop means anything.
const leastLoad = 20

// run does once, again and again with a pause, until the end of the load.
func (l *load) run(pause time.Duration, once func() error) {
	l.wait.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-tick.C:
			}
			err := once()
			l.count.Add(1)
			if err != nil {
				l.mu.Lock()
				l.errs = append(l.errs, fmt.Errorf("number %d at %s: %w", l.count.Load(), time.Now().Format("15:04:05.000"), err))
				l.mu.Unlock()
			}
		}
	})
}

func (l *load) end() {
	l.once.Do(func() { close(l.stop) })
	l.wait.Wait()
}

// load handles "NAME start ..." and "NAME stop" of queries and connects.
func (s *scenario) load(ts *testscript.TestScript, neg bool, args []string, words int, form string) *load {
	usage(ts, !neg && (len(args) == 2 && args[1] == "stop" || len(args) == words && args[1] == "start"), form)
	if args[1] == "start" {
		usage(ts, s.loads[args[0]] == nil, form+", of a new name")
		s.loads[args[0]] = &load{stop: make(chan struct{})}
		return s.loads[args[0]]
	}
	l := s.loads[args[0]]
	usage(ts, l != nil, form+", of one that was started")
	for end := time.Now().Add(eventuallyTimeout); l.count.Load() < leastLoad && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	l.end()
	delete(s.loads, args[0])
	for i, err := range l.errs {
		if i < 5 {
			ts.Logf("%v", err)
		}
	}
	if len(l.errs) > 0 || l.count.Load() < leastLoad {
		ts.Fatalf("%s: %d of %d failed", args[0], len(l.errs), l.count.Load())
	}
	say(ts, "%d, none failed", l.count.Load())
	return nil
}

// cmdQueries: queries NAME start HOST SERVER QNAME ADDRESS asks for an address every 5 ms, each time from a new socket
// and without trying again; queries NAME stop: every one must have had that answer.
func cmdQueries(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	l := s.load(ts, neg, args, 6, "queries NAME start HOST SERVER QNAME ADDRESS | queries NAME stop")
	if l == nil {
		return
	}
	h := s.host(ts, args[2])
	l.run(5*time.Millisecond, func() error { return h.ask(args[3], args[4], args[5]) })
}

// ask makes one query over UDP and checks the address in the answer.
func (h *host) ask(server, name, want string) error {
	var conn net.Conn
	err := h.enter(func() (err error) {
		conn, err = net.Dial("udp", net.JoinHostPort(server, "53"))
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	client := dns.Client{Timeout: 10 * time.Second}
	r, _, err := client.ExchangeWithConn(q, &dns.Conn{Conn: conn})
	if err != nil {
		return err
	}
	var got []string
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok {
			got = append(got, a.A.String())
		}
	}
	if len(got) != 1 || got[0] != want {
		return fmt.Errorf("%s from %s: %s %v, want %s", name, h.name, dns.RcodeToString[r.Rcode], got, want)
	}
	return nil
}

// cmdAlternate: alternate N QNAME HOST1 SERVER1 ADDRESS1 HOST2 SERVER2 ADDRESS2 asks for the name from two hosts in turn; each
// must have its own answer each time (D13).
func cmdAlternate(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 8, "alternate N QNAME HOST1 SERVER1 ADDRESS1 HOST2 SERVER2 ADDRESS2")
	s := of(ts)
	var n int
	_, err := fmt.Sscanf(args[0], "%d", &n)
	ts.Check(err)
	one, two := s.host(ts, args[2]), s.host(ts, args[5])
	for range n {
		ts.Check(one.ask(args[3], args[1], args[4]))
		ts.Check(two.ask(args[6], args[1], args[7]))
	}
}

// cmdConnects: connects NAME start HOST ADDR:PORT SNI opens a connection every 10 ms, has a line answered and closes
// it; SNI "-" is for a service in clear. connects NAME stop: every one must have been answered.
func cmdConnects(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	l := s.load(ts, neg, args, 5, "connects NAME start HOST ADDR:PORT SNI|- | connects NAME stop")
	if l == nil {
		return
	}
	h := s.host(ts, args[2])
	l.run(10*time.Millisecond, func() error { return h.call(args[3], args[4]) })
}

// call opens a connection, has one line answered, and closes it.
func (h *host) call(addr, sni string) error {
	conn, err := h.dial(addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if sni != "-" {
		conn = tls.Client(conn, &tls.Config{ServerName: sni, RootCAs: pki.pool})
	}
	if _, err := fmt.Fprintln(conn, "ping"); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && line != "ping\n" {
		err = fmt.Errorf("sent ping, received %q", line)
	}
	return err
}
