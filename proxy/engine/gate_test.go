package engine

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"
)

// X37: Guard sees the first bytes before the target does, and the other direction isn't delayed.
func TestGuard(t *testing.T) {
	begins := func(b []byte) (is, maybe bool) {
		const bad = "PROXY "
		n := min(len(b), len(bad))
		return len(b) >= len(bad) && string(b[:n]) == bad, string(b[:n]) == bad[:n] && n < len(bad)
	}
	guard := func(held string) func(*Copy) {
		return func(c *Copy) { c.Guard, c.GuardSize, c.Held = begins, 16, []byte(held) }
	}
	each(t, func(t *testing.T, w *world) {
		p := w.pair(guard(""))
		say(t, p.target, "server first")
		hear(t, p.client, "server first")
		for _, s := range []string{"P", "R", "O", "Z", "Y it is not"} {
			say(t, p.client, s)
		}
		hear(t, p.target, "PROZY it is not")

		p = w.pair(guard("PRO"))
		say(t, p.client, "XY ")
		if e := p.wait(t); !e.Guarded || e.Broken != Nobody {
			t.Errorf("ended %+v", e)
		}
		hearReset(t, p.client)
		if n, err := p.target.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the target got %d bytes, %v", n, err)
		}

		p = w.pair(guard("PROX"))
		p.client.CloseWrite()
		hear(t, p.target, "PROX")
		hearEnd(t, p.target)

		p = w.pair(guard("hello"))
		hear(t, p.target, "hello")
	})
}

// X13, E14: nothing of the client passes before Watch says so.
func TestWatch(t *testing.T) {
	watch := func(c *Copy) {
		c.Held = []byte("held ")
		c.Watch = func(b []byte) Gate {
			if bytes.Contains(b, []byte("!")) {
				return Open
			}
			return Shut
		}
	}
	each(t, func(t *testing.T, w *world) {
		p := w.pair(watch)
		say(t, p.client, "early")
		say(t, p.target, "wait")
		hear(t, p.client, "wait")
		p.target.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
		if n, err := p.target.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes passed, %v", n, err)
		}
		say(t, p.target, "now!")
		hear(t, p.client, "now!")
		hear(t, p.target, "held early")
		say(t, p.client, "more")
		hear(t, p.target, "more")

		p = w.pair(watch)
		say(t, p.client, "early")
		p.target.CloseWrite()
		hearEnd(t, p.client)
		hear(t, p.target, "held early")

		p = w.pair(func(c *Copy) { watch(c); c.Held = nil })
		p.client.CloseWrite()
		hearEnd(t, p.target)
		say(t, p.target, "now!")
		hear(t, p.client, "now!")

		p = w.pair(watch)
		say(t, p.client, "early")
		p.client.SetLinger(0)
		p.client.Close()
		hearReset(t, p.target)
		if e := p.wait(t); e.Broken != Client {
			t.Errorf("ended %+v", e)
		}
	})
}

// X13: what Watch has asked for may be read, and changed, before it passes.
func TestAsk(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		asking := func(ok bool) func(*Copy) {
			return func(c *Copy) {
				c.Watch = func([]byte) Gate { return Asking }
				c.Ask = func() ([]byte, bool) {
					c.Client.SetReadDeadline(time.Now().Add(10 * time.Second))
					b := make([]byte, 5)
					_, err := io.ReadFull(c.Client, b)
					c.Client.SetReadDeadline(time.Time{})
					if !ok || err != nil {
						c.Client.Reset()
						c.Target.Reset()
						return nil, false
					}
					return bytes.ToUpper(b), true
				}
			}
		}
		p := w.pair(asking(true))
		say(t, p.target, "who")
		hear(t, p.client, "who")
		say(t, p.client, "hello and more")
		hear(t, p.target, "HELLO and more")

		p = w.pair(asking(false))
		say(t, p.target, "who")
		say(t, p.client, "hello")
		p.wait(t)
		hearReset(t, p.target)

		p = w.pair(asking(true)) // X33: cut meanwhile
		say(t, p.target, "who")
		hear(t, p.client, "who")
		p.near.Reset()
		p.far.Reset()
		p.wait(t)
		hearReset(t, p.client)
	})
}
