//go:build linux

package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/node/succession"
)

// handPatience bounds every wait of these tests.
const handPatience = 20 * time.Second

// udpNode is a configuration with a service of UDP, whose target answers what it is told.
func udpNode(t *testing.T, address string) (Config, netip.AddrPort) {
	t.Helper()
	target, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 64); ; {
			n, from, err := target.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			target.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	t.Cleanup(func() {
		target.Close()
		<-done
	})
	port := freeport.Get(t)
	c := config(t, filepath.Join(t.TempDir(), "state.db"), port, target.LocalAddr().(*net.UDPAddr).AddrPort(), address)
	c.Declaration.Services[0].Protocol = link.UDP
	return c, netip.AddrPortFrom(netip.MustParseAddr(address), port)
}

// connections returns both ends of a connection between two processes. narrow: a can't send long messages (EMSGSIZE).
func connections(t *testing.T, narrow bool) (a, b *succession.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if narrow {
		if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range []**succession.Conn{&a, &b} {
		if *c, err = succession.NewConn(fds[i]); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { b.Close() })
	return a, b
}

// questioner is a connected socket of a client.
func questioner(t *testing.T, at netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(handPatience))
	return c
}

func hears(t *testing.T, c *net.UDPConn, want string) {
	t.Helper()
	b := make([]byte, 64)
	if n, err := c.Read(b); err != nil || string(b[:n]) != want {
		t.Errorf("%q, %v: want %q", b[:n], err, want)
	}
}

// TestRetireHands (P13): behind a process that takes flows of UDP a node tells of each, with the socket that leads to its target, and
// that there are no more; and only then its time to drain is over.
func TestRetireHands(t *testing.T) {
	t.Parallel()
	conf, at := udpNode(t, "127.77.0.33")
	n := open(t, conf)
	defer closeNode(t, n)
	const flows = handAtOnce + 2 // more than a message has
	sources := map[string]bool{}
	for range flows {
		c := questioner(t, at)
		c.Write([]byte("hello"))
		hears(t, c, "hello")
		sources[c.LocalAddr().String()] = true
	}
	mine, heir := connections(t, false)
	heir.SetReadDeadline(time.Now().Add(handPatience))
	n.Retire(mine, true)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		n.Drain(context.Background())
	}()
	target := conf.Declaration.Services[0].Targets[0].Addr
	for settled := false; !settled; {
		m, fds, err := heir.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if settled = m.Kind == succession.Settled; settled {
			break
		}
		if m.Kind != succession.Hand || len(fds) != len(m.Handed) {
			t.Fatalf("%+v with %d descriptors", m, len(fds))
		}
		for i, f := range m.Handed {
			to, err := unix.Getpeername(fds[i])
			if four, ok := to.(*unix.SockaddrInet4); err != nil || !ok || four.Port != int(target.Port()) {
				t.Errorf("the socket of a flow leads to %v, %v", to, err)
			}
			if !sources[f.Source.String()] || f.Endpoint != "e0" || f.Target != target || f.ToTarget != 5 || f.Age <= 0 {
				t.Errorf("%+v", f)
			}
			delete(sources, f.Source.String())
		}
		succession.CloseAll(fds)
	}
	if len(sources) != 0 {
		t.Errorf("nothing is told of %v", sources)
	}
	select {
	case <-drained:
	case <-time.After(handPatience):
		t.Error("it waits for flows that are gone")
	}
}

// TestRetireHandsNothing (P13): where flows can't be sent they end, and the other process is told all the same that nobody reads here.
func TestRetireHandsNothing(t *testing.T) {
	t.Parallel()
	conf, at := udpNode(t, "127.77.0.38")
	n := open(t, conf)
	defer closeNode(t, n)
	for range handAtOnce {
		c := questioner(t, at)
		c.Write([]byte("hello"))
		hears(t, c, "hello")
	}
	mine, heir := connections(t, true)
	heir.SetReadDeadline(time.Now().Add(handPatience))
	n.Retire(mine, true)
	m, fds, err := heir.Receive()
	succession.CloseAll(fds)
	if err != nil || m.Kind != succession.Settled {
		t.Errorf("%q with %d flows, %v", m.Kind, len(m.Handed), err)
	}
}

