package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/postern-link/postern/policy"
)

// TestDatagramsClosedPortsOfName: of the addresses of a name three have the port closed. They are left alone after a flow of
// each, as those are that are written down.
func TestDatagramsClosedPortsOfName(t *testing.T) {
	t.Parallel()
	there := udpEcho(t, "127.0.9.2:0")
	z := newZone(t)
	z.set("db.example", "127.0.9.2", "127.0.9.3", "127.0.9.4", "127.0.9.5")
	w := newNamed(t, z, there.Port(), ofUDP)
	w.leads("127.0.9.2", "127.0.9.3", "127.0.9.4", "127.0.9.5")
	lost := func() int { return int(w.metric(t, "postern_proxy_flows_total", "udp", string(policy.Target))) }
	const flows, most = 100, 20
	answered := 0
	for i := range flows {
		c := udpDial(t, w.first(), netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 5, 9, byte(i)}), 0).String())
		c.Write([]byte("x"))
		eventually(t, fmt.Sprintf("flow %d is answered or ends", i), func() bool {
			if n := tryRead(c); n > 0 {
				answered++
			}
			return answered+lost() == i+1
		})
	}
	if lost() > most {
		t.Errorf("%d of %d flows are lost", lost(), flows)
	}
}

// tryRead waits a moment for a datagram, and returns how long it is.
func tryRead(c *net.UDPConn) int {
	c.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
	n, _ := c.Read(make([]byte, 64))
	return n
}
