package engine

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// epollEngine is the engine of Linux: a few loops, each over an epoll of its own. Connections are spread
// over the loops when they are accepted, and stay where they are; both of a flow are in the same one.
type epollEngine struct {
	loops   []*loop
	next    atomic.Uint32
	pipes   pipes
	streams streaming
	stop    chan struct{}
	closing sync.Once
	running sync.WaitGroup
	asking  sync.WaitGroup
}

// newEpoll starts a loop for each processor.
func newEpoll() (Engine, error) {
	e := &epollEngine{stop: make(chan struct{}), streams: usual}
	for range max(1, runtime.GOMAXPROCS(0)) {
		l, err := newLoop(e)
		if err != nil {
			for _, l := range e.loops {
				l.close()
			}
			return nil, err
		}
		e.loops = append(e.loops, l)
	}
	for _, l := range e.loops {
		e.running.Go(l.run)
	}
	return e, nil
}

func (e *epollEngine) Close() { e.closing.Do(e.close) }

func (e *epollEngine) close() {
	e.asking.Wait()
	close(e.stop)
	for _, l := range e.loops {
		l.wake()
	}
	e.running.Wait()
	for _, l := range e.loops {
		l.close()
	}
	e.pipes.close()
}

// pick returns the loop of the next connection.
func (e *epollEngine) pick() *loop {
	return e.loops[e.next.Add(1)%uint32(len(e.loops))]
}

// lighter returns the loop that a connection accepted here is for: this one, unless another has clearly fewer. A quiet node
// would have all its connections in one loop otherwise, since the kernel wakes the same one first each time; and a
// busy one, whose loops have about as many, would only wake one from the other.
func (l *loop) lighter() *loop {
	least, fewest := l, l.conns.Load()
	most := fewest
	for _, other := range l.engine.loops {
		if n := other.conns.Load(); n < fewest {
			least, fewest = other, n
		}
	}
	if most-fewest > fewest/4 {
		return least
	}
	return l
}

// eventsAtOnce bounds what is taken from epoll in one call.
const eventsAtOnce = 256

// loop is one epoll and the goroutine that serves it. The epoll is itself watched by the runtime's poller, so
// that the goroutine parks like any other and no thread is blocked.
type loop struct {
	engine *epollEngine
	kernel kernel
	epoll  int // of file
	file   *os.File
	raw    syscall.RawConn
	event  int              // eventfd, by which others wake the loop; -1: closed
	conns  atomic.Int32     // open connections
	buf    [bufferSize]byte // for one step of copying at a time

	mu     sync.Mutex // guards what follows; nothing is called while it is held
	slots  []slot
	free   []uint32
	posted []*pair // to be looked at
	calls  []func()
	woken  bool // the eventfd was written and not read yet

	again   []*pair // of the goroutine: those that had their turn and have more to do
	lowered lowered
}

// slot is the place of a connection or listener in what epoll tells: a number and, since numbers are used again, how
// often this one was.
type slot struct {
	of   watched // nil: free
	uses uint32
}

// watched is what has a slot. ready is told what epoll told, and returns the pair that has something to do.
type watched interface {
	ready(l *loop, events uint32) *pair
}

// wakeSlot is the slot of the eventfd.
const wakeSlot = ^uint32(0)

func newLoop(e *epollEngine) (*loop, error) {
	l := &loop{engine: e, kernel: linux{}}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if l.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(l.epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if err = l.prepare(); err != nil {
		unix.Close(l.event)
		unix.Close(l.epoll)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return l, nil
}

// prepare gives the epoll to the runtime's poller.
func (l *loop) prepare() error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN}
	setSlot(&ev, wakeSlot, 0)
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.event, &ev); err != nil {
		return err
	}
	if err := unix.SetNonblock(l.epoll, true); err != nil { // which makes os.NewFile ask the poller
		return err
	}
	l.file = os.NewFile(uintptr(l.epoll), "epoll")
	var err error
	l.raw, err = l.file.SyscallConn()
	return err
}

