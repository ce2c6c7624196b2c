package datagram

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/mmsg"
)

// BenchmarkDatagrams sends datagrams through a relay as fast as its listener takes them, with trains and without, to
// a target that reads and throws away. Reported are those that arrived each second and, since client, relay and target
// share the machine, the processor time of the whole process for each.
func BenchmarkDatagrams(b *testing.B) {
	for _, size := range []int{100, 1200} {
		for _, tt := range []struct {
			name                 string
			sendTrains, relaying bool // the client sends trains; the relay takes and makes them
		}{
			{"plain", false, false}, {"joined by the relay", false, true}, {"trains", true, true}, {"trains cut by the relay", true, false},
		} {
			b.Run(fmt.Sprintf("%d bytes, %s", size, tt.name), func(b *testing.B) {
				target := socket(b, "127.0.0.1")
				target.SetDeadline(time.Time{})
				w := newWorld(b, local(target), func(w *world) { w.relay.plain = !tt.relaying })
				c := client(b, w.listen("127.77.0.5:0").Addr())
				target.SetReadBuffer(4 << 20)
				arrived := make(chan int)
				go func() {
					raw, _ := target.SyscallConn()
					raw.Control(func(fd uintptr) { mmsg.PutTogether(int(fd)) })
					in, n := batches.Get().(*batch), 0
					defer batches.Put(in)
					for raw.Read(func(fd uintptr) bool { return in.receive(int(fd), false) != unix.EAGAIN }) == nil {
						for i := range in.n {
							m, _ := in.message(i, false, true)
							n += m.count()
						}
					}
					arrived <- n
				}()
				raw, _ := c.SyscallConn()
				var out sender
				out.init()
				payload := make([]byte, size)
				began, used := time.Now(), processorTime()
				sent := 0
				for b.Loop() {
					raw.Control(func(fd uintptr) { out.begin(int(fd), nil, 0, netip.Addr{}, nil, !tt.sendTrains) })
					for range sendAtOnce {
						out.add(&message{data: payload})
					}
					raw.Control(out.flushes)
					sent += out.datagrams
					// No faster than the relay takes it: what the kernel drops tells nothing of us.
					for w.relay.Counts.ToTarget.Load()+w.relay.Counts.Dropped(Full) < int64(sent)-512 && time.Since(began) < time.Minute {
						runtime.Gosched()
					}
				}
				eventually(b, "all is through", func() bool { return w.relay.Counts.ToTarget.Load()+w.relay.Counts.Dropped(Full) >= int64(sent)*99/100 })
				took, cost := time.Since(began), processorTime()-used
				target.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				n := <-arrived
				b.ReportMetric(float64(n)/took.Seconds(), "datagrams/s")
				b.ReportMetric(float64(cost.Nanoseconds())/float64(max(n, 1)), "cpu-ns/datagram")
				b.ReportMetric(float64(sent-n)/float64(max(sent, 1)), "lost")
			})
		}
	}
}

func processorTime() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkIdle reports what a flow costs that carries nothing, the kernel's sockets left out. One turn is so many flows.
func BenchmarkIdle(b *testing.B) {
	const flows = 5000
	w := newWorld(b, local(socket(b, "127.0.0.1")))
	l := w.listen("127.77.0.5:0")
	for b.Loop() {
		before, goroutines := inUse(), runtime.NumGoroutine()
		for n := range flows {
			l.flow(key{endpointOf(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(n >> 8), byte(n)}), 9)), endpointOf(l.at)})
		}
		b.ReportMetric(float64(inUse()-before)/flows, "bytes/flow")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/flows, "goroutines/flow")
		for _, f := range w.flows {
			f.End()
		}
		w.flows = nil
	}
}

func inUse() int64 {
	runtime.GC()
	runtime.GC() // the second one empties pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
