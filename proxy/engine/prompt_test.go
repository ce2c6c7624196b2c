package engine

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestReadable: who waits without a goroutine is called once, for bytes, for the end, and when the connection is closed.
func TestReadable(t *testing.T) {
	for name, wake := range map[string]func(c *net.TCPConn, near Conn){
		"bytes":  func(c *net.TCPConn, _ Conn) { io.WriteString(c, "hello") },
		"end":    func(c *net.TCPConn, _ Conn) { c.CloseWrite() },
		"reset":  func(c *net.TCPConn, _ Conn) { c.SetLinger(0); c.Close() },
		"closed": func(_ *net.TCPConn, near Conn) { near.Reset() },
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, w *world) {
				client, near := w.accepted()
				defer near.Close()
				if n, ended := near.ReadNow(make([]byte, 9)); n != 0 || ended {
					t.Fatalf("%d bytes of nothing, ended %v", n, ended)
				}
				called := make(chan struct{}, 9)
				if !near.Readable(func() { called <- struct{}{} }) {
					if _, can := w.engine.(*portable); !can {
						t.Fatal("it can't wait")
					}
					return
				}
				wake(client, near)
				select {
				case <-called:
				case <-time.After(10 * time.Second):
					t.Fatal("never called")
				}
				n, ended := near.ReadNow(make([]byte, 9))
				if (name == "bytes") != (n == 5) || (name == "bytes") == ended {
					t.Errorf("%d bytes, ended %v", n, ended)
				}
				io.WriteString(client, "more")
				select {
				case <-called:
					t.Error("called again")
				case <-time.After(10 * time.Millisecond):
				}
			})
		})
	}
}

// TestReadableNow: where there may be something already, nobody is called.
func TestReadableNow(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		_, near := w.accepted()
		defer near.Close()
		if near.Readable(func() { t.Error("called") }) {
			t.Error("nobody has looked yet, and it waits")
		}
		near.Close()
		if near.Readable(func() { t.Error("called") }) {
			t.Error("it waits for what is closed")
		}
	})
}

// TestWriteNow: it never waits, and what it says was written is what comes.
func TestWriteNow(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		client, near := w.accepted()
		defer near.Close()
		written := 0
		for b := make([]byte, 64<<10); ; {
			n := near.WriteNow(b)
			if written += n; n < len(b) {
				break
			}
		}
		near.Close()
		if got, err := io.Copy(io.Discard, client); got != int64(written) || err != nil {
			t.Errorf("%d bytes came of %d, %v", got, written, err)
		}
		if n := near.WriteNow([]byte("x")); n != 0 {
			t.Errorf("%d bytes written to what is closed", n)
		}
	})
}

// TestBegin: a handshake that isn't over is finished by who may wait, or given up.
func TestBegin(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		gone := listen(t)
		at := addr(gone)
		gone.Close()
		now, finish, err := w.engine.Begin(netip.AddrPort{}, at, nil, nil)
		if finish != nil {
			now, err = finish(t.Context())
		}
		if now != nil || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nobody listens: %v, %v", now, err)
		}
		l := listen(t)
		defer l.Close()
		if now, finish, err = w.engine.Begin(netip.AddrPort{}, addr(l), nil, nil); finish != nil {
			now, err = finish(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		now.Close()
	})
}

// P10: an error of accepting is told, and then there is a pause; TestAcceptWithoutDescriptors has the rest.
// After Close no connection is given away, however many there are.
func TestNoneAfterClose(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		l := listen(t)
		at := addr(l)
		var closed atomic.Bool
		near, err := w.engine.Listen(l, Accepting{
			Conn: func(c Conn, _, _ netip.AddrPort) {
				if closed.Load() {
					t.Error("a connection after Close")
				}
				c.Reset()
			},
			Failed: func(error) time.Duration { return time.Millisecond },
		})
		if err != nil {
			t.Fatal(err)
		}
		dialled := make(chan struct{})
		go func() {
			defer close(dialled)
			for range 200 {
				c, err := net.DialTimeout("tcp", at.String(), time.Second)
				if err != nil {
					if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Error(err)
					}
					continue
				}
				c.Close()
			}
		}()
		time.Sleep(5 * time.Millisecond) // in the midst of them
		near.Close()
		closed.Store(true)
		<-dialled
		if err := near.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("again: %v", err)
		}
	})
}
