package engine

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A simulated kernel: sockets with bounded queues and an epoll that behaves as Linux's does at its worst. What happens, and
// when, is chosen by who drives it. It knows of TCP what copying depends on:
//
//   - A read takes what is queued, and stops in front of urgent data; a splice stops there for good. The end comes after the
//     bytes, and so does a reset, whose error is told once. After that a read sees an end (tcp_recvmsg, tcp_splice_read).
//   - There is an edge for each arrival, but for room only after the socket has said that there is none, and when a third is
//     free (tcp_poll, sk_stream_write_space). What an event says is what is true when it is taken, and others may be lies.
//   - To close a socket with unread bytes is a reset.

// simSocket is the engine's end of a connection, and what its peer does with it.
type simSocket struct {
	fd   int
	side Side

	rx      []byte
	slots   []int // how many bytes each segment in rx has
	urgent  int   // in rx there is urgent data before this byte; -1: none
	fin     bool  // the peer has ended
	dead    bool  // reset by the peer
	err     error // and nobody was told
	rxLimit int
	low     int // bytes that epoll tells of; less is silence. A kernel at its worst says nothing of a queue that is full before

	tx      []byte
	txLimit int
	noSpace bool // the socket has said that it takes no more
	shut    bool // nothing more will be written

	closed, reset bool // by the engine

	watched bool
	event   unix.EpollEvent
	edge    bool // in epoll's list

	read, written int // bytes that the engine took and gave
}

// free is how much more may be written, and writable whether poll says that something may.
func (s *simSocket) free() int      { return max(0, s.txLimit-len(s.tx)) }
func (s *simSocket) writable() bool { return s.free() >= (s.txLimit+2)/3 }

