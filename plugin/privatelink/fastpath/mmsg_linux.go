package fastpath

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is how many datagrams one system call takes or sends at most.
const batch = 64

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// ring is the buffers of one socket: datagrams that came, and answers to be sent. It is used by one goroutine, and never
// moved: the headers point into it.
type ring struct {
	in, out       [batch]mmsghdr
	inVec, outVec [batch]unix.Iovec
	from          [batch]unix.RawSockaddrInet6 // room for both families
	query         [batch][maxQuery]byte
	answer        [batch][]byte

	count, next int // of the datagrams that came
	queued      int // answers
}

func newRing() *ring {
	r := new(ring)
	for i := range r.in {
		r.inVec[i].Base = &r.query[i][0]
		r.inVec[i].SetLen(maxQuery)
		r.in[i].hdr.Iov = &r.inVec[i]
		r.in[i].hdr.SetIovlen(1)
		r.in[i].hdr.Name = (*byte)(unsafe.Pointer(&r.from[i]))
		r.answer[i] = make([]byte, 0, maxWire)
		r.out[i].hdr.Iov = &r.outVec[i]
		r.out[i].hdr.SetIovlen(1)
	}
	return r
}

// receive takes the datagrams that wait and doesn't wait itself.
func (r *ring) receive(fd uintptr) syscall.Errno {
	for i := range r.in {
		r.in[i].hdr.Namelen = unix.SizeofSockaddrInet6
	}
	r.next, r.count = 0, 0
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.in[0])), batch, unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno == 0 {
			r.count = int(n)
		}
		return errno
	}
}

// datagram returns a datagram that came, cut where CoreDNS cuts it.
func (r *ring) datagram(i int) []byte { return r.query[i][:min(int(r.in[i].len), maxQuery)] }

// reply queues the answer to a datagram, which is in the buffer of the queue's end.
func (r *ring) reply(i int, wire []byte) {
	q := r.queued
	r.queued++
	r.answer[q] = wire
	r.outVec[q].Base = &wire[0]
	r.outVec[q].SetLen(len(wire))
	r.out[q].hdr.Name = r.in[i].hdr.Name
	r.out[q].hdr.Namelen = r.in[i].hdr.Namelen
}

// send sends what is queued. What the kernel doesn't take is dropped, as a network would.
func (r *ring) send(fd uintptr) {
	for at := 0; at < r.queued; {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&r.out[at])), uintptr(r.queued-at), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			at++ // this one: sendmmsg(2) fails for the first alone
		default:
			at += int(n)
		}
	}
	r.queued = 0
}

// client returns the address that a datagram came from, without a zone and IPv4 as such.
func (r *ring) client(i int) netip.Addr {
	if r.from[i].Family == unix.AF_INET {
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&r.from[i])).Addr)
	}
	return netip.AddrFrom16(r.from[i].Addr).Unmap()
}

// udpAddr is client with port and zone, as CoreDNS has it.
func (r *ring) udpAddr(i int) net.UDPAddr {
	from := &r.from[i]
	port := int(binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&from.Port))[:]))
	if from.Family == unix.AF_INET {
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(from)).Addr
		return net.UDPAddr{IP: net.IP(a[:]), Port: port}
	}
	a := from.Addr
	addr := net.UDPAddr{IP: net.IP(a[:]), Port: port}
	if from.Scope_id != 0 {
		if i, err := net.InterfaceByIndex(int(from.Scope_id)); err == nil {
			addr.Zone = i.Name
		}
	}
	return addr
}
