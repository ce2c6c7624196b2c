package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hoard takes every descriptor that is left, and gives n of them back when it is asked to.
func hoard(t *testing.T) (giveBack func(n int)) {
	t.Helper()
	var held []int
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EMFILE) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		held = append(held, fd)
	}
	giveBack = func(n int) {
		for ; n > 0 && len(held) > 0; n-- {
			unix.Close(held[len(held)-1])
			held = held[:len(held)-1]
		}
	}
	t.Cleanup(func() { giveBack(len(held)) })
	return giveBack
}

// limited runs the test again in a process of its own that may have few descriptors. It reports whether this is that process.
func limited(t *testing.T) bool {
	t.Helper()
	const limit = "POSTERN_TEST_LIMIT"
	if os.Getenv(limit) != "" {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 200, Max: 200}); err != nil {
			t.Fatal(err)
		}
		return true
	}
	t.Parallel() // it waits for another process
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), limit+"=yes")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// P10: where no descriptor is left, accepting and dialling fail with an error that passes, bulk is copied without a pipe, what is
// copied goes on, and everything works again when there are descriptors. In a process of its own, whose limit is low.
func TestNoDescriptors(t *testing.T) {
	if !limited(t) {
		return
	}
	each(t, func(t *testing.T, w *world) {
		p := w.pair(nil)
		say(t, p.client, "before")
		hear(t, p.target, "before")
		l := listen(t)
		defer l.Close()
		at := addr(l)
		near, err := accepting(w.engine, listen(t))
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		giveBack := hoard(t)

		if c, err := Dial(t.Context(), w.engine, netip.AddrPort{}, at, nil, nil); !errors.Is(err, unix.EMFILE) {
			t.Errorf("dial: %v, %v", c, err)
		}
		const size = 20 << 20
		seed := uint64(size)
		sent := make(chan error, 1)
		go func() {
			err := pour(p.client, seed, size)
			p.client.CloseWrite()
			sent <- err
		}()
		if got, err := drink(p.target, seed); got != size || err != nil {
			t.Errorf("without pipes %d of %d bytes came, then %v", got, size, err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}

		giveBack(20)
		p = w.pair(nil)
		say(t, p.client, "after")
		hear(t, p.target, "after")
	})
}

// P10: accept without a descriptor fails, and has the connection when there is one.
func TestAcceptWithoutDescriptors(t *testing.T) {
	if !limited(t) {
		return
	}
	each(t, func(t *testing.T, w *world) {
		l := listen(t)
		at := addr(l)
		near, err := accepting(w.engine, l)
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		giveBack := hoard(t)
		giveBack(1)
		c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at)) // takes it
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, _, _, err := near.Accept(); !errors.Is(err, unix.EMFILE) {
			t.Fatalf("accept: %v", err)
		}
		giveBack(5)
		conn, _, _, err := near.Accept()
		for errors.Is(err, unix.EMFILE) { // told meanwhile
			conn, _, _, err = near.Accept()
		}
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		say(t, c, "hello")
		b := make([]byte, 10)
		if n, err := conn.Read(b); err != nil || string(b[:n]) != "hello" {
			t.Errorf("%q, %v", b[:n], err)
		}
	})
}

// E14, P06: flows to readers with the smallest buffers that stop and read again. A flow that stands still although not all is
// written, bytes wait at one side and there is room at the other has been forgotten by the engine. Others wait for TCP: what
// doesn't fit such a buffer is dropped there and sent again ever later (RFC 6298 section 5.5), so that 20 s are nothing unusual.
func TestNobodyIsForgotten(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		t.Parallel()
		n := 100
		if raceDetector {
			n = 30
		}
		const size = 120 << 10
		type one struct {
			p     *running
			got   atomic.Int64
			over  chan error
			begin chan struct{}
		}
		flows := make([]*one, n)
		for i := range flows {
			f := &one{p: w.pair(nil), over: make(chan error, 1), begin: make(chan struct{})}
			flows[i] = f
			f.p.target.SetReadBuffer(4 << 10)
			f.p.client.SetWriteBuffer(4 << 10)
			go func() {
				pour(f.p.client, uint64(i), size)
				f.p.client.CloseWrite()
			}()
			go func() {
				<-f.begin
				b := make([]byte, 3000)
				for {
					m, err := f.p.target.Read(b)
					if f.got.Add(int64(m)); err != nil {
						f.over <- err
						return
					}
					if m%7 == 0 {
						time.Sleep(time.Millisecond) // and the window is shut again
					}
				}
			}()
		}
		time.Sleep(300 * time.Millisecond) // all stand still, or most
		for _, f := range flows {
			close(f.begin)
		}
		end := time.Now().Add(20 * time.Second)
		for i, f := range flows {
			last, since := int64(-1), time.Now()
			for done := false; !done; {
				select {
				case err := <-f.over:
					if got := f.got.Load(); got != size || err != io.EOF {
						t.Errorf("flow %d: %d of %d bytes came, then %v", i, got, size, err)
					}
					done = true
				case <-time.After(50 * time.Millisecond):
				}
				if now := f.got.Load(); now != last {
					last, since = now, time.Now()
				}
				late := time.Now().After(end)
				if !done && (late || time.Since(since) > time.Second) && f.p.toTarget.Load() < size {
					if room, waits := able(f.p.far, unix.POLLOUT), able(f.p.near, unix.POLLIN); room && waits && f.p.toTarget.Load() < size {
						t.Fatalf("flow %d: %d bytes came and none for %v, though there are more and there is room", i, last, time.Since(since))
					}
				}
				if !done && late {
					t.Logf("flow %d waits for TCP: %s", i, window(f.p.far))
					done = true
				}
			}
		}
	})
}

// P06: of what a side sends that nobody reads, 64 KiB are held at most, and the rest is in the queues of the sockets.
func TestFlood(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, from := range []Side{Client, Target} {
			p := w.pair(nil)
			source, inner, moved := p.client, p.near, &p.toTarget
			if from == Target {
				source, inner, moved = p.target, p.far, &p.toClient
			}
			sent := fill(t, source, moved)
			held := int64(-1)
			for range 100 { // acknowledgements may be on their way
				held = sent - int64(queued(tcpConn{source}, unix.TIOCOUTQ)) - int64(queued(inner, unix.TIOCINQ)) - moved.Load()
				if held >= 0 && held <= 64<<10 {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if held < 0 || held > 64<<10 {
				t.Errorf("of side %d, %d bytes of %d are held", from, held, sent)
			}
		}
	})
}

// queued asks how many bytes wait in a queue of a socket.
func queued(c Conn, queue uint) (n int) {
	c.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), queue) })
	return n
}

// able reports what poll says of a connection, now and a little later: the engine may be about to act on it.
func able(c Conn, events int16) bool {
	for range 100 {
		is := false
		c.Control(func(fd uintptr) {
			fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
			n, err := unix.Poll(fds, 0)
			is = n > 0 && err == nil
		})
		if !is {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

// window says what TCP waits for.
func window(c Conn) (s string) {
	c.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			s = fmt.Sprintf("backoff %d, probes %d, %v until it is sent again, %d bytes not sent yet", info.Backoff, info.Probes,
				time.Duration(info.Rto)*time.Microsecond, info.Notsent_bytes)
		}
	})
	return s
}
