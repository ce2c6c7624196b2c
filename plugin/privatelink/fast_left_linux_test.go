package privatelink_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/node/succession"
	"github.com/postern-link/postern/plugin/privatelink"
	"github.com/postern-link/postern/plugin/privatelink/fastpath"
)

// TestFastpathAfterLeft (P13): a process that took the sockets, and wants no fast path, has them get nothing any more before it says that it serves. When
// its upgrade is refused after that, the one before it answers all queries from its table again, and loses none.
func TestFastpathAfterLeft(t *testing.T) {
	for _, tc := range []struct{ name, bind string }{{"on an address", "bind 127.0.0.1"}, {"on all addresses", ""}} {
		t.Run(tc.name, func(t *testing.T) {
			port := freeport.Get(t)
			at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
			server := "dns://" + at.String()
			var in caddy.Input = fastCorefile(port, "", "template ANY ANY {\nrcode REFUSED\n}")
			if tc.bind == "" {
				server = fmt.Sprintf("dns://:%d", port)
				in = caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: bytes.Replace(in.Body(), []byte("bind 127.0.0.1"), nil, 1)}
			}
			instance := startInstance(t, in)
			defer end(t, instance)
			const questions = 50 // each from another port
			ask := func() float64 {
				t.Helper()
				before := privatelink.FastAnswered(t, server)
				for range questions {
					c := dial(t, "127.1.0.9", at.String())
					if m := c.ask("contoso.database.windows.net.", dns.TypeA); len(m.Answer) != 2 {
						t.Fatal(m)
					}
					c.conn.Close()
				}
				return privatelink.FastAnswered(t, server) - before
			}
			eventually(t, "all from the table", func() bool { return ask() >= questions })
			for _, c := range handedSockets(t, port) {
				fastpath.Inherit(c, 0)
			}
			fastpath.DropInherited()
			if n := ask(); n != 0 {
				t.Fatalf("%v are answered from the table", n)
			}
			stop, over := make(chan struct{}), make(chan struct{})
			go func() { // none may be lost meanwhile
				defer close(over)
				for asked := 0; ; asked++ {
					select {
					case <-stop:
						t.Logf("%d queries", asked)
						return
					default:
					}
					m, _, err := (&dns.Client{Timeout: 10 * time.Second}).Exchange(new(dns.Msg).SetQuestion("b.example.com.", dns.TypeA), at.String())
					if err != nil || m.Rcode != dns.RcodeRefused {
						t.Errorf("query %d: %v, %v", asked, m, err)
						return
					}
				}
			}()
			wait := sync.OnceFunc(func() { close(stop); <-over })
			defer wait()
			privatelink.SteerFast()
			eventually(t, "all from the table again", func() bool { return ask() >= questions })
			wait()
			if got := fastGauge(t, server); got != "" {
				t.Errorf("reason %q", got)
			}
			for _, c := range handedSockets(t, port) { // those that the next process gets
				if raw, err := c.SyscallConn(); err == nil {
					_ = raw.Control(func(fd uintptr) {
						if _, err := unix.Getpeername(int(fd)); err == nil {
							t.Error("a socket that gets nothing is still open")
						}
					})
				}
				c.Close()
			}
		})
	}
}

// handedSockets returns the sockets of the fast path on a port as another process gets them: with descriptors of their own.
func handedSockets(t *testing.T, port uint16) (all []*net.UDPConn) {
	t.Helper()
	err := succession.Listening(func(s succession.Socket, fd int) error {
		if s.Network != "udp" || s.Addr.Port() != port {
			return nil
		}
		if _, is := fastpath.Owns(fd); !is {
			return nil
		}
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(dup), "")
		defer f.Close()
		c, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		u, ok := c.(*net.UDPConn)
		if !ok {
			return errors.New("not a socket of UDP")
		}
		all = append(all, u)
		return nil
	})
	if err != nil || len(all) == 0 {
		t.Fatalf("%d sockets: %v", len(all), err)
	}
	return all
}
