//go:build linux

package succession

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/node/confine"
)

// pair returns both ends of a connection.
func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []**Conn{&a, &b} {
		if *c, err = NewConn(fds[i]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*c).Close() })
	}
	return a, b
}

// TestSockets: a listener of this process is found, handed over, and listens there; what is before Begin and in it arrives.
func TestSockets(t *testing.T) {
	a, b := pair(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want := l.Addr().(*net.TCPAddr).AddrPort()
	sent := make(chan error, 1)
	go func() {
		sent <- a.SendSockets(Message{Version: "1", Sandbox: []confine.Rules{{Read: []string{"/etc"}}}}, -1, func(int) (int, bool) { return 0, false })
	}()
	found := map[netip.AddrPort]int{}
	for {
		m, fds, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind == Begin {
			if m.Protocol != Protocol || m.Version != "1" || len(m.Sandbox) != 1 || m.Sandbox[0].Read[0] != "/etc" {
				t.Errorf("%+v", m)
			}
			break
		}
		for i, s := range m.Sockets {
			found[s.Addr] = fds[i]
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	fd, ok := found[want]
	if !ok {
		t.Fatalf("%v isn't among %v", want, found)
	}
	other, err := Listener(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	l.Close()
	c, err := net.Dial("tcp", want.String())
	if err != nil {
		t.Fatal("the socket isn't listened on any more: ", err)
	}
	c.Close()
}

// TestEnd: the end of the other process is told as such, also where it has left something unread; and what can't be one
// of these connections isn't taken for one.
func TestEnd(t *testing.T) {
	a, b := pair(t)
	if err := b.Send(Message{Kind: Claim}); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if _, _, err := b.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	if _, err := NewConn(fds[0]); err == nil {
		t.Error("a stream was taken")
	}
}

// TestHandWithoutRoom: where this process can have no more descriptors, the last of the flows that are handed over have none, and the connection
// goes on. Of other messages none may be missing.
func TestHandWithoutRoom(t *testing.T) {
	a, b := pair(t)
	var fds []int
	for range 4 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	if err := a.Send(Message{Kind: Hand, Handed: []Handed{{Flow: Flow{ID: "1"}}, {Flow: Flow{ID: "2"}}, {Flow: Flow{ID: "3"}}, {Age: 5}}}, fds...); err != nil {
		t.Fatal(err)
	}
	if err := a.Send(Message{Kind: Sockets}, fds...); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	last, err := unix.Dup(fds[0]) // the lowest number that is free
	if err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = uint64(last + 1)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	if _, err := unix.Dup(fds[0]); err != unix.EMFILE {
		t.Fatalf("there is room: %v", err)
	}
	unix.Close(last) // room for one
	m, got, err := b.Receive()
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind != Hand || len(m.Handed) != 4 || m.Handed[3].Age != 5 || len(got) != 1 {
		t.Errorf("%+v with %d descriptors", m, len(got))
	}
	CloseAll(got)
	if _, got, err := b.Receive(); err == nil || len(got) != 0 {
		t.Errorf("sockets came without all of their descriptors: %v", err)
	}
}

// FuzzDecode: no message makes the reader fail otherwise than by an error.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"kind":"flows","flows":[{"id":"1","source":"127.0.0.1:1","local":"127.0.0.2:2","target":""}]}`))
	f.Add([]byte(`{"kind":"cut","ids":["1"]}`))
	f.Add([]byte(`{"kind":"hand","handed":[{"id":"1","source":"127.0.0.1:1","local":"127.0.0.2:2","target":"[fe80::1%2]:3","standsAt":"","age":-1,"quiet":9}]}`))
	f.Add([]byte(`{"kind":"ready","hands":1}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decode(b); err == nil && m.Kind == "" {
			t.Error("a message without a kind")
		}
	})
}
