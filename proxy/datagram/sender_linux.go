package datagram

import (
	"net/netip"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/mmsg"
)

// Bounds of what goes in one call: trains, pieces of them, and of one train the datagrams (UDP_MAX_SEGMENTS of
// older kernels) and the bytes (the payload of the largest IPv4 packet).
const (
	sendAtOnce  = 32
	piecesMost  = 256
	trainMost   = 64
	trainLength = 1<<16 - 1 - 20 - 8
)

// sender sends datagrams of one flow to one side, as few trains as they make: datagrams of one length behind each
// other, the last perhaps shorter, which the kernel or the network card cuts (UDP_SEGMENT, udp(7)).
type sender struct {
	messages [sendAtOnce]mmsg.Message
	beside   [sendAtOnce]mmsg.Controls
	trains   [sendAtOnce]train
	pieces   [piecesMost]unix.Iovec
	flushes  func(fd uintptr) // flush, on a socket that is lent
	alone    [1]mmsg.Message
	by       mmsg.Controls // beside alone
	parts    [3]unix.Iovec // of alone

	// Of what is being sent now.
	fd      int
	to      *mmsg.Name // nil: the socket is connected
	size    uint32
	local   netip.Addr // zero: the socket knows
	head    []byte     // in front of each datagram
	plain   bool       // no trains: they can't be sent there
	n, used int        // trains and pieces that wait

	// What has come of it.
	bytes, datagrams int
	dropped          [drops]int
	err              error // the other side refuses
}

// train is what one message sends.
type train struct {
	first, pieces  int
	segment, total int // bytes
	datagrams      int
	open           bool // the last datagram is as long as the others
}

func (s *sender) init() {
	s.flushes = func(fd uintptr) {
		s.fd = int(fd)
		s.flush()
	}
}

var senders = sync.Pool{New: func() any {
	s := new(sender)
	s.init()
	return s
}}

// begin begins to send on a socket. What was there before is forgotten.
func (s *sender) begin(fd int, to *mmsg.Name, size uint32, local netip.Addr, head []byte, plain bool) {
	s.fd, s.to, s.size, s.local, s.head, s.plain = fd, to, size, local, head, plain
	s.n, s.used, s.bytes, s.datagrams, s.dropped, s.err = 0, 0, 0, 0, [drops]int{}, nil
}

// add adds a message, whose bytes must stay until flush.
func (s *sender) add(m *message) {
	if len(s.head) == 0 {
		s.append(len(m.data), max(m.segment, 0), m.count(), m.data)
		return
	}
	for data, first := m.data, true; first || len(data) > 0; first = false {
		n := len(data)
		if m.segment > 0 {
			n = min(n, m.segment)
		}
		s.append(len(s.head)+n, 0, 1, s.head, data[:n])
		data = data[n:]
	}
}

// append adds datagrams of together size bytes, segment long each; 0 for one alone.
func (s *sender) append(size, segment, datagrams int, pieces ...[]byte) {
	if segment == 0 {
		segment = size
	}
	if s.n == 0 || !s.trains[s.n-1].takes(size, segment, datagrams) || s.plain || s.used+len(pieces) > piecesMost {
		if s.n == sendAtOnce || s.used+len(pieces) > piecesMost {
			s.flush()
		}
		s.trains[s.n] = train{first: s.used, segment: segment}
		s.n++
	}
	t := &s.trains[s.n-1]
	for _, p := range pieces {
		if len(p) == 0 {
			continue
		}
		s.pieces[s.used].Base = &p[0]
		s.pieces[s.used].SetLen(len(p))
		s.used++
		t.pieces++
	}
	t.total += size
	t.datagrams += datagrams
	t.open = size > 0 && t.total%t.segment == 0
}

// takes reports whether datagrams can go behind those of the train.
func (t *train) takes(size, segment, datagrams int) bool {
	return t.open && size > 0 && t.datagrams+datagrams <= trainMost && t.total+size <= trainLength &&
		(segment == t.segment || datagrams == 1 && size < t.segment)
}

// flush sends what waits. It doesn't wait itself: what finds no room is dropped.
func (s *sender) flush() {
	for i := range s.trains[:s.n] {
		t, m := &s.trains[i], &s.messages[i]
		segment := 0
		if t.datagrams > 1 {
			segment = t.segment
		}
		s.address(m, &s.beside[i], segment)
		m.SetPieces(s.pieces[t.first:][:t.pieces])
	}
	for next := 0; next < s.n && s.err == nil; {
		k, errno := mmsg.Send(s.fd, s.messages[next:s.n])
		for _, t := range s.trains[next : next+k] {
			s.note(&t)
		}
		if next += k; k == 0 {
			next += s.failed(next, errno)
		}
	}
	s.n, s.used = 0, 0
}

// address prepares a message for where it goes.
func (s *sender) address(m *mmsg.Message, beside *mmsg.Controls, segment int) {
	m.SetName(s.to, s.size)
	b := beside.Bytes()
	n := mmsg.PutSource(b, s.local)
	if segment > 0 {
		n += mmsg.PutSize(b[n:], segment)
	}
	m.SetControl(b[:n])
}

// note counts a train that was sent.
func (s *sender) note(t *train) {
	s.datagrams += t.datagrams
	s.bytes += t.total - t.datagrams*len(s.head)
}

// failed takes the error of sending a train, and returns how many trains are done with.
func (s *sender) failed(i int, errno syscall.Errno) int {
	t := &s.trains[i]
	switch {
	case full(errno):
		for _, t := range s.trains[i:s.n] {
			s.dropped[Full] += t.datagrams
		}
		return s.n - i
	case t.datagrams > 1 && (errno == unix.EIO || errno == unix.EINVAL || errno == unix.EMSGSIZE):
		// EIO: the network card can't make checksums. The others: the datagrams are larger than what the path
		// takes at once, and are to be fragmented, which is not done to a train.
		s.plain = true
		s.apart(t)
		return 1
	case errno == unix.EMSGSIZE:
		s.dropped[TooLarge]++
		return 1
	case s.to != nil: // one client can't be reached: its flow ends when it is idle
		s.dropped[Full] += t.datagrams
		return 1
	}
	s.err = errno
	return 1
}

// full reports whether an error is of the moment: what is sent later may find room.
func full(errno syscall.Errno) bool {
	return errno == unix.EAGAIN || errno == unix.ENOBUFS || errno == unix.ENOMEM
}

// apart sends the datagrams of a train one by one.
func (s *sender) apart(t *train) {
	at, offset := t.first, 0
	for left, first := t.total, true; (left > 0 || first) && s.err == nil; first = false {
		one := train{total: min(t.segment, left), datagrams: 1}
		left -= one.total
		n := 0
		for want := one.total; want > 0; n++ {
			piece := &s.pieces[at]
			take := min(int(piece.Len)-offset, want)
			s.parts[n].Base = (*byte)(unsafe.Add(unsafe.Pointer(piece.Base), offset))
			s.parts[n].SetLen(take)
			want -= take
			if offset += take; offset == int(piece.Len) {
				at, offset = at+1, 0
			}
		}
		s.address(&s.alone[0], &s.by, 0)
		s.alone[0].SetPieces(s.parts[:n])
		s.single(&one)
	}
}

// single sends what alone is.
func (s *sender) single(t *train) {
	_, errno := mmsg.Send(s.fd, s.alone[:])
	switch {
	case errno == 0:
		s.note(t)
	case errno == unix.EMSGSIZE:
		s.dropped[TooLarge]++
	case s.to == nil && !full(errno):
		s.err = errno
	default:
		s.dropped[Full]++
	}
}
