// Package dnstest serves DNS to tests: the server of others that a node asks, as one function.
package dnstest

import (
	"net"
	"testing"

	"github.com/miekg/dns"
)

// Serve answers queries by UDP, on a free port of 127.0.0.1, until the test is over, and returns the address. Queries are handled at
// the same time, each in a goroutine of its own; one that the handler doesn't answer gets no answer.
func Serve(t testing.TB, answer func(w dns.ResponseWriter, r *dns.Msg)) (addr string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ServeOn(t, conn, answer)
	return conn.LocalAddr().String()
}

// ServeOn is [Serve] on a socket, which it closes.
func ServeOn(t testing.TB, conn net.PacketConn, answer func(w dns.ResponseWriter, r *dns.Msg)) {
	t.Helper()
	started, done := make(chan struct{}), make(chan error, 1)
	srv := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(answer), NotifyStartedFunc: func() { close(started) }}
	go func() { done <- srv.ActivateAndServe() }()
	select {
	case <-started:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Shutdown(); err != nil { // waits for the handlers
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Records parses records, one a line.
func Records(t testing.TB, lines ...string) (rrs []dns.RR) {
	t.Helper()
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			t.Errorf("record %q: %v", l, err) // also from the goroutine of an answer
			continue
		}
		rrs = append(rrs, rr)
	}
	return rrs
}
