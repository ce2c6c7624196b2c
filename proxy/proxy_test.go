package proxy

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"
)

// pair is a client and the target's side of one flow through a new proxy.
func pair(t testing.TB, settings Settings, edit ...func(*link.Service)) (w *world, client, far *net.TCPConn) {
	t.Helper()
	g := newTarget(t)
	w = newWorld(t, settings, service("svc", 7001, g.addr(), edit...), endpoint("e", "svc", "127.77.0.1"))
	client = dial(t, "127.77.0.1:7001")
	if _, err := client.Write([]byte{'!'}); err != nil {
		t.Fatal(err)
	}
	far, _ = g.next()
	return w, client, far
}

// isReset reads until the connection fails, and reports whether that was a reset.
func isReset(c *net.TCPConn) bool {
	_, err := io.Copy(io.Discard, c)
	return errors.Is(err, syscall.ECONNRESET) || err == nil && wasReset(c)
}

// wasReset reports whether a connection is broken, also where an earlier call was told of it.
func wasReset(c *net.TCPConn) bool { return tcpState(c) == unix.BPF_TCP_CLOSE }

// The proxy must not be noticed: the suite of golang.org/x/net runs through it.
func TestNettest(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		g := newTarget(t)
		w := newWorld(t, Settings{}, service("svc", 7001, g.addr()), endpoint("e", "svc", "127.77.0.1"))
		client := dial(t, "127.77.0.1:7001")
		if _, err := client.Write([]byte{'!'}); err != nil {
			return nil, nil, nil, err
		}
		far, _ := g.next()
		client.SetDeadline(time.Time{})
		far.SetDeadline(time.Time{})
		return client, far, func() {
			client.Close()
			far.Close()
			w.proxy.Close()
			g.close()
		}, nil
	})
}

// P04: each side may end first; the answer that comes late is whole.
func TestHalfClose(t *testing.T) {
	for name, order := range map[string]func(client, far *net.TCPConn) (first, second *net.TCPConn){
		"P04 client ends first": func(c, f *net.TCPConn) (_, _ *net.TCPConn) { return c, f },
		"P04 target ends first": func(c, f *net.TCPConn) (_, _ *net.TCPConn) { return f, c },
	} {
		t.Run(name, func(t *testing.T) {
			w, client, far := pair(t, Settings{})
			first, second := order(client, far)
			if _, err := io.WriteString(first, "question"); err != nil {
				t.Fatal(err)
			}
			first.CloseWrite()
			if got, err := io.ReadAll(second); string(got) != "question" || err != nil {
				t.Fatalf("got %q, error %v", got, err)
			}
			answer := random(3 << 20)
			go func() {
				second.Write(answer)
				second.CloseWrite()
			}()
			got, err := io.ReadAll(first)
			if err != nil || !bytes.Equal(got, answer) {
				t.Fatalf("%d bytes of %d, error %v", len(got), len(answer), err)
			}
			want := "reason=client"
			if first == far {
				want = "reason=target"
			}
			eventually(t, "the line of the flow", func() bool { return len(w.log.lines("flow ended", want)) == 1 })
			eventually(t, "the flow is gone", func() bool { return w.proxy.Flows() == 0 })
		})
	}
}

// P05: a reset on one side is one on the other, never a clean end.
func TestReset(t *testing.T) {
	t.Run("P05 target resets", func(t *testing.T) {
		w, client, far := pair(t, Settings{})
		reset(far)
		if !isReset(client) {
			t.Error("the client saw a clean end")
		}
		eventually(t, "the line of the flow", func() bool { return len(w.log.lines("flow ended", "reason=target")) == 1 })
	})
	t.Run("client resets", func(t *testing.T) {
		w, client, far := pair(t, Settings{})
		reset(client)
		if !isReset(far) {
			t.Error("the target saw a clean end")
		}
		eventually(t, "the line of the flow", func() bool { return len(w.log.lines("flow ended", "reason=client")) == 1 })
	})
	t.Run("target resets after the client's end", func(t *testing.T) {
		_, client, far := pair(t, Settings{})
		client.CloseWrite()
		if _, err := io.ReadAll(far); err != nil {
			t.Fatal(err)
		}
		reset(far)
		if !isReset(client) {
			t.Error("the client saw a clean end")
		}
	})
}

