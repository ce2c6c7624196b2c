package fastpath

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// stream asks again and again, with up to 32 queries under way on each of its sockets.
type stream struct {
	sent, got atomic.Int64
	stop      chan struct{}
	ask       sync.WaitGroup
}

func startStream(t *testing.T, addr netip.AddrPort) *stream {
	s := &stream{stop: make(chan struct{})}
	for range 4 {
		conn := dial(t, addr).Conn
		b := wire(t, "a.example.", nil)
		window := make(chan struct{}, 32)
		s.ask.Go(func() {
			for id := uint16(0); ; id++ {
				select {
				case <-s.stop:
					return
				case window <- struct{}{}:
				case <-time.After(10 * time.Second):
					return // answers are missing
				}
				binary.BigEndian.PutUint16(b, id)
				if _, err := conn.Write(b); err != nil {
					t.Error(err)
					return
				}
				s.sent.Add(1)
			}
		})
		go func() {
			buf := make([]byte, maxWire)
			for {
				if _, err := conn.Read(buf); err != nil {
					return
				}
				s.got.Add(1)
				<-window
			}
		}()
	}
	t.Cleanup(func() { s.end(t) })
	return s
}

// flow returns when some more have been answered.
func (s *stream) flow(t *testing.T) {
	t.Helper()
	for from, deadline := s.got.Load(), time.Now().Add(10*time.Second); s.got.Load() < from+1000; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d queries are answered", s.got.Load(), s.sent.Load())
		}
	}
}

// end stops asking. Nothing may be lost.
func (s *stream) end(t *testing.T) {
	select {
	case <-s.stop:
		return
	default:
		close(s.stop)
	}
	s.ask.Wait()
	for deadline := time.Now().Add(5 * time.Second); s.got.Load() < s.sent.Load() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if lost := s.sent.Load() - s.got.Load(); lost != 0 {
		t.Errorf("%d of %d queries lost", lost, s.sent.Load())
	}
}

// TestShared: while another process reads the same sockets, and takes probes away, no number is guessed and no query is lost; what that
// process has said of the numbers holds meanwhile. The socket of CoreDNS stands behind the group's, where nobody would look for it.
func TestShared(t *testing.T) {
	t.Parallel()
	for _, told := range []bool{true, false} {
		t.Run(map[bool]string{true: "numbers told", false: "numbers not told"}[told], func(t *testing.T) {
			t.Parallel()
			addr, b := freeAddr(t), newPlugins()
			first, err := Open(addr, NewTarget(b))
			if err != nil {
				t.Fatal(err)
			}
			asked := core(t, addr)
			steer(t, first, 1)
			want := slices.Clone(first.at)
			s := startStream(t, addr)
			s.flow(t)
			for i, old := range first.sockets {
				place := 0
				if told {
					place, _ = Owns(int(fdOf(t, old.conn)))
					if place != want[i]+1 {
						t.Fatalf("place %d of socket %d", place, want[i])
					}
				}
				Inherit(handed(t, old), place)
			}
			second, err := Open(addr, NewTarget(b))
			if err != nil {
				t.Fatal(err)
			}
			found := make(chan struct{})
			if err := second.Steer(1, func() { close(found) }); told && err != nil {
				t.Fatal(err)
			}
			if at := second.numbers(); at != nil && !slices.Equal(at, want) {
				t.Fatalf("numbers %v, want %v", at, want)
			}
			s.flow(t)
			first.Close(time.Second)
			if told && asked.Load() != 0 {
				t.Errorf("%d queries came to CoreDNS", asked.Load())
			}
			for deadline := time.Now().Add(20 * time.Second); !slices.Equal(second.numbers(), want); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("numbers %v, want %v", second.numbers(), want)
				}
			}
			s.flow(t)
			second.Leave()
			before := asked.Load()
			second.Close(time.Second)
			s.flow(t)
			s.end(t)
			if asked.Load() == before {
				t.Error("CoreDNS gets nothing after the group has left")
			}
		})
	}
}

// numbers returns what is known of the numbers of a group's sockets.
func (g *Group) numbers() []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.at
}

// handed returns the socket as another process gets it: with a descriptor of its own.
func handed(t *testing.T, s *socket) *net.UDPConn {
	t.Helper()
	f, err := s.conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UDPConn)
}

func fdOf(t *testing.T, c *net.UDPConn) (fd uintptr) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(f uintptr) { fd = f }); err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestLeaveUnknown: a group whose numbers nobody knows leaves without the loss of a query, and sockets of CoreDNS that come later
// get their share.
func TestLeaveUnknown(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	g, err := Open(addr, NewTarget(newPlugins()))
	if err != nil {
		t.Fatal(err)
	}
	first := core(t, addr)
	s := startStream(t, addr)
	s.flow(t)
	g.Leave()
	g.Close(time.Second)
	s.flow(t)
	s.end(t)
	if first.Load() == 0 {
		t.Error("CoreDNS was asked nothing")
	}
	later := core(t, addr)
	for range 200 { // each from another port
		ask(t, dial(t, addr), "b.example.")
	}
	if later.Load() == 0 {
		t.Error("a later socket of CoreDNS is asked nothing")
	}
}

// TestAbandon: the process that has left its sockets, which nobody takes, answers what is in them, and the rest is CoreDNS's.
func TestAbandon(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	g, err := Open(addr, NewTarget(newPlugins()))
	if err != nil {
		t.Fatal(err)
	}
	asked := core(t, addr)
	steer(t, g, 1)
	s := startStream(t, addr)
	s.flow(t)
	var conns []*net.UDPConn
	for _, old := range g.sockets {
		conns = append(conns, handed(t, old))
	}
	abandon(addr, conns)
	s.flow(t)
	g.Close(time.Second)
	s.flow(t)
	s.end(t)
	if asked.Load() == 0 {
		t.Error("CoreDNS was asked nothing")
	}
}

// TestPlaces: a number is a socket's only if it came there from every port, and to no other; a number beyond the last comes anywhere.
func TestPlaces(t *testing.T) {
	t.Parallel()
	a, b := new(socket), new(socket)
	g := &Group{sockets: []*socket{a, b}}
	all := func(s *socket, n int) (came []place) {
		for from := range probePorts {
			came = append(came, place{s, n, from})
		}
		return came
	}
	for _, tc := range []struct {
		name string
		came []place
		want []int
	}{
		{"nothing", nil, nil},
		{"one of them", all(a, 1), nil},
		{"both", slices.Concat(all(a, 1), all(b, 2)), []int{1, 2}},
		{"the other way round", slices.Concat(all(a, 2), all(b, 0)), []int{2, 0}},
		{"taken away by another process", slices.Concat(all(a, 1)[1:], all(b, 2)), nil},
		{"beyond the last", slices.Concat(all(a, 1), all(b, 2), all(a, 3), all(b, 4)), []int{1, 2}},
		{"led anywhere", slices.Concat(all(a, 1)[:2], all(b, 1)[2:], all(b, 2), all(a, 3)), []int{3, 2}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			seen := make(map[place]bool)
			for _, c := range tc.came {
				seen[c] = true
			}
			if got := g.places(seen, 10); !slices.Equal(got, tc.want) {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}
