//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/mmsg"
)

// echoed is the record that the echo puts behind each query: the name of the question has the address 192.0.2.1 (RFC 5737).
var echoed = [...]byte{0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 10, 0, 4, 192, 0, 2, 1}

// echoBatch is how many datagrams the echo takes and sends with one system call at most.
const echoBatch = 64

// runEcho is what no DNS server can do less than: it answers every datagram at an address with one record and doesn't look at the question. It
// reads with recvmmsg, which waits, and writes with sendmmsg. It ends with its process.
func runEcho(args []string) error {
	if len(args) != 1 {
		return errors.New("echo: one argument, the address")
	}
	at, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil {
		return err
	}
	done := make(chan error)
	go func() { done <- echo(fd) }() // the goroutine of main is bound to a thread, which would cost
	return <-done
}

func echo(fd int) error {
	var b struct {
		in, out [echoBatch]mmsg.Message
		vec     [echoBatch][2]unix.Iovec
		from    [echoBatch]mmsg.Name
		wire    [echoBatch][512 + len(echoed)]byte
	}
	for i := range b.in {
		b.vec[i][0].Base, b.vec[i][1].Base = &b.wire[i][0], &b.wire[i][0]
		b.vec[i][0].SetLen(512)
		b.in[i].SetPieces(b.vec[i][:1])
		b.out[i].SetPieces(b.vec[i][1:])
	}
	for {
		for i := range b.in {
			b.in[i].SetName(&b.from[i], uint32(unsafe.Sizeof(b.from[i])))
		}
		// No other call of this kind in the project waits. The runtime isn't told: nothing else runs here.
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.in[0])), echoBatch, unix.MSG_WAITFORONE, 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return fmt.Errorf("recvmmsg: %w", errno)
		}
		for i := range int(n) {
			length := int(b.in[i].Size)
			if length >= 12 {
				b.wire[i][2] |= 0x84                         // an answer, with authority
				binary.BigEndian.PutUint16(b.wire[i][6:], 1) // record
			}
			b.vec[i][1].SetLen(length + copy(b.wire[i][length:], echoed[:]))
			b.out[i].SetName(&b.from[i], b.in[i].Namelen)
		}
		for at := 0; at < int(n); {
			sent, errno := mmsg.Send(fd, b.out[at:n])
			if errno != 0 {
				sent = 1 // it is lost
			}
			at += sent
		}
	}
}
