package soak

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// target is where the flows of a kind go.
type target struct {
	w    *world
	kind kind
	at   *net.TCPAddr

	mu       sync.Mutex
	listener *net.TCPListener // nil while it is away
	open     map[*net.TCPConn]bool
	serving  sync.WaitGroup
}

func newTarget(w *world, k kind) *target {
	t := &target{w: w, kind: k, at: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, open: map[*net.TCPConn]bool{}}
	t.serve()
	if k.silent {
		t.fill()
	}
	return t
}

// serve listens, if it isn't so already.
func (t *target) serve() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listener != nil {
		return
	}
	l, err := net.ListenTCP("tcp", t.at)
	if err != nil {
		t.w.t.Fatal(err) // the port was ours before
	}
	t.listener, t.at = l, l.Addr().(*net.TCPAddr)
	if t.kind.silent {
		return
	}
	t.serving.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			t.mu.Lock()
			t.open[c] = true
			t.mu.Unlock()
			t.serving.Go(func() {
				t.talk(c)
				c.Close()
				t.mu.Lock()
				delete(t.open, c)
				t.mu.Unlock()
			})
		}
	})
}

// fill makes the queue of a listener so short that it is full: what comes is dropped.
func (t *target) fill() {
	raw, err := t.listener.SyscallConn()
	if err != nil {
		t.w.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) })
	if err != nil {
		t.w.t.Fatal(err)
	}
	for range 4 {
		if c, err := net.DialTimeout("tcp", t.at.String(), 200*time.Millisecond); err == nil {
			t.open[c.(*net.TCPConn)] = true
		}
	}
}

// flap goes away, with all connections, or comes back.
func (t *target) flap() {
	t.mu.Lock()
	away := t.listener == nil
	t.mu.Unlock()
	if away {
		t.serve()
	} else {
		t.away()
	}
}

func (t *target) away() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listener == nil {
		return
	}
	t.listener.Close()
	t.listener = nil
	for c := range t.open {
		c.SetLinger(0)
		c.Close()
	}
}

func (t *target) close() {
	t.away()
	t.serving.Wait()
}

// talk is the other end of a flow. Its client finds in far what was wrong.
func (t *target) talk(c *net.TCPConn) {
	var hello [8]byte
	c.SetReadDeadline(time.Now().Add(quiet))
	if n, err := io.ReadFull(c, hello[:]); err != nil {
		if n > 0 && !t.kind.flaps {
			t.w.fault("%s: %d bytes of a hello, then %v", t.kind.name, n, err)
		}
		return // a probe, or a flow that is given up
	}
	v, ok := t.w.flows.Load(binary.BigEndian.Uint64(hello[:]))
	if !ok {
		if !t.kind.clientResets && !t.kind.cut && !t.kind.flaps {
			t.w.fault("%s: a hello of nobody", t.kind.name)
		}
		return
	}
	f := v.(*flow)
	f.reached.Store(true)
	if t.kind.trips > 0 {
		t.answer(c)
		return
	}
	f.far <- t.carry(c, f)
}

// answer says again what was asked.
func (t *target) answer(c *net.TCPConn) {
	for b := make([]byte, 100); ; {
		c.SetDeadline(time.Now().Add(quiet))
		if _, err := io.ReadFull(c, b); err != nil {
			return // the client knows whether that was so
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

func (t *target) carry(c *net.TCPConn, f *flow) error {
	poured := make(chan error, 1)
	pouring := func() {
		err := pour(c, f.content(true), f.down)
		if t.kind.targetResets {
			c.SetLinger(0)
			c.Close()
		} else if err == nil {
			err = c.CloseWrite()
		}
		poured <- err
	}
	if !t.kind.late {
		go pouring()
	}
	got, err := drink(c, f.content(false), 0, nil, &t.w.up)
	if t.kind.late {
		time.Sleep(time.Duration(f.id%500) * time.Millisecond)
		go pouring()
	}
	sent := <-poured
	switch {
	case errors.Is(err, errOther):
		return fmt.Errorf("at the target: %w", err)
	case t.kind.targetResets, t.kind.flaps:
		return nil
	case t.kind.clientResets:
		if !reset(err) && !errors.Is(sent, syscall.ECONNRESET) {
			return fmt.Errorf("the target got %d of %d bytes, then %v; a reset was to come", got, f.up, err)
		}
		return nil
	case err != nil || got != f.up || sent != nil:
		return fmt.Errorf("the target got %d of %d bytes, then %v; sending %v", got, f.up, err, sent)
	}
	return nil
}
