package datagram

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/mmsg"
)

// from reads the address in a name of so many bytes. ok is false for what isn't of the family, and for an IPv6 packet
// from an IPv4-mapped address, which would pass for the IPv4 address.
func from(n *mmsg.Name, size uint32, four bool) (e endpoint, ok bool) {
	if four {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(n))
		if size < unix.SizeofSockaddrInet4 || v4.Family != unix.AF_INET || v4.Port == 0 {
			return e, false
		}
		return endpointOf(netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), mmsg.Port(v4.Port))), true
	}
	if size < unix.SizeofSockaddrInet6 || n.Family != unix.AF_INET6 || n.Port == 0 || netip.AddrFrom16(n.Addr).Is4In6() {
		return e, false
	}
	return endpoint{n.Addr, n.Scope_id, mmsg.Port(n.Port)}, true
}

// to makes a name of an address, and returns its size.
func to(n *mmsg.Name, e endpoint, four bool) uint32 {
	if four {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(n))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: mmsg.Port(e.port), Addr: [4]byte(e.ip[12:])}
		return unix.SizeofSockaddrInet4
	}
	*n = mmsg.Name{Family: unix.AF_INET6, Port: mmsg.Port(e.port), Addr: e.ip, Scope_id: e.zone}
	return unix.SizeofSockaddrInet6
}
