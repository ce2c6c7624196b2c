package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/targets"
)

// keeper is a target that numbers its connections, and keeps those on which nothing is said.
type keeper struct {
	addr     netip.AddrPort
	banner   string       // that it says first
	proxied  bool         // it wants a PROXY header
	hasty    bool         // it ends those that say nothing at once
	accepted atomic.Int64 // connections, probes too
	now      atomic.Int64 // that are open
	most     atomic.Int64 // of those, since it was set to 0

	mu    sync.Mutex
	quiet map[*net.TCPConn]bool
}

func newKeeper(t testing.TB, edit ...func(*keeper)) *keeper {
	k := &keeper{quiet: map[*net.TCPConn]bool{}}
	for _, e := range edit {
		e(k)
	}
	k.addr = serve(t, k.serve)
	return k
}

// serve says first which connection it is, who speaks and from where, then what comes.
func (k *keeper) serve(c *net.TCPConn) {
	number := k.accepted.Add(1)
	for n := k.now.Add(1); ; {
		if most := k.most.Load(); n <= most || k.most.CompareAndSwap(most, n) {
			break
		}
	}
	left := sync.OnceFunc(func() { k.now.Add(-1) })
	defer left()
	if k.hasty {
		return
	}
	k.set(c, true)
	io.WriteString(c, k.banner)
	r := bufio.NewReader(c)
	_, err := r.Peek(1)
	k.set(c, false)
	if err != nil {
		return // a probe, or nobody wanted it
	}
	source := "-"
	if k.proxied {
		h, err := proxyproto.Read(r)
		if err != nil || !h.Command.IsProxy() {
			return
		}
		source = h.SourceAddr.String()
	}
	host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	fmt.Fprintf(c, "%d %s %s\n", number, source, host)
	io.Copy(c, r)
	left() // before anybody can know
	c.CloseWrite()
}

func (k *keeper) set(c *net.TCPConn, quiet bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if quiet {
		k.quiet[c] = true
	} else {
		delete(k.quiet, c)
	}
}

// waiting returns the connections on which nothing was said.
func (k *keeper) waiting() (all []*net.TCPConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.quiet {
		all = append(all, c)
	}
	return all
}

// answer is what a keeper says of a connection.
type answer struct {
	number       int64
	source, from string
}

// flow makes a flow to a keeper.
func (k *keeper) flow(w *world) (*net.TCPConn, answer, error) {
	c, err := net.DialTimeout("tcp", w.first(), patience)
	if err != nil {
		return nil, answer{}, err
	}
	c.SetDeadline(time.Now().Add(patience))
	a, err := k.ask(c)
	return c.(*net.TCPConn), a, err
}

func (k *keeper) ask(c net.Conn) (a answer, err error) {
	r := bufio.NewReader(c)
	b := make([]byte, len(k.banner))
	if _, err := io.ReadFull(r, b); err != nil || string(b) != k.banner {
		return a, fmt.Errorf("banner %q: %w", b, err)
	}
	if _, err := io.WriteString(c, "ping\n"); err != nil {
		return a, err
	}
	line, err := r.ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(line, &a.number, &a.source, &a.from)
	}
	if err != nil {
		return a, err
	}
	if line, err = r.ReadString('\n'); err != nil || line != "ping\n" {
		return a, fmt.Errorf("echo %q: %w", line, err)
	}
	if k.proxied && a.source != c.LocalAddr().String() {
		return a, fmt.Errorf("the header of connection %d says %s, and the client is %v", a.number, a.source, c.LocalAddr())
	}
	return a, nil
}

