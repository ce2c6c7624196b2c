package fastpath

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
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

	asked    [batch]control  // what the kernel says of where a datagram was sent to, then what has the answer leave from there
	told     [batch]int      // how many bytes of that there are
	controls [batch]controls // of messages

	count, next int  // of the datagrams that came
	queued      int  // answers
	wild        bool // the socket is on all addresses
	single      bool // the kernel takes no segments here
	doubt       int  // answers before this one are sent alone, for the kernel has refused them together
}

// control is room for the one control message that a socket on all addresses asks for, struct in6_pktinfo or in_pktinfo behind a
// header.
type control [5]uint64

func (c *control) bytes() []byte { return (*[unsafe.Sizeof(control{})]byte)(unsafe.Pointer(c))[:] }

// controls is room for a control message with the size of segments, and one of those behind it.
type controls [10]uint64

func (c *controls) bytes() []byte { return (*[unsafe.Sizeof(controls{})]byte)(unsafe.Pointer(c))[:] }

// segment puts in the control message UDP_SEGMENT of udp(7), and returns its length: the kernel cuts what is sent in datagrams of so many
// bytes, of which the last may be shorter. Way down to the device they are one packet, which is most of the price of an answer.
func (c *controls) segment(size int) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(c))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(c.bytes()[unix.CmsgLen(0):], uint16(size))
	return unix.CmsgSpace(2)
}

func newRing(wild bool) *ring {
	r := &ring{wild: wild}
	for i := range r.in {
		r.inVec[i].Base = &r.query[i][0]
		r.inVec[i].SetLen(maxQuery)
		r.in[i].hdr.Iov = &r.inVec[i]
		r.in[i].hdr.SetIovlen(1)
		r.in[i].hdr.Name = (*byte)(unsafe.Pointer(&r.from[i]))
		r.answer[i] = make([]byte, 0, maxWire)
		if wild {
			r.in[i].hdr.Control = &r.asked[i].bytes()[0]
		}
	}
	return r
}

// receive takes the datagrams that wait and doesn't wait itself: the scheduler needn't know of the call. If it did, a node that is
// asked now and then would wake the runtime's monitor with each query.
func (r *ring) receive(fd uintptr) syscall.Errno {
	for i := range r.in {
		r.in[i].hdr.Namelen = unix.SizeofSockaddrInet6
		if r.wild {
			r.in[i].hdr.SetControllen(len(r.asked[i].bytes()))
		}
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
	r.told[i] = r.source(i)
}

// source makes what the kernel says of the address that a datagram was sent to into what has the answer leave from there, and returns
// its length: 0 where nothing was said. It is done once for a datagram.
func (r *ring) source(i int) int {
	if !r.wild {
		return 0
	}
	return answerFrom(r.asked[i].bytes(), int(r.in[i].hdr.Controllen))
}

// answerFrom does so in place with a control message of n bytes. As with CoreDNS the answer takes the way that leads to the client, not
// that by which the query came; only addresses of a link (RFC 4291 section 2.5.6) mean nothing without theirs.
func answerFrom(b []byte, n int) int {
	if n < unix.SizeofCmsghdr || n > len(b) {
		return 0
	}
	level, kind := int32(binary.NativeEndian.Uint32(b[unix.CmsgLen(0)-8:])), int32(binary.NativeEndian.Uint32(b[unix.CmsgLen(0)-4:]))
	data := b[unix.CmsgLen(0):]
	switch {
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && n >= unix.CmsgLen(unix.SizeofInet6Pktinfo):
		if data[0] != 0xfe || data[1]&0xc0 != 0x80 {
			clear(data[16:20]) // ipi6_ifindex
		}
		return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && n >= unix.CmsgLen(unix.SizeofInet4Pktinfo):
		clear(data[:4])             // ipi_ifindex
		copy(data[4:8], data[8:12]) // ipi_spec_dst from ipi_addr
		return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	}
	return 0
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
		case r.out[0].hdr.Iovlen > 1 && (errno == unix.EINVAL || errno == unix.EMSGSIZE || errno == unix.EIO):
			// A device that can't cut is that of many clients; a way whose packets are too small for an answer (EMSGSIZE, EINVAL before) is one client's.
			r.single = r.single || errno == unix.EIO
			r.doubt = at + int(r.out[0].hdr.Iovlen) // each may be refused for itself
		default:
			at += int(r.out[0].hdr.Iovlen) // sendmmsg(2) fails for the first alone
		}
	}
	r.queued, r.doubt = 0, 0
}

// pack makes messages of the answers from one on, of those that go one after another to the same client one message if it can be
// cut again, and returns how many messages.
func (r *ring) pack(at int) int {
	n := 0
	for ; at < r.queued; n++ {
		answers := 1
		if !r.single && at >= r.doubt {
			answers = r.alike(at)
		}
		from, h := r.to[at], &r.out[n].hdr
		h.Name, h.Namelen = r.in[from].hdr.Name, r.in[from].hdr.Namelen
		h.Iov = &r.outVec[at]
		h.SetIovlen(answers)
		c, length := &r.controls[n], 0
		if answers > 1 {
			length = c.segment(int(r.outVec[at].Len))
		}
		if r.wild {
			length += copy(c.bytes()[length:], r.asked[from].bytes()[:r.told[from]])
		}
		h.Control = nil
		h.SetControllen(length)
		if length > 0 {
			h.Control = &c.bytes()[0]
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
	for at+n < r.queued && r.from[r.to[at+n]] == *client && r.asksSame(r.to[at], r.to[at+n]) {
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

// asksSame reports whether two answers leave from the same address.
func (r *ring) asksSame(a, b int) bool {
	return !r.wild || r.told[a] == r.told[b] && r.asked[a] == r.asked[b]
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
		addr.Zone = strconv.Itoa(int(from.Scope_id)) // as package net has it where the interface has no name
		if i, err := net.InterfaceByIndex(int(from.Scope_id)); err == nil {
			addr.Zone = i.Name
		}
	}
	return addr
}

// parcel is where one answer goes to, and from where: the kernel's own words, in which nothing is lost.
type parcel struct {
	to   unix.RawSockaddrInet6
	size uint32 // of to
	from control
	told int // length of from
}

// parcel returns that of the answer to a datagram.
func (r *ring) parcel(i int) parcel {
	p := parcel{to: r.from[i], size: r.in[i].hdr.Namelen, told: r.source(i)}
	p.from = r.asked[i]
	return p
}

// send sends one answer, and waits while the socket is full.
func (p *parcel) send(raw syscall.RawConn, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	vec := unix.Iovec{Base: &b[0]}
	vec.SetLen(len(b))
	hdr := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&p.to)), Namelen: p.size, Iov: &vec}
	hdr.SetIovlen(1)
	if p.told > 0 {
		hdr.Control = &p.from.bytes()[0]
		hdr.SetControllen(p.told)
	}
	var errno syscall.Errno
	err := raw.Write(func(fd uintptr) bool {
		for {
			_, _, errno = unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&hdr)), unix.MSG_DONTWAIT)
			if errno != unix.EINTR {
				return errno != unix.EAGAIN
			}
		}
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}
