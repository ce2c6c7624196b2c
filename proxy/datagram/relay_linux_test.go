package datagram

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestEcho: what a client sends comes back as it was, from the very address that it was sent to.
func TestEcho(t *testing.T) {
	for _, tt := range []struct{ name, listen, to, target string }{
		{"one address", "127.77.0.5:0", "127.77.0.5", "127.0.0.1"},
		{"every address", "0.0.0.0:0", "127.77.0.6", "127.0.0.1"},
		{"IPv6", "[::1]:0", "::1", "::1"},
		{"every address of IPv6", "[::]:0", "::1", "::1"},
		{"IPv6 to IPv4", "[::]:0", "::1", "127.0.0.1"},
		{"IPv4 to IPv6", "0.0.0.0:0", "127.77.0.7", "::1"},
	} {
		for _, plain := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, plain %v", tt.name, plain), func(t *testing.T) {
				w := newWorld(t, echo(t, tt.target), func(w *world) { w.relay.plain = plain })
				l := w.listen(tt.listen)
				c := client(t, netip.AddrPortFrom(netip.MustParseAddr(tt.to), l.Addr().Port()))
				got := make([]byte, 64<<10)
				for _, size := range []int{1, 0, 1200, 1472, 1473, 9000, 65507} {
					sent := bytes.Repeat([]byte{byte(size)}, size)
					if _, err := c.Write(sent); err != nil {
						t.Fatal(err)
					}
					if n, err := c.Read(got); err != nil || !bytes.Equal(got[:n], sent) {
						t.Fatalf("%d bytes came back of %d: %v", n, size, err)
					}
				}
				const all = 1 + 1200 + 1472 + 1473 + 9000 + 65507
				eventually(t, "all is counted", func() bool { return w.toClient.Load() == all && w.toTarget.Load() == all })
				if w.count() != 1 || !w.moved.Load() || w.relay.Counts.ToTarget.Load() != 7 {
					t.Errorf("%d bytes in %d datagrams to the target, %d flows", w.toTarget.Load(), w.relay.Counts.ToTarget.Load(), w.count())
				}
			})
		}
	}
}

// TestOnlyTheTargetAnswers: a datagram of anybody else to the socket of a flow doesn't reach the client (A2).
func TestOnlyTheTargetAnswers(t *testing.T) {
	target, other := socket(t, "127.0.0.1"), socket(t, "127.0.0.1")
	w := newWorld(t, local(target))
	c := client(t, w.listen("127.77.0.5:0").Addr())
	c.Write([]byte("question"))
	b := make([]byte, 64)
	_, flow, err := target.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	other.WriteToUDPAddrPort([]byte("forged"), flow)
	target.WriteToUDPAddrPort([]byte("answer"), flow)
	if n, err := c.Read(b); err != nil || string(b[:n]) != "answer" {
		t.Errorf("%q, %v", b[:n], err)
	}
}

// TestBeforeConnect: what anybody has sent to the socket of a flow before that was connected stays in its queue, and
// isn't passed on as the target's (A2).
func TestBeforeConnect(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			target, other := socket(t, addr), socket(t, addr)
			w := newWorld(t, local(target))
			const forged = 3
			w.begin = func(f *Flow) bool {
				err := f.Connect(netip.AddrPort{}, w.target, func(fd uintptr, _ netip.AddrPort) error {
					if err := unix.Bind(int(fd), sockaddr(netip.AddrPortFrom(w.target.Addr(), 0))); err != nil {
						return err
					}
					at, err := unix.Getsockname(int(fd))
					if err != nil {
						return err
					}
					for range forged { // through loopback they are there when they are sent
						if err = unix.Sendto(fdOf(t, other), []byte("forged"), 0, at); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return false
				}
				return f.Start(nil, nil) == nil
			}
			c := client(t, w.listen("127.77.0.5:0").Addr())
			c.Write([]byte("question"))
			b := make([]byte, 64)
			_, flow, err := target.ReadFromUDPAddrPort(b)
			if err != nil {
				t.Fatal(err)
			}
			target.WriteToUDPAddrPort([]byte("answer"), flow)
			if n, err := c.Read(b); err != nil || string(b[:n]) != "answer" {
				t.Errorf("%q, %v", b[:n], err)
			}
			eventually(t, "they are counted", func() bool { return w.relay.Counts.Dropped(Malformed) == forged })
		})
	}
}

