package fastpath

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSteerTold: with numbers that the process before this one has told no probe is sent at first; after that they may have changed.
func TestSteerTold(t *testing.T) {
	t.Parallel()
	conn, err := listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	g := &Group{addr: addrOf(conn), sockets: []*socket{{conn: conn, raw: raw}}, shared: true, at: []int{0}, quit: make(chan struct{})}
	close(g.quit) // no search later on
	for _, want := range []bool{false, true} {
		if err := g.Steer(1, nil); err != nil {
			t.Fatal(err)
		}
		g.looks.Wait()
		var waiting int
		if ctl := raw.Control(func(fd uintptr) { waiting, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); ctl != nil || err != nil {
			t.Fatal(ctl, err)
		}
		if waiting > 0 != want {
			t.Errorf("%d bytes of a probe wait, want some: %v", waiting, want)
		}
	}
}

// TestOpenFails: a group that can't be opened leaves the sockets of the other process as they are.
func TestOpenFails(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	c, err := listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var alone error // no further socket can be bound beside it
	if ctl := raw.Control(func(fd uintptr) { alone = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 0) }); ctl != nil || alone != nil {
		t.Fatal(ctl, alone)
	}
	Inherit(c, 1)
	if g, err := Open(addr, NewTarget(newPlugins())); err == nil {
		g.Close(0)
		t.Skip("one processor: nothing is opened")
	}
	conns, at := inherited.take(addr)
	if len(conns) != 1 || conns[0] != c || len(at) != 1 || at[0] != 0 {
		t.Fatalf("left are %v with the numbers %v", conns, at)
	}
	defer c.Close()
	if (&Group{sockets: []*socket{{raw: raw}}}).Retreated() {
		t.Error("the sockets of the other process get nothing any more")
	}
}

// TestOpenFailsLate: one socket of the other process is of no use, and the one before it, which is, stays as it was with what waits in it.
func TestOpenFailsLate(t *testing.T) {
	t.Parallel()
	addr := netip.AddrPortFrom(Wildcard(), freeAddr(t).Port())
	good, err := listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	query := wire(t, "a.example.", nil)
	near := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port())
	if _, err := dial(t, near).Conn.Write(query); err != nil {
		t.Fatal(err)
	}
	bad, err := listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	bad.Close()
	Inherit(good, 1)
	Inherit(bad, 2)
	if g, err := Open(addrOf(good), NewTarget(newPlugins())); err == nil {
		g.Close(0)
		t.Fatal("a socket that is closed was taken")
	}
	conns, at := inherited.take(addrOf(good))
	if len(conns) != 2 || conns[0] != good || len(at) != 2 || at[0] != 0 || at[1] != 1 {
		t.Fatalf("left are %v with the numbers %v", conns, at)
	}
	raw, err := good.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if (&Group{sockets: []*socket{{raw: raw}}}).Retreated() {
		t.Error("the socket of the other process gets nothing any more")
	}
	if _, is := Owns(int(fdOf(t, good))); is {
		t.Error("the socket is taken for one of a group")
	}
	good.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, maxWire)
	if n, _, err := good.ReadFromUDPAddrPort(buf); err != nil || n != len(query) {
		t.Errorf("what waited is gone: %d bytes, %v", n, err)
	}
}
