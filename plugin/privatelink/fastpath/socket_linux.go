package fastpath

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/mmsg"
)

// socket is one socket of a group with the goroutine that reads it. It is the [net.PacketConn] of a dns.Server, which
// reads from it what the table doesn't have and has the plugins answer it, as CoreDNS has for its own socket.
type socket struct {
	group *Group
	conn  *net.UDPConn
	raw   syscall.RawConn
	srv   *dns.Server
	ended chan error // of srv

	// What follows is the reading goroutine's.
	ring  *ring
	key   [maxKey + maxView]byte
	tally tally
	read  func(fd uintptr) bool // serveKnown, allocated once
	query []byte                // that serveKnown has found for the plugins to answer
	miss  *miss                 // whose it is; nil: none was found
	errno syscall.Errno

	stopping atomic.Bool
	idle     chan struct{} // closed when nothing is read any more and nothing is left
	quit     chan struct{}
	quitOnce sync.Once
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
	s := &socket{group: g, conn: conn, raw: raw, ring: newRing(wild), ended: make(chan error, 1), idle: make(chan struct{}), quit: make(chan struct{})}
	s.read = s.serveKnown
	// The empty secrets are CoreDNS's for a server without tsig: a signature is looked at and found wanting.
	s.srv = &dns.Server{PacketConn: s, Net: "udp", Handler: dns.HandlerFunc(s.serve), TsigSecret: map[string]string{}}
	return s, nil
}

// run serves until stop.
func (s *socket) run() { s.ended <- s.srv.ActivateAndServe() }

// stop ends reading and waits until what was read is answered, at most for the given time.
func (s *socket) stop(atMost time.Duration) {
	s.stopping.Store(true)
	_ = s.conn.SetReadDeadline(time.Unix(1, 0))
	<-s.idle
	ctx, cancel := context.WithTimeout(context.Background(), atMost)
	defer cancel()
	_ = s.srv.ShutdownContext(ctx)
	select {
	case <-s.ended:
	case <-ctx.Done(): // plugins that still answer end it
	}
}

// ReadFrom implements [net.PacketConn]: it returns the next datagram that is the plugins' to answer.
func (s *socket) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		s.miss, s.errno = nil, 0
		err := s.raw.Read(s.read)
		if err != nil && s.stopping.Load() {
			_ = s.raw.Control(func(fd uintptr) { s.answerBatch(fd) }) // after its deadline Read leaves what was received
		}
		switch {
		case s.miss != nil:
			return copy(p, s.query), s.miss, nil
		case s.stopping.Load():
			close(s.idle)
			<-s.quit
			return 0, nil, net.ErrClosed
		case err != nil:
			return 0, nil, err
		case s.errno != 0:
			return 0, nil, &net.OpError{Op: "read", Net: "udp", Err: again{s.errno}}
		}
	}
}

// serveKnown answers what the table has. It returns true with a datagram that the plugins are to answer and with an error, and false where nothing
// is left: then the poller waits for more. Within one call of Read it hears of all that comes after a system call, so
// that a queue which had less than was asked for needn't be asked again.
func (s *socket) serveKnown(fd uintptr) bool {
	for received := false; ; received = true {
		if s.answerBatch(fd) {
			return true
		}
		switch {
		case received && s.ring.count < batch:
			return false
		case s.stopping.Load():
			return true
		}
		if s.errno = s.ring.receive(fd); s.errno != 0 {
			return s.errno != unix.EAGAIN
		}
	}
}

// answerBatch answers what is left of the datagrams that came, up to one that the plugins are to answer: then it returns true.
func (s *socket) answerBatch(fd uintptr) (missed bool) {
	r := s.ring
	if r.next == r.count && r.queued == 0 {
		return false
	}
	t := s.group.target.Load()
	m := t.Backend.Now()
	began := s.tally.start(t)
	for r.next < r.count {
		i := r.next
		r.next++
		b := r.datagram(i)
		known, learn := s.answer(t, m, i, b)
		if known {
			continue
		}
		s.query, s.miss = b, &miss{addr: r.udpAddr(i), parcel: r.parcel(i)}
		if learn {
			s.miss.query = bytes.Clone(b)
		}
		return true
	}
	if r.queued > 0 {
		r.send(fd)
		s.tally.end(t, began)
	}
	return false
}

