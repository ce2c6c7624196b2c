package proxy

import (
	"io"
	"net"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// TestDatagramsMemoryIsShort (P11): the line of a flow says what there is too little of.
func TestDatagramsMemoryIsShort(t *testing.T) {
	w := udpWorld(t, udpEcho(t), Settings{})
	w.proxy.live.short.Store(true)
	udpDial(t, w.first()).Write([]byte("x"))
	w.refusedUDP(policy.Limit, 1)
	eventually(t, "its line", func() bool { return len(w.log.lines("flow refused", "reason=limit", "memory is short")) == 1 })
}

// TestDatagramsBesideStreams: P09: what a source, or who forges it, has of flows of UDP takes nothing of what the source
// may have of TCP, nor the other way round; and what ends of one gives nothing back of the other.
func TestDatagramsBesideStreams(t *testing.T) {
	const most = 2
	setup := func(t *testing.T) (w *world, stream func() net.Conn, datagrams func()) {
		w = newWorld(t, Settings{MaxFlows: 80, MaxPerSource: most},
			service("svc", 7001, udpEcho(t), ofUDP), service("tcp", 7003, echo(t)),
			endpoint("e", "svc", nextAddr(t)), endpoint("t", "tcp", nextAddr(t)))
		stream = func() net.Conn {
			t.Helper()
			c := dial(t, w.now.Load().Endpoint("t").Address.String()+":7003")
			io.WriteString(c, "x")
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Errorf("a flow of TCP: %v", err)
			}
			return c
		}
		datagrams = func() {
			t.Helper()
			for range most {
				c := udpDial(t, w.first())
				c.Write([]byte("x"))
				said(t, c)
			}
			w.answeredUDP(most)
			udpDial(t, w.first()).Write([]byte("x"))
			w.refusedUDP(policy.Limit, 1)
		}
		return w, stream, datagrams
	}
	full := func(t *testing.T, w *world) {
		t.Helper()
		if c, err := net.Dial("tcp", w.now.Load().Endpoint("t").Address.String()+":7003"); err == nil {
			defer c.Close()
			if !isReset(c.(*net.TCPConn)) {
				t.Error("the source has more flows of TCP than it may")
			}
		}
	}
	t.Run("UDP first", func(t *testing.T) {
		w, stream, datagrams := setup(t)
		datagrams()
		for range most {
			stream()
		}
		full(t, w)
		w.apply(link.Suspend{Endpoint: "e", LinkID: w.connection("e").LinkID})
		eventually(t, "those of UDP have ended", func() bool { return w.proxy.datagrams.count() == 0 })
		full(t, w)
	})
	t.Run("TCP first", func(t *testing.T) {
		w, stream, datagrams := setup(t)
		var open []net.Conn
		for range most {
			open = append(open, stream())
		}
		full(t, w)
		datagrams()
		for _, c := range open {
			c.Close()
		}
		eventually(t, "those of TCP have ended", func() bool { return w.proxy.Flows() == most })
		udpDial(t, w.first()).Write([]byte("x"))
		w.refusedUDP(policy.Limit, 2)
		stream()
	})
}