// mustFlow is flow for one that must be served. It is over when it returns.
func (k *keeper) mustFlow(w *world) answer {
	w.t.Helper()
	c, a, err := k.flow(w)
	if c != nil {
		defer c.Close()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// ready returns how many connections are ready at the target.
func (k *keeper) ready(w *world) int {
	return max(0, int(w.metric(w.t, "postern_proxy_warm_connections", "svc", k.addr.String())))
}

// mustBeReady waits until there are so many, on both sides.
func (k *keeper) mustBeReady(w *world, n int) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%d connections are ready", n), func() bool { return k.ready(w) == n && len(k.waiting()) == n })
}

// warmed is the edit of a service that has n of them, for as long as a test takes.
func warmed(n int) func(*link.Service) {
	return func(s *link.Service) { s.Warm, s.WarmAge = n, link.MaxWarmAge }
}

func cold(s *link.Service) { s.Warm, s.WarmAge = 0, 0 }

func headed(s *link.Service) { s.ProxyProtocol = link.ProxyV2 }

func proxied(k *keeper) { k.proxied = true }

// warmWorld is a world with a service svc, whose targets aren't probed after the first time.
func warmWorld(t *testing.T, settings Settings, k *keeper, edit ...func(*link.Service)) *world {
	t.Helper()
	settings.ProbeInterval = time.Minute
	w := newWorld(t, settings, service("svc", 7001, k.addr, edit...), endpoint("e", "svc", nextAddr(t)))
	eventually(t, "the target is up", func() bool { return w.status(k.addr).Up })
	return w
}

// eachEngine runs a test with both engines.
func eachEngine(t *testing.T, test func(t *testing.T, s Settings)) {
	for name, portable := range map[string]bool{"epoll": false, "portable": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, Settings{Portable: portable})
		})
	}
}

func (w *world) warmth(result string) float64 {
	return w.metric(w.t, "postern_proxy_warm_total", result)
}

// A flow takes a connection that is ready, on which its own PROXY header is the first that is said. Without a word there is none.
func TestWarm(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, s Settings) {
		k := newKeeper(t, proxied)
		w := warmWorld(t, s, k, headed)
		k.mustFlow(w)
		if n := k.accepted.Load(); n != 2 { // and the probe
			t.Errorf("%d connections without warm", n)
		}
		w.apply(edited(w, warmed(2))...)
		k.mustFlow(w)
		for range 5 {
			k.mustBeReady(w, 2)
			before := k.accepted.Load()
			if a := k.mustFlow(w); a.number > before {
				t.Errorf("connection %d was dialled for the flow", a.number)
			}
		}
		if taken, missed := w.warmth("taken"), w.warmth("missed"); taken != 5 || missed != 1 {
			t.Errorf("%v taken, %v missed", taken, missed)
		}
	})
}

// A pinned flow, whose first bytes are there when its target is chosen, is one for its name on a ready connection too.
func TestWarmPinned(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, s Settings) {
		g := newTarget(t)
		w := newWorld(t, s, service("svc", 7001, g.addr(), warmed(1), pinned, headed), endpoint("e", "svc", nextAddr(t)))
		for i := range 2 {
			hello := helloFor(t, "allowed.example")
			c := dial(t, w.first())
			c.Write(hello)
			far, h, r := g.header()
			got := make([]byte, len(hello))
			if _, err := io.ReadFull(r, got); err != nil || string(got) != string(hello) {
				t.Errorf("flow %d: %d bytes, %v", i, len(got), err)
			}
			if h.SourceAddr.String() != c.LocalAddr().String() {
				t.Errorf("flow %d: the header says %v", i, h.SourceAddr)
			}
			eventually(t, "the next is ready", func() bool {
				return w.metric(t, "postern_proxy_warm_connections", "svc", g.addr().String()) == 1
			})
			far.Close()
		}
		if n := w.warmth("taken"); n != 1 {
			t.Errorf("%v taken", n)
		}
		c, _, err := new(keeper).flow(w) // which says no hello
		if c != nil {
			c.Close()
		}
		if err == nil {
			t.Error("what isn't TLS is carried")
		}
	})
}

// What a target says first reaches the client that takes the connection.
func TestWarmSpeaksFirst(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, s Settings) {
		k := newKeeper(t, func(k *keeper) { k.banner = "220 mail.example ESMTP\r\n" })
		w := warmWorld(t, s, k, warmed(1))
		k.mustFlow(w)
		for range 3 {
			k.mustBeReady(w, 1)
			k.mustFlow(w)
		}
		if n := w.warmth("taken"); n != 3 {
			t.Errorf("%v taken", n)
		}
	})
}

