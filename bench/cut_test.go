//go:build linux

package main

import (
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// The load tells flows that are reset from those that end in another way, and when the last one ended.
func TestLoadCut(t *testing.T) {
	for _, c := range []struct {
		name           string
		linger         int
		resets, others int64
	}{
		{"reset", 0, 8, 0},
		{"closed", -1, 0, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			b := &bench{self: os.Args[0], net: plan(127)}
			at := l.Addr().(*net.TCPAddr).AddrPort()
			load, err := b.startLoad(order{Kind: loadCut, Target: at, Sources: []netip.Addr{at.Addr()}, Conns: 8})
			if err != nil {
				t.Fatal(err)
			}
			defer load.stop()
			var conns []*net.TCPConn
			for range 8 {
				one, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer one.Close()
				if _, err := io.CopyN(one, one, messageSize); err != nil {
					t.Fatal(err)
				}
				conns = append(conns, one.(*net.TCPConn))
			}
			if err := load.awaitBegan(); err != nil {
				t.Fatal(err)
			}
			before := uptime()
			for _, one := range conns {
				one.SetLinger(c.linger)
				one.Close()
			}
			out, err := load.outcome()
			if err != nil {
				t.Fatal(err)
			}
			if out.Count != c.resets || out.Errors != c.others {
				t.Errorf("%d were reset and %d ended otherwise, want %d and %d", out.Count, out.Errors, c.resets, c.others)
			}
			if out.Last < before.Seconds() || out.Last > (uptime()+time.Second).Seconds() {
				t.Errorf("the last ended at %v, the first after %v", out.Last, before.Seconds())
			}
		})
	}
}
