package coremain

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// silence returns a filter for a socket that listens: what begins a connection from one of the sources is dropped (a TCP segment with SYN and
// without ACK, RFC 9293 section 3.5), and all else passes. The kernel gives it a packet from the TCP header on, and that of IP apart. The connections that
// are accepted have the filter too, where it does nothing.
func silence(sources []netip.Prefix) []unix.SockFilter {
	var four, six []unix.SockFilter
	for _, s := range sources {
		if b := s.Addr().AsSlice(); s.Addr().Is4() {
			if four == nil {
				four = append(four, ofNetwork(12)) // the source, RFC 791 section 3.1
			}
			four = append(four, unless(binary.BigEndian.Uint32(b), 1), dropped)
		} else { // RFC 8200 section 3; of a source of IPv6 64 bits count
			six = append(six, ofNetwork(8), unless(binary.BigEndian.Uint32(b), 3),
				ofNetwork(12), unless(binary.BigEndian.Uint32(b[4:]), 1), dropped)
		}
	}
	four, six = append(four, passed), append(six, passed)
	protocol := int32(ancillary)
	f := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13}, // the flags
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x12},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x02, Jt: 1},
		passed,
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: uint32(protocol)},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IP, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(four))},
	}
	return append(append(f, four...), six...)
}

// Where the header of the network, and its protocol, stand for a filter: SKF_NET_OFF and SKF_AD_OFF of linux/filter.h.
const network, ancillary = -0x100000, -0x1000

var (
	passed  = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1}
	dropped = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
)

// ofNetwork loads four bytes of the header of IP.
func ofNetwork(at int32) unix.SockFilter {
	at += network
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(at)}
}

// unless passes over so many instructions where something else was loaded.
func unless(value uint32, over uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: over}
}

// setSilence has a socket that listens drop what begins connections from some sources; nil: from none.
func setSilence(fd int, sources []netip.Prefix) error {
	if len(sources) == 0 {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
		if err == unix.ENOENT { // it has none
			return nil
		}
		return err
	}
	f := silence(sources)
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]})
}
