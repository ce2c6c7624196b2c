package privatelink_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/internal/dnstest"
	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/plugin/privatelink"
)

var floodLasts = flag.Duration("flood", 3*time.Second, "how long TestD12Flood lasts")

// The bounds of what a flood may cost. A query that is passed on is a goroutine or a few, and 2,048 are.
const (
	floodGoroutines = 20_000
	floodHeap       = 256 << 20 // bytes, with the race detector's part
	floodRecovery   = time.Second
)

// TestD12Flood: as many queries as this machine can send, from hundreds of addresses that nobody reads answers at: for a private name, which
// the table has, for names that don't exist in a private zone, and for names of others, whose server is silent. What is too much is dropped, by
// the kernel or here, and nothing of it is kept: memory is bounded. Clients by TCP are answered meanwhile, and within a second after it so is UDP.
func TestD12Flood(t *testing.T) {
	silent := dnstest.Serve(t, func(dns.ResponseWriter, *dns.Msg) {})
	port := freeport.Get(t)
	at := fmt.Sprintf("127.0.0.1:%d", port)
	instance := startInstance(t, fastCorefile(port, "miss nxdomain", "cache 30\nforward . "+silent))
	defer end(t, instance)

	var sent atomic.Int64
	stop := make(chan struct{})
	var flood sync.WaitGroup
	for i := range 4 {
		conns := make([]net.Conn, 100)
		for j := range conns {
			conn, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 1, byte(i), byte(j+1))}}).Dial("udp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conns[j] = conn
		}
		flood.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				name := "contoso.database.windows.net."
				switch n % 4 {
				case 1:
					name = fmt.Sprintf("n%d.privatelink.database.windows.net.", r.Uint64())
				case 2:
					name = fmt.Sprintf("n%d.example.net.", r.Uint64())
				}
				b, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
				if err != nil {
					t.Error(err)
					return
				}
				binary.BigEndian.PutUint16(b, uint16(n))
				_, _ = conns[n%len(conns)].Write(b) // what has no room is dropped
				sent.Add(1)
			}
		})
	}
	over := sync.OnceFunc(func() { close(stop); flood.Wait() })
	defer over()

	answered, goroutines, heap := 0, 0, uint64(0)
	for began := time.Now(); time.Since(began) < *floodLasts; answered++ {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, 9, 9)}, Timeout: 10 * time.Second}).Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		m, _, err := (&dns.Client{Timeout: 10 * time.Second}).ExchangeWithConn(new(dns.Msg).SetQuestion("contoso.database.windows.net.", dns.TypeA), &dns.Conn{Conn: conn})
		conn.Close()
		if err != nil || lastA(m) != "10.200.0.5" {
			t.Fatalf("by TCP: %v %v", m, err)
		}
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		goroutines, heap = max(goroutines, runtime.NumGoroutine()), max(heap, mem.HeapAlloc)
		time.Sleep(20 * time.Millisecond)
	}
	over()
	dropped, here := socketDrops(t, port), privatelink.FastDropped(fmt.Sprintf("dns://%s", at))
	t.Logf("%d queries, of which the kernel dropped %d and this process %v; %d answers by TCP; at most %d goroutines and %d bytes", sent.Load(), dropped, here,
		answered, goroutines, heap)
	if float64(dropped)+here == 0 {
		t.Error("nothing was dropped: this was no flood")
	}
	if goroutines > floodGoroutines || heap > floodHeap {
		t.Errorf("%d goroutines and %d bytes of heap", goroutines, heap)
	}
	began := time.Now()
	for time.Since(began) < floodRecovery {
		conn, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 1, 9, 9)}}).Dial("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		m, _, err := (&dns.Client{Timeout: 250 * time.Millisecond}).ExchangeWithConn(new(dns.Msg).SetQuestion("contoso.database.windows.net.", dns.TypeA), &dns.Conn{Conn: conn})
		conn.Close()
		if err == nil && lastA(m) == "10.200.0.5" {
			t.Logf("answered by UDP %s after it", time.Since(began).Round(time.Millisecond))
			return
		}
	}
	t.Errorf("no answer by UDP within %s after it", floodRecovery)
}

// socketDrops returns how many datagrams the kernel had no room for in the sockets of a port.
func socketDrops(t *testing.T, port uint16) (drops int) {
	t.Helper()
	b, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 12 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			n, err := strconv.Atoi(f[len(f)-1])
			if err != nil {
				t.Fatal(err)
			}
			drops += n
		}
	}
	return drops
}
