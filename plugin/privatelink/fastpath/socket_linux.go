package fastpath

import (
	"bytes"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/mmsg"
)

// socket is one socket of a group with the goroutine that reads it.
type socket struct {
	group *Group
	conn  *net.UDPConn
	raw   syscall.RawConn
	work  *work // what the table doesn't have

	// What follows is the reading goroutine's.
	ring   *ring
	key    [maxKey + maxView]byte
	tally  tally
	misses []*miss // of one batch
	errno  syscall.Errno

	stopping atomic.Bool
	idle     chan struct{} // closed when nothing is read any more
}

// maxView is the longest view for which keys need no allocation.
const maxView = 256

func newSocket(g *Group, conn *net.UDPConn) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	wild := g.addr.Addr().IsUnspecified()
	if wild {
		var told error
		if err := raw.Control(func(fd uintptr) { told = mmsg.TellDestination(int(fd)) }); err != nil || told != nil {
			return nil, errors.Join(err, told)
		}
	}
	s := &socket{group: g, conn: conn, raw: raw, ring: newRing(wild), idle: make(chan struct{})}
	s.work = newWork(s)
	return s, nil
}

// run reads until stop.
func (s *socket) run() {
	defer close(s.idle)
	read := s.serve // allocated once
	for {
		s.errno = 0
		switch err := s.raw.Read(read); {
		case err != nil || s.stopping.Load():
			return
		case s.errno != 0:
			time.Sleep(time.Millisecond) // the next datagram may be read
		}
	}
}

// stop ends reading and waits until what was read is answered, at most for the given time. Then it closes the socket.
func (s *socket) stop(atMost time.Duration) {
	s.stopping.Store(true)
	_ = s.conn.SetReadDeadline(time.Unix(1, 0))
	<-s.idle
	s.work.end(atMost)
	s.conn.Close()
}

// serve answers what the table has, and has the plugins answer the rest. It returns true on an error and at the end, and false where nothing
// is left: then the poller waits for more. Within one call of Read it hears of all that comes after a system call, so
// that a queue which had less than was asked for needn't be asked again.
func (s *socket) serve(fd uintptr) bool {
	for {
		if s.errno = s.ring.receive(fd); s.errno != 0 {
			return s.errno != unix.EAGAIN
		}
		s.answerBatch(fd)
		switch {
		case s.ring.count < batch:
			return false
		case s.stopping.Load():
			return true
		}
	}
}

// answerBatch answers the datagrams that came, or has the plugins answer them.
func (s *socket) answerBatch(fd uintptr) {
	r := s.ring
	t := s.group.target.Load()
	m := t.now()
	began := s.tally.start(t)
	for i := range r.count {
		if known, learn := s.answer(t, m, i, r.datagram(i)); !known {
			s.misses = append(s.misses, &miss{addr: r.udpAddr(i), parcel: r.parcel(i), query: bytes.Clone(r.datagram(i)), learn: learn})
		}
	}
	if r.queued > 0 {
		r.send(fd, false)
		s.tally.end(t, began)
	}
	if len(s.misses) > 0 {
		if n := s.work.add(s.misses); n > 0 && t.Dropped != nil {
			t.Dropped.Add(float64(n))
		}
		clear(s.misses)
		s.misses = s.misses[:0]
	}
}

// answer queues the answer to a datagram where it is known. Else learn says whether that of the plugins may be kept.
func (s *socket) answer(t *Target, m *Moment, i int, b []byte) (known, learn bool) {
	if s.group.probe.Load() != nil && s.group.probed(s, b) {
		return true, false
	}
	e, n, learn := t.find(s.key[:0], m, s.ring.client(i), b)
	if e == nil {
		return false, learn
	}
	s.ring.reply(i, e.appendTo(s.ring.buffer(), b, n, m))
	s.tally.add(e.answer, len(b))
	return true, false
}
