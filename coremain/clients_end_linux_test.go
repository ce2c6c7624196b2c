package coremain

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The descriptor of a connection may be another's by the time that it is to be ended: that one goes on.
func TestWardenEndsNoOther(t *testing.T) {
	t.Parallel()
	w, err := newWarden()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.DialTimeout("tcp", l.Addr().String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	raw, err := far.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	if err := raw.Control(func(n uintptr) { fd = int(n) }); err != nil {
		t.Fatal(err)
	}
	is := caller{fd: fd, at: far.LocalAddr().(*net.TCPAddr).AddrPort(), from: far.RemoteAddr().(*net.TCPAddr).AddrPort()}
	other := is
	other.from = netip.AddrPortFrom(other.from.Addr(), other.from.Port()+1)
	if w.end(other) {
		t.Error("a connection was ended that isn't the one")
	}
	if _, err := near.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	far.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := far.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if !w.end(is) {
		t.Error("the connection wasn't ended")
	}
	near.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

// Listeners that an earlier process has left in a pause of a source hear it again, and so they do where this one ends in a pause.
func TestWardenEndsPauses(t *testing.T) {
	t.Parallel()
	const from = "127.0.0.9"
	l, err := (&net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }), err)
	}}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	heard := func() bool {
		d := net.Dialer{Timeout: 300 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := d.Dial("tcp", l.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err == nil
	}
	source := netip.MustParsePrefix(from + "/32")
	tell(t, l, []netip.Prefix{source})
	if heard() {
		t.Fatal("a source that has a pause is heard")
	}
	w, err := newWarden()
	if err != nil {
		t.Fatal(err)
	}
	w.ports.Store(&map[uint16]bool{l.Addr().(*net.TCPAddr).AddrPort().Port(): true})
	w.anew.Store(true)
	go w.watch()
	eventually(t, 10*time.Second, "the pause of an earlier process goes on", heard)
	w.begin.Do(func() {}) // the watch runs
	w.close()

	if w, err = newWarden(); err != nil {
		t.Fatal(err)
	}
	w.ports.Store(&map[uint16]bool{l.Addr().(*net.TCPAddr).AddrPort().Port(): true})
	w.paces[source] = &pacer{until: time.Now().Add(time.Hour)}
	go w.watch()
	eventually(t, 10*time.Second, "the source has no pause", func() bool { return !heard() })
	w.begin.Do(func() {})
	w.close()
	eventually(t, 10*time.Second, "the pause outlives the watch", heard)
}
