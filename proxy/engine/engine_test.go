package engine

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// What runs side by side here waits: for a slow network, for TCP, for processes.
	if flag.Parse(); flag.Lookup("test.parallel").Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		flag.Set("test.parallel", "8")
	}
	goleak.VerifyTestMain(m)
}

func TestMessages(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.pair(nil)
		for range 100 {
			say(t, p.client, "question")
			hear(t, p.target, "question")
			say(t, p.target, "the answer")
			hear(t, p.client, "the answer")
		}
		p.client.CloseWrite()
		hearEnd(t, p.target)
		p.target.CloseWrite()
		p.wait(t) // bytes are counted when they are on their way
		if a, b := p.toTarget.Load(), p.toClient.Load(); a != 800 || b != 1000 || !p.moved.Load() {
			t.Errorf("counted %d and %d", a, b)
		}
	})
}

// P04: either side may end first, and hears the other out.
func TestHalfClose(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, first := range []Side{Client, Target} {
			p, a, b := w.ended(t, first)
			for range 3 {
				time.Sleep(5 * time.Millisecond) // a late answer is the case, not a wait
				say(t, b, "late answer")
				hear(t, a, "late answer")
			}
			b.CloseWrite()
			hearEnd(t, a)
			if e := p.wait(t); e != (End{First: first}) {
				t.Errorf("ended %+v, want first %d", e, first)
			}
		}
	})
}

// P05: a reset on one side is one on the other.
func TestReset(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, side := range []Side{Client, Target} {
			p := w.pair(nil)
			a, b := p.client, p.target
			if side == Target {
				a, b = b, a
			}
			say(t, a, "x")
			hear(t, b, "x")
			a.SetLinger(0)
			a.Close()
			hearReset(t, b)
			if e := p.wait(t); e.Broken != side {
				t.Errorf("ended %+v, want broken %d", e, side)
			}
		}
	})
}

func hearBroken(t *testing.T, c net.Conn) {
	t.Helper()
	for range 1000 {
		if _, err := c.Write([]byte{0}); errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			return
		} else if err != nil {
			t.Fatalf("%v; want a broken connection", err)
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the connection isn't broken")
}

// X32, X34: whatever the pair does, Reset ends it on both sides.
func TestCut(t *testing.T) {
	states := map[string]func(t *testing.T, p *running){
		"idle":    func(t *testing.T, p *running) { say(t, p.client, "x"); hear(t, p.target, "x") },
		"nothing": func(*testing.T, *running) {},
		"half-closed": func(t *testing.T, p *running) {
			p.client.CloseWrite()
			hearEnd(t, p.target)
		},
		"target doesn't read": func(t *testing.T, p *running) { fill(t, p.client, &p.toTarget) },
		"client doesn't read": func(t *testing.T, p *running) { fill(t, p.target, &p.toClient) },
	}
	each(t, func(t *testing.T, w *world) {
		for name, prepare := range states {
			t.Run(name, func(t *testing.T) {
				p := w.pair(nil)
				prepare(t, p)
				p.near.Reset()
				p.far.Reset()
				p.wait(t)
				hearReset(t, p.client)
				if name == "half-closed" { // what was read to its end is told of a reset when it writes
					hearBroken(t, p.target)
				} else {
					hearReset(t, p.target)
				}
			})
		}
	})
}

// fill writes until nothing moves any more, and returns how much.
func fill(t *testing.T, c *net.TCPConn, moved *atomic.Int64) (sent int64) {
	t.Helper()
	b := make([]byte, 1<<20)
	before := int64(-1)
	for range 200 {
		c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := c.Write(b)
		sent += int64(n)
		if now := moved.Load(); errors.Is(err, os.ErrDeadlineExceeded) && now == before {
			return sent
		} else {
			before = now
		}
	}
	t.Fatal("never full")
	return 0
}

// P06: a reader that is slow gets everything, and in the meantime nothing is held but what the sockets hold.
func TestSlowReader(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.pair(nil)
		fill(t, p.client, &p.toTarget)
		p.client.CloseWrite()
		time.Sleep(20 * time.Millisecond)
		n, err := io.Copy(io.Discard, p.target)
		if err != nil || n != p.toTarget.Load() {
			t.Errorf("%d bytes, %v; counted %d", n, err, p.toTarget.Load())
		}
	})
}

// Held bytes go first also where nothing is guarded.
func TestHeld(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.pair(func(c *Copy) { c.Held = []byte("held ") })
		say(t, p.client, "then")
		hear(t, p.target, "held then")
	})
}

// A listener that is closed says so to who accepts.
func TestClosedListener(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		l, err := accepting(w.engine, listen(t))
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error)
		go func() {
			_, _, _, err := l.Accept()
			failed <- err
		}()
		time.Sleep(5 * time.Millisecond) // so that it most likely waits by then; it needn't
		l.Close()
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("error %v", err)
		}
		if _, _, _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("again: %v", err)
		}
	})
}

