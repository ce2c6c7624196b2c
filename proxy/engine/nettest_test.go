package engine

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// Two peers with an engine between them don't notice it.
func TestConnThroughPair(t *testing.T) {
	for name, start := range engines {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				e, err := start()
				if err != nil {
					return nil, nil, nil, err
				}
				w := &world{t: t, engine: e}
				p := w.pair(nil)
				return p.client, p.target, w.close, nil
			})
		})
	}
}

// The connections of the portable engine are whole ones of the standard library. Those of the epoll engine serve one goroutine
// at a time, which sets the deadlines: of nettest's, BasicIO, PingPong, ReadTimeout and WriteTimeout are of such a use, and the
// substance of PastTimeout, PresentTimeout, FutureTimeout and CloseTimeout is in TestConnAlone. RacyRead, RacyWrite and
// ConcurrentMethods are what the interface excludes, but for the methods that anybody may call, which are in TestAnybody.
func TestConnOfPortable(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		w := &world{t: t, engine: Portable()}
		c, near := w.accepted()
		return near.(tcpConn), c, func() {
			near.Close()
			w.close()
		}, nil
	})
}

// TestConnAlone uses a connection as the goroutine of a flow does.
func TestConnAlone(t *testing.T) {
	past := time.Unix(1, 0)
	late := func(t *testing.T, what string, n int, err error) {
		t.Helper()
		if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %d bytes, %v", what, n, err)
		}
	}
	each(t, func(t *testing.T, w *world) {
		c, near := w.accepted()
		b := make([]byte, 100)
		read := func() (int, error) { return near.Read(b) }
		write := func() (int, error) { return near.Write(b) }
		much := make([]byte, 64<<20) // more than there is ever room for
		full := func() {
			t.Helper()
			near.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			if _, err := near.Write(much); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("never full: %v", err)
			}
		}

		say(t, c, "waits")
		near.SetReadDeadline(past)
		n, err := read()
		late(t, "read, past, though bytes wait", n, err)
		near.SetReadDeadline(time.Time{})
		if n, err = read(); n != 5 || err != nil {
			t.Errorf("read after the deadline was taken back: %d, %v", n, err)
		}
		near.SetReadDeadline(time.Now())
		n, err = read()
		late(t, "read, present", n, err)
		began := time.Now()
		near.SetReadDeadline(began.Add(30 * time.Millisecond))
		n, err = read()
		if late(t, "read, future", n, err); time.Since(began) < 30*time.Millisecond {
			t.Error("a read gave up before its deadline")
		}
		near.SetReadDeadline(time.Time{})

		near.SetWriteDeadline(past)
		n, err = write()
		late(t, "write, past, though there is room", n, err)
		near.SetWriteDeadline(time.Time{})
		if n, err = write(); n != len(b) || err != nil {
			t.Errorf("write after the deadline was taken back: %d, %v", n, err)
		}
		full()
		began = time.Now()
		near.SetWriteDeadline(began.Add(30 * time.Millisecond))
		_, err = near.Write(much)
		if late(t, "write, future", 0, err); time.Since(began) < 30*time.Millisecond {
			t.Error("a write gave up before its deadline")
		}
		near.SetWriteDeadline(time.Time{})

		for what, f := range map[string]func() (int, error){"read": read, "write": func() (int, error) { return near.Write(much) }} {
			c, near = w.accepted()
			if what == "write" {
				full()
				near.SetWriteDeadline(time.Time{})
			}
			done := make(chan error)
			go func() {
				_, err := f()
				done <- err
			}()
			time.Sleep(10 * time.Millisecond) // so that it waits, most likely
			near.Close()
			if err := <-done; err == nil || errors.Is(err, io.EOF) {
				t.Errorf("%s of what is closed meanwhile: %v", what, err)
			}
			if _, err := f(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s of what is closed: %v", what, err)
			}
		}
		_ = c
	})
}

// What anybody may call may be called by all at once, whatever the connection does. The race detector looks on.
func TestAnybody(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for round := range 20 {
			p := w.pair(nil)
			go io.Copy(io.Discard, p.target)
			go p.client.Write(make([]byte, 1<<20))
			done := make(chan struct{})
			calls := []func(){
				func() { p.near.Control(func(uintptr) {}) },
				func() { p.far.Control(func(uintptr) {}) },
				func() { p.near.Reset() },
				func() { p.far.Reset() },
				func() { p.near.Close() },
				func() { p.far.CloseWrite() },
			}
			for i := range calls {
				go func() {
					calls[(i+round)%len(calls)]()
					done <- struct{}{}
				}()
			}
			for range calls {
				<-done
			}
			p.wait(t)
		}
	})
}
