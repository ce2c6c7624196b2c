package mmsg

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Source is room for the control message of an address: struct in6_pktinfo of RFC 3542 section 6, or in_pktinfo of ip(7), behind a
// header. Two that are equal say the same.
type Source [5]uint64

// Bytes returns the room.
func (s *Source) Bytes() []byte { return (*[unsafe.Sizeof(Source{})]byte)(unsafe.Pointer(s))[:] }

// Controls is room for all control messages of one message that this package reads or writes: an address and a size, and some to spare.
type Controls [11]uint64

// Bytes returns the room.
func (c *Controls) Bytes() []byte {
	return (*[unsafe.Sizeof(Controls{})]byte)(unsafe.Pointer(c))[:]
}

// Read reads the control messages of a message that was received: the address that it was sent to, the zero Addr where the socket
// doesn't tell ([TellDestination]), and how large the datagrams are that the kernel has put together in it, in bytes, 0 for one alone
// ([PutTogether]). An IPv4 address is IPv4-mapped on a socket of IPv6. ok is false for what makes no sense; others are passed over.
func Read(b []byte) (to netip.Addr, size int, ok bool) {
	for len(b) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			return to, size, false
		}
		b = rest
		switch {
		case is(&h, unix.IPPROTO_IP, unix.IP_PKTINFO):
			if len(data) < unix.SizeofInet4Pktinfo {
				return to, size, false
			}
			to = netip.AddrFrom4([4]byte(data[8:12])) // ipi_addr, behind the interface and ipi_spec_dst
		case is(&h, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO):
			if len(data) < unix.SizeofInet6Pktinfo {
				return to, size, false
			}
			to = netip.AddrFrom16([16]byte(data[:16])) // ipi6_addr
		case is(&h, unix.IPPROTO_UDP, unix.UDP_GRO):
			if len(data) < 4 {
				return to, size, false
			}
			if size = int(int32(binary.NativeEndian.Uint32(data))); size <= 0 {
				return to, size, false
			}
		}
	}
	return to, size, true
}

func is(h *unix.Cmsghdr, level, kind int32) bool { return h.Level == level && h.Type == kind }

// Reply makes the control message of an address that a datagram was sent to, the first in b, into what has the answer leave from
// there. It is done in place, and Reply returns how many bytes of b that takes: 0 where b begins with something else, such
// as the size of datagrams that were put together.
//
// The answer takes the way that leads to the client, not that by which the datagram came; only addresses of a link (RFC 4291
// section 2.5.6) mean nothing without theirs.
func Reply(b []byte) int {
	if len(b) < unix.SizeofCmsghdr {
		return 0
	}
	h, data, _, err := unix.ParseOneSocketControlMessage(b)
	switch {
	case err != nil:
	case is(&h, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO) && len(data) == unix.SizeofInet6Pktinfo:
		if data[0] != 0xfe || data[1]&0xc0 != 0x80 {
			clear(data[16:20]) // ipi6_ifindex
		}
		return min(unix.CmsgSpace(unix.SizeofInet6Pktinfo), len(b))
	case is(&h, unix.IPPROTO_IP, unix.IP_PKTINFO) && len(data) == unix.SizeofInet4Pktinfo:
		clear(data[:4])             // ipi_ifindex
		copy(data[4:8], data[8:12]) // ipi_spec_dst from ipi_addr
		return min(unix.CmsgSpace(unix.SizeofInet4Pktinfo), len(b))
	}
	return 0
}

// PutSource writes the control message that has a datagram leave from an address, and returns its length: 0 for the zero Addr, which
// leaves the choice to the socket. b is as large as a [Source].
func PutSource(b []byte, from netip.Addr) int {
	switch {
	case from.Is4():
		a := from.As4()
		copy(put(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)[4:8], a[:]) // ipi_spec_dst
		return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	case from.Is6():
		a := from.As16()
		copy(put(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo), a[:])
		return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
	return 0
}

// PutSize writes the control message UDP_SEGMENT of udp(7), and returns its length: the kernel or the network card cuts what is
// sent into datagrams of so many bytes, of which the last may be shorter. All the way down they are one packet, which is most of the
// price of a datagram. b is as large as a [Source].
func PutSize(b []byte, size int) int {
	binary.NativeEndian.PutUint16(put(b, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2), uint16(size))
	return unix.CmsgSpace(2)
}

// put writes the header of a control message of so many bytes, and returns the room for them, zeroed.
func put(b []byte, level, kind int32, size int) []byte {
	_ = b[unix.CmsgSpace(size)-1]
	h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(b)))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	data := b[unix.CmsgLen(0):][:size]
	clear(data)
	return data
}
