package fastpath

import (
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/mmsg"
)

// batch is how many datagrams one system call takes or sends at most.
const batch = 64

// ring is the buffers of one socket: datagrams that came, and the answers to them that are known. It is used by one goroutine, and never
// moved: the headers point into it.
type ring struct {
	outbox
	in     [batch]mmsg.Message
	inVec  [batch]unix.Iovec
	from   [batch]mmsg.Name
	query  [batch][maxQuery]byte
	answer [batch][]byte
	asked  [batch]mmsg.Source // what the kernel says of where a datagram was sent to, then what has the answer leave from there

	count int  // of the datagrams that came
	wild  bool // the socket is on all addresses
}

func newRing(wild bool) *ring {
	r := &ring{wild: wild}
	for i := range r.in {
		r.inVec[i].Base = &r.query[i][0]
		r.inVec[i].SetLen(maxQuery)
		r.in[i].SetPieces(r.inVec[i:][:1])
		r.in[i].SetName(&r.from[i], 0)
		if wild {
			r.in[i].SetControl(r.asked[i].Bytes())
		}
		r.answer[i] = make([]byte, 0, maxWire)
	}
	return r
}

// receive takes the datagrams that wait and doesn't wait itself.
func (r *ring) receive(fd uintptr) (errno syscall.Errno) {
	for i := range r.in {
		r.in[i].Namelen = unix.SizeofSockaddrInet6
		if r.wild {
			r.in[i].SetControllen(len(r.asked[i].Bytes()))
		}
	}
	r.count, errno = mmsg.Receive(int(fd), r.in[:])
	return errno
}

// datagram returns a datagram that came, cut where CoreDNS cuts it.
func (r *ring) datagram(i int) []byte { return r.query[i][:min(int(r.in[i].Size), maxQuery)] }

// buffer returns room for the next answer.
func (r *ring) buffer() []byte { return r.answer[r.queued][:0] }

// reply queues the answer to a datagram, which is in buffer.
func (r *ring) reply(i int, wire []byte) {
	r.add(wire, &r.from[i], r.in[i].Namelen, r.asked[i].Bytes()[:r.source(i)])
}

// source makes what the kernel says of the address that a datagram was sent to into what has the answer leave from there, and returns
// its length: 0 where nothing was said. It is done once for a datagram.
func (r *ring) source(i int) int {
	if !r.wild {
		return 0
	}
	return mmsg.Reply(r.asked[i].Bytes()[:r.in[i].Controllen])
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
	port := int(mmsg.Port(from.Port))
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

// parcel returns where the answer to a datagram goes.
func (r *ring) parcel(i int) parcel {
	p := parcel{to: r.from[i], size: r.in[i].Namelen, told: r.source(i)}
	p.from = r.asked[i]
	return p
}
