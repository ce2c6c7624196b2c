package engine

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// engines starts each engine.
var engines = map[string]func() (Engine, error){
	"best":     New,
	"portable": func() (Engine, error) { return Portable(), nil },
}

// each runs a test on every engine.
func each(t *testing.T, test func(t *testing.T, w *world)) {
	for name, start := range engines {
		t.Run(name, func(t *testing.T) { test(t, newWorld(t, start)) })
	}
}

// newWorld starts an engine, and ends it with the test.
func newWorld(t testing.TB, start func() (Engine, error)) *world {
	t.Helper()
	e, err := start()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, engine: e}
	t.Cleanup(w.close)
	return w
}

// world has an engine between clients and targets, which are of the standard library.
type world struct {
	t      testing.TB
	engine Engine
	ip     net.IP // where its connections are; nil: 127.0.0.1
	open   []io.Closer
	mu     sync.Mutex
	pairs  []*running
}

// running is a pair under way.
type running struct {
	client, target     *net.TCPConn // the outer ends
	near, far          Conn         // what the engine has of them
	toTarget, toClient atomic.Int64
	moved              atomic.Bool
	ended              chan End
	calls              atomic.Int32
}

func (w *world) close() {
	for _, p := range w.pairs {
		p.near.Reset()
		p.far.Reset()
		p.wait(w.t)
	}
	for _, c := range w.open {
		c.Close()
	}
	w.engine.Close()
	for _, p := range w.pairs {
		if n := p.calls.Load(); n != 1 {
			w.t.Errorf("Ended was called %d times", n)
		}
	}
}

// wait returns how the pair ended, and lets others ask too.
func (p *running) wait(t testing.TB) End {
	t.Helper()
	select {
	case e := <-p.ended:
		p.ended <- e
		return e
	case <-time.After(30 * time.Second):
		t.Fatal("copying doesn't end")
		return End{}
	}
}

func listen(t testing.TB) *net.TCPListener { return listenAt(t, nil) }

func listenAt(t testing.TB, ip net.IP) *net.TCPListener {
	t.Helper()
	if ip == nil {
		ip = net.IPv4(127, 0, 0, 1)
	}
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: ip})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func addr(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// accepted returns a client and what the engine accepted of it.
func (w *world) accepted() (*net.TCPConn, Conn) {
	w.t.Helper()
	l := listenAt(w.t, w.ip)
	at := addr(l)
	near, err := accepting(w.engine, l)
	if err != nil {
		w.t.Fatal(err)
	}
	defer near.Close()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		w.t.Fatal(err)
	}
	w.open = append(w.open, c)
	conn, peer, local, err := near.Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	if peer != addr2(c.LocalAddr()) || local != at {
		w.t.Errorf("accepted %v at %v, want %v at %v", peer, local, c.LocalAddr(), at)
	}
	return c, conn
}

// queue is what an engine accepts, one after the other.
type queue struct {
	Listener
	conns  chan arrival
	failed chan error // the last one that nobody was told of
}

type arrival struct {
	conn        Conn
	peer, local netip.AddrPort
}

// accepting has an engine accept. There is room for as many connections as a test makes.
func accepting(e Engine, l *net.TCPListener) (*queue, error) {
	q := &queue{conns: make(chan arrival, 1000), failed: make(chan error, 1)}
	var err error
	q.Listener, err = e.Listen(l, Accepting{
		Conn: func(c Conn, peer, local netip.AddrPort) { q.conns <- arrival{c, peer, local} },
		Failed: func(err error) time.Duration {
			select {
			case q.failed <- err:
			default:
			}
			return time.Millisecond
		},
	})
	return q, err
}

// Close closes the listener; what was accepted can still be had.
func (q *queue) Close() error {
	err := q.Listener.Close()
	if err == nil {
		close(q.conns)
	}
	return err
}

// Accept returns the next connection or error, net.ErrClosed after Close.
func (q *queue) Accept() (conn Conn, peer, local netip.AddrPort, err error) {
	select {
	case a, ok := <-q.conns:
		if !ok {
			return nil, peer, local, net.ErrClosed
		}
		return a.conn, a.peer, a.local, nil
	case err := <-q.failed:
		return nil, peer, local, err
	}
}

func addr2(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

// dialled returns a target and what the engine dialled of it.
func (w *world) dialled(near Conn) (*net.TCPConn, Conn) {
	w.t.Helper()
	l := listenAt(w.t, w.ip)
	defer l.Close()
	conn, err := Dial(w.t.Context(), w.engine, netip.AddrPort{}, addr(l), near, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := l.AcceptTCP()
	if err != nil {
		w.t.Fatal(err)
	}
	w.open = append(w.open, c)
	return c, conn
}

// pair starts to copy.
func (w *world) pair(options func(*Copy)) *running {
	w.t.Helper()
	p := &running{ended: make(chan End, 1)}
	p.client, p.near = w.accepted()
	p.target, p.far = w.dialled(p.near)
	w.copy(p, options)
	return p
}

func (w *world) copy(p *running, options func(*Copy)) {
	c := Copy{
		Client: p.near, Target: p.far, ToTarget: &p.toTarget, ToClient: &p.toClient, Moved: &p.moved,
		Ended: func(e End) {
			if p.calls.Add(1) == 1 {
				if e.Broken != Nobody || e.Guarded {
					p.near.Reset()
					p.far.Reset()
				}
				p.near.Close()
				p.far.Close()
				p.ended <- e
			}
		},
	}
	if options != nil {
		options(&c)
	}
	w.mu.Lock()
	w.pairs = append(w.pairs, p)
	w.mu.Unlock()
	w.engine.Copy(c)
}

// ended is a pair of which one side has said its last words, and the other has heard them. a is who said them, b who heard.
func (w *world) ended(t *testing.T, side Side) (p *running, a, b *net.TCPConn) {
	t.Helper()
	p = w.pair(nil)
	a, b = p.client, p.target
	if side == Target {
		a, b = b, a
	}
	say(t, a, "last words")
	a.CloseWrite()
	hear(t, b, "last words")
	hearEnd(t, b)
	return p, a, b
}

func say(t *testing.T, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c net.Conn, want string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, len(want))
	if n, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("got %q, %v; want %q", b[:n], err, want)
	}
}

func hearEnd(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("%d bytes, %v; want the end", n, err)
	}
}

func hearReset(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("%v; want a reset", err)
	}
}

// silent returns the address of a listener with the shortest queue, from which nobody accepts.
func silent(t *testing.T) netip.AddrPort {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) })
	if err != nil {
		t.Fatal(err)
	}
	return addr(l)
}
