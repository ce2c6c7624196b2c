package datagram

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// name is a socket address as the kernel writes it: large enough for both families.
type name = unix.RawSockaddrInet6

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	n uint32 // bytes that were received
}

// from reads the address in a name of so many bytes. ok is false for what isn't of the family, and for an IPv6 packet
// from an IPv4-mapped address, which would pass for the IPv4 address.
func from(n *name, size uint32, four bool) (e endpoint, ok bool) {
	if four {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(n))
		if size < unix.SizeofSockaddrInet4 || v4.Family != unix.AF_INET || v4.Port == 0 {
			return e, false
		}
		return endpointOf(netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), swapped(v4.Port))), true
	}
	if size < unix.SizeofSockaddrInet6 || n.Family != unix.AF_INET6 || n.Port == 0 || netip.AddrFrom16(n.Addr).Is4In6() {
		return e, false
	}
	return endpoint{n.Addr, n.Scope_id, swapped(n.Port)}, true
}

// to makes a name of an address, and returns its size.
func to(n *name, e endpoint, four bool) uint32 {
	if four {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(n))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapped(e.port), Addr: [4]byte(e.ip[12:])}
		return unix.SizeofSockaddrInet4
	}
	*n = name{Family: unix.AF_INET6, Port: swapped(e.port), Addr: e.ip, Scope_id: e.zone}
	return unix.SizeofSockaddrInet6
}

// swapped is a port in the byte order of the network, as the machine reads it, or back.
func swapped(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

// sizeofControl is room for what is received and sent beside a datagram: an address of either family and a size of
// segments.
var sizeofControl = unix.CmsgSpace(unix.SizeofInet6Pktinfo) + unix.CmsgSpace(4) + unix.CmsgSpace(4)

// beside reads what came beside a datagram: where it was sent to, where that is told, and how large the datagrams
// are that the kernel has put together, 0 for one alone. ok is false for what makes no sense.
func beside(b []byte) (local netip.Addr, segment int, ok bool) {
	for len(b) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			return local, segment, false
		}
		b = rest
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO:
			if len(data) < unix.SizeofInet4Pktinfo {
				return local, segment, false
			}
			local = netip.AddrFrom4([4]byte(data[8:12])) // ipi_addr, behind the interface and ipi_spec_dst
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO:
			if len(data) < unix.SizeofInet6Pktinfo {
				return local, segment, false
			}
			if local = netip.AddrFrom16([16]byte(data[:16])); local.Is4In6() {
				return local, segment, false
			}
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO:
			if len(data) < 4 {
				return local, segment, false
			}
			if segment = int(int32(binary.NativeEndian.Uint32(data))); segment <= 0 {
				return local, segment, false
			}
		}
	}
	return local, segment, true
}

// control writes what goes beside datagrams that are sent: where they come from, if local is valid, and the size at
// which the kernel cuts them, if there is one. b is large enough.
func control(b []byte, local netip.Addr, segment int) []byte {
	n := 0
	put := func(level, kind int32, size int) []byte {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[n]))
		h.Level, h.Type = level, kind
		h.SetLen(unix.CmsgLen(size))
		data := b[n+unix.CmsgLen(0):][:size]
		clear(data)
		n += unix.CmsgSpace(size)
		return data
	}
	switch {
	case local.Is4():
		a := local.As4()
		copy(put(unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)[4:8], a[:]) // ipi_spec_dst
	case local.Is6():
		a := local.As16()
		copy(put(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo), a[:])
	}
	if segment > 0 {
		binary.NativeEndian.PutUint16(put(unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2), uint16(segment))
	}
	return b[:n]
}

// receive and send are recvmmsg(2) and sendmmsg(2) without waiting. What the messages point to stays where it is:
// the heap doesn't move.
func receive(fd int, messages []mmsghdr) (int, error) {
	n, _, err := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), unix.MSG_DONTWAIT, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), nil
}

func send(fd int, messages []mmsghdr) (int, error) {
	n, _, err := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), nil
}
