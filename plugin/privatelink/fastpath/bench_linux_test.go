package fastpath

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// BenchmarkServe is queries over the loopback in bursts of 64 system calls at a time, answered from the table and as CoreDNS's
// own socket would have them answered: by a dns.Server and the same backend. The client's share is in both.
func BenchmarkServe(b *testing.B) {
	for _, how := range []string{"table", "plugins"} {
		b.Run(how, func(b *testing.B) {
			addr := freeAddr(b)
			backend := newPlugins()
			if how == "table" {
				core(b, addr)
				g, err := Open(addr, NewTarget(backend))
				if err != nil {
					b.Fatal(err)
				}
				defer g.Close(time.Second)
				if err := g.Steer(1, nil); err != nil {
					b.Fatal(err)
				}
			} else {
				conn, err := listen(addr)
				if err != nil {
					b.Fatal(err)
				}
				started := make(chan struct{})
				srv := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(started) },
					Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) { backend.Serve(w, r, false) })}
				go func() { _ = srv.ActivateAndServe() }()
				<-started
				defer func() { _ = srv.Shutdown() }()
			}
			c := newBurst(b, addr)
			for range 50 {
				c.round(b, batch)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += batch {
				c.round(b, min(batch, b.N-n))
			}
		})
	}
}

// burst is a client that sends and takes many datagrams with one system call.
type burst struct {
	fd   int
	ring *ring
	b    [batch][]byte
	id   uint16
}

func newBurst(b testing.TB, addr netip.AddrPort) *burst {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		b.Fatal(err)
	}
	f, err := conn.File()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close(); conn.Close() })
	c := &burst{fd: int(f.Fd()), ring: newRing(false)}
	for i := range c.b {
		c.b[i] = wire(b, fmt.Sprintf("name%d.privatelink.database.windows.net.", i), nil)
	}
	return c
}

// round sends n queries and takes as many answers.
func (c *burst) round(b testing.TB, n int) {
	c.ask(n)
	c.take(b, n)
}

// ask sends n queries.
func (c *burst) ask(n int) {
	r := c.ring
	for i := range n {
		c.id++
		binary.BigEndian.PutUint16(c.b[i], c.id)
		r.add(c.b[i], &r.from[i], 0, nil) // the socket is connected
	}
	r.send(uintptr(c.fd), false)
}

// take takes n answers.
func (c *burst) take(b testing.TB, n int) {
	r := c.ring
	for got := 0; got < n; {
		if errno := r.receive(uintptr(c.fd)); errno == unix.EAGAIN {
			fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
			if k, err := unix.Poll(fds, 5000); err == nil && k == 0 {
				b.Fatalf("%d of %d answers", got, n)
			}
		} else if errno != 0 {
			b.Fatal(errno)
		}
		got += r.count
	}
}
