// Package sockname reads the addresses of sockets as the kernel gives them.
package sockname

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// AddrPort returns the address of a socket of the Internet without its zone, and the zero one of any other. A mapped IPv4 address stays one.
func AddrPort(of unix.Sockaddr) netip.AddrPort {
	switch a := of.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}
