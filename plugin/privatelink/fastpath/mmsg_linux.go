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
	to            [batch]int // of an answer: the datagram that it is for
	sizes         [batch]segmentSize

	count, next int  // of the datagrams that came
	queued      int  // answers
	single      bool // the kernel takes no segments here
}

// segmentSize is the control message UDP_SEGMENT of udp(7): the kernel cuts what is sent in datagrams of so many bytes, of which the
// last may be shorter. Way down to the device they are one packet, which is most of the price of an answer.
type segmentSize struct {
	hdr  unix.Cmsghdr
	size uint16
	_    [6]byte
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
		r.sizes[i].hdr = unix.Cmsghdr{Level: unix.IPPROTO_UDP, Type: unix.UDP_SEGMENT}
		r.sizes[i].hdr.SetLen(unix.CmsgLen(2))
	}
	return r
}

// receive takes the datagrams that wait and doesn't wait itself: the scheduler needn't know of the call. If it did, a node that is
// asked now and then would wake the runtime's monitor with each query.
func (r *ring) receive(fd uintptr) syscall.Errno {
	for i := range r.in {
		r.in[i].hdr.Namelen = unix.SizeofSockaddrInet6
	}
	r.next, r.count = 0, 0
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.in[0])), batch, unix.MSG_DONTWAIT, 0, 0)
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
	r.to[q] = i
}

// send sends what is queued. What the kernel doesn't take is dropped, as a network would.
func (r *ring) send(fd uintptr) {
	for at := 0; at < r.queued; {
		packed := r.pack(at)
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&r.out[0])), uintptr(packed), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno == 0:
			for i := range int(n) {
				at += int(r.out[i].hdr.Iovlen)
			}
		case r.out[0].hdr.Control != nil && (errno == unix.EINVAL || errno == unix.EIO):
			r.single = true // Linux before 4.18, a device that can't, or answers that don't fit in a packet
		default:
			at += int(r.out[0].hdr.Iovlen) // sendmmsg(2) fails for the first alone
		}
	}
	r.queued = 0
}

// pack makes messages of the answers from one on, of those that go one after another to the same client one message if it can be
// cut again, and returns how many messages.
func (r *ring) pack(at int) int {
	n := 0
	for ; at < r.queued; n++ {
		answers := 1
		if !r.single {
			answers = r.alike(at)
		}
		from, h := r.to[at], &r.out[n].hdr
		h.Name, h.Namelen = r.in[from].hdr.Name, r.in[from].hdr.Namelen
		h.Iov = &r.outVec[at]
		h.SetIovlen(answers)
		h.Control = nil
		h.SetControllen(0)
		if answers > 1 {
			r.sizes[n].size = uint16(r.outVec[at].Len)
			h.Control = (*byte)(unsafe.Pointer(&r.sizes[n]))
			h.SetControllen(int(unsafe.Sizeof(r.sizes[n])))
		}
		at += answers
	}
	return n
}

// alike returns how many answers from one on, itself included, can be cut from one message: all for its client and as long as it is, but for the
// last, which may be shorter.
func (r *ring) alike(at int) int {
	client, size := &r.from[r.to[at]], r.outVec[at].Len
	n, bytes := 1, size
	for at+n < r.queued && r.from[r.to[at+n]] == *client {
		next := r.outVec[at+n].Len
		if bytes += next; next > size || bytes > maxSegmented {
			break
		}
		if n++; next < size {
			break
		}
	}
	return n
}

// maxSegmented is how many bytes one message of segments has at most: what UDP over IPv6 takes.
const maxSegmented = 65535 - 48

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