// close ends a loop that runs no more.
func (l *loop) close() {
	for _, f := range l.calls { // of connections that nobody was given yet
		f()
	}
	l.file.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	unix.Close(l.event)
	l.event = -1 // a tick may still come
}

// setSlot puts a slot into an event; slotOf takes it out.
func setSlot(ev *unix.EpollEvent, number, uses uint32) {
	ev.Fd, ev.Pad = int32(number), int32(uses) // bit for bit
}

func slotOf(ev *unix.EpollEvent) (number, uses uint32) {
	return uint32(ev.Fd), uint32(ev.Pad)
}

// run is the goroutine of a loop.
func (l *loop) run() {
	events := make([]unix.EpollEvent, eventsAtOnce)
	ready := make([]watched, eventsAtOnce)
	for {
		n := l.wait(events, len(l.again) == 0)
		again := l.again
		l.again = nil
		posted, calls, woken := l.resolve(events[:n], ready)
		if woken {
			select {
			case <-l.engine.stop:
				return
			default:
			}
		}
		for i, one := range ready[:n] {
			if one == nil {
				continue
			}
			if p := one.ready(l, events[i].Events); p != nil {
				l.turn(p)
			}
			ready[i] = nil
		}
		for _, f := range calls {
			f()
		}
		for _, p := range posted {
			l.turn(p)
		}
		for _, p := range again {
			l.turn(p)
		}
		if l.lowered.due.Swap(false) {
			l.look()
		}
		runtime.Gosched() // others, such as DNS, have their turn however much there is to do here
	}
}

// turn gives a pair its turn, and another one later if it has more to do.
func (l *loop) turn(p *pair) {
	if p.step(l, l.buf[:]) {
		l.again = append(l.again, p)
	}
}

// resolve finds what events are of, nil for what is no more, and takes what was posted.
func (l *loop) resolve(events []unix.EpollEvent, ready []watched) (posted []*pair, calls []func(), woken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range events {
		number, uses := slotOf(&events[i])
		if number == wakeSlot {
			var b [8]byte
			rawRead(l.event, b[:]) // nothing else reads it
			l.woken, woken = false, true
			ready[i] = nil
			continue
		}
		ready[i] = nil
		if s := &l.slots[number]; s.uses == uses {
			ready[i] = s.of
		}
	}
	posted, l.posted = l.posted, nil
	calls, l.calls = l.calls, nil
	return posted, calls, woken
}

// wait takes events, and waits for the first if it may.
func (l *loop) wait(events []unix.EpollEvent, may bool) (n int) {
	if !may {
		return epollNow(l.epoll, events)
	}
	l.raw.Read(func(uintptr) bool { // fails only when the loop is closed
		n = epollNow(l.epoll, events)
		return n > 0
	})
	return n
}

// epollNow is epoll_wait without waiting, which the scheduler needs not be told of.
func epollNow(epoll int, events []unix.EpollEvent) int {
	n, _, err := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if err != 0 {
		return 0 // EINTR; it is asked again
	}
	return int(n)
}

// post has the loop look at a pair.
func (l *loop) post(p *pair) {
	l.mu.Lock()
	l.posted = append(l.posted, p)
	l.wakeLocked()
	l.mu.Unlock()
}

// call has the loop call a function.
func (l *loop) call(f func()) {
	l.mu.Lock()
	l.calls = append(l.calls, f)
	l.wakeLocked()
	l.mu.Unlock()
}

// wake has the loop look around.
func (l *loop) wake() {
	l.mu.Lock()
	l.wakeLocked()
	l.mu.Unlock()
}

func (l *loop) wakeLocked() {
	if l.woken || l.event < 0 {
		return
	}
	l.woken = true
	one := [8]byte{1}
	rawWrite(l.event, one[:]) // an eventfd takes it
}

// enter gives a connection or listener a slot.
func (l *loop) enter(one watched) (number, uses uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		number = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		number = uint32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	s := &l.slots[number]
	s.uses++
	s.of = one
	return number, s.uses
}

// leave frees a slot: what epoll has told of it and nobody has looked at yet is of no connection.
func (l *loop) leave(number uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.slots[number]
	s.uses++
	s.of = nil
	l.free = append(l.free, number)
}