// again is an error of a socket that can be read again.
type again struct{ error }

// Temporary is asked by dns.Server, which would end otherwise.
func (again) Temporary() bool { return true }

// Timeout implements [net.Error].
func (again) Timeout() bool { return false }

// answer queues the answer to a datagram where it is known. Else learn says whether that of the plugins may be kept.
func (s *socket) answer(t *Target, m *Moment, i int, b []byte) (known, learn bool) {
	if s.group.probe.Load() != nil && s.group.probed(s, b) {
		return true, false
	}
	e, n, learn := t.find(s.key[:0], m, s.ring.client(i), b)
	if e == nil {
		return false, learn
	}
	s.ring.reply(i, e.appendTo(s.ring.answer[s.ring.queued][:0], b, n, m))
	s.tally.add(e.answer, len(b))
	return true, false
}

// miss is the address of a query that the plugins answer, with what is kept of it.
type miss struct {
	addr   net.UDPAddr
	parcel parcel // of the answer
	query  []byte // as it came; nil: the answer is not to be kept

	mu     sync.Mutex
	wire   []byte // the answer
	writes int
}

// Network implements [net.Addr].
func (m *miss) Network() string { return m.addr.Network() }

// String implements [net.Addr].
func (m *miss) String() string { return m.addr.String() }

// writer shows the plugins the address of the client as CoreDNS does.
type writer struct {
	dns.ResponseWriter
	miss *miss
}

// RemoteAddr implements [dns.ResponseWriter].
func (w *writer) RemoteAddr() net.Addr { return &w.miss.addr }

// serve has the plugins answer, and keeps the answer.
func (s *socket) serve(w dns.ResponseWriter, r *dns.Msg) {
	m, ok := w.RemoteAddr().(*miss)
	if !ok {
		return // not reached: ReadFrom has made it
	}
	t := s.group.enter()
	defer t.leave()
	a := t.Backend.Serve(&writer{w, m}, r, m.query != nil)
	if a == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.writes == 1 {
		t.keep(m.query, m.wire, a, m.addr.IP.To4() == nil)
	}
}

// WriteTo implements [net.PacketConn].
func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	m, ok := to.(*miss)
	if !ok {
		return s.conn.WriteTo(b, to)
	}
	if m.query != nil {
		m.mu.Lock()
		m.wire = bytes.Clone(b)
		m.writes++
		m.mu.Unlock()
	}
	if err := m.parcel.send(s.raw, b); err != nil {
		return 0, &net.OpError{Op: "write", Net: "udp", Source: s.conn.LocalAddr(), Addr: &m.addr, Err: err}
	}
	return len(b), nil
}

// Close implements [net.PacketConn]. The dns.Server closes it after stop.
func (s *socket) Close() error {
	s.release()
	return s.conn.Close()
}

func (s *socket) release() { s.quitOnce.Do(func() { close(s.quit) }) }

// LocalAddr implements [net.PacketConn].
func (s *socket) LocalAddr() net.Addr { return s.conn.LocalAddr() }

// SetReadDeadline implements [net.PacketConn]. A dns.Server sets one in the past to end its reading, after stop has ended
// ours; all others are for nothing.
func (s *socket) SetReadDeadline(t time.Time) error {
	if s.stopping.Load() && t.Before(time.Now()) {
		s.release()
	}
	return nil
}

// SetDeadline implements [net.PacketConn].
func (s *socket) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetWriteDeadline implements [net.PacketConn]: nothing waits here.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }
