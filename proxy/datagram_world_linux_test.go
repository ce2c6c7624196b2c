package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// ofUDP makes a service of tests one of UDP.
func ofUDP(v *link.Service) { v.Protocol = link.UDP }

// udpTarget is a socket of a target, on 127.0.0.1 or the address given.
func udpTarget(t testing.TB, at ...string) *net.UDPConn {
	t.Helper()
	addr := netip.MustParseAddrPort("127.0.0.1:0")
	if len(at) > 0 {
		addr = netip.MustParseAddrPort(at[0])
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func udpAddr(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// udpEcho sends back what comes, until the test ends.
func udpEcho(t testing.TB, at ...string) netip.AddrPort {
	c := udpTarget(t, at...)
	c.SetDeadline(time.Time{})
	go func() {
		for b := make([]byte, 64<<10); ; {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			c.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	return udpAddr(c)
}

// udpDial opens a connected socket, from an address where one is given.
func udpDial(t testing.TB, to string, from ...string) *net.UDPConn {
	t.Helper()
	var d net.Dialer
	if len(from) > 0 {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from[0]))
	}
	c, err := d.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.UDPConn)
}

// said reads one datagram.
func said(t testing.TB, c *net.UDPConn) string {
	t.Helper()
	b := make([]byte, 64<<10)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// silent reports an error if anything comes to a socket within a moment.
func silent(t testing.TB, c *net.UDPConn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	b := make([]byte, 64)
	if n, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v: nothing was to come", b[:n], err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
}

// udpWorld is a service of UDP with one endpoint, e, on port 7001.
func udpWorld(t testing.TB, target netip.AddrPort, settings Settings, edit ...func(*link.Service)) *world {
	t.Helper()
	return newWorld(t, settings, service("svc", 7001, target, append([]func(*link.Service){ofUDP}, edit...)...), endpoint("e", "svc", nextAddr(t)))
}

// refusedUDP waits until so many flows of UDP were refused for a reason.
func (w *world) refusedUDP(reason policy.Reason, n float64) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%v flows are refused: %s", n, reason), func() bool {
		return w.metric(w.t, "postern_proxy_refused_total", "udp", string(reason)) == n
	})
}