// TestRetireKeepsStreams (P13): where a message of flows of UDP can't be sent, though the other process lives and reads, those of TCP go on.
func TestRetireKeepsStreams(t *testing.T) {
	t.Parallel()
	const address = "127.77.0.47"
	conf, at := udpNode(t, "127.77.0.48")
	port := freeport.Get(t)
	streams := config(t, conf.State.Bolt, port, echo(t), address).Declaration
	streams.Services[0].ID, streams.Services[0].Alias, streams.Endpoints[0].Endpoint.ID, streams.Endpoints[0].Endpoint.Service = "web", "web", "web", "web"
	conf.Declaration.Services = append(conf.Declaration.Services, streams.Services...)
	conf.Declaration.Endpoints = append(conf.Declaration.Endpoints, streams.Endpoints...)
	n := open(t, conf)
	defer closeNode(t, n)
	for range handAtOnce {
		c := questioner(t, at)
		c.Write([]byte("hello"))
		hears(t, c, "hello")
	}
	stream := dial(t, address, port)
	mine, heir := connections(t, true)
	heir.SetReadDeadline(time.Now().Add(handPatience))
	n.Retire(mine, true)
	for settled, told := false, false; !settled || !told; {
		m, fds, err := heir.Receive()
		if err != nil {
			t.Fatal(err)
		}
		succession.CloseAll(fds)
		settled, told = settled || m.Kind == succession.Settled, told || m.Kind == succession.Flows
	}
	// An interrupted connection has all cut within moments.
	for began := time.Now(); time.Since(began) < 300*time.Millisecond; {
		if err := stream.ping(); err != nil {
			t.Fatal("after it has settled: ", err)
		}
	}
}

// TestAgain: what the kernel has no room for is sent again, and nothing else is.
func TestAgain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		first error
		tries int
	}{
		{"descriptors under way", unix.ETOOMANYREFS, 2},
		{"no memory for the message", unix.ENOBUFS, 2},
		{"no memory for the descriptors", unix.ENOMEM, 2},
		{"too long", unix.EMSGSIZE, 1},
		{"nobody reads", os.ErrDeadlineExceeded, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tries := 0
			err := again(func() error {
				if tries++; tries == 1 {
					return &net.OpError{Err: os.NewSyscallError("sendmsg", tt.first)}
				}
				return nil
			})
			if tries != tt.tries || (err == nil) != (tt.tries == 2) {
				t.Errorf("%d tries, %v", tries, err)
			}
		})
	}
}

// TestReceivesWhenNobodyElseDoes (P13): a node that has the sockets of the one before receives nothing before that says that it doesn't
// either, has ended, or was silent for long.
func TestReceivesWhenNobodyElseDoes(t *testing.T) {
	t.Parallel()
	for i, tt := range []struct {
		name  string
		speak func(t *testing.T, old *succession.Conn)
		least time.Duration
	}{
		{"settled", func(t *testing.T, old *succession.Conn) {
			if err := old.Send(succession.Message{Kind: succession.Settled}); err != nil {
				t.Error(err)
			}
		}, 0},
		{"ended", func(_ *testing.T, old *succession.Conn) { old.Close() }, 0},
		{"silent", func(*testing.T, *succession.Conn) {}, settleTime},
		{"silent after it handed over", func(t *testing.T, old *succession.Conn) {
			time.Sleep(settleTime / 4) // it takes its time
			if err := old.Send(succession.Message{Kind: succession.Hand}); err != nil {
				t.Error(err)
			}
		}, settleTime + settleTime/4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conf, at := udpNode(t, fmt.Sprint("127.77.0.", 34+i))
			before, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
			if err != nil {
				t.Fatal(err)
			}
			unwanted, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at.Addr(), 0)))
			if err != nil {
				t.Fatal(err)
			}
			conf.Inheritance = NewInheritance(nil, []*net.UDPConn{before, unwanted}, func(context.Context) error { return nil })
			n := open(t, conf)
			defer closeNode(t, n)
			conf.Inheritance.Close()
			if err := unwanted.SetDeadline(time.Time{}); err == nil {
				t.Error("a socket that nobody wants is open")
			}
			c := questioner(t, at)
			c.Write([]byte("waits"))
			c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if n, err := c.Read(make([]byte, 64)); err == nil {
				t.Errorf("%d bytes are answered before", n)
			}
			c.SetReadDeadline(time.Now().Add(handPatience))
			mine, old := connections(t, false)
			began := time.Now()
			n.Host(mine)
			over, cancel := context.WithCancel(t.Context())
			cancel()
			if n.Settle(over) == nil {
				t.Error("another process may follow, though this one hasn't all yet")
			}
			tt.speak(t, old)
			hears(t, c, "waits")
			if err := n.Settle(t.Context()); err != nil {
				t.Error(err)
			}
			if in := time.Since(began); in < tt.least {
				t.Errorf("received after %v", in)
			}
		})
	}
}