// poll is what is true now.
func (s *simSocket) poll() (mask uint32) {
	if s.fin || s.dead {
		mask |= unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if s.dead || s.fin && s.shut {
		mask |= unix.EPOLLHUP
	}
	if len(s.rx) >= s.low {
		mask |= unix.EPOLLIN
	}
	if s.urgent >= 0 {
		mask |= unix.EPOLLPRI
	}
	switch {
	case s.dead, s.shut, s.writable():
		mask |= unix.EPOLLOUT
	default:
		s.noSpace = true
	}
	if s.err != nil {
		mask |= unix.EPOLLERR
	}
	return mask
}

func (s *simSocket) wake() { s.edge = s.watched }

// room tells that the peer has read.
func (s *simSocket) room() {
	if s.noSpace && s.writable() {
		s.noSpace = false
		s.wake()
	}
}

// empty is what a read of nothing returns.
func (s *simSocket) empty() (int, error) {
	switch err := s.err; {
	case err != nil:
		s.err = nil
		return 0, err
	case s.fin, s.dead:
		return 0, nil
	}
	return 0, unix.EAGAIN
}

// cut takes n bytes off the queue.
func (s *simSocket) cut(n int) (b []byte) {
	b, s.rx = s.rx[:n:n], s.rx[n:]
	s.read += n
	if s.urgent >= 0 {
		s.urgent -= n
	}
	for n > 0 {
		if n < s.slots[0] {
			s.slots[0] -= n
			break
		}
		n -= s.slots[0]
		s.slots = s.slots[1:]
	}
	return b
}

// until is how many bytes there are before urgent data.
func (s *simSocket) until() int {
	if s.urgent >= 0 {
		return s.urgent
	}
	return len(s.rx)
}

// simPipe is a pipe: what matters is what is in it.
type simPipe struct {
	b    []byte
	r, w bool // open
}

// simKernel implements [kernel].
type simKernel struct {
	choices
	sockets map[int]*simSocket
	pipes   map[int]*simPipe // by either descriptor
	last    int              // descriptor
	faults  []string         // what the engine must not have done
	told    int              // the descriptor of who was told first that the other has ended
	between func(fd int)     // called before each system call: others act

	interrupts, failPipes, noSplice bool
	short                           bool // a socket took less than it had room for
}

func (k *simKernel) fault(format string, args ...any) {
	k.faults = append(k.faults, fmt.Sprintf(format, args...))
}

func (k *simKernel) socket(side Side, rx, tx int) *simSocket {
	k.last++
	s := &simSocket{fd: k.last, side: side, urgent: -1, low: 1, rxLimit: rx, txLimit: tx}
	k.sockets[k.last] = s
	return s
}

// enter is the beginning of a system call on a socket.
func (k *simKernel) enter(fd int, interrupted bool) (*simSocket, error) {
	s := k.sockets[fd]
	if s == nil || s.closed {
		k.fault("a call on descriptor %d, which isn't open", fd)
		return nil, unix.EBADF
	}
	if k.between != nil {
		k.between(fd)
	}
	if interrupted && k.interrupts && k.rare(5) {
		return nil, unix.EINTR
	}
	return s, nil
}

func (k *simKernel) read(fd int, b []byte) (int, error) {
	s, err := k.enter(fd, true)
	if err != nil {
		return -1, err
	}
	if s.urgent == 0 {
		s.urgent = -1 // a read goes on behind it
	}
	n := min(s.until(), len(b))
	if n == 0 {
		return s.empty()
	}
	return copy(b, s.cut(n)), nil
}

func (k *simKernel) peek(fd int, b []byte) (int, error) {
	s, err := k.enter(fd, true)
	if err != nil {
		return -1, err
	}
	if len(s.rx) == 0 {
		return s.empty()
	}
	return copy(b, s.rx), nil
}

func (k *simKernel) dissolved(fd int) bool {
	s, err := k.enter(fd, false)
	return err == nil && s.dead
}

// take returns how much of n bytes a socket takes.
func (k *simKernel) take(s *simSocket, n int) (int, error) {
	if err := s.err; err != nil {
		s.err = nil
		return -1, err
	}
	if s.dead || s.shut {
		return -1, unix.EPIPE
	}
	if n = min(n, s.free()); n == 0 {
		s.noSpace = true
		return -1, unix.EAGAIN
	}
	if k.rare(8) {
		n = 1 + k.pick(n) // memory is short; the socket says nothing of that
		k.short = true
	}
	s.written += n
	return n, nil
}

func (k *simKernel) write(fd int, b []byte) (int, error) {
	s, err := k.enter(fd, true)
	if err != nil {
		return -1, err
	}
	n, err := k.take(s, len(b))
	if n > 0 {
		s.tx = append(s.tx, b[:n]...)
	}
	return n, err
}

// slotsAtOnce is how many segments fit into a pipe.
const slotsAtOnce = 16

func (k *simKernel) splice(from, to, n int) (int, error) {
	if p := k.pipes[to]; p != nil {
		return k.fill(from, p, n)
	}
	p := k.pipes[from]
	s, err := k.enter(to, true)
	switch {
	case p == nil || !p.r:
		k.fault("a splice from descriptor %d, which is no pipe's", from)
		return -1, unix.EBADF
	case err != nil:
		return -1, err
	case len(p.b) == 0:
		k.fault("a splice from an empty pipe")
		return -1, unix.EAGAIN
	}
	n, err = k.take(s, min(n, len(p.b)))
	if n > 0 {
		s.tx = append(s.tx, p.b[:n]...)
		p.b = p.b[n:]
	}
	return n, err
}

// fill is a splice into a pipe.
func (k *simKernel) fill(from int, p *simPipe, n int) (int, error) {
	s, err := k.enter(from, true)
	switch {
	case err != nil:
		return -1, err
	case k.noSplice:
		return -1, unix.EINVAL
	case len(p.b) > 0 || !p.w:
		k.fault("a splice into a pipe that isn't empty, or closed")
		return -1, unix.EAGAIN
	}
	fits := 0
	for i, slot := range s.slots {
		if i == slotsAtOnce || k.rare(20) {
			break
		}
		fits += slot
	}
	if n = min(n, fits, s.until()); n == 0 && (s.urgent == 0 || len(s.rx) == 0) {
		return s.empty()
	} else if n == 0 {
		n = min(s.until(), s.slots[0])
	}
	p.b = append(p.b, s.cut(n)...)
	return n, nil
}

func (k *simKernel) lowat(fd, n int) error {
	s, err := k.enter(fd, false)
	if err != nil {
		return err
	}
	if n > 1 && k.rare(10) {
		return unix.EINVAL
	}
	s.low = n
	return nil
}

func (k *simKernel) room(fd int) int {
	s, err := k.enter(fd, false)
	if err != nil {
		return 0
	}
	return s.free()
}

func (k *simKernel) shutdown(fd int) error {
	s, err := k.enter(fd, false)
	switch {
	case err != nil:
		return err
	case s.dead:
		return unix.ENOTCONN
	case s.shut:
		k.fault("the end is said twice")
	}
	if s.shut = true; k.told == 0 {
		k.told = fd
	}
	if s.fin {
		s.wake()
	}
	return nil
}

func (k *simKernel) tell(_, _, fd int, ev unix.EpollEvent) error {
	s := k.sockets[fd]
	if s == nil || s.closed {
		k.fault("descriptor %d, which isn't open, is put into the epoll", fd)
		return unix.EBADF
	}
	s.watched, s.event = true, ev
	if s.poll()&ev.Events != 0 {
		s.wake()
	}
	return nil
}

func (k *simKernel) pipe() (r, w int, err error) {
	if k.failPipes && k.rare(2) {
		return -1, -1, unix.EMFILE
	}
	p := &simPipe{r: true, w: true}
	k.last += 2
	k.pipes[k.last-1], k.pipes[k.last] = p, p
	return k.last - 1, k.last, nil
}

func (k *simKernel) close(fd int, reset bool) error {
	if p := k.pipes[fd]; p != nil {
		delete(k.pipes, fd)
		p.r, p.w = false, false
		return nil
	}
	s, err := k.enter(fd, false)
	if err != nil {
		return err
	}
	s.closed, s.reset = true, reset || len(s.rx) > 0
	s.watched, s.edge = false, false
	return nil
}

// events takes up to len(into) events. Some come late, where that is asked for, and some say what isn't so.
func (k *simKernel) events(into []unix.EpollEvent, worst bool) (n int) {
	for fd := 1; fd <= k.last && n < len(into); fd++ {
		s := k.sockets[fd]
		if s == nil || !s.watched {
			continue
		}
		ev := s.event
		switch {
		case s.edge && worst && k.rare(3):
			continue // later
		case s.edge:
			s.edge = false
			ev.Events = s.poll() & (ev.Events | unix.EPOLLERR | unix.EPOLLHUP)
		case worst && k.rare(10):
			ev.Events = []uint32{unix.EPOLLIN, unix.EPOLLOUT, unix.EPOLLIN | unix.EPOLLOUT, unix.EPOLLPRI}[k.pick(4)]
		default:
			continue
		}
		if ev.Events != 0 {
			into[n] = ev
			n++
		}
	}
	return n
}