// Everything arrives, in order, both ways at once, whatever the sizes: buffers, pipes and the
// changes between them.
func TestBytesAreTheSame(t *testing.T) {
	_, client, far := pair(t, Settings{})
	up, down := random(9<<20), random(7<<20)
	var all sync.WaitGroup
	send := func(c *net.TCPConn, b []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		for len(b) > 0 {
			n := min(len(b), 1+r.IntN(1<<uint(1+r.IntN(19))))
			if _, err := c.Write(b[:n]); err != nil {
				t.Error(err)
				return
			}
			b = b[n:]
			if r.IntN(8) == 0 {
				time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond) // lets the pipe run dry
			}
		}
		c.CloseWrite()
	}
	receive := func(c *net.TCPConn, want []byte) {
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes of %d, equal %v, error %v", len(got), len(want), bytes.Equal(got, want), err)
		}
	}
	all.Go(func() { send(client, up, 1) })
	all.Go(func() { send(far, down, 2) })
	all.Go(func() { receive(far, up) })
	all.Go(func() { receive(client, down) })
	all.Wait()
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// P03: nothing moved for the idle timeout: both sides are reset. The clock is the caller's.
func TestIdle(t *testing.T) {
	w, client, far := pair(t, Settings{}, func(s *link.Service) { s.IdleTimeout = time.Minute })
	f := w.proxy.live.all()[0]
	now := time.Now()
	f.tend(now)
	f.tend(now.Add(30 * time.Second))
	if _, err := far.Write([]byte{'.'}); err != nil { // a trickle keeps it
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	f.tend(now.Add(61 * time.Second))
	eventually(t, "all is acknowledged", func() bool { return unsent(t, f.client) == 0 })
	f.tend(now.Add(120 * time.Second))
	if w.proxy.Flows() != 1 {
		t.Fatal("cut too early")
	}
	f.tend(now.Add(122 * time.Second))
	if !isReset(client) || !isReset(far) {
		t.Error("no reset")
	}
	eventually(t, "the line of the flow", func() bool { return len(w.log.lines("flow ended", "reason=idle")) == 1 })
}

// unsent returns how many bytes the peer of a connection hasn't acknowledged.
func unsent(t testing.TB, c controlled) (n int) {
	t.Helper()
	var err error
	c.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// P03: a slow reader isn't idle, although no write of ours returns while it works off the queues.
func TestIdleSlowReader(t *testing.T) {
	w, client, far := pair(t, Settings{}, func(s *link.Service) { s.IdleTimeout = time.Minute })
	w.stall(t, far)
	f := w.proxy.live.all()[0]
	now := time.Now()
	f.tend(now)
	written, queue := f.toClient.Load(), unsent(t, f.client)
	for range 5 {
		now = now.Add(30 * time.Second)
		f.tend(now)
		// Until the client has made room and our kernel could send into it.
		for before := unsent(t, f.client); unsent(t, f.client) == before; {
			if _, err := io.ReadFull(client, make([]byte, 8<<10)); err != nil {
				t.Fatal(err)
			}
		}
		if f.toClient.Load() != written {
			t.Skipf("a write returned: the queue of %d bytes is too short for this test", queue)
		}
		now = now.Add(31 * time.Second)
		f.tend(now)
	}
	if w.proxy.Flows() != 1 {
		t.Fatal("a slow reader was cut as idle")
	}
	f.tend(now.Add(10 * time.Second))
	f.tend(now.Add(61 * time.Second))
	if !isReset(client) {
		t.Error("not cut when it reads no more")
	}
}

// The line of a flow says all that there is to say.
func TestRecord(t *testing.T) {
	w, client, far := pair(t, Settings{})
	io.WriteString(far, "answer")
	far.CloseWrite()
	io.ReadAll(client)
	client.Close()
	var lines []string
	eventually(t, "the line of the flow", func() bool {
		lines = w.log.lines("flow ended")
		return len(lines) == 1
	})
	c := w.connection("e")
	for _, want := range []string{
		"endpoint=e", "service=svc", "link=" + c.LinkID.String(), "source=127.0.0.1:", "local=127.77.0.1:7001", "target=127.0.0.1:",
		"verdict=allow", `rule="network corp 127.0.0.0/8"`, "to_target=1", "to_client=6", "reason=target", "duration=",
	} {
		if !strings.Contains(lines[0], want) {
			t.Errorf("no %s in %s", want, lines[0])
		}
	}
	if n := w.metric(t, "postern_proxy_bytes_total", "to_client"); n != 6 {
		t.Errorf("%v bytes counted to the client", n)
	}
	if n := w.metric(t, "postern_proxy_flows_total", "target"); n != 1 {
		t.Errorf("%v flows counted", n)
	}
}

// metric returns the value of a metric whose labels have the given values, in order.
func (w *world) metric(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				if l.GetName() != "protocol" || l.GetValue() != "tcp" { // "udp" is asked for
					values = append(values, l.GetValue())
				}
			}
			if !slices.Equal(values, labels) {
				continue
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return -1
}

// dials returns how many flows were connected to a target.
func (w *world) dials(t testing.TB) float64 { return w.metric(t, "postern_proxy_dial_seconds") }
