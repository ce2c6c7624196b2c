package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Portable returns the engine that the standard library gives: a goroutine for each direction of what is
// copied, which has no buffer and no pipe while nothing moves.
func Portable() Engine { return &portable{} }

type portable struct {
	transfer
	copying sync.WaitGroup
}

func (e *portable) Close() {
	e.copying.Wait()
	e.transfer.close()
}

// tcpConn is a connection of the portable engine.
type tcpConn struct{ *net.TCPConn }

// WriteNow implements [Conn]: it leaves all to Write.
func (c tcpConn) WriteNow([]byte) int { return 0 }

// Readable implements [Conn]: nothing here calls anybody.
func (c tcpConn) Readable(func()) bool { return false }

// Control implements [Conn].
func (c tcpConn) Control(f func(fd uintptr)) {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(f)
	}
}

// tcpListener is a listener of the portable engine.
type tcpListener struct {
	*net.TCPListener
	to      Accepting
	closing chan struct{}
	done    chan struct{} // closed when no connection is given away any more
}

// Listen implements [Engine].
func (e *portable) Listen(l *net.TCPListener, to Accepting) (Listener, error) {
	one := &tcpListener{l, to, make(chan struct{}), make(chan struct{})}
	go one.accept()
	return one, nil
}

func (l *tcpListener) accept() {
	defer close(l.done)
	for {
		c, err := l.AcceptTCP()
		if err == nil {
			l.to.Conn(tcpConn{c}, Unmapped(c.RemoteAddr()), Unmapped(c.LocalAddr()))
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		select {
		case <-time.After(l.to.Failed(err)):
		case <-l.closing:
			return
		}
	}
}

// Close implements [Listener].
func (l *tcpListener) Close() error {
	err := l.TCPListener.Close()
	if errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	close(l.closing)
	<-l.done
	return err
}

// Control implements [Listener].
func (l *tcpListener) Control(f func(fd uintptr)) {
	if raw, err := l.SyscallConn(); err == nil {
		_ = raw.Control(f) // fails for one that is closed
	}
}

// Unmapped returns an address of the standard library as we keep them: IPv4 is IPv4. A zone stays,
// and matches no prefix.
func Unmapped(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Begin implements [Engine]: nothing is begun before it is waited for.
func (e *portable) Begin(from, to netip.AddrPort, _ Conn, control Control) (Conn, Finish, error) {
	return nil, func(ctx context.Context) (Conn, error) { return e.dial(ctx, from, to, control) }, nil
}

// Move implements [Engine]: any two connections can be copied to each other.
func (e *portable) Move(c, _ Conn) Conn { return c }

// dial connects. Where from isn't valid the socket must not be bound first, not even to nothing: a
// port that is chosen before the target is known is one for all targets together, and is looked for among all
// that are in use or in TIME_WAIT.
func (e *portable) dial(ctx context.Context, from, to netip.AddrPort, control Control) (Conn, error) {
	d := net.Dialer{KeepAlive: -1} // left to control
	if control != nil {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var err error
			if e := c.Control(func(fd uintptr) { err = control(fd, to) }); e != nil {
				return e
			}
			return err
		}
	}
	d.SetMultipathTCP(false)
	var c net.Conn
	var err error
	if from.IsValid() {
		c, err = d.DialTCP(ctx, "tcp", from, to)
	} else {
		c, err = d.DialContext(ctx, "tcp", to.String())
	}
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			err = op.Err // which would only say the address again
		}
		return nil, err
	}
	return tcpConn{c.(*net.TCPConn)}, nil
}

// halves is what is copied.
type halves struct {
	Copy
	engine  *portable
	copying atomic.Int32 // directions that haven't ended
	orderly atomic.Int32 // directions whose end is passed on
	first   atomic.Int32 // the Side that ended first
	gate    atomic.Int32 // what Watch has said
	end     sync.Once
	how     End
}

// half is one direction, which has a goroutine.
type half struct {
	*halves
	src, dst *net.TCPConn
	from, to Side
	copier   // of the platform
}

// Copy implements [Engine].
func (e *portable) Copy(c Copy) {
	h := &halves{Copy: c, engine: e}
	h.copying.Store(2)
	client, target := c.Client.(tcpConn).TCPConn, c.Target.(tcpConn).TCPConn
	up := &half{halves: h, src: client, dst: target, from: Client, to: Target}
	down := &half{halves: h, src: target, dst: client, from: Target, to: Client}
	e.copying.Go(up.run)
	e.copying.Go(down.run)
}

