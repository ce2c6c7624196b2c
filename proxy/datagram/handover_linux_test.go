package datagram

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inherit gives a listener's socket to another relay, which receives on it from then on. The listener stays as it is.
func (w *world) inherit(l *Listener, from <-chan struct{}) *Listener {
	w.t.Helper()
	f, err := l.conn.File()
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		w.t.Fatal(err)
	}
	other, err := w.relay.Inherit(c.(*net.UDPConn), from)
	if err != nil {
		w.t.Fatal(err)
	}
	w.serving.Go(other.Serve)
	w.t.Cleanup(other.Close)
	return other
}

// resume goes on with a flow of another relay.
func (w *world) resume(f *Flow, fd int, via *Listener) (*Flow, error) {
	w.t.Helper()
	next, err := w.relay.Resume(fd, f.Client(), f.Local(), w.target, via)
	if err != nil {
		w.t.Fatal(err)
	}
	next.Own(w, Account{&w.toTarget, &w.toClient, &w.moved})
	w.mu.Lock()
	w.flows = append(w.flows, next)
	w.mu.Unlock()
	return next, next.Start(w.head, w.never)
}

// TestDetachAndResume (P13): a flow goes from one relay to another, as from process to process. Its target sees the same port, what
// either side sends meanwhile waits, and each datagram is read once.
func TestDetachAndResume(t *testing.T) {
	for _, tt := range []struct{ name, listen, to, target string }{
		{"one address", "127.77.0.5:0", "127.77.0.5", "127.0.0.1"},
		{"every address", "0.0.0.0:0", "127.77.0.6", "127.0.0.1"},
		{"every address of IPv6", "[::]:0", "::1", "::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := socket(t, tt.target)
			old, next := newWorld(t, local(target)), newWorld(t, local(target))
			before := old.listen(tt.listen)
			c := client(t, netip.AddrPortFrom(netip.MustParseAddr(tt.to), before.Addr().Port()))
			b := make([]byte, 64)
			ask := func(word string) (from netip.AddrPort) {
				t.Helper()
				n, from, err := target.ReadFromUDPAddrPort(b)
				if err != nil || string(b[:n]) != word {
					t.Fatalf("%q, %v: want %q", b[:n], err, word)
				}
				return from
			}
			c.Write([]byte("one"))
			port := ask("one")
			begin := make(chan struct{})
			after := next.inherit(before, begin)

			before.Stop()
			old.serving.Wait()
			fd, ok := old.first().Detach()
			if !ok {
				t.Fatal("the flow isn't detached")
			}
			if _, again := old.first().Detach(); again {
				t.Error("detached twice")
			}
			c.Write([]byte("two"))
			target.WriteToUDPAddrPort([]byte("late"), port)
			for _, l := range old.relay.loops {
				if n := epollNow(l.epoll, make([]unix.EpollEvent, 1)); n != 0 {
					t.Error("the old relay is told of a socket that isn't its own any more")
				}
			}
			if _, err := next.resume(old.first(), fd, after); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(b); err != nil || string(b[:n]) != "late" {
				t.Errorf("%q, %v: want what came in between", b[:n], err)
			}
			target.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if n, err := target.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%q, %v: received before the other relay had ended", b[:n], err)
			}
			target.SetReadDeadline(time.Now().Add(patience))
			close(begin)
			if from := ask("two"); from != port {
				t.Errorf("from %v, before %v", from, port)
			}
			before.Close()
			c.Write([]byte("three"))
			target.WriteToUDPAddrPort([]byte("answer"), ask("three"))
			if n, err := c.Read(b); err != nil || string(b[:n]) != "answer" {
				t.Errorf("%q, %v", b[:n], err)
			}
			if old.count() != 1 || next.count() != 1 {
				t.Errorf("%d and %d flows", old.count(), next.count())
			}
		})
	}
}

// TestResumeRefused: a flow isn't resumed on a socket that leads elsewhere or is none, nor where its client has another one;
// and one that isn't started or has ended isn't detached.
func TestResumeRefused(t *testing.T) {
	target, other := socket(t, "127.0.0.1"), socket(t, "127.0.0.1")
	w := newWorld(t, local(target))
	l := w.listen("127.77.0.5:0")
	c := client(t, l.Addr())
	dup := func(c *net.UDPConn) int {
		t.Helper()
		fd, err := unix.Dup(fdOf(t, c))
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	none, err := unix.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := client(t, local(other))
	for name, fd := range map[string]int{"elsewhere": dup(elsewhere), "connected to nothing": dup(other), "no socket": none, "not open": -1} {
		if _, err := w.relay.Resume(fd, local(c), l.Addr(), local(target), l); err == nil {
			t.Errorf("%s: resumed", name)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); fd >= 0 && err == nil {
			t.Errorf("%s: still open", name)
		}
	}
	if elsewhere.LocalAddr() == nil {
		t.Error("gone")
	}

	c.Write([]byte("x"))
	if _, err := target.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	right := client(t, local(target))
	if f, err := w.resume(w.first(), dup(right), l); !errors.Is(err, errReplaced) {
		t.Errorf("beside another flow of its client: %v", err)
	} else if _, ok := f.Detach(); ok {
		t.Error("detached though it wasn't started")
	}
	c.Write([]byte("y"))
	if _, err := target.Read(make([]byte, 1)); err != nil {
		t.Errorf("the flow that was there: %v", err)
	}
	w.first().End()
	if _, ok := w.first().Detach(); ok {
		t.Error("detached though it has ended")
	}
}

// TestStop: what waits at a listener that was stopped stays there, and it can be closed and stopped again.
func TestStop(t *testing.T) {
	w := newWorld(t, echo(t, "127.0.0.1"))
	l := w.listen("127.77.0.5:0")
	l.Stop()
	w.serving.Wait()
	c := client(t, l.Addr())
	c.Write([]byte("waits"))
	if w.count() != 0 {
		t.Error("received")
	}
	next := newWorld(t, w.target)
	begin := make(chan struct{})
	close(begin)
	next.inherit(l, begin)
	b := make([]byte, 64)
	if n, err := c.Read(b); err != nil || string(b[:n]) != "waits" {
		t.Errorf("%q, %v", b[:n], err)
	}
	l.Stop()
	l.Close()
	l.Close()
	waiting := next.inherit(next.listen("127.77.0.5:0"), make(chan struct{}))
	waiting.Close() // it returns though nothing was begun
}
