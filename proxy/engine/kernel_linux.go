package engine

import (
	"golang.org/x/sys/unix"
)

// kernel is what copying asks of the system. All but tests have [linux]; theirs simulates sockets, so that the schedules that
// a real kernel keeps to itself can be chosen. None of the calls waits, and the errors are those of the system.
type kernel interface {
	read(fd int, b []byte) (int, error)
	// peek is a read that leaves the bytes where they are.
	peek(fd int, b []byte) (int, error)
	write(fd int, b []byte) (int, error)
	// splice moves up to n bytes between a socket and a pipe.
	splice(from, to, n int) (int, error)
	// lowat has epoll tell of bytes only when there are so many, or an end.
	lowat(fd, n int) error
	// room is how many bytes a socket takes, about.
	room(fd int) int
	// shutdown ends the sending half of a connection.
	shutdown(fd int) error
	// dissolved reports whether a connection is no more: it was reset.
	dissolved(fd int) bool
	// tell has an epoll tell events of a descriptor.
	tell(epoll, op, fd int, ev unix.EpollEvent) error
	// pipe returns the ends of a new pipe.
	pipe() (r, w int, err error)
	// close closes a descriptor, a connection with a reset if that is asked for.
	close(fd int, reset bool) error
}

// linux is the kernel itself.
type linux struct{}

func (linux) read(fd int, b []byte) (int, error)  { return rawRead(fd, b) }
func (linux) write(fd int, b []byte) (int, error) { return rawWrite(fd, b) }

func (linux) peek(fd int, b []byte) (int, error) {
	n, _, err := unix.Recvfrom(fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n, err
}

func (linux) splice(from, to, n int) (int, error) {
	return rawSplice(from, to, n)
}

func (linux) lowat(fd, n int) error { return rawSetsockopt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n) }

func (linux) room(fd int) int { return rawRoom(fd) }

func (linux) shutdown(fd int) error { return rawShutdown(fd) }

// tcpClose is the state of a socket whose peer has reset it (TCP_CLOSE in the kernel's tcp_states.h).
const tcpClose = 7

func (linux) dissolved(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == tcpClose
}

func (linux) tell(epoll, op, fd int, ev unix.EpollEvent) error {
	return rawEpollCtl(epoll, op, fd, &ev)
}

func (linux) pipe() (r, w int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, -1, err // most likely no descriptor is left
	}
	for size := pipeSize; size >= smallPipe; size /= 4 {
		if n, err := unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, size); err == nil && n >= smallPipe {
			return fds[0], fds[1], nil
		}
	}
	// Beyond the user's limit a pipe holds two pages. A buffer moves more.
	unix.Close(fds[0])
	unix.Close(fds[1])
	return -1, -1, unix.ENOBUFS
}

func (linux) close(fd int, reset bool) error {
	if reset {
		// An error leaves an orderly close, and there is none on an open socket.
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	return rawClose(fd)
}
