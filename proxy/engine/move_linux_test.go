package engine

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A connection that was dialled for nobody is copied to and from any, in the loop of that one. What its peer has said before isn't
// lost, nor is an end; and the loop that it was in tells it nothing any more.
func TestMove(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for i := range 8 { // from and to each loop
			p := &running{ended: make(chan End, 1)}
			p.client, p.near = w.accepted()
			target, c := w.dialled(nil)
			p.target = target
			if c, is := c.(*conn); is && i%2 == 0 { // as one whose handshake was waited for
				c.mu.Lock()
				err := c.watch(watchOut)
				c.mu.Unlock()
				if err != nil {
					t.Fatal(err)
				}
			}
			say(t, target, "welcome")
			if i >= 4 {
				target.CloseWrite()
			}
			p.far = w.engine.Move(c, p.near)
			if far, is := p.far.(*conn); is && far.loop != p.near.(*conn).loop {
				t.Error("it isn't in the loop of the other")
			}
			w.copy(p, nil)
			say(t, p.client, "hello")
			hear(t, p.target, "hello")
			hear(t, p.client, "welcome")
			if i >= 4 {
				hearEnd(t, p.client)
				continue
			}
			say(t, p.target, "again")
			hear(t, p.client, "again")
		}
	})
}

// Loops count what they have, and hold no slot of what has left.
func TestMoveLeavesNothing(t *testing.T) {
	w := newWorld(t, New)
	e := w.engine.(*epollEngine)
	slots := func() (used int) {
		for _, l := range e.loops {
			l.mu.Lock()
			used += len(l.slots) - len(l.free)
			l.mu.Unlock()
		}
		return used
	}
	conns := func() (n int32) {
		for _, l := range e.loops {
			n += l.conns.Load()
		}
		return n
	}
	_, near := w.accepted()
	slotsBefore, connsBefore := slots(), conns()
	for range 2 * len(e.loops) {
		_, c := w.dialled(nil)
		was := c.(*conn)
		was.mu.Lock()
		if err := was.watch(watchIn); err != nil {
			t.Fatal(err)
		}
		was.mu.Unlock()
		now := e.Move(c, near)
		if now == nil {
			t.Fatal("it is closed")
		}
		now.Close()
		now.Close()
		if again := e.Move(now, near); again != nil && again != now {
			t.Error("what is closed is moved")
		}
	}
	if s, n := slots(), conns(); s != slotsBefore || n != connsBefore {
		t.Errorf("%d slots and %d connections, %d and %d before", s, n, slotsBefore, connsBefore)
	}
	near.Close()
}

// What was closed meanwhile isn't moved.
func TestMoveOfClosed(t *testing.T) {
	w := newWorld(t, New)
	e := w.engine.(*epollEngine)
	if len(e.loops) < 2 {
		t.Skip("one loop alone, from which nothing moves")
	}
	c := newConn(e.loops[0], -1)
	e.loops[0].conns.Add(-1)
	if e.Move(c, &conn{loop: e.loops[1]}) != nil {
		t.Error("it is moved")
	}
	_, far := w.dialled(nil)
	was := far.(*conn)
	was.watched = unix.EPOLLIN // it isn't in the epoll, as if the kernel had failed
	was.number, was.uses = was.loop.enter(was)
	other := e.loops[0]
	if was.loop == other {
		other = e.loops[1]
	}
	if e.Move(far, &conn{loop: other}) != nil || was.fd >= 0 {
		t.Error("what can't be taken out of its loop is moved, or left open")
	}
}
