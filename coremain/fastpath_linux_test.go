package coremain

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/freeport"
)

// crowd asks for one name from two networks, at random, at a rate that it keeps if the server does. It takes no answer for another's,
// and none that was over when it asked.
type crowd struct {
	t       *testing.T
	sockets []*crowdSocket
	stop    chan struct{}
	done    sync.WaitGroup

	mu     sync.Mutex
	truths [2][]truth // of each network
	wrong  []string
	begun  time.Time
}

// truth is an answer that was right from some time on, until another one took its place.
type truth struct {
	answer string
	until  time.Time // zero: it is
}

type crowdSocket struct {
	network   int
	conn      net.Conn
	next      uint16
	waits     atomic.Int32
	sentAt    [1 << 16]atomic.Int64 // by ID, since the epoch in nanoseconds
	sent, got atomic.Int64
}

// hold has TestFastpathUnderChange fail where the rate isn't held, as it is on a machine that has nothing else to do.
var hold = flag.Bool("hold", false, "demand the rate")

const (
	askRate   = 20_000 // queries a second
	askWindow = 12     // queries without an answer of each socket: all together fit the buffer of one
	// tellTime is for how long after a change is acknowledged what was asked before may be answered as before, on a machine with
	// much else to do.
	tellTime = time.Second
)

func startCrowd(t *testing.T, to, name string, first [2]string) *crowd {
	t.Helper()
	a := &crowd{t: t, stop: make(chan struct{}), begun: time.Now()}
	query, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for network, from := range []string{"127.1.0.9", "127.2.0.9"} {
		a.truths[network] = []truth{{answer: first[network]}}
		for range 4 {
			conn, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}).Dial("udp", to)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			s := &crowdSocket{network: network, conn: conn}
			a.sockets = append(a.sockets, s)
			go a.hear(s)
		}
	}
	a.done.Go(func() { a.ask(query) })
	t.Cleanup(func() { a.end() })
	return a
}

// ask sends queries until the end.
func (a *crowd) ask(query []byte) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	asked := 0
	for began := time.Now(); ; {
		select {
		case <-a.stop:
			return
		case now := <-tick.C:
			for due := int(now.Sub(began).Seconds() * askRate); asked < due; asked++ {
				s := a.free()
				if s == nil {
					break // it would be lost in a buffer, which says nothing; what is due now is sent later
				}
				s.waits.Add(1)
				s.next++
				binary.BigEndian.PutUint16(query, s.next)
				s.sentAt[s.next].Store(time.Now().UnixNano())
				if _, err := s.conn.Write(query); err != nil {
					a.t.Error(err)
					return
				}
				s.sent.Add(1)
			}
		}
	}
}

// free returns one of the sockets whose answers don't keep it waiting, at random, nil if there is none.
func (a *crowd) free() *crowdSocket {
	first := rand.IntN(len(a.sockets))
	for i := range a.sockets {
		if s := a.sockets[(first+i)%len(a.sockets)]; s.waits.Load() < askWindow {
			return s
		}
	}
	return nil
}

// hear judges answers until the socket is closed.
func (a *crowd) hear(s *crowdSocket) {
	buf := make([]byte, 4096)
	for {
		n, err := s.conn.Read(buf)
		if err != nil {
			return
		}
		s.waits.Add(-1)
		s.got.Add(1)
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil {
			a.complain(fmt.Sprintf("%x: %v", buf[:n], err))
			continue
		}
		asked := s.sentAt[m.Id].Swap(0)
		if asked == 0 {
			a.complain(fmt.Sprintf("a second answer, or one to nothing: %v", m)) // it would be counted for one that is lost
			continue
		}
		a.judge(s.network, lastAddress(m), time.Unix(0, asked))
	}
}

// lastAddress returns the address that an answer leads to, or its code.
func lastAddress(m *dns.Msg) string {
	if n := len(m.Answer); n > 0 {
		if a, ok := m.Answer[n-1].(*dns.A); ok {
			return a.A.String()
		}
	}
	return dns.RcodeToString[m.Rcode]
}