// run is the goroutine of a direction. The one that ends last tells.
func (h *half) run() {
	if broken, guarded := h.carry(); broken != Nobody || guarded {
		h.end.Do(func() { h.how.Broken, h.how.Guarded = broken, guarded })
		// The other direction waits for bytes, or for room, that may never come.
		h.Client.Reset()
		h.Target.Reset()
	}
	if h.copying.Add(-1) == 0 {
		h.how.First = Side(h.first.Load())
		h.Ended(h.how)
	}
}

// carry copies one direction and passes its end on.
func (h *half) carry() (broken Side, guarded bool) {
	if h.from == Client && h.Guard != nil {
		if err := h.guard(); errors.Is(err, errGuarded) {
			return Nobody, true
		} else if err != nil {
			return h.to, false
		}
	}
	ended := false
	switch {
	case h.from == Target && h.Watch != nil:
		broken, ended = h.watched()
	case h.from == Client && h.Guard == nil:
		broken, ended = h.opened()
	}
	if broken == Nobody && !ended {
		broken = h.copy()
	}
	if broken != Nobody {
		return broken, false
	}
	// A reset is told once. Where the other direction was told, or ReadNow, what is read here is an end.
	if h.dissolved() && h.orderly.Load() == 0 {
		return h.from, false
	}
	h.first.CompareAndSwap(int32(Nobody), int32(h.from))
	last := h.orderly.Add(1) == 2
	if h.dst.CloseWrite() != nil {
		return h.to, false
	}
	if last {
		h.dst.SetReadDeadline(told) // the other direction waits for that, or will
	} else if h.gone() && h.orderly.Load() == 1 { // and not gone because the last has been said
		return h.from, false
	}
	return Nobody, false
}

// guard holds the first bytes of the client until Guard is sure of them. The other direction isn't delayed. At
// the end of file what is held is let go.
func (h *half) guard() error {
	b := append(make([]byte, 0, max(h.GuardSize, len(h.Held))), h.Held...)
	for {
		is, maybe := h.Guard(b)
		if is {
			return errGuarded
		}
		if !maybe || len(b) == cap(b) {
			break
		}
		n, err := h.src.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		h.note(h.to, 0)
		if n == 0 && err != nil {
			break // the copy that follows sees it again
		}
	}
	n, err := h.dst.Write(b)
	h.note(h.to, n)
	return err
}

// told is the read deadline of the client that says that Watch has said something, and that of a side that has ended
// when the other has too: it needs no goroutine and no descriptor.
var told = time.Unix(1, 0)

func (h *halves) tell(g Gate) {
	h.gate.Store(int32(g))
	h.Client.SetReadDeadline(told)
}

// watched copies from the target until Watch says something. It returns who broke, and whether the target ended.
func (h *half) watched() (broken Side, ended bool) {
	b := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(b)
	for {
		n, err := h.src.Read(b[:])
		if err == io.EOF {
			h.tell(Open) // there is nothing that could be asked any more
			return Nobody, true
		} else if err != nil {
			return h.from, false
		}
		g := h.Watch(b[:n])
		if g != Shut {
			h.tell(g)
		}
		n, err = h.dst.Write(b[:n])
		h.note(h.to, n)
		if err != nil {
			return h.to, false
		}
		if g != Shut {
			return Nobody, false
		}
	}
}

// opened waits until what the client sends may pass, and sends what was held. It returns who broke, and
// whether the client ended.
func (h *half) opened() (broken Side, ended bool) {
	held := h.Held
	if h.Watch != nil {
		switch err := h.idle(len(held) == 0); {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err == io.EOF:
			return Nobody, true
		default:
			return h.from, false
		}
		h.src.SetReadDeadline(time.Time{})
		if Gate(h.gate.Load()) == Asking {
			var ok bool
			if held, ok = h.Ask(); !ok {
				return h.from, false // which it has ended for a reason of its own
			}
		}
	}
	if len(held) == 0 {
		return Nobody, false
	}
	n, err := h.dst.Write(held)
	h.note(h.to, n)
	if err != nil {
		return h.to, false
	}
	return Nobody, false
}

// errGuarded: the first bytes are what Guard looks for.
var errGuarded = errors.New("guarded")
