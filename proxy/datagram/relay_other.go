//go:build !linux

package datagram

import (
	"errors"
	"net"
	"net/netip"
)

// errPlatform: the addresses of endpoints are learned from and set in each datagram, which is done on Linux alone.
var errPlatform = errors.New("services of UDP need Linux")

// Relay is what carries datagrams; not here.
type Relay struct{ Counts *Counts }

// New returns an error: there is none here.
func New(Handler, *Counts) (*Relay, error) { return nil, errPlatform }

// Listen returns an error.
func (*Relay) Listen(netip.AddrPort) (*Listener, error) { return nil, errPlatform }

// Inherit returns an error.
func (*Relay) Inherit(*net.UDPConn, <-chan struct{}) (*Listener, error) { return nil, errPlatform }

// Resume returns an error.
func (*Relay) Resume(_ int, _, _, _ netip.AddrPort, _ *Listener) (*Flow, error) {
	return nil, errPlatform
}

// CloseSocket does nothing.
func CloseSocket(int) {}

// Close does nothing.
func (*Relay) Close() {}

// Listener is a socket that flows come in on; none is here.
type Listener struct{}

// Addr returns no address.
func (*Listener) Addr() netip.AddrPort { return netip.AddrPort{} }

// Serve does nothing.
func (*Listener) Serve() {}

// Stop does nothing.
func (*Listener) Stop() {}

// Close does nothing.
func (*Listener) Close() {}

// Held is what waits for the decision about its flow.
type Held struct {
	Data    []byte
	Segment int
}

// Deliver does nothing.
func (*Listener) Deliver(_, _ netip.AddrPort, _ []Held) {}

// Flow is one client's datagrams to one address; none is here.
type Flow struct{}

// Client returns no address.
func (*Flow) Client() netip.AddrPort { return netip.AddrPort{} }

// Local returns no address.
func (*Flow) Local() netip.AddrPort { return netip.AddrPort{} }

// Owner returns nil.
func (*Flow) Owner() any { return nil }

// Own does nothing.
func (*Flow) Own(any, Account) {}

// Connect returns an error.
func (*Flow) Connect(_, _ netip.AddrPort, _ func(fd uintptr, to netip.AddrPort) error) error {
	return errPlatform
}

// Start returns an error.
func (*Flow) Start([]byte, func(b []byte) bool) error { return errPlatform }

// End does nothing.
func (*Flow) End() {}

// Hush does nothing.
func (*Flow) Hush() {}

// Withdraw reports false.
func (*Flow) Withdraw() ([]Held, bool) { return nil, false }

// Detach reports false.
func (*Flow) Detach() (fd int, ok bool) { return -1, false }
