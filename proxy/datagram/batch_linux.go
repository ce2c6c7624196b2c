package datagram

import (
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/mmsg"
)

const (
	received = 32 // messages of one receive; each may be a train of datagrams
	// slotSize holds the largest datagram or train that there is. The odd rest spreads the beginnings of the slots
	// over the sets of the processor's caches.
	slotSize = 64<<10 + 320
)

// batch is what one receive takes, and what it takes to send that on. It is borrowed while something moves.
type batch struct {
	in     [received]mmsg.Message
	vecs   [received]unix.Iovec
	names  [received]mmsg.Name
	beside [received]mmsg.Controls
	slab   []byte
	n      int // messages that were received
	run    [received]message
	out    sender
}

// message is one that was received: a datagram, or a train of some that are segment long each, the last perhaps less.
type message struct {
	from    endpoint
	local   netip.Addr // where it was sent to; zero where the socket didn't tell
	data    []byte
	segment int // 0: one datagram
}

// count returns how many datagrams a message is.
func (m *message) count() int {
	if m.segment == 0 {
		return 1
	}
	return (len(m.data) + m.segment - 1) / m.segment
}

var batches = sync.Pool{New: func() any {
	b := &batch{slab: make([]byte, received*slotSize)}
	for i := range b.in {
		b.vecs[i].Base = &b.slab[i*slotSize]
		b.vecs[i].SetLen(slotSize)
		b.in[i].SetPieces(b.vecs[i:][:1])
	}
	b.out.init()
	return b
}}

// receive takes what is there: EAGAIN for nothing. named says whether it is asked who sends.
func (b *batch) receive(fd int, named bool) (errno syscall.Errno) {
	for i := range b.in {
		b.ready(i, named)
	}
	b.n, errno = mmsg.Receive(fd, b.in[:])
	return errno
}

// ready prepares a message to be received into.
func (b *batch) ready(i int, named bool) {
	m := &b.in[i]
	m.SetName(nil, 0)
	if named {
		m.SetName(&b.names[i], unix.SizeofSockaddrInet6)
	}
	m.SetControl(b.beside[i].Bytes())
	m.Flags = 0
}

// message returns a message that was received, of a named batch with its address. ok is false where it makes no sense, and for one to
// an IPv4-mapped address in an IPv6 packet, which would pass for the IPv4 address.
func (b *batch) message(i int, named, four bool) (m message, ok bool) {
	h := &b.in[i]
	m.data = b.slab[i*slotSize:][:h.Size]
	if h.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return m, false
	}
	if named {
		if m.from, ok = from(&b.names[i], h.Namelen, four); !ok {
			return m, false
		}
	}
	if m.local, m.segment, ok = mmsg.Read(b.beside[i].Bytes()[:h.Controllen]); m.segment >= len(m.data) {
		m.segment = 0
	}
	return m, ok && !m.local.Is4In6()
}
