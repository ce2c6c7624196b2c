package datagram

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/mmsg"
)

// Relay carries the datagrams of any number of listeners. Its methods are safe for concurrent use.
type Relay struct {
	Counts  *Counts
	handler Handler
	table   table
	loops   []*loop
	next    atomic.Uint32 // loop
	held    atomic.Int64  // bytes that wait for decisions
	plain   bool          // for tests: no trains
}

// New returns a relay without listeners, which counts in counts. It must be closed.
func New(h Handler, counts *Counts) (*Relay, error) {
	r := &Relay{handler: h, Counts: counts}
	for range max(1, runtime.GOMAXPROCS(0)) {
		l, err := newLoop()
		if err != nil {
			r.Close()
			return nil, err
		}
		r.loops = append(r.loops, l)
	}
	return r, nil
}

// Close ends the relay, whose listeners are closed and whose flows have ended, and waits for its goroutines.
func (r *Relay) Close() {
	for _, l := range r.loops {
		l.close()
	}
}

// Listener is a socket that flows come in on.
type Listener struct {
	relay *Relay
	conn  *net.UDPConn
	raw   syscall.RawConn
	at    netip.AddrPort
	four  bool
	from  <-chan struct{} // Serve waits for its end; nil: it doesn't

	once    sync.Once
	stopped chan struct{} // closed by Stop
}

// bufferSize is what a listener asks the kernel to keep for it; net.core.rmem_max bounds it.
const bufferSize = 4 << 20

// Listen opens a socket, which nothing is taken from before Serve. On an unspecified address it is for all
// addresses of the family that are routed to this machine. Errors wrap those of the system.
func (r *Relay) Listen(at netip.AddrPort) (*Listener, error) {
	network := "udp4"
	if at.Addr().Is6() { // "udp6" sets IPV6_V6ONLY
		network = "udp6"
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		e := c.Control(func(fd uintptr) { err = r.prepare(int(fd), at.Addr().Is6()) })
		return errors.Join(e, err)
	}}
	conn, err := config.ListenPacket(context.Background(), network, at.String())
	if err != nil {
		return nil, err
	}
	l := &Listener{relay: r, conn: conn.(*net.UDPConn), at: at, four: at.Addr().Is4(), stopped: make(chan struct{})}
	l.at = netip.AddrPortFrom(at.Addr(), l.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	l.raw, err = l.conn.SyscallConn()
	return l, err
}

// prepare sets the options of a socket that is listened on. By the first two such sockets are told from others too
// (package succession).
func (r *Relay) prepare(fd int, six bool) error {
	if err := mmsg.TellDestination(fd); err != nil {
		return err
	}
	level, free := unix.IPPROTO_IP, unix.IP_FREEBIND
	if six {
		level, free = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	if err := unix.SetsockoptInt(fd, level, free, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	// As much as there is; from an older kernel datagrams come one by one.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferSize)
	if !r.plain {
		_ = mmsg.PutTogether(fd)
	}
	return nil
}

// Addr returns what it listens on.
func (l *Listener) Addr() netip.AddrPort { return l.at }

// Close closes the socket; Serve returns. Flows stay, and go on when another listener hears their client.
func (l *Listener) Close() {
	l.Stop()
	l.conn.Close() // again, it does nothing
}

// errorPause is how long a listener waits after an error of receiving.
const errorPause = 20 * time.Millisecond

// Serve is the goroutine of a listener: it receives until Stop or Close. A buffer is borrowed only while something comes.
func (l *Listener) Serve() {
	if l.from != nil {
		select {
		case <-l.from:
		case <-l.stopped:
			return
		}
	}
	var b *batch
	var failed syscall.Errno
	take := func(fd uintptr) bool {
		if b == nil {
			b = batches.Get().(*batch)
		}
		failed = b.receive(int(fd), true)
		if failed == unix.EAGAIN {
			batches.Put(b)
			b = nil
		}
		return b != nil
	}
	for l.raw.Read(take) == nil {
		if failed == 0 {
			l.pass(b)
			continue
		}
		l.relay.handler.Failing(l.at, failed)
		select {
		case <-l.stopped:
		case <-time.After(errorPause):
		}
	}
	if b != nil {
		batches.Put(b)
	}
}

// pass hands a batch to the flows that it is of: what one client has sent in a row goes in one.
func (l *Listener) pass(b *batch) {
	var f *Flow
	n := 0
	for i := range b.in[:b.n] {
		m, ok := b.message(i, true, l.four)
		if !ok || !m.local.IsValid() {
			l.relay.Counts.drop(Malformed, 1)
			continue
		}
		k := key{m.from, endpoint{ip: m.local.As16(), port: l.at.Port()}}
		if f == nil || f.key != k {
			if n > 0 {
				f.take(&b.out, b.run[:n])
				n = 0
			}
			if f = l.flow(k); f == nil {
				continue
			}
		}
		b.run[n] = m
		n++
	}
	if n > 0 {
		f.take(&b.out, b.run[:n])
	}
}

// flow returns the flow of a key, a new one if there is none and the handler wants it; else nil.
func (l *Listener) flow(k key) *Flow {
	r := l.relay
	f := r.table.find(&k)
	if f == nil {
		f = r.newFlow(k, l)
		if there := r.table.add(f); there != nil { // by the listener before this one
			return there
		}
		if !r.handler.Begin(f) {
			f.End()
			return nil
		}
	}
	if f.via.Load() != l {
		f.via.Store(l)
	}
	return f
}

func (r *Relay) newFlow(k key, via *Listener) *Flow {
	f := &Flow{relay: r, key: k, fd: -1, loop: r.loops[r.next.Add(1)%uint32(len(r.loops))]}
	f.toSize = to(&f.to, k.client, via.four)
	f.via.Store(via)
	return f
}
