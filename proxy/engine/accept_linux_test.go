package engine

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// acceptor is a listener of an epoll engine with two loops, whatever this machine has.
func acceptor(t *testing.T) (e *epollEngine, l Listener, addr string, got chan Conn) {
	t.Helper()
	e = &epollEngine{stop: make(chan struct{})}
	for range 2 {
		one, err := newLoop(e)
		if err != nil {
			t.Fatal(err)
		}
		e.loops = append(e.loops, one)
	}
	for _, one := range e.loops {
		e.running.Go(one.run)
	}
	t.Cleanup(e.Close)
	on, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = on.Addr().String()
	got = make(chan Conn, 128)
	l, err = e.Listen(on.(*net.TCPListener), Accepting{
		Conn:   func(c Conn, _, _ netip.AddrPort) { got <- c },
		Failed: func(err error) time.Duration { t.Error(err); return time.Second },
	})
	if err != nil {
		t.Fatal(err)
	}
	return e, l, addr, got
}

func dialTo(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func accepted(t *testing.T, got chan Conn) *conn {
	t.Helper()
	select {
	case c := <-got:
		t.Cleanup(func() { c.Close() })
		return c.(*conn)
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was accepted")
		return nil
	}
}

// TestSpread: connections that come one by one, each to an engine with nothing to do, are not all in one loop. Those of the
// fuller loop end, and the next ones make up for it.
func TestSpread(t *testing.T) {
	e, l, addr, got := acceptor(t)
	defer l.Close()
	of := map[*loop][]*conn{}
	add := func(n int) {
		for range n {
			dialTo(t, addr)
			c := accepted(t, got)
			of[c.loop] = append(of[c.loop], c)
		}
	}
	a, b := e.loops[0], e.loops[1]
	even := func() {
		t.Helper()
		na, nb := int(a.conns.Load()), int(b.conns.Load())
		if min(na, nb)*5/4+1 < max(na, nb) {
			t.Errorf("%d connections in one loop, %d in the other", na, nb)
		}
	}
	add(40)
	even()
	for _, c := range of[a] {
		c.Close()
	}
	if n := a.conns.Load(); n != 0 {
		t.Fatalf("%d connections are counted of none", n)
	}
	add(20)
	even()
}

// TestHandedOver: a connection that is on its way to another loop when its listener is closed is given away before Close
// returns. Another process may have the listener by then, and nobody else the connection.
func TestHandedOver(t *testing.T) {
	e, l, addr, got := acceptor(t)
	dialTo(t, addr)
	lighter := e.loops[0]
	if accepted(t, got).loop == lighter {
		lighter = e.loops[1]
	}
	held, release := make(chan struct{}), make(chan struct{})
	lighter.call(func() { close(held); <-release })
	<-held
	dialTo(t, addr)
	for end := time.Now().Add(10 * time.Second); lighter.conns.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it was never handed over")
		}
	}
	closed := make(chan error, 1)
	go func() { closed <- l.Close() }()
	select {
	case err := <-closed:
		t.Errorf("closed, with a connection on its way: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	close(release)
	accepted(t, got)
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
