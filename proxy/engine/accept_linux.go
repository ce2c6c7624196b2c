package engine

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// listener accepts for the epoll engine. Every loop watches the socket, and the one that looks first accepts. The
// connection stays in it, unless another has much less to do: see [loop.lighter].
type listener struct {
	engine *epollEngine
	to     Accepting
	local  netip.AddrPort // valid if it is that of every connection

	paused  atomic.Bool // after an error
	pausing sync.Mutex  // held while paused is changed together with what the loops watch

	handed sync.WaitGroup // connections on their way to another loop than that which accepted them; none is added once fd is -1

	mu     sync.RWMutex // held for reading while connections are given away
	file   *os.File     // keeps the descriptor
	fd     int          // -1: closed
	places []place      // in each loop
}

// place is a slot of a loop.
type place struct {
	loop         *loop
	number, uses uint32
}

// acceptsAtOnce is how many connections a loop accepts from one socket before it looks at others.
const acceptsAtOnce = 16

// Listen implements [Engine].
func (e *epollEngine) Listen(l *net.TCPListener, to Accepting) (Listener, error) {
	defer l.Close()
	file, err := l.File()
	if err != nil {
		return nil, err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	one := &listener{engine: e, to: to, file: file}
	if err := raw.Control(func(fd uintptr) { one.fd = int(fd) }); err != nil {
		file.Close()
		return nil, err
	}
	if at := l.Addr().(*net.TCPAddr).AddrPort(); !at.Addr().IsUnspecified() {
		one.local = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	for _, loop := range e.loops {
		number, uses := loop.enter(one)
		one.places = append(one.places, place{loop, number, uses})
	}
	if err := one.watch(unix.EPOLL_CTL_ADD); err != nil {
		one.leave()
		return nil, err
	}
	return one, nil
}

// watch has every loop told of connections, each time that it looks while there are any. The caller holds mu.
func (l *listener) watch(op int) error {
	var failed error
	for _, at := range l.places {
		ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE}
		setSlot(&ev, at.number, at.uses)
		if err := rawEpollCtl(at.loop.epoll, op, l.fd, &ev); err != nil {
			failed = os.NewSyscallError("epoll_ctl", err)
		}
	}
	return failed
}

// ready implements [watched].
func (l *listener) ready(at *loop, _ uint32) *pair {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for range acceptsAtOnce {
		if l.fd < 0 || l.paused.Load() {
			return nil
		}
		fd, peer, err := rawAccept(l.fd)
		if errors.Is(err, errAgain) {
			return nil
		}
		if err != nil {
			l.pause(os.NewSyscallError("accept4", err))
			return nil
		}
		local := l.local
		if !local.IsValid() {
			if local, err = rawLocal(fd); err != nil {
				_ = rawClose(fd)
				l.pause(os.NewSyscallError("getsockname", err))
				return nil
			}
		}
		if other := at.lighter(); other != at {
			c := newConn(other, fd)
			l.handed.Add(1)
			other.call(func() {
				defer l.handed.Done()
				l.to.Conn(c, peer, local)
			})
			continue
		}
		l.to.Conn(newConn(at, fd), peer, local)
	}
	return nil
}

// pause tells of an error that passes, and has the loops not told of connections for as long as is asked for. The caller
// holds mu for reading.
func (l *listener) pause(err error) {
	if !l.rest(true) {
		return // another loop has met it too
	}
	time.AfterFunc(l.to.Failed(err), func() {
		l.mu.RLock()
		defer l.mu.RUnlock()
		if l.fd >= 0 {
			l.rest(false)
		}
	})
}

// rest has the loops told of no connections, or of connections again. It reports false where that is so already.
func (l *listener) rest(paused bool) bool {
	l.pausing.Lock()
	defer l.pausing.Unlock()
	if l.paused.Swap(paused) == paused {
		return false
	}
	op := unix.EPOLL_CTL_ADD
	if paused {
		op = unix.EPOLL_CTL_DEL
	}
	// It fails where the kernel has no memory for it. A loop that isn't told leaves the connections to the others, and is told
	// again after the next pause.
	_ = l.watch(op)
	return true
}

// Close implements [Listener].
func (l *listener) Close() error {
	defer l.handed.Wait() // what was accepted is given away
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd < 0 {
		return net.ErrClosed
	}
	return l.leave()
}

// Control implements [Listener].
func (l *listener) Control(f func(fd uintptr)) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.fd >= 0 {
		f(uintptr(l.fd))
	}
}

// leave closes the socket. It is taken out of every epoll before: where another process has it too, closing alone wouldn't.
// The caller holds mu.
func (l *listener) leave() error {
	_ = l.watch(unix.EPOLL_CTL_DEL) // fails only for one that isn't there
	l.fd = -1
	for _, at := range l.places {
		at.loop.leave(at.number)
	}
	return l.file.Close()
}
