package coremain

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
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
