package fastpath

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// newServed returns a socket whose table has the answer to one query, and nobody who reads it yet.
func newServed(t *testing.T) (s *socket, known []byte) {
	t.Helper()
	g := &Group{addr: netip.MustParseAddrPort("127.0.0.1:1")}
	target := NewTarget(newPlugins())
	g.target.Store(target)
	s, err := newSocket(g, socketOn(t, "udp4", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	known = wire(t, "known.example.", nil)
	d := &desk{s, target}
	d.learn(t, known, 0, nil, "known.example. 10 IN A 10.200.0.5")
	return s, known
}

// TestEndAnswersWhatCame: what was read is answered also where reading ends, by the table and by the plugins.
func TestEndAnswersWhatCame(t *testing.T) {
	t.Parallel()
	s, known := newServed(t)
	hold := make(chan struct{})
	s.group.target.Load().Backend.(*plugins).hold = hold
	client := socketOn(t, "udp4", "127.0.0.1:0")
	for _, q := range [][]byte{wire(t, "unknown.example.", nil), known} {
		if _, err := client.WriteTo(q, s.conn.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, maxWire)
	answer := func() string {
		n, err := client.Read(buf)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil {
			t.Fatal(err)
		}
		return m.Question[0].Name
	}
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil { // of socketOn
		t.Fatal(err)
	}
	go s.run()
	if name := answer(); name != "known.example." {
		t.Fatalf("answered %s, though the plugins wait", name)
	}
	stopped := make(chan struct{})
	go func() { s.stop(10 * time.Second); close(stopped) }()
	<-s.idle
	close(hold)
	if name := answer(); name != "unknown.example." {
		t.Errorf("answered %s", name)
	}
	<-stopped
}

// TestEveryDatagramIsSeen: bursts of all sizes around that of a system call are answered to the last query, though an
// empty queue isn't always asked again.
func TestEveryDatagramIsSeen(t *testing.T) {
	t.Parallel()
	s, known := newServed(t)
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil { // of socketOn
		t.Fatal(err)
	}
	go s.run()
	t.Cleanup(func() { s.stop(10 * time.Second) })
	client := socketOn(t, "udp4", "127.0.0.1:0")
	buf := make([]byte, maxWire)
	for round := range 700 {
		n := []int{1, 1, 2, batch - 1, batch, batch + 1, 3}[round%7]
		for range n {
			if _, err := client.WriteTo(known, s.conn.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
		for i := range n {
			if _, err := client.Read(buf); err != nil {
				t.Fatalf("round %d: answer %d of %d: %v", round, i+1, n, err)
			}
		}
	}
}