// fdOf returns the descriptor of a socket, which stays open for the test.
func fdOf(t testing.TB, c *net.UDPConn) (n int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { n = int(fd) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestClosedPort: the target's port is closed, which its host says by ICMP. The flow is told, and the client nothing.
func TestClosedPort(t *testing.T) {
	gone := socket(t, "127.0.0.1")
	target := local(gone)
	gone.Close()
	w := newWorld(t, target)
	c := client(t, w.listen("127.77.0.5:0").Addr())
	c.Write([]byte("hello"))
	eventually(t, "the flow is told", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.unreachable) > 0 && errors.Is(w.unreachable[0], syscall.ECONNREFUSED)
	})
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the client is told: %v", err)
	}
	c.Write([]byte("again"))
	eventually(t, "another flow begins", func() bool { return w.count() == 2 })
}

// TestEnd: when End has returned nothing passes any more in either direction, whatever is on its way (A5).
func TestEnd(t *testing.T) {
	target := socket(t, "127.0.0.1")
	w := newWorld(t, local(target))
	w.begin = func(f *Flow) bool { return w.count() == 1 && w.open(f) }
	c := client(t, w.listen("127.77.0.5:0").Addr())
	b := make([]byte, 64)
	c.Write([]byte("one"))
	_, flow, err := target.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	w.first().End()
	w.first().End()
	c.Write([]byte("two"))
	target.WriteToUDPAddrPort([]byte("late"), flow)
	eventually(t, "the second is judged anew", func() bool { return w.count() == 2 })
	for _, conn := range []*net.UDPConn{c, target} {
		conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := conn.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%q, %v", b[:n], err)
		}
	}
}

// TestHeld: what comes while a flow is decided is held in order, little of it, and none of a flow that is refused.
func TestHeld(t *testing.T) {
	for _, tt := range []struct {
		name       string
		size, want int // of each datagram, and how many of 20 arrive
	}{
		{"small ones", 100, maxHeld},
		{"empty ones", 0, maxHeld},
		{"large ones", 9000, 1},
		{"of QUIC", 1200, maxHeld},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := socket(t, "127.0.0.1")
			begun := make(chan *Flow, 1)
			w := newWorld(t, local(target))
			w.begin = func(f *Flow) bool { begun <- f; return true }
			c := client(t, w.listen("127.77.0.5:0").Addr())
			for i := range 20 {
				c.Write(bytes.Repeat([]byte{byte(i)}, tt.size))
			}
			f := <-begun
			eventually(t, "the others are dropped", func() bool { return w.relay.Counts.Dropped(Waiting) == int64(20-tt.want) })
			if !w.open(f) {
				t.Fatal("it can't be opened")
			}
			b := make([]byte, 64<<10)
			for i := range tt.want {
				if n, err := target.Read(b); err != nil || n != tt.size || n > 0 && b[0] != byte(i) {
					t.Fatalf("datagram %d: %d bytes, %v", i, n, err)
				}
			}
			c.Write([]byte("next"))
			if n, err := target.Read(b); err != nil || string(b[:n]) != "next" {
				t.Errorf("%q, %v", b[:n], err)
			}
		})
	}
	t.Run("ended meanwhile", func(t *testing.T) {
		w := newWorld(t, local(socket(t, "127.0.0.1")))
		begun := make(chan *Flow, 1)
		w.begin = func(f *Flow) bool { begun <- f; return true }
		client(t, w.listen("127.77.0.5:0").Addr()).Write([]byte("x"))
		f := <-begun
		f.End()
		if err := f.Connect(netip.AddrPort{}, w.target, func(uintptr, netip.AddrPort) error { return nil }); !errors.Is(err, errEnded) {
			t.Errorf("Connect: %v", err)
		}
		if err := f.Start(nil, nil); !errors.Is(err, errEnded) {
			t.Errorf("Start: %v", err)
		}
	})
}

