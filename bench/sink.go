//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// sink is the backend of the proxy tests: it does what the first byte of a connection asks for.
type sink struct {
	poll  *poller
	conns map[int]*sinkConn
	buf   []byte
}

// sinkConn is one connection to the backend.
type sinkConn struct {
	mode    byte // 0: it hasn't said yet
	pending int  // bytes of the message that isn't complete
}

// runSink serves the addresses until its standard input ends.
func runSink(addrs []netip.AddrPort) error {
	p, err := newPoller()
	if err != nil {
		return err
	}
	s := &sink{poll: p, conns: make(map[int]*sinkConn), buf: make([]byte, discardSize)}
	listeners := make(map[int]bool)
	for _, a := range addrs {
		fd, err := listen(a)
		if err != nil {
			return err
		}
		listeners[fd] = true
		if err := p.add(fd, unix.EPOLLIN); err != nil {
			return err
		}
	}
	if err := p.add(int(os.Stdin.Fd()), unix.EPOLLIN|unix.EPOLLHUP); err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		events, err := p.wait(-1)
		if err != nil {
			return err
		}
		for _, e := range events {
			fd := int(e.Fd)
			switch {
			case fd == int(os.Stdin.Fd()):
				return nil
			case listeners[fd]:
				s.accept(fd)
			default:
				s.serve(fd, e.Events)
			}
		}
	}
}

func (s *sink) accept(listener int) {
	for range 64 { // then the others get their turn
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		// An error here is seen by the client as a connection that never answers.
		_ = unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1)
		if s.poll.add(fd, unix.EPOLLIN) != nil {
			unix.Close(fd)
			continue
		}
		s.conns[fd] = new(sinkConn)
	}
}

// serve does one step for a connection that is ready, and closes it at the end or on any error.
func (s *sink) serve(fd int, events uint32) {
	c := s.conns[fd]
	if c == nil {
		return
	}
	if !s.step(fd, c, events) {
		delete(s.conns, fd)
		unix.Close(fd)
	}
}

func (s *sink) step(fd int, c *sinkConn, events uint32) bool {
	if events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		var n int
		var err error
		if c.mode == modeUpload {
			n, err = discard(fd, s.buf)
		} else {
			n, err = unix.Read(fd, s.buf[:64<<10])
		}
		if err == unix.EAGAIN || err == unix.EINTR {
			return true
		}
		if err != nil || n <= 0 {
			return false
		}
		if c.mode == 0 {
			header, ok := headerSize(s.buf[:n])
			if !ok {
				return false
			}
			copy(s.buf, s.buf[header:n])
			if n -= header; n == 0 {
				return true // what it is about comes behind the header
			}
			if !s.begin(fd, c, s.buf[0]) {
				return false
			}
		}
		if c.mode == modeEcho && !s.answer(fd, c, n) || c.mode == modeTLS && !s.serverHello(fd, c, n) {
			return false
		}
	}
	if events&unix.EPOLLOUT != 0 {
		_, err := unix.Write(fd, s.buf[:chunkSize])
		return err == nil || err == unix.EAGAIN || err == unix.EINTR
	}
	return true
}

// headerSize returns the length of the PROXY header, version 1 or 2, that a connection begins with, 0 for none. It reports
// false where it isn't whole, which on loopback none is that was sent at once.
func headerSize(b []byte) (int, bool) {
	const v1, v2 = "PROXY ", "\r\n\r\n\x00\r\nQUIT\n"
	if bytes.HasPrefix(b, []byte(v1)) {
		end := bytes.Index(b, []byte("\r\n"))
		return end + 2, end >= 0
	}
	if b[0] != v2[0] {
		return 0, true
	}
	if len(b) < len(v2)+4 || !bytes.HasPrefix(b, []byte(v2)) {
		return 0, false
	}
	size := len(v2) + 4 + int(binary.BigEndian.Uint16(b[len(v2)+2:]))
	return size, size <= len(b)
}

// begin takes the first byte of a connection.
func (s *sink) begin(fd int, c *sinkConn, mode byte) bool {
	switch mode {
	case modeUpload, modeEcho:
	case modeTLS:
		c.pending = tlsHeader + int(binary.BigEndian.Uint16(s.buf[3:]))
	case modeDownload:
		if s.poll.change(fd, unix.EPOLLIN|unix.EPOLLOUT) != nil {
			return false
		}
	default:
		return false
	}
	c.mode = mode
	return true
}

// answer sends one response for each message that n more bytes complete. Responses are small and
// awaited, so they always fit the socket's buffer; if not, the connection ends.
func (s *sink) answer(fd int, c *sinkConn, n int) bool {
	c.pending += n
	for c.pending >= messageSize {
		c.pending -= messageSize
		if sent, err := unix.Write(fd, s.buf[:messageSize]); err != nil || sent != messageSize {
			return false
		}
	}
	return true
}

// tlsHeader is the length of a record's header (RFC 8446 section 5.1).
const tlsHeader = 5

// serverHello answers a record, which n more bytes of have come, with a message that begins as a ServerHello does.
func (s *sink) serverHello(fd int, c *sinkConn, n int) bool {
	if c.pending -= n; c.pending > 0 {
		return true
	}
	m := make([]byte, messageSize)
	copy(m, []byte{modeTLS, 3, 3, 0, messageSize - tlsHeader, 2, 0, 0, messageSize - tlsHeader - 4, 3, 3})
	sent, err := unix.Write(fd, m)
	return err == nil && sent == messageSize
}