// What the target has ended, whatever it has said before, no client gets.
func TestWarmEnded(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*net.TCPConn){
		"closed":      func(c *net.TCPConn) { c.Close() },
		"half closed": func(c *net.TCPConn) { c.CloseWrite() },
		"reset":       reset,
		"with a word": func(c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\n\r\n"); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			eachEngine(t, func(t *testing.T, s Settings) {
				k := newKeeper(t, proxied)
				w := warmWorld(t, s, k, warmed(3), headed)
				k.mustFlow(w)
				k.mustBeReady(w, 3)
				last := k.accepted.Load()
				for _, c := range k.waiting() {
					end(c)
				}
				if a := k.mustFlow(w); a.number <= last {
					t.Errorf("the flow has connection %d", a.number)
				}
				if n := w.warmth("ended"); n != 3 {
					t.Errorf("%v had ended", n)
				}
			})
		})
	}
}

// What isn't the flow's fault isn't the target's either: a reset on a connection that was ready says nothing about the target.
func TestWarmResetEjectsNobody(t *testing.T) {
	t.Parallel()
	bad := newTarget(t)
	w := newWorld(t, Settings{ProbeInterval: time.Minute}, service("svc", 7001, bad.addr(), targetsOf(bad.addr(), echo(t)), warmed(1)), endpoint("e", "svc", nextAddr(t)))
	f := &flow{proxy: w.proxy, seat: seat{taken: time.Now(), warmed: true}, reason: policy.Target}
	f.verdict.Service = w.now.Load().Service("svc")
	for range 5 {
		place, _, err := w.proxy.health.set(f.verdict.Service).Take(time.Now(), f.verdict.Service, targets.Flow{})
		if err != nil {
			t.Fatal(err)
		}
		f.place = place
		f.vacate()
	}
	if w.status(bad.addr()).Ejected {
		t.Error("it is ejected")
	}
}

// A thousand flows at once, while all that can change does: each is served, with its own header, and nothing is left over.
func TestWarmRace(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, s Settings) {
		s.MaxFlows, s.MaxPerSource = 4096, 4096
		k, second := newKeeper(t, proxied), newKeeper(t, proxied)
		both := []netip.AddrPort{k.addr, second.addr}
		w := warmWorld(t, s, k, warmed(20), headed, targetsOf(both...))
		stop := make(chan struct{})
		var changes, flows sync.WaitGroup
		step := make(chan struct{}, 1)
		changes.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-step:
				}
				edit := []func(*link.Service){warmed(20), warmed(3), natted, func(s *link.Service) { s.NAT = nil }, weighted(both, 1, 0), weighted(both, 0, 1), weighted(both, 2, 3), cold}[i%8]
				w.apply(edited(w, edit)...)
				w.proxy.warm.follow()
			}
		})
		var failed atomic.Int64
		slots := make(chan struct{}, 50)
		for range 1000 {
			slots <- struct{}{}
			flows.Go(func() {
				defer func() { <-slots }()
				c, _, err := k.flow(w)
				if c != nil {
					c.Close()
				}
				if err != nil && failed.Add(1) < 5 {
					t.Error(err)
				}
				select {
				case step <- struct{}{}:
				default:
				}
			})
		}
		flows.Wait()
		close(stop)
		changes.Wait()
		t.Logf("%v taken, %v missed, %v had ended, %v unused", w.warmth("taken"), w.warmth("missed"), w.warmth("ended"), w.warmth("unused"))
		if w.warmth("taken")+w.warmth("missed") == 0 {
			t.Error("nobody has looked for one")
		}
		w.proxy.Close()
		if n := w.proxy.warm.all; n != 0 || len(w.proxy.warm.shelves) != 0 {
			t.Errorf("%d are counted, on %d shelves", n, len(w.proxy.warm.shelves))
		}
		eventually(t, "the targets have no connection", func() bool { return k.now.Load()+second.now.Load() == 0 })
	})
}

// What is said of ports: a connection that is ready has one.
func TestWarmCountsPorts(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	w := warmWorld(t, Settings{}, k, warmed(2), natted)
	k.mustFlow(w)
	k.mustBeReady(w, 2)
	eventually(t, "two ports are used", func() bool {
		return w.metric(t, "postern_proxy_nat_ports_used", "127.99.0.9", "svc", k.addr.String()) == 2
	})
	if !strings.Contains(k.mustFlow(w).from, "127.99.0.9") {
		t.Error("it isn't from the address")
	}
}
