package engine

import (
	"errors"
	"io"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// X13, E13: a pair ends whose target has ended in order before Ask refuses.
func TestAskRefusesAfterTheEnd(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		var p *running
		ended := make(chan struct{})
		p = w.pair(func(c *Copy) {
			c.Watch = func([]byte) Gate { return Asking }
			c.Ask = func() ([]byte, bool) {
				<-ended
				c.Client.Reset()
				c.Target.Reset()
				return nil, false
			}
		})
		say(t, p.target, "retry")
		p.target.CloseWrite()
		hear(t, p.client, "retry")
		hearEnd(t, p.client)
		close(ended)
		if e := p.wait(t); e.First != Target {
			t.Errorf("ended %+v, want the target first", e)
		}
		hearReset(t, p.target)
	})
}

// P05, P08: who has ended in order and is reset afterwards is noticed, also where nobody has anything to say to it.
func TestResetAfterEnd(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, side := range []Side{Client, Target} {
			p, a, b := w.ended(t, side)
			a.SetLinger(0)
			a.Close()
			if e := p.wait(t); e != (End{First: side, Broken: side}) {
				t.Errorf("ended %+v, want side %d first and broken", e, side)
			}
			hearBroken(t, b)
		}
	})
}

// P05: a reset that ReadNow is told of isn't an end to who reads next.
func TestResetBeforeCopy(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, read := range []string{"Read", "Copy"} {
			p := &running{ended: make(chan End, 1)}
			p.client, p.near = w.accepted()
			p.client.SetLinger(0)
			p.client.Close()
			if n, ended := p.near.ReadNow(make([]byte, 1)); n != 0 || !ended {
				t.Fatalf("%d bytes of nothing", n)
			}
			if read == "Read" {
				if tcp, is := p.near.(tcpConn); is {
					tcp.Close() // of the standard library, which can't know
				} else if n, err := p.near.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%d bytes, %v", n, err)
				}
				p.near.Close()
				continue
			}
			p.target, p.far = w.dialled(p.near)
			w.copy(p, nil)
			if e := p.wait(t); e.Broken != Client {
				t.Errorf("ended %+v", e)
			}
			hearReset(t, p.target)
		}
	})
}

// A read stops in front of urgent data (RFC 6093): what lies behind isn't left until more comes.
func TestUrgent(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for range 20 { // all of it has come at once in most rounds
			p := w.pair(nil)
			raw, err := p.client.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := raw.Control(func(fd uintptr) {
				syscall.Write(int(fd), []byte("before "))
				syscall.Sendto(int(fd), []byte("!"), syscall.MSG_OOB, nil)
				syscall.Write(int(fd), []byte("behind"))
			}); err != nil {
				t.Fatal(err)
			}
			hear(t, p.target, "before behind")
		}
	})
}

// E14, P06: small segments take a slot of a pipe each, so that a splice brings less than it may and leaves some in the
// socket. They go on without another word of the sender.
func TestSmallSegmentsInBulk(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		// Pieces of two connections, written in turn by one thread, don't lie side by side in memory: each
		// stays a segment of its own.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		p, other := w.pair(nil), w.pair(nil)
		go io.Copy(io.Discard, other.target)
		write, beside := now(t, p.client), now(t, other.client)
		sent := 0
		for full := 0; full < 20; { // till both sockets are full, and the pair splices
			n := write(make([]byte, 64<<10))
			if sent += n; n == 0 {
				full++
				time.Sleep(time.Millisecond)
			}
		}
		got, b := 0, make([]byte, 64<<10)
		read := func(wait time.Duration) error {
			p.target.SetReadDeadline(time.Now().Add(wait))
			n, err := p.target.Read(b)
			got += n
			return err
		}
		for range 20 {
			for range 4 {
				read(20 * time.Millisecond)
			}
			for n := 1; n > 0; {
				n = write(make([]byte, 100))
				sent += n
				beside(make([]byte, 100))
			}
		}
		for got < sent {
			if err := read(10 * time.Second); err != nil {
				t.Fatalf("%d of %d bytes came: %v", got, sent, err)
			}
		}
	})
}

// now returns a write that doesn't wait, and says how much was taken.
func now(t *testing.T, c syscall.Conn) func(b []byte) int {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return func(b []byte) (n int) {
		raw.Control(func(fd uintptr) { n, _ = syscall.Write(int(fd), b) })
		return max(n, 0)
	}
}

// A splice never gets past urgent data (RFC 6093): neither a stop nor an end is to be believed there, and what lies behind
// must come.
func TestUrgentInBulk(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, end := range []bool{false, true} {
			p := w.pair(nil)
			want := fill(t, p.client, &p.toTarget) // and the pair splices
			raw, err := p.client.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			got, b := int64(0), make([]byte, 100_000)
			read := func() {
				p.target.SetReadDeadline(time.Now().Add(10 * time.Second))
				n, err := p.target.Read(b)
				if got += int64(n); err != nil {
					t.Fatalf("end %v: %d of %d bytes came: %v", end, got, want, err)
				}
			}
			for tries, urged := 0, false; !urged && tries < 1000; tries++ {
				raw.Control(func(fd uintptr) {
					urged = syscall.Sendto(int(fd), []byte("!"), syscall.MSG_OOB|syscall.MSG_DONTWAIT, nil) == nil
				})
				if !urged {
					read() // there is room for more then
				}
			}
			wrote := make(chan error, 1)
			const behind = 200_000
			want += behind
			go func() {
				p.client.SetWriteDeadline(time.Now().Add(10 * time.Second))
				_, err := p.client.Write(make([]byte, behind))
				if end {
					p.client.CloseWrite()
				}
				wrote <- err
			}()
			for got < want {
				read()
			}
			if err := <-wrote; err != nil {
				t.Error(err)
			}
			if end {
				hearEnd(t, p.target)
			}
		}
	})
}
