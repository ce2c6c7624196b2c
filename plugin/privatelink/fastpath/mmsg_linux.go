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

// ring is the buffers of one socket: datagrams that came, and answers to be sent. It is used by one goroutine, and never
// moved: the headers point into it.
type ring struct {
	in, out       [batch]mmsg.Message
	inVec, outVec [batch]unix.Iovec
	from          [batch]mmsg.Name
	query         [batch][maxQuery]byte
	answer        [batch][]byte
	to            [batch]int // of an answer: the datagram that it is for

	asked    [batch]mmsg.Source // what the kernel says of where a datagram was sent to, then what has the answer leave from there
	told     [batch]int         // how many bytes of that there are
	controls [batch]mmsg.Controls

	count, next int  // of the datagrams that came
	queued      int  // answers
	wild        bool // the socket is on all addresses
	single      bool // the kernel takes no segments here
	doubt       int  // answers before this one are sent alone, for the kernel has refused them together
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
	r.next = 0
	r.count, errno = mmsg.Receive(int(fd), r.in[:])
	return errno
}

// datagram returns a datagram that came, cut where CoreDNS cuts it.
func (r *ring) datagram(i int) []byte { return r.query[i][:min(int(r.in[i].Size), maxQuery)] }

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
	return mmsg.Reply(r.asked[i].Bytes()[:r.in[i].Controllen])
}

// send sends what is queued. What the kernel doesn't take is dropped, as a network would.
func (r *ring) send(fd uintptr) {
	for at := 0; at < r.queued; {
		packed := r.pack(at)
		n, errno := mmsg.Send(int(fd), r.out[:packed])
		switch {
		case errno == 0:
			for i := range n {
				at += int(r.out[i].Iovlen)
			}
		case r.out[0].Iovlen > 1 && (errno == unix.EINVAL || errno == unix.EMSGSIZE || errno == unix.EIO):
			// A device that can't cut is that of many clients; a way whose packets are too small for an answer (EMSGSIZE, EINVAL before) is one client's.
			r.single = r.single || errno == unix.EIO
			r.doubt = at + int(r.out[0].Iovlen) // each may be refused for itself
		default:
			at += int(r.out[0].Iovlen) // sendmmsg(2) fails for the first alone
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
		from, m := r.to[at], &r.out[n]
		m.SetName(&r.from[from], r.in[from].Namelen)
		m.SetPieces(r.outVec[at:][:answers])
		c, length := r.controls[n].Bytes(), 0
		if answers > 1 {
			length = mmsg.PutSize(c, int(r.outVec[at].Len))
		}
		if r.wild {
			length += copy(c[length:], r.asked[from].Bytes()[:r.told[from]])
		}
		m.SetControl(c[:length])
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

// parcel is where one answer goes to, and from where: the kernel's own words, in which nothing is lost.
type parcel struct {
	to   mmsg.Name
	size uint32 // of to
	from mmsg.Source
	told int // length of from
}

// parcel returns that of the answer to a datagram.
func (r *ring) parcel(i int) parcel {
	p := parcel{to: r.from[i], size: r.in[i].Namelen, told: r.source(i)}
	p.from = r.asked[i]
	return p
}

// send sends one answer, and waits while the socket is full.
func (p *parcel) send(raw syscall.RawConn, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	vec := [1]unix.Iovec{{Base: &b[0]}}
	vec[0].SetLen(len(b))
	var m [1]mmsg.Message
	m[0].SetName(&p.to, p.size)
	m[0].SetPieces(vec[:])
	m[0].SetControl(p.from.Bytes()[:p.told])
	var errno syscall.Errno
	err := raw.Write(func(fd uintptr) bool {
		_, errno = mmsg.Send(int(fd), m[:])
		return errno != unix.EAGAIN
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}