func (a *crowd) judge(network int, answer string, asked time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, truth := range a.truths[network] {
		if truth.answer == answer && (truth.until.IsZero() || asked.Before(truth.until)) {
			return
		}
	}
	a.wrong = append(a.wrong, fmt.Sprintf("network %d was answered %s %v after it wasn't right any more, or never was: %v", network, answer, time.Since(asked), a.truths[network]))
}

func (a *crowd) complain(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wrong = append(a.wrong, what)
}

// changing says what answers are becoming; the old ones are right until told is called, and a little longer.
func (a *crowd) changing(to [2]string) (told func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for network, answer := range to {
		a.truths[network] = append(a.truths[network], truth{answer: answer})
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for network, all := range a.truths {
			for i := range all[:len(all)-1] {
				if all[i].until.IsZero() {
					a.truths[network][i].until = time.Now().Add(tellTime)
				}
			}
			// The same answer again is right on.
			if last := len(all) - 1; last > 0 && all[last-1].answer == all[last].answer {
				a.truths[network] = append(all[:last-1], all[last])
			}
		}
	}
}

// flow returns when each network has new answers, which are asked for after the call.
func (a *crowd) flow() {
	a.t.Helper()
	var from [2]int64
	count := func() (n [2]int64) {
		for _, s := range a.sockets {
			n[s.network] += s.got.Load()
		}
		return n
	}
	from = count()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if n := count(); n[0] >= from[0]+1000 && n[1] >= from[1]+1000 {
			return
		}
		if time.Now().After(end) {
			a.t.Fatalf("answers %v, before %v", count(), from)
		}
	}
}

