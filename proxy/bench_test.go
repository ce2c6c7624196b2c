package proxy

import (
	"io"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// benchWorld is a proxy in front of a target.
func benchWorld(b *testing.B, f func(*net.TCPConn), edit ...func(*link.Service)) *world {
	b.Helper()
	return newWorld(b, Settings{MaxFlows: 1 << 20, MaxPerSource: 1 << 20},
		service("svc", 7001, serve(b, f), edit...), endpoint("e", "svc", nextAddr(b)))
}

// BenchmarkCopy measures what a flow carries, and what it costs while it carries nothing.
func BenchmarkCopy(b *testing.B) {
	b.Run("bulk", func(b *testing.B) {
		done := make(chan struct{})
		w := benchWorld(b, func(c *net.TCPConn) {
			if n, _ := io.Copy(io.Discard, c); n > 0 {
				close(done)
			}
		})
		c := benchDial(b, w)
		buf := make([]byte, 256<<10)
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			if _, err := c.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
		c.CloseWrite()
		<-done
	})
	b.Run("request of 100 bytes", func(b *testing.B) {
		w := benchWorld(b, func(c *net.TCPConn) {
			for buf := make([]byte, 100); ; {
				if _, err := io.ReadFull(c, buf); err != nil {
					return
				}
				c.Write(buf)
			}
		})
		c := benchDial(b, w)
		buf := make([]byte, 100)
		b.ReportAllocs()
		for b.Loop() {
			c.Write(buf)
			if _, err := io.ReadFull(c, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("idle flow", func(b *testing.B) {
		const n = 1000
		// Both far ends are in this process: two of the four descriptors of a flow are theirs, and
		// about 1 KiB. They have no goroutines.
		g := newHoarder(b)
		w := newWorld(b, Settings{MaxFlows: 1 << 20, MaxPerSource: 1 << 20},
			service("svc", 7001, g.l.Addr().(*net.TCPAddr).AddrPort()), endpoint("e", "svc", nextAddr(b)))
		benchDial(b, w) // warms pools up
		for b.Loop() {
			before, fds, goroutines := inUse(), descriptors(b), runtime.NumGoroutine()
			conns := make([]*net.TCPConn, n)
			for i := range conns {
				conns[i] = benchDial(b, w)
			}
			eventually(b, "all are carried", func() bool { return w.proxy.Flows() == n+1 && descriptors(b) >= fds+4*n })
			b.ReportMetric(float64(inUse()-before)/n, "bytes/flow")
			b.ReportMetric(float64(descriptors(b)-fds)/n-2, "descriptors/flow")
			b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/n, "goroutines/flow")
			for _, c := range conns {
				c.Close()
			}
			g.drop()
			eventually(b, "all are gone", func() bool { return w.proxy.Flows() <= 1 })
		}
	})
	b.Run("connect, request, close", func(b *testing.B) {
		w := benchWorld(b, func(c *net.TCPConn) {
			buf := make([]byte, 100)
			if _, err := io.ReadFull(c, buf); err == nil {
				c.Write(buf)
			}
		})
		buf := make([]byte, 100)
		b.ReportAllocs()
		for b.Loop() {
			c, err := net.Dial("tcp", w.first())
			if err != nil {
				b.Fatal(err)
			}
			c.Write(buf)
			if _, err := io.ReadFull(c, buf); err != nil {
				b.Fatal(err)
			}
			c.Close()
		}
	})
}

// hoarder accepts connections and lets them lie.
type hoarder struct {
	l     net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func newHoarder(b *testing.B) *hoarder {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	h := &hoarder{l: l}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.conns = append(h.conns, c)
			h.mu.Unlock()
		}
	}()
	b.Cleanup(func() {
		l.Close()
		<-done
		h.drop()
	})
	return h
}

// drop closes what it has.
func (h *hoarder) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		c.Close()
	}
	h.conns = nil
}

func benchDial(b *testing.B, w *world) *net.TCPConn {
	b.Helper()
	c, err := net.Dial("tcp", w.first())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// inUse is the memory of heap and stacks, garbage aside. The ends in this process count too.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// BenchmarkReview measures what a new snapshot costs for each live flow.
func BenchmarkReview(b *testing.B) {
	w := benchWorld(b, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	benchDial(b, w)
	eventually(b, "it is carried", func() bool { return w.dials(b) == 1 })
	f := w.proxy.live.all()[0]
	b.ReportAllocs()
	for b.Loop() {
		f.review(nil)
	}
	if f.reason != "" && f.reason != policy.Client {
		b.Fatal(f.reason)
	}
}
