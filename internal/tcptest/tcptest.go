// Package tcptest serves TCP to tests: the target that flows lead to, as one function.
package tcptest

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// Server is a listener with what serves its connections.
type Server struct {
	Addr netip.AddrPort

	l *net.TCPListener
}

// Serve serves each connection to an address, such as "127.0.0.1:0", by a function in a goroutine of its own. The connection is closed
// when the function returns. At the end of the test all connections are closed, and the functions are waited for.
func Serve(t testing.TB, at string, f func(c *net.TCPConn)) *Server {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: l.Addr().(*net.TCPAddr).AddrPort(), l: l.(*net.TCPListener)}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := s.l.AcceptTCP()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { c.Close() })
			all.Go(func() {
				defer stop()
				defer c.Close()
				f(c)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		s.Close()
		all.Wait()
	})
	return s
}

// Close has the address refuse connections. Those that are there go on.
func (s *Server) Close() { s.l.Close() }

// Echo sends back what comes, and the end of it.
func Echo(c *net.TCPConn) {
	io.Copy(c, c)
	c.CloseWrite()
}
