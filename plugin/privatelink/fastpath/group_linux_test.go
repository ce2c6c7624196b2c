package fastpath

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/internal/freeport"
)

// core is CoreDNS's socket: it counts what comes to it, and answers REFUSED.
func core(t testing.TB, addr netip.AddrPort) *atomic.Int64 {
	t.Helper()
	conn, err := listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	started := make(chan struct{})
	srv := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		n.Add(1)
		_ = w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeRefused))
	})}
	done := make(chan error, 1)
	go func() { done <- srv.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		_ = srv.Shutdown()
		<-done
	})
	return &n
}

func freeAddr(t testing.TB) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(freeport.Get(t)))
}

func ask(t testing.TB, c *dns.Conn, name string) *dns.Msg {
	t.Helper()
	m, _, err := (&dns.Client{Timeout: 10 * time.Second}).ExchangeWithConn(new(dns.Msg).SetQuestion(name, dns.TypeA), c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func dial(t testing.TB, addr netip.AddrPort) *dns.Conn {
	t.Helper()
	c, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &dns.Conn{Conn: c}
}

// TestGroup: all queries come to the group, wherever it stands among the sockets, the second for a name is answered from the
// table, and what was answered before a change isn't any more after it.
func TestGroup(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name          string
		before, after int
	}{{"behind one", 1, 0}, {"behind three", 3, 0}, {"between", 2, 2}, {"before", 0, 1}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			addr := freeAddr(t)
			var cores []*atomic.Int64
			for range tc.before {
				cores = append(cores, core(t, addr))
			}
			b := newPlugins()
			g, err := Open(addr, NewTarget(b))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { g.Close(time.Second) })
			for range tc.after {
				cores = append(cores, core(t, addr))
			}
			steer(t, g, tc.before+tc.after)
			c := dial(t, addr)
			for range 50 {
				if m := ask(t, c, "a.example."); len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "10.0.0.1" {
					t.Fatalf("answer %v", m)
				}
			}
			b.set(net.IPv4(10, 0, 0, 2))
			if m := ask(t, c, "a.example."); m.Answer[0].(*dns.A).A.String() != "10.0.0.2" {
				t.Fatalf("answer after the change %v", m)
			}
			for _, n := range cores {
				if n.Load() != 0 {
					t.Errorf("%d queries came to the others", n.Load())
				}
			}
			// The first answer may still be on its way into the table when the next query comes.
			if n := b.asked.Load(); n > 10 {
				t.Errorf("the plugins were asked %d times", n)
			}
			g.Leave()
			if len(cores) > 0 {
				if m := ask(t, c, "a.example."); m.Rcode != dns.RcodeRefused {
					t.Errorf("after the group has left: %v", m)
				}
			}
		})
	}
}

// steer has a group get all datagrams of its address, and waits until it does.
func steer(t testing.TB, g *Group, others int) {
	t.Helper()
	found := make(chan struct{})
	if g.Steer(others, func() { close(found) }) == nil {
		return
	}
	select {
	case <-found:
	case <-time.After(20 * time.Second):
		t.Fatal("the numbers aren't found")
	}
}

// TestCloseBounded: a plugin that doesn't answer delays the end of a group by no more than was said.
func TestCloseBounded(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	b := newPlugins()
	b.hold = make(chan struct{})
	target := NewTarget(b)
	g, err := Open(addr, target)
	if err != nil {
		t.Fatal(err)
	}
	query, err := new(dns.Msg).SetQuestion("a.example.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t, addr).Conn.Write(query); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); b.asked.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the plugins aren't asked")
		}
	}
	closed := make(chan struct{})
	go func() { g.Close(50 * time.Millisecond); close(closed) }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("the group doesn't end while a plugin answers")
	}
	close(b.hold)
	<-closed
	target.Drain(10 * time.Second)
	if n := target.serving.Load(); n != 0 {
		t.Errorf("%d queries are still with the plugins", n)
	}
}
