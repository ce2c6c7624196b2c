package fastpath

import (
	"bytes"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/mmsg"
)

// outbox is up to as many answers as one system call sends. It is used by one goroutine at a time, and never moved: the headers point
// into it.
type outbox struct {
	out      [batch]mmsg.Message
	vec      [batch]unix.Iovec // the answers
	to       [batch]*mmsg.Name
	sizes    [batch]uint32 // of to
	from     [batch][]byte // the control message that has an answer leave from the address that was asked; empty: the socket's
	controls [batch]mmsg.Controls
	by       clients

	queued int  // answers
	sent   int  // of those
	single bool // the kernel takes no segments here
	doubt  int  // answers before this one are sent alone, for the kernel has refused them together
}

// add queues an answer. All that is given stays as it is until send has returned true.
func (o *outbox) add(wire []byte, to *mmsg.Name, size uint32, from []byte) {
	q := o.queued
	o.queued++
	o.vec[q].Base = &wire[0]
	o.vec[q].SetLen(len(wire))
	o.to[q], o.sizes[q], o.from[q] = to, size, from
}

// send sends what is queued. What the kernel doesn't take is dropped, as a network would, unless it has no room and the caller is patient: then
// send returns false, to be called again.
func (o *outbox) send(fd uintptr, patient bool) bool {
	if o.sent == 0 {
		o.group()
	}
	for o.sent < o.queued {
		packed := o.pack(o.sent)
		n, errno := mmsg.Send(int(fd), o.out[:packed])
		switch {
		case errno == 0:
			for i := range n {
				o.sent += int(o.out[i].Iovlen)
			}
		case patient && errno == unix.EAGAIN:
			return false
		case o.out[0].Iovlen > 1 && (errno == unix.EINVAL || errno == unix.EMSGSIZE || errno == unix.EIO):
			// A device that can't cut is that of many clients; a way whose packets are too small for an answer (EMSGSIZE, EINVAL before) is one client's.
			o.single = o.single || errno == unix.EIO
			o.doubt = o.sent + int(o.out[0].Iovlen) // each may be refused for itself
		default:
			o.sent += int(o.out[0].Iovlen) // sendmmsg(2) fails for the first alone
		}
	}
	o.drop()
	return true
}

// drop empties the box.
func (o *outbox) drop() { o.queued, o.sent, o.doubt = 0, 0, 0 }

// clients is what group finds the answers to one client with.
type clients struct {
	first [2 * batch]uint8 // by hash of the client: its first answer, counted from 1
	last  [batch]uint8     // by first answer: the last one so far
	next  [batch]uint8     // the client's next answer, counted from 1
	vec   [batch]unix.Iovec
	to    [batch]*mmsg.Name
	sizes [batch]uint32
	from  [batch][]byte
}

// group brings together the answers to one client from one address, in the order in which they were added.
func (o *outbox) group() {
	c := &o.by
	clear(c.first[:])
	apart := false
	for i := range o.queued {
		c.next[i] = 0
		h := o.to[i].Port
		for h = (h ^ h>>8) % uint16(len(c.first)); ; h = (h + 1) % uint16(len(c.first)) {
			f := c.first[h]
			if f == 0 {
				c.first[h], c.last[i] = uint8(i+1), uint8(i)
				break
			}
			if f--; o.same(int(f), i) {
				apart = apart || int(c.last[f]) != i-1
				c.next[c.last[f]], c.last[f] = uint8(i+1), uint8(i)
				c.last[i] = noFirst
				break
			}
		}
	}
	if !apart {
		return
	}
	c.vec, c.to, c.sizes, c.from = o.vec, o.to, o.sizes, o.from
	n := 0
	for i := range o.queued {
		if c.last[i] == noFirst {
			continue
		}
		for j := i + 1; j != 0; j = int(c.next[j-1]) {
			o.vec[n], o.to[n], o.sizes[n], o.from[n] = c.vec[j-1], c.to[j-1], c.sizes[j-1], c.from[j-1]
			n++
		}
	}
}

// noFirst marks an answer that is not the first of its client.
const noFirst = 255

// same reports whether two answers go to one client from one address.
func (o *outbox) same(a, b int) bool {
	return *o.to[a] == *o.to[b] && bytes.Equal(o.from[a], o.from[b])
}

// pack makes messages of the answers from one on, of those that go one after another to the same client one message if it can be
// cut again, and returns how many messages.
func (o *outbox) pack(at int) int {
	n := 0
	for ; at < o.queued; n++ {
		answers := 1
		if !o.single && at >= o.doubt {
			answers = o.alike(at)
		}
		m := &o.out[n]
		m.SetName(o.to[at], o.sizes[at])
		m.SetPieces(o.vec[at:][:answers])
		c, length := o.controls[n].Bytes(), 0
		if answers > 1 {
			length = mmsg.PutSize(c, int(o.vec[at].Len))
		}
		length += copy(c[length:], o.from[at])
		m.SetControl(c[:length])
		at += answers
	}
	return n
}

// alike returns how many answers from one on, itself included, can be cut from one message: all for its client, from the address that it
// leaves from, and as long as it is, but for the last, which may be shorter.
func (o *outbox) alike(at int) int {
	size := o.vec[at].Len
	n, total := 1, size
	for next := at + 1; next < o.queued && o.same(at, next); next++ {
		length := o.vec[next].Len
		if total += length; length > size || total > maxSegmented {
			break
		}
		if n++; length < size {
			break
		}
	}
	return n
}

// maxSegmented is how many bytes one message of segments has at most: what UDP over IPv6 takes.
const maxSegmented = 65535 - 48

// parcel is where one answer goes to, and from where: the kernel's own words, in which nothing is lost.
type parcel struct {
	to   mmsg.Name
	size uint32 // of to
	from mmsg.Source
	told int // length of from
}

// send sends one answer, and waits while the socket is full.
func (p *parcel) send(raw syscall.RawConn, b []byte) error {
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
