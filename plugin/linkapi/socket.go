package linkapi

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// maxConnections bounds the connections of the API at one time; one more is closed at once.
const maxConnections = 4096

// maxOfSource bounds those of one client, so that it takes eight of them to take all (A16).
const maxOfSource = maxConnections / 8

// socket is a listening address that servers of two configurations share while one follows the other: no
// connection is lost in between, and the address is never closed and opened again.
//
// One goroutine accepts and hands over to whichever server takes the connection first.
type socket struct {
	listener net.Listener
	accepted chan net.Conn
	closed   chan struct{}
	ended    chan struct{}
	slots    chan struct{}

	mu        sync.Mutex
	perSource int // connections that one source may have
	users     int
	sources   map[netip.Addr]int // connections by [sourceOf]; none is 0
}

// listen opens an address. The socket has one user already: [socket.use] is for further ones.
func listen(address string) (*socket, *share, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // as everything else of ours: plain TCP
	l, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	s, u := listenOn(l)
	return s, u, nil
}

// listenOn makes a socket of a listener.
func listenOn(l net.Listener) (*socket, *share) {
	s := &socket{listener: l, accepted: make(chan net.Conn), closed: make(chan struct{}), ended: make(chan struct{}), slots: make(chan struct{}, maxConnections),
		perSource: maxOfSource, sources: map[netip.Addr]int{}}
	go s.accept()
	u, _ := s.use()
	return s, u
}

// use returns a listener of the socket's, false where it was closed meanwhile.
func (s *socket) use() (*share, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users < 0 {
		return nil, false
	}
	s.users++
	return &share{socket: s, done: make(chan struct{})}, true
}

// drop closes the socket with its last user.
func (s *socket) drop() error {
	s.mu.Lock()
	s.users--
	last := s.users == 0
	if last {
		s.users = -1
	}
	s.mu.Unlock()
	if !last {
		return nil
	}
	close(s.closed)
	err := s.listener.Close()
	<-s.ended
	return err
}

// accept runs until the socket is closed. Errors such as a full table of descriptors pass: it waits and
// tries again.
func (s *socket) accept() {
	defer close(s.ended)
	for wait := time.Duration(0); ; {
		c, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(wait):
			case <-s.closed:
			}
			continue
		}
		wait = 0
		if c = s.admit(c); c == nil {
			continue
		}
		select {
		case s.accepted <- c:
		case <-s.closed:
			_ = c.Close()
		}
	}
}

// admit gives a connection its place, or closes it and returns nil where there is none.
func (s *socket) admit(c net.Conn) net.Conn {
	from := sourceOf(c.RemoteAddr())
	s.mu.Lock()
	ok := s.sources[from] < s.perSource
	if ok {
		select {
		case s.slots <- struct{}{}:
			s.sources[from]++
		default:
			ok = false
		}
	}
	s.mu.Unlock()
	if !ok {
		_ = c.Close()
		return nil
	}
	return &slotted{Conn: c, free: sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		<-s.slots // never waits: it holds what admit has put in
		if s.sources[from]--; s.sources[from] == 0 {
			delete(s.sources, from)
		}
	})}
}

// sourceOf returns what connections of one client have in common: the address or, of IPv6, the /64, all of
// which a host may have.
func sourceOf(a net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is6() {
		return netip.PrefixFrom(addr, 64).Masked().Addr()
	}
	return addr
}

// slotted gives its place back when it is closed.
type slotted struct {
	net.Conn
	free func()
}

func (c *slotted) Close() error {
	c.free()
	return c.Conn.Close()
}

// share is the [net.Listener] of one server of a socket's.
type share struct {
	socket *socket
	done   chan struct{}
	once   sync.Once
}

func (s *share) Accept() (net.Conn, error) {
	select {
	case <-s.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-s.socket.accepted:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

func (s *share) Close() (err error) {
	s.once.Do(func() {
		close(s.done)
		err = s.socket.drop()
	})
	return err
}

func (s *share) Addr() net.Addr { return s.socket.listener.Addr() }
