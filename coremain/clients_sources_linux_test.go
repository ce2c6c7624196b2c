package coremain

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestD20Sources: of 5,000 connections from ten sources, which ask once and stay, no source keeps more than its share, and all together not more than
// there may be. Who asks by UDP doesn't notice: nothing is lost. And memory is bounded.
func TestD20Sources(t *testing.T) { // not beside others: it has both processors, and the table of connections that they read is long
	const (
		descriptors = 16_000
		modest      = 400 // connections of each of eight sources
		greedy      = 900 // of each of two
		room        = 160 << 20
	)
	most := mostClients(descriptors, 0)
	share := most / clientsOfOne
	if modest >= share || greedy <= share || 8*modest+2*greedy != 5000 || most >= 5000 {
		t.Fatalf("there may be %d, and %d of a source", most, share)
	}
	s := startTransports(t, descriptors, "timeouts {\n  read 2m\n  idle 2m\n }") // silence alone ends none of them
	query, err := new(dns.Msg).SetQuestion("x.example.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var others, crowd sync.WaitGroup
	var took []time.Duration
	others.Go(func() {
		conn, err := dns.DialTimeout("udp", s.dns, 10*time.Second)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			began := time.Now()
			m, _, err := (&dns.Client{Timeout: 5 * time.Second}).ExchangeWithConn(new(dns.Msg).SetQuestion("x.example.", dns.TypeA), conn)
			if err != nil || len(m.Answer) != 1 {
				t.Errorf("by UDP, after %d answers: %v %v", len(took), m, err)
				return
			}
			took = append(took, time.Since(began))
		}
	})
	quit := sync.OnceFunc(func() { close(stop); others.Wait() })
	defer quit()
	before := s.memory(t)
	conns := make([][]net.Conn, 10)
	defer func() {
		for _, of := range conns {
			for _, conn := range of {
				conn.Close()
			}
		}
	}()
	began := time.Now()
	for i := range conns {
		many := modest
		if i < 2 {
			many = greedy
		}
		crowd.Go(func() {
			d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(21+i))}}
			for range many {
				conn, err := d.Dial("tcp", s.dns)
				if err != nil {
					t.Error(err)
					return
				}
				conns[i] = append(conns[i], conn)
				if _, err := (&dns.Conn{Conn: conn}).Write(query); err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
					t.Error(err)
				}
			}
		})
	}
	crowd.Wait()
	at, of, all := netip.MustParseAddrPort(s.dns), map[netip.Addr]int{}, 0
	peak := s.memory(t)
	eventually(t, 30*time.Second, "there are more than there may be", func() bool {
		clear(of)
		all = 0
		for _, c := range established(t) {
			if c.at == at {
				of[c.from.Addr()]++
				all++
			}
		}
		peak = max(peak, s.memory(t))
		for _, n := range of {
			if n > share {
				return false
			}
		}
		return all <= most
	})
	settled := time.Since(began)
	if all < most/2 {
		t.Errorf("%d of %d are left: more were ended than are too many", all, most)
	}
	quit()
	t.Logf("%d connections are left of 5,000 after %s, there may be %d; %v", all, settled.Round(time.Millisecond), most, of)
	s.bounded(t, before, peak, room)
	if len(took) == 0 {
		t.Fatal("nobody has asked by UDP")
	}
	slices.Sort(took)
	t.Logf("%d answers by UDP: median %s, slowest %s", len(took), took[len(took)/2], took[len(took)-1])
	if median := took[len(took)/2]; median > 100*time.Millisecond {
		t.Errorf("by UDP: median %s", median)
	}
}
