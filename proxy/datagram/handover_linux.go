package datagram

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/sockname"
)

// Sockets go from one process to another with what waits in them: those that are listened on, and those of flows, whose
// port is what their targets know them by. At any time one process reads a socket: the one before stops, with [Listener.Stop]
// and [Flow.Detach], and then the other one begins.

// Inherit takes over a socket that another process has opened by [Relay.Listen]. Serve takes nothing from it before from
// is closed; answers go out of it at once.
func (r *Relay) Inherit(c *net.UDPConn, from <-chan struct{}) (*Listener, error) {
	at := c.LocalAddr().(*net.UDPAddr).AddrPort()
	raw, err := c.SyscallConn()
	if err == nil {
		e := raw.Control(func(fd uintptr) { err = r.prepare(int(fd), at.Addr().Is6()) })
		err = errors.Join(e, err)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &Listener{relay: r, conn: c, raw: raw, at: at, four: at.Addr().Is4(), from: from, stopped: make(chan struct{})}, nil
}

// Stop has Serve return when what it has received is passed on. The socket stays open: what comes waits in it for
// another process, or for nobody, and answers go out of it.
func (l *Listener) Stop() {
	l.once.Do(func() { close(l.stopped) })
	_ = l.conn.SetReadDeadline(time.Unix(1, 0)) // of a closed one nothing is read either
}

// Hush lets nothing pass any more, for a flow that another process is going to have and whose listener was stopped: what the target
// sends waits in the socket, and what is held stays held, for [Flow.Detach] or [Flow.Withdraw]. Again, it does nothing.
func (f *Flow) Hush() {
	f.up.Lock()
	f.down.Lock()
	defer f.down.Unlock()
	defer f.up.Unlock()
	if f.hushed = true; f.number != 0 {
		f.loop.remove(f)
		f.number = 0
	}
}

// Detach ends the flow here and returns its socket, which is the caller's then: nothing passes any more, and what the
// target sends waits in the socket. It reports false, and does nothing, where the flow wasn't started or has ended.
func (f *Flow) Detach() (fd int, ok bool) {
	f.up.Lock()
	f.down.Lock()
	if ok = f.started && !f.ended; ok {
		if f.number != 0 {
			f.loop.remove(f)
		}
		fd, f.fd, f.ended, f.number = f.fd, -1, true, 0
	}
	f.down.Unlock()
	f.up.Unlock()
	if ok {
		f.relay.table.remove(f)
	}
	return fd, ok
}

// Held is a datagram, or a train of some, that waits for the decision about its flow: see [Listener.Deliver].
type Held struct {
	Data    []byte
	Segment int // length of each datagram of a train but the last, in bytes; 0: one datagram
}

// Withdraw is Detach for a flow that wasn't started: it ends here, and what is held of it is the caller's. It reports false, and
// does nothing, where the flow was started or has ended.
func (f *Flow) Withdraw() (held []Held, ok bool) {
	f.up.Lock()
	f.down.Lock()
	ok = !f.started && !f.ended
	if ok {
		for _, m := range f.held {
			held = append(held, Held{m.data, m.segment})
		}
		f.ended = true
	}
	f.down.Unlock()
	f.up.Unlock()
	if ok {
		f.End()
	}
	return held, ok
}

// Deliver takes what another process held of a flow as if its client had sent it now: it begins the flow here, or is of the one that the
// client has begun since.
func (l *Listener) Deliver(client, local netip.AddrPort, held []Held) {
	k := key{endpointOf(client), endpointOf(local)}
	f := l.flow(k)
	if f == nil {
		return
	}
	var all []message
	for _, h := range held[:min(len(held), maxHeld)] {
		if len(h.Data) > slotSize {
			continue
		}
		m := message{from: k.client, local: local.Addr(), data: h.Data, segment: h.Segment}
		if m.segment < 0 || m.segment >= len(m.data) {
			m.segment = 0
		}
		if m.count() <= trainMost { // no longer one is received
			all = append(all, m)
		}
	}
	b := batches.Get().(*batch)
	f.take(&b.out, all)
	batches.Put(b)
}

// Resume makes a flow of a socket that another process has connected to the target, which it takes over. [Flow.Own] comes
// first, and [Flow.Start], before which nothing passes and no datagram finds it. Answers go out of the listener via.
func (r *Relay) Resume(fd int, client, local, target netip.AddrPort, via *Listener) (*Flow, error) {
	target = netip.AddrPortFrom(target.Addr().Unmap(), target.Port())
	if err := leadsTo(fd, target); err != nil {
		CloseSocket(fd)
		return nil, err
	}
	f := r.newFlow(key{endpointOf(client), endpointOf(local)}, via)
	f.resumed, f.fd = true, fd
	f.target, f.four = endpoint{ip: target.Addr().As16(), port: target.Port()}, target.Addr().Is4()
	return f, nil
}

// leadsTo returns why a descriptor isn't of a UDP socket that is connected to a target.
func leadsTo(fd int, target netip.AddrPort) error {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	at, err := unix.Getpeername(fd)
	if err != nil {
		return os.NewSyscallError("getpeername", err)
	}
	peer := sockname.AddrPort(at)
	if kind != unix.SOCK_DGRAM || peer != target {
		return fmt.Errorf("the socket leads to %v instead of %v", peer, target)
	}
	return nil
}

// CloseSocket closes one that [Flow.Detach] has returned.
func CloseSocket(fd int) { _ = unix.Close(fd) }
