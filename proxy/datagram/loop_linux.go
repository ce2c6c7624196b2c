package datagram

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loop watches the sockets towards targets. Its epoll is itself watched by the runtime's poller, so that its
// goroutine parks like any other and no thread is blocked.
type loop struct {
	epoll int // of file
	file  *os.File
	raw   syscall.RawConn
	done  chan struct{} // closed when the goroutine has ended

	mu    sync.Mutex // taken last; nothing is called while it is held
	flows map[uint64]*Flow
	last  uint64
}

// eventsAtOnce bounds what is taken from epoll in one call.
const eventsAtOnce = 128

func newLoop() (*loop, error) {
	l := &loop{flows: make(map[uint64]*Flow), done: make(chan struct{})}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err = unix.SetNonblock(l.epoll, true); err == nil { // which makes os.NewFile ask the poller
		l.file = os.NewFile(uintptr(l.epoll), "epoll")
		l.raw, err = l.file.SyscallConn()
	}
	if err != nil {
		unix.Close(l.epoll)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	go l.run()
	return l, nil
}

// close ends the goroutine and waits for it.
func (l *loop) close() {
	l.file.Close()
	<-l.done
}

// enter watches the socket of a flow, whose up and down the caller holds. What epoll tells names the flow by a number
// that no other one ever has.
func (l *loop) enter(f *Flow) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(l.last), Pad: int32(l.last >> 32)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, f.fd, &ev); err != nil {
		return err
	}
	f.number = l.last
	l.flows[f.number] = f
	return nil
}

// leave forgets a flow, whose up and down the caller holds.
func (l *loop) leave(f *Flow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.flows, f.number)
}

// remove is leave for a socket that stays open: what epoll watches is the socket, not the descriptor, and it would tell
// of one that another process has, again and again.
func (l *loop) remove(f *Flow) {
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, f.fd, nil) // it is watched
	l.leave(f)
}

// run is the goroutine of the loop. A buffer is borrowed only while something comes.
func (l *loop) run() {
	defer close(l.done)
	events := make([]unix.EpollEvent, eventsAtOnce)
	flows := make([]*Flow, 0, eventsAtOnce)
	var n int
	var b *batch
	wait := func(uintptr) bool {
		if n = epollNow(l.epoll, events); n == 0 && b != nil {
			batches.Put(b)
			b = nil
		}
		return n > 0
	}
	for l.raw.Read(wait) == nil {
		if b == nil {
			b = batches.Get().(*batch)
		}
		flows = l.resolve(events[:n], flows[:0])
		for _, f := range flows {
			f.answer(b)
		}
		clear(flows)
	}
	if b != nil {
		batches.Put(b)
	}
}

// resolve finds the flows of events; those that have ended are left out.
func (l *loop) resolve(events []unix.EpollEvent, flows []*Flow) []*Flow {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range events {
		if f := l.flows[uint64(uint32(events[i].Fd))|uint64(uint32(events[i].Pad))<<32]; f != nil {
			flows = append(flows, f)
		}
	}
	return flows
}

// epollNow is epoll_wait without waiting, which the scheduler needs not be told of.
func epollNow(epoll int, events []unix.EpollEvent) int {
	n, _, err := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if err != 0 {
		return 0 // EINTR; it is asked again
	}
	return int(n)
}
