package fastpath

import (
	"bytes"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSegments: answers to one client are one message if the kernel can cut it, and each arrives as a datagram
// of its own, in order.
func TestSegments(t *testing.T) {
	t.Parallel()
	type answer struct{ client, size int }
	for _, tc := range []struct {
		name     string
		answers  []answer
		single   bool
		messages int
	}{
		{"one", []answer{{0, 40}}, false, 1},
		{"of one size", []answer{{0, 40}, {0, 40}, {0, 40}}, false, 1},
		{"the last shorter", []answer{{0, 40}, {0, 40}, {0, 39}}, false, 1},
		{"one after a shorter", []answer{{0, 40}, {0, 39}, {0, 39}}, false, 2},
		{"one that is longer", []answer{{0, 40}, {0, 41}, {0, 41}}, false, 2},
		{"two clients", []answer{{0, 40}, {1, 40}, {1, 40}, {0, 40}}, false, 2},
		{"two clients in turn", slices.Repeat([]answer{{0, 40}, {1, 41}}, batch/2), false, 2},
		{"two clients and sizes", []answer{{0, 40}, {1, 41}, {0, 41}, {1, 41}, {0, 41}, {1, 40}}, false, 3},
		{"too many bytes", slices.Repeat([]answer{{0, 1232}}, batch), false, 2},
		{"where the kernel takes none", []answer{{0, 40}, {0, 40}}, true, 2},
	} {
		for _, network := range []struct{ name, addr string }{{"udp4", "127.0.0.1:0"}, {"udp6", "[::1]:0"}} {
			t.Run(tc.name+"/"+network.name, func(t *testing.T) {
				t.Parallel()
				server := socketOn(t, network.name, network.addr)
				clients := []*net.UDPConn{socketOn(t, network.name, network.addr), socketOn(t, network.name, network.addr)}
				r := newRing(false)
				r.single = tc.single
				var asked []int // clients, by datagram
				for len(asked) < len(tc.answers) {
					c := tc.answers[len(asked)].client
					if _, err := clients[c].WriteTo([]byte{1}, server.LocalAddr()); err != nil {
						t.Fatal(err)
					}
					asked = append(asked, c)
				}
				raw, err := server.SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				if err := raw.Read(func(fd uintptr) bool { return r.receive(fd) == 0 && r.count == len(asked) }); err != nil {
					t.Fatal(err)
				}
				for i, a := range tc.answers {
					r.reply(i, append(r.answer[i][:0], bytes.Repeat([]byte{byte(i)}, a.size)...))
				}
				r.group()
				if n := r.pack(0); n != tc.messages {
					t.Errorf("%d messages, want %d", n, tc.messages)
				}
				if err := raw.Control(func(fd uintptr) { r.send(fd, false) }); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 2048)
				for i, a := range tc.answers {
					n, err := clients[a.client].Read(buf)
					if err != nil {
						t.Fatalf("answer %d: %v", i, err)
					}
					if !bytes.Equal(buf[:n], bytes.Repeat([]byte{byte(i)}, a.size)) {
						t.Errorf("answer %d is %d bytes of %d, want %d bytes", i, n, buf[0], a.size)
					}
				}
				if r.single != tc.single {
					t.Error("the kernel took no segments")
				}
			})
		}
	}
}

// TestSegmentsTooLarge: answers that don't fit in the packets of the way to a client reach it one by one, in pieces, and those of others
// are sent together as before.
func TestSegmentsTooLarge(t *testing.T) {
	t.Parallel()
	server, client := socketOn(t, "udp6", "[::1]:0"), socketOn(t, "udp6", "[::1]:0")
	raw, err := server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var small error
	if err := raw.Control(func(fd uintptr) { small = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU, 1280) }); err != nil || small != nil {
		t.Fatal(err, small)
	}
	for range 3 {
		if _, err := client.WriteTo([]byte{1}, server.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	r := newRing(false)
	if err := raw.Read(func(fd uintptr) bool { return r.receive(fd) == 0 && r.count == 3 }); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		r.reply(i, bytes.Repeat([]byte{byte(i)}, 1400))
	}
	if n := r.pack(0); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
	if err := raw.Control(func(fd uintptr) { r.send(fd, false) }); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	for i := range 3 {
		n, err := client.Read(buf)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if n != 1400 || buf[0] != byte(i) {
			t.Errorf("answer %d is %d bytes of %d", i, n, buf[0])
		}
	}
	if r.single {
		t.Error("no answers are sent together any more")
	}
}

func socketOn(t *testing.T, network, addr string) *net.UDPConn {
	t.Helper()
	at, err := net.ResolveUDPAddr(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUDP(network, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}