// TestHead: each datagram to the target has the header in front, those of a train too, and none to the client has.
func TestHead(t *testing.T) {
	target := socket(t, "127.0.0.1")
	w := newWorld(t, local(target), func(w *world) { w.head = []byte("HEAD") })
	c := client(t, w.listen("127.77.0.5:0").Addr())
	for _, size := range []int{3, 0, 1200, 1200, 1200, 7} {
		c.Write(bytes.Repeat([]byte("x"), size))
	}
	b := make([]byte, 64<<10)
	for _, size := range []int{3, 0, 1200, 1200, 1200, 7} {
		n, flow, err := target.ReadFromUDPAddrPort(b)
		if err != nil || n != 4+size || !bytes.HasPrefix(b[:n], w.head) {
			t.Fatalf("%d bytes, want 4 + %d: %v", n, size, err)
		}
		target.WriteToUDPAddrPort(b[4:n], flow)
		if m, err := c.Read(b); err != nil || m != size {
			t.Fatalf("%d bytes back, want %d: %v", m, size, err)
		}
	}
	if got := w.toTarget.Load(); got != 3610 {
		t.Errorf("%d bytes are counted, want those of the client alone", got)
	}
	c.Write(make([]byte, 65505)) // with the header it is no datagram
	eventually(t, "it is dropped", func() bool { return w.relay.Counts.Dropped(TooLarge) == 1 })
}

// TestForbidden: what a flow may not say doesn't reach its target, alone or in a train; the rest does.
func TestForbidden(t *testing.T) {
	target := socket(t, "127.0.0.1")
	w := newWorld(t, local(target), func(w *world) {
		w.never = func(b []byte) bool { return bytes.HasPrefix(b, []byte("never")) }
	})
	c := client(t, w.listen("127.77.0.5:0").Addr())
	f := &Flow{never: w.never}
	for _, m := range []message{{data: []byte("never 1")}, {data: []byte("good one!never 2")[:16], segment: 9}} {
		if !f.forbids(&m) {
			t.Errorf("%q in parts of %d is let through", m.data, m.segment)
		}
	}
	if f.forbids(&message{data: []byte("good never"), segment: 3}) {
		t.Error("a word within is taken for the beginning")
	}
	for _, word := range []string{"never", "never again", "", "now"} {
		c.Write([]byte(word))
	}
	b := make([]byte, 64)
	for _, word := range []string{"", "now"} {
		if n, err := target.Read(b); err != nil || string(b[:n]) != word {
			t.Errorf("%q, %v, want %q", b[:n], err, word)
		}
	}
	eventually(t, "they are counted", func() bool { return w.relay.Counts.Dropped(Forbidden) == 2 })
}

// TestListenersChange: flows go on over another listener that hears their client.
func TestListenersChange(t *testing.T) {
	w := newWorld(t, echo(t, "127.0.0.1"))
	before := w.listen("0.0.0.0:0")
	to := netip.AddrPortFrom(netip.MustParseAddr("127.77.0.9"), before.Addr().Port())
	c := client(t, to)
	b := make([]byte, 64)
	for _, word := range []string{"before", "after"} {
		c.Write([]byte(word))
		if n, err := c.Read(b); err != nil || string(b[:n]) != word {
			t.Fatalf("%q, %v", b[:n], err)
		}
		if word == "before" {
			before.Close()
			before.Close()
			w.listen(to.String())
		}
	}
	if w.count() != 1 {
		t.Errorf("%d flows", w.count())
	}
}

// TestGuard: what the guard refuses is never connected to.
func TestGuard(t *testing.T) {
	refusal := errors.New("not there")
	target := socket(t, "127.0.0.1")
	w := newWorld(t, local(target))
	seen := make(chan error, 1)
	w.begin = func(f *Flow) bool {
		err := f.Connect(netip.AddrPort{}, w.target, func(_ uintptr, to netip.AddrPort) error {
			if to != w.target {
				t.Errorf("asked about %v", to)
			}
			return refusal
		})
		seen <- err
		return err == nil
	}
	client(t, w.listen("127.77.0.5:0").Addr()).Write([]byte("x"))
	if err := <-seen; !errors.Is(err, refusal) {
		t.Error(err)
	}
	target.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := target.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("something arrived: %v", err)
	}
}

// TestSource: the target sees the address that it is to see.
func TestSource(t *testing.T) {
	target := socket(t, "127.0.0.1")
	w := newWorld(t, local(target), func(w *world) { w.from = netip.MustParseAddrPort("127.0.0.77:0") })
	client(t, w.listen("127.77.0.5:0").Addr()).Write([]byte("x"))
	if _, from, err := target.ReadFromUDPAddrPort(make([]byte, 1)); err != nil || from.Addr() != w.from.Addr() {
		t.Errorf("%v, %v", from, err)
	}
}
