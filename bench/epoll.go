//go:build linux

package main

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Load and backend are single loops over epoll and raw sockets: they share a core, and what they
// spend is time in which the proxy waits.

// What a client says first, in one byte, is what it wants of the backend.
const (
	modeUpload   = 'u' // throw away what I send
	modeDownload = 'd' // send until I close
	modeTLS      = 22  // a record with a ClientHello: answer it with the beginning of a ServerHello
	modeEcho     = 'e' // answer each message; this byte is the first of the first message
)

const (
	messageSize = 100       // bytes of a request, and of its response
	chunkSize   = 256 << 10 // bytes of one write of a bulk stream
	discardSize = 1 << 20   // bytes of one read of a bulk stream
)

// poller is an epoll instance.
type poller struct {
	fd     int
	events [256]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	return &poller{fd: fd}, nil
}

// add watches a descriptor, level-triggered.
func (p *poller) add(fd int, events uint32) error {
	return p.control(unix.EPOLL_CTL_ADD, fd, events)
}

// change watches a descriptor for something else.
func (p *poller) change(fd int, events uint32) error {
	return p.control(unix.EPOLL_CTL_MOD, fd, events)
}

func (p *poller) control(op, fd int, events uint32) error {
	if err := unix.EpollCtl(p.fd, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// wait returns what is ready, after at most milliseconds. The slice is valid until the next call.
func (p *poller) wait(milliseconds int) ([]unix.EpollEvent, error) {
	n, err := unix.EpollWait(p.fd, p.events[:], milliseconds)
	if err != nil && err != unix.EINTR {
		return nil, fmt.Errorf("epoll_wait: %w", err)
	}
	return p.events[:max(n, 0)], nil
}

// sockaddr returns an IPv4 address as the kernel wants it.
func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// connect begins a TCP connection that never blocks.
func connect(source netip.Addr, target netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	// The port is chosen by connect, for the pair of addresses, so that each source has all of them.
	for _, o := range [][3]int{
		{unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1},
		{unix.SOL_TCP, unix.TCP_NODELAY, 1},
	} {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("setsockopt: %w", err)
		}
	}
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0))); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind %s: %w", source, err)
	}
	if err := unix.Connect(fd, sockaddr(target)); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, fmt.Errorf("connect %s: %w", target, err)
	}
	return fd, nil
}

// listen returns a listening socket that never blocks.
func listen(a netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, sockaddr(a))
	}
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen %s: %w", a, err)
	}
	return fd, nil
}

// discard throws away what has arrived, without copying it, and returns how much it was. 0 without
// an error is the end.
func discard(fd int, buf []byte) (int, error) {
	n, _, err := unix.Recvfrom(fd, buf, unix.MSG_TRUNC)
	return n, err
}
