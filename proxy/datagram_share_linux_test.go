package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// answeredUDP waits until so many flows are known to have been answered.
func (w *world) answeredUDP(n int) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%d flows were answered", n), func() bool {
		answered := 0
		for f := range w.proxy.List() {
			if f.Protocol == link.UDP && f.ToClient > 0 {
				answered++
			}
		}
		return answered == n
	})
}

// TestDatagramsGiveWay: P09: flows that nobody has ever answered, as those of forged sources are, keep nobody out: the oldest of
// them ends for a new one. Those that were answered stay, and where all were, the new one is refused.
func TestDatagramsGiveWay(t *testing.T) {
	t.Parallel()
	target := udpTarget(t) // says nothing by itself
	w := udpWorld(t, udpAddr(target), Settings{MaxFlows: 80, MaxPerSource: 8})
	_, ofEndpoint, _ := w.proxy.settings.Load().datagramShares()
	answer := func(c *net.UDPConn) {
		t.Helper()
		c.Write([]byte("ask"))
		for b := make([]byte, 64); ; {
			n, from, err := target.ReadFromUDPAddrPort(b)
			if err != nil {
				t.Fatal(err)
			}
			if string(b[:n]) == "ask" {
				target.WriteToUDPAddrPort([]byte("answer"), from)
				break
			}
		}
		said(t, c)
	}
	used := udpDial(t, w.first(), "127.5.0.1:0")
	answer(used)
	w.answeredUDP(1)
	w.oneWindow()
	for i := range refusalSources { // as many sources as are told apart
		w.proxy.refusals.allow(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), policy.Limit)
	}
	const many = 100
	for i := range many {
		udpDial(t, w.first(), netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 6, 0, byte(i)}), 0).String()).Write([]byte("flood"))
		w.mustHaveBegun(i + 2)
	}
	eventually(t, "those too many have ended", func() bool {
		return w.metric(t, "postern_proxy_flows_total", "udp", "limit") == many+1-float64(ofEndpoint) && w.proxy.datagrams.count() == ofEndpoint
	})
	w.refusedUDP(policy.Limit, 0)
	answer(used) // the flow in use is there yet
	if n := len(w.log.lines("flow ended", "reason=limit", "gave way")); n != refusalLines {
		t.Errorf("%d lines say that a flow gave way, want %d", n, refusalLines)
	}
	for i := range ofEndpoint - 1 { // and so are those that take the places
		answer(udpDial(t, w.first(), netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 7, 0, byte(i)}), 0).String()))
		w.answeredUDP(i + 2)
	}
	udpDial(t, w.first(), "127.8.0.1:0").Write([]byte("late"))
	w.refusedUDP(policy.Limit, 1)

	w.apply(link.Suspend{Endpoint: "e", LinkID: w.connection("e").LinkID})
	eventually(t, "all is given back", func() bool { return w.proxy.datagrams.count() == 0 })
	d := &w.proxy.datagrams
	eventually(t, "nothing is counted", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.endpoints) == 0 && len(d.sources) == 0 && d.leaving == 0 && d.all == share{}
	})
}

// mustHaveBegun waits until so many flows of UDP have been established, those that have ended among them.
func (w *world) mustHaveBegun(n int) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%d flows have begun", n), func() bool {
		return w.metric(w.t, "postern_proxy_flows_total", "udp", "limit")+float64(w.proxy.flowsOf(link.UDP)) >= float64(n)
	})
}

// TestDatagramsGiveWayOfSource: P09: who forges the address of a client takes it no flow for longer than until its next datagram.
func TestDatagramsGiveWayOfSource(t *testing.T) {
	target := udpTarget(t)
	w := udpWorld(t, udpAddr(target), Settings{MaxFlows: 80, MaxPerSource: 2})
	for i := range 6 {
		udpDial(t, w.first()).Write([]byte("flood"))
		w.mustHaveBegun(i + 1)
	}
	eventually(t, "two are left", func() bool {
		return w.proxy.datagrams.count() == 2 && w.metric(t, "postern_proxy_flows_total", "udp", "limit") == 4
	})
	w.refusedUDP(policy.Limit, 0)
}