// end stops, and returns how many were asked and not answered, and answered wrongly.
func (a *crowd) end() (sent, lost int64, wrong []string) {
	select {
	case <-a.stop:
	default:
		close(a.stop)
	}
	a.done.Wait()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		sent, lost = 0, 0
		for _, s := range a.sockets {
			sent += s.sent.Load()
			lost += s.sent.Load() - s.got.Load()
		}
		if lost == 0 || time.Now().After(end) {
			break
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return sent, lost, a.wrong
}

// changingCorefile has one name with an endpoint in each of two networks; approved are those whose request is.
func changingCorefile(dnsPort, metrics, target string, addresses [2]string, approved string) string {
	return fmt.Sprintf(`.:%s {
 bind 127.0.0.1
 linkstore bolt state/postern.db
 linknetwork one 127.1.0.0/16 127.0.0.1/32 {
  endpoints 127.0.98.0/24
 }
 linknetwork two 127.2.0.0/16 {
  endpoints 127.0.99.0/24
 }
 linkservice app {
  names app.example.com
  pin address
  target %s
  port 1433
  approve %s
 }
 linkendpoint e1 {
  service app
  network one
  address %s
 }
 linkendpoint e2 {
  service app
  network two
  address %s
 }
 privatelink
 prometheus 127.0.0.1:%s
 hosts {
  203.0.113.80 app.example.com
 }
 errors
}
`, dnsPort, target, approved, addresses[0], addresses[1], metrics)
}

// TestFastpathUnderChange (D13, D16, P13): with the fast path, which nobody asked for, two networks ask thousands of times a second while
// endpoints are moved, rejected and approved, the Corefile is loaded again and processes follow on each other. No query is lost, none is
// answered with the other network's address, and none with an old one once a change is acknowledged.
func TestFastpathUnderChange(t *testing.T) {
	t.Parallel()
	const public = "203.0.113.80"
	metrics, dnsPort, target := strconv.Itoa(int(freeport.Get(t))), "", ""
	now := [2]string{"127.0.98.5", "127.0.99.5"}
	u := startUpgraded(t, func(d, to string) string {
		dnsPort, target = d, to
		return changingCorefile(d, metrics, to, now, "one two")
	})
	a := startCrowd(t, u.dns, "app.example.com.", now)
	a.flow()
	change := func(what string, addresses [2]string, approved string, want [2]string) {
		t.Helper()
		told := a.changing(want)
		u.write(changingCorefile(dnsPort, metrics, target, addresses, approved))
		before := strings.Count(u.output(), "Reloading complete")
		if err := syscall.Kill(u.pid, syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		u.eventually(what, func() bool { return strings.Count(u.output(), "Reloading complete") > before })
		told()
		a.flow()
	}
	change("a new address", [2]string{"127.0.98.6", "127.0.99.5"}, "one two", [2]string{"127.0.98.6", "127.0.99.5"})
	change("a rejection", [2]string{"127.0.98.6", "127.0.99.5"}, "two", [2]string{public, "127.0.99.5"})
	u.upgrade()
	a.flow()
	change("an approval", [2]string{"127.0.98.6", "127.0.99.5"}, "one two", [2]string{"127.0.98.6", "127.0.99.5"})
	change("the same", [2]string{"127.0.98.6", "127.0.99.5"}, "one two", [2]string{"127.0.98.6", "127.0.99.5"})
	u.upgrade()
	change("two new addresses", [2]string{"127.0.98.7", "127.0.99.7"}, "one two", [2]string{"127.0.98.7", "127.0.99.7"})
	time.Sleep(time.Until(a.begun.Add(5 * time.Second)))
	took := time.Since(a.begun).Seconds()
	sent, lost, wrong := a.end()
	t.Logf("%d queries, %.0f a second", sent, float64(sent)/took)
	if *hold && float64(sent) < 0.99*askRate*took { // the last ones may be due yet
		t.Errorf("%.0f queries a second", float64(sent)/took)
	}
	if lost != 0 || len(wrong) != 0 {
		t.Errorf("%d of %d queries lost, %d answers wrong: %s", lost, sent, len(wrong), strings.Join(wrong[:min(len(wrong), 3)], "\n"))
	}
	if text := fetchText(t, "http://127.0.0.1:"+metrics+"/metrics"); !regexp.MustCompile(`(?m)^coredns_privatelink_fastpath_answers_total\{[^}]*\} [1-9]`).MatchString(text) {
		t.Error("nothing was answered by the fast path")
	}
	if t.Failed() {
		t.Log(u.output())
	}
}

func fetchText(t *testing.T, url string) string {
	t.Helper()
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestFastpathAfterRefusal (P13): a process that has had the sockets for a while may have led the queries elsewhere, by numbers that went with its own
// sockets. When its upgrade is refused the one before it has them lead to its sockets again.
func TestFastpathAfterRefusal(t *testing.T) {
	t.Parallel()
	metrics, text := freePort(t), ""
	u := startUpgraded(t, func(d, to string) string {
		text = changingCorefile(d, metrics, to, [2]string{"127.0.98.5", "127.0.99.5"}, "one two")
		return text
	})
	const questions = 50 // each from another port
	re := regexp.MustCompile(`(?m)^coredns_privatelink_fastpath_answers_total\{[^}]*\} (\d+)`)
	answered := func() (n int) {
		for _, m := range re.FindAllStringSubmatch(fetchText(t, "http://127.0.0.1:"+metrics+"/metrics"), -1) {
			k, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
		return n
	}
	ask := func() (fast int) {
		before := answered()
		for range questions {
			m, _, err := (&dns.Client{Timeout: 10 * time.Second}).Exchange(new(dns.Msg).SetQuestion("app.example.com.", dns.TypeA), u.dns)
			if err != nil || len(m.Answer) != 1 {
				t.Fatal(m, err)
			}
		}
		return answered() - before
	}
	u.eventually("all from the table", func() bool { return ask() >= questions })
	leadAway(t, u.dns)
	if n := ask(); n != 0 {
		t.Fatalf("%d are answered from the table", n)
	}
	u.write(strings.Replace(text, "linkstore bolt state/postern.db", "linkstore etcd http://127.0.0.1:"+freePort(t), 1))
	u.refused()
	u.eventually("all from the table again", func() bool { return ask() >= questions })
}

// leadAway has the kernel lead all queries of an address to the first socket there, which is CoreDNS's.
func leadAway(t *testing.T, at string) {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		ctl := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(ctl, err)
	}}
	conn, err := lc.ListenPacket(t.Context(), "udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	first := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	ctl := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &first})
	})
	if ctl != nil || err != nil {
		t.Fatal(ctl, err)
	}
}
