// Package mmsg receives and sends datagrams of UDP, many with one system call of Linux, and reads and writes what the kernel says and is
// told beside them: where a datagram was sent to, where one is to leave from, and of what size those are that are put together or cut.
//
// None of the calls waits, so the runtime's scheduler isn't told of them: that takes time with each call, and where one takes long
// the runtime would wake another thread for the processor, and its monitor with each datagram of a node that is quiet otherwise. It
// can't interrupt them either: how many messages go with one call is how long garbage collection may have to wait for it.
package mmsg

import (
	"encoding/binary"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Name is a socket address as the kernel writes it: large enough for both families.
type Name = unix.RawSockaddrInet6

// Message is struct mmsghdr of recvmmsg(2). What it points to is the caller's, and lies on the heap, which doesn't move.
type Message struct {
	unix.Msghdr
	Size uint32 // bytes that were received
}

// SetName sets where a message goes, or the room for where it came from. Nil: the socket is connected, or nobody asks.
func (m *Message) SetName(n *Name, size uint32) {
	m.Name, m.Namelen = (*byte)(unsafe.Pointer(n)), size
}

// SetPieces sets what is sent, piece after piece, or the room for what is received. There may be none for an empty datagram.
func (m *Message) SetPieces(p []unix.Iovec) {
	m.Iov = unsafe.SliceData(p)
	m.SetIovlen(len(p))
}

// SetControl sets the control messages, or the room for them; empty: none.
func (m *Message) SetControl(b []byte) {
	m.Control = unsafe.SliceData(b)
	m.SetControllen(len(b))
}

// Receive is recvmmsg(2) without waiting: it returns how many messages there were, EAGAIN for none. A call that a signal
// interrupts is made again.
func Receive(fd int, messages []Message) (int, syscall.Errno) {
	return call(unix.SYS_RECVMMSG, fd, messages)
}

// Send is sendmmsg(2) without waiting: it returns how many messages were sent. An error is of the first one alone, and none was
// sent then.
func Send(fd int, messages []Message) (int, syscall.Errno) {
	return call(unix.SYS_SENDMMSG, fd, messages)
}

// call makes one of the two calls. The fifth argument is for recvmmsg alone: how long it waits, which it doesn't.
func call(trap uintptr, fd int, messages []Message) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(messages))), uintptr(len(messages)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// Port is a port in the byte order of the network, as a Name has it, or back.
func Port(p uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], p)
	return binary.BigEndian.Uint16(b[:])
}

// TellDestination has the kernel say which address each datagram was sent to (IP_PKTINFO of ip(7), IPV6_RECVPKTINFO of RFC 3542
// section 6.2). A socket of IPv6 says it of IPv4 in the same form.
func TellDestination(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if domain == unix.AF_INET6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, 1))
}

// PutTogether has the kernel put datagrams of one sender and of one size together, the last perhaps shorter (UDP_GRO of udp(7)). The
// error is that of a kernel older than Linux 5.0, from which they come one by one.
func PutTogether(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1))
}
