package coremain

import (
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/postern-link/postern/node/succession"
)

// TestInheritedNames: the socket of DNS over TLS or over HTTPS is found by the name that CoreDNS has for either.
func TestInheritedNames(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, err := syscall.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	e, at := new(estate), l.Addr().(*net.TCPAddr).AddrPort()
	if err := e.sort([]succession.Socket{{Network: "tcp", Addr: netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), Shared: true}}, []int{fd}); err != nil {
		t.Fatal(err)
	}
	defer e.closeDNS()
	var got []string
	for _, s := range e.dns {
		got = append(got, s.Address())
	}
	slices.Sort(got)
	if want := []string{"https://" + l.Addr().String(), "tls://" + l.Addr().String()}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