func TestConversation(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		client, near := w.accepted()
		defer near.Close()
		near.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a passed deadline: %v", err)
		}
		near.SetReadDeadline(time.Time{})
		near.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		if n, err := near.Write(make([]byte, 32<<20)); n >= 32<<20 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes written, a passed deadline: %v", n, err)
		} else {
			io.CopyN(io.Discard, client, int64(n))
		}
		near.SetWriteDeadline(time.Time{})
		if n, ended := near.ReadNow(make([]byte, 1)); n != 0 || ended {
			t.Errorf("%d bytes of nothing", n)
		}
		go func() {
			time.Sleep(10 * time.Millisecond)
			io.WriteString(client, "hello")
		}()
		b := make([]byte, 10)
		if n, err := near.Read(b); err != nil || string(b[:n]) != "hello" {
			t.Errorf("%q, %v", b[:n], err)
		}
		go func() {
			time.Sleep(10 * time.Millisecond)
			io.Copy(io.Discard, client)
		}()
		if n, err := near.Write(make([]byte, 32<<20)); err != nil || n != 32<<20 {
			t.Errorf("%d bytes written, %v", n, err)
		}
		done := make(chan error)
		go func() {
			_, err := near.Read(b)
			done <- err
		}()
		time.Sleep(10 * time.Millisecond)
		near.Reset()
		if err := <-done; err == nil || err == io.EOF {
			t.Errorf("a read of what was reset: %v", err)
		}
		near.Control(func(uintptr) {
			if _, epoll := w.engine.(*portable); !epoll {
				t.Error("a closed descriptor is used")
			}
		})
	})
}

func TestDial(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		l := listen(t)
		defer l.Close()
		from := netip.MustParseAddrPort("127.0.0.77:0")
		seen := netip.AddrPort{}
		c, err := Dial(t.Context(), w.engine, from, addr(l), nil, func(_ uintptr, to netip.AddrPort) error {
			seen = to
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		in, err := l.AcceptTCP()
		if err != nil || addr2(in.RemoteAddr()).Addr() != from.Addr() || seen != addr(l) {
			t.Errorf("from %v to %v, %v", in.RemoteAddr(), seen, err)
		}
		c.Close()
		in.Close()

		refuse := errors.New("not there")
		if _, err := Dial(t.Context(), w.engine, netip.AddrPort{}, addr(l), nil, func(uintptr, netip.AddrPort) error { return refuse }); !errors.Is(err, refuse) {
			t.Errorf("what control refuses: %v", err)
		}
		gone := listen(t)
		at := addr(gone)
		gone.Close()
		if _, err := Dial(t.Context(), w.engine, netip.AddrPort{}, at, nil, nil); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nobody listens: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		full := silent(t)
		for range 20 { // until its queue takes no more
			c, err := Dial(ctx, w.engine, netip.AddrPort{}, full, nil, nil)
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("silence: %v", err)
				}
				return
			}
			w.open = append(w.open, c)
		}
		t.Error("a full queue takes connections")
	})
}

// Many pairs at once, which come and go: no connection ever gets the bytes of another.
func TestMany(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		l := listen(t)
		at := addr(l)
		near, err := accepting(w.engine, l)
		if err != nil {
			t.Fatal(err)
		}
		targets := listen(t)
		var echoes, accepting, pairs sync.WaitGroup
		echoes.Go(func() {
			for {
				c, err := targets.AcceptTCP()
				if err != nil {
					return
				}
				echoes.Go(func() {
					io.Copy(c, c)
					c.Close()
				})
			}
		})
		accepting.Go(func() {
			for {
				c, _, _, err := near.Accept()
				if err != nil {
					return
				}
				pairs.Go(func() {
					p := &running{near: c, ended: make(chan End, 1)}
					if p.far, err = Dial(t.Context(), w.engine, netip.AddrPort{}, addr(targets), c, nil); err != nil {
						t.Error(err)
						c.Close()
						return
					}
					w.copy(p, nil)
				})
			}
		})
		var clients sync.WaitGroup
		for i := range 8 {
			clients.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), 3))
				for range 60 {
					c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
					if err != nil {
						t.Error(err)
						return
					}
					sent := make([]byte, 1+r.IntN(100_000))
					for i := range sent {
						sent[i] = byte(r.Uint32())
					}
					go func() {
						c.Write(sent)
						c.CloseWrite()
					}()
					if r.IntN(4) == 0 {
						c.SetLinger(0)
						c.Close()
						continue
					}
					c.SetReadDeadline(time.Now().Add(10 * time.Second))
					got, err := io.ReadAll(c)
					if err != nil || !bytes.Equal(got, sent) {
						t.Errorf("%d of %d bytes came back, or others: %v", len(got), len(sent), err)
					}
					c.Close()
				}
			})
		}
		clients.Wait()
		near.Close()
		accepting.Wait()
		pairs.Wait()
		targets.Close()
		for _, p := range w.pairs {
			p.wait(t)
		}
		echoes.Wait()
	})
}
