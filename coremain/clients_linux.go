package coremain

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"
	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/sockname"
	"github.com/postern-link/postern/node/succession"
	"github.com/postern-link/postern/proxy/budget"
)

// warden keeps the bounds of clients by TCP. What it needs for that it has from the begin: there may be no descriptor left when it acts.
type warden struct {
	limit int // of descriptors
	most  int
	dir   *os.File                        // the descriptors of this process, proc_pid_fd(5)
	slot  int                             // a descriptor that one which is acted upon takes the place of
	ports atomic.Pointer[map[uint16]bool] // of CoreDNS's listeners
	anew  atomic.Bool                     // they may be others than those that know of pauses
	meter *clientMeter

	paces  pauses         // the watch's
	silent []netip.Prefix // whom the listeners were told not to hear

	begin sync.Once
	quit  chan struct{}
	done  chan struct{}
}

// newWarden returns a warden, which watches once it was told that something is listened on.
func newWarden() (*warden, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return nil, os.NewSyscallError("getrlimit", err)
	}
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	slot, err := unix.FcntlInt(dir.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		dir.Close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	limit := int(min(l.Cur, 1<<30))
	most := mostClients(limit, budget.Find().Limit)
	return &warden{limit: limit, most: most, dir: dir, slot: slot, meter: newClientMeter(), paces: make(pauses), quit: make(chan struct{}), done: make(chan struct{})}, nil
}

// listening is called when the servers of a Corefile listen. The kernel ends connections that stall: they have it of the socket that has accepted them
// (TCP_USER_TIMEOUT, tcp(7)), whatever is spoken on them. Sockets that share their port are CoreDNS's.
func (w *warden) listening() {
	if w == nil {
		return
	}
	ports := make(map[uint16]bool)
	var refused error
	err := succession.Listening(func(s succession.Socket, fd int) error {
		if s.Network != "tcp" || !s.Shared {
			return nil
		}
		ports[s.Addr.Port()] = true
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(stallTime.Milliseconds())); err != nil {
			refused = fmt.Errorf("TCP_USER_TIMEOUT at %s: %w", s.Addr, err)
		}
		return nil
	})
	if err = errors.Join(err, refused); err != nil {
		clog.Warningf("clients of DNS by TCP that never read aren't disconnected: %v", err)
	}
	w.ports.Store(&ports)
	w.anew.Store(true)
	w.begin.Do(func() { go w.watch() })
}

// close ends the watch.
func (w *warden) close() {
	if w == nil {
		return
	}
	close(w.quit)
	w.begin.Do(func() { close(w.done) })
	<-w.done
	_ = unix.Close(w.slot)
	_ = w.dir.Close()
}

// watch looks for too many connections, as long as close isn't called.
func (w *warden) watch() {
	defer close(w.done)
	timer := time.NewTimer(askWatch)
	defer timer.Stop()
	said := tally{most: w.most}
	due, mark := time.Now().Add(leastWatch), alarm(0, w.limit, w.most)
	for {
		select {
		case <-w.quit:
			clear(w.paces) // the listeners may be another process's now
			w.hush(time.Now(), false, &said)
			return
		case <-timer.C:
		}
		n, known := descriptors(w.dir)
		if time.Now().After(due) || known && n > mark {
			var ended, left int
			var err error
			var took time.Duration
			if !known || n > w.share() { // else no source can have more than its share
				took = busy(func() { ended, left, err = w.look() })
			}
			said.note(ended, left, err)
			wait := min(max(leastWatch, watchShare*took), mostWatch)
			if ended > 0 {
				wait = max(soonWatch, took)
			}
			due, mark = time.Now().Add(wait), alarm(n, w.limit, w.most)
		}
		w.hush(time.Now(), w.anew.Swap(false), &said)
		said.tell()
		timer.Reset(max(min(time.Until(due), askWatch), time.Millisecond))
	}
}

// busy returns how long f keeps a processor busy, which is less than it takes where others have the processor.
func busy(f func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var began, ended unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &began) // nothing that can fail
	f()
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ended)
	return time.Duration(ended.Nano() - began.Nano())
}

// tally is what the log hears, not more often than tellEvery.
type tally struct {
	most, ended, left int
	silent            int // sources that had a pause
	at                time.Time
	failed            bool
}

// note takes what came of a look. That none is possible is said once.
func (t *tally) note(ended, left int, err error) {
	if err != nil && !t.failed {
		clog.Errorf("the connections of clients of DNS can't be counted: %v", err)
	}
	t.failed = err != nil
	if ended > 0 {
		t.ended, t.left = t.ended+ended, left
	}
}

// tell says how many have been ended since it was said last.
func (t *tally) tell() {
	if t.ended == 0 || time.Since(t.at) < tellEvery {
		return
	}
	clog.Warningf("%d connections of clients of DNS were ended, %d go on: there may be %d, and %d of one source; new ones of %d sources are dropped for a while", t.ended, t.left, t.most,
		t.most/clientsOfOne, t.silent)
	t.ended, t.silent, t.at = 0, 0, time.Now()
}

// look ends the connections that are too many, and returns how many it has ended and how many go on.
func (w *warden) look() (ended, left int, err error) {
	all, err := w.clients()
	if err != nil || !crowded(all, w.most) {
		return 0, len(all), err
	}
	for i := range all {
		if info, err := unix.GetsockoptTCPInfo(all[i].fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			all[i].idle = time.Duration(info.Last_data_recv) * time.Millisecond
		}
	}
	over, of := overs(all, w.share()), make(map[netip.Prefix]int)
	for _, c := range surplus(all, w.most) {
		if !w.end(c) {
			continue
		}
		ended++
		if over[c.source()] {
			of[c.source()]++
		}
		w.meter.ended(over[c.source()])
	}
	w.meter.paused(w.paces.note(of, w.share(), time.Now()))
	return ended, len(all) - ended, nil
}

// share is how many connections one source may have, and how many new ones beyond in a second.
func (w *warden) share() int { return w.most / clientsOfOne }

// hush has the listeners drop what comes from sources that have a pause, where that isn't so already; anew: they may be others, and those of an
// earlier process know of its pauses.
func (w *warden) hush(now time.Time, anew bool, said *tally) {
	silent := w.paces.current(now)
	said.silent = max(said.silent, len(silent))
	if slices.Equal(silent, w.silent) && !anew {
		return
	}
	var refused error
	_, err := w.scan(func(fd int, at netip.AddrPort) {
		w.hold(fd, func(fd int) {
			if s, ok := succession.Describe(fd); ok && s.Network == "tcp" && s.Shared && s.Addr == at {
				if err := setSilence(fd, silent); err != nil {
					refused = fmt.Errorf("new connections at %s: %w", at, err)
				}
			}
		})
	})
	if err = errors.Join(err, refused); err != nil {
		said.note(0, 0, err)
	}
	w.silent = silent
	w.meter.silent(len(silent))
}

// descriptors returns how many descriptors the process has; false where the kernel doesn't tell (before Linux 6.2).
func descriptors(dir *os.File) (int, bool) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil || st.Size == 0 {
		return 0, false
	}
	return int(st.Size), true
}

// clients returns the connections at CoreDNS's listeners. What is closed meanwhile may be among them, and something else be its descriptor.
func (w *warden) clients() (all []caller, err error) { return w.scan(func(int, netip.AddrPort) {}) }

// scan is clients, and calls listens with each socket that listens on one of the ports and shares it.
func (w *warden) scan(listens func(fd int, at netip.AddrPort)) (all []caller, err error) {
	ports := *w.ports.Load()
	listeners := make(map[netip.AddrPort]bool)
	if _, err := w.dir.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	for {
		names, err := w.dir.Readdirnames(1024)
		for _, name := range names {
			fd, err := strconv.Atoi(name)
			if err != nil {
				continue
			}
			at, ok := addrPort(unix.Getsockname(fd))
			if !ok || !ports[at.Port()] {
				continue
			}
			if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
				continue
			}
			if from, ok := addrPort(unix.Getpeername(fd)); ok {
				all = append(all, caller{fd: fd, at: at, from: from})
			} else if s, ok := succession.Describe(fd); ok {
				if listeners[at] = s.Shared; s.Shared {
					listens(fd, at)
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return ofListeners(all, listeners), nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// end ends a connection, whoever reads and writes there. It reports false where it is gone.
func (w *warden) end(c caller) (ended bool) {
	w.hold(c.fd, func(fd int) {
		at, there := addrPort(unix.Getsockname(fd))
		from, connected := addrPort(unix.Getpeername(fd))
		ended = there && connected && at == c.at && from == c.from && unix.Shutdown(fd, unix.SHUT_RDWR) == nil
	})
	return ended
}

// hold calls f with a descriptor that stays what it is meanwhile. It may be another's than it was by now.
func (w *warden) hold(fd int, f func(fd int)) {
	if unix.Dup3(fd, w.slot, unix.O_CLOEXEC) != nil {
		return
	}
	defer func() { _ = unix.Dup3(int(w.dir.Fd()), w.slot, unix.O_CLOEXEC) }()
	f(w.slot)
}

// addrPort returns the address of a socket of the Internet.
func addrPort(sa unix.Sockaddr, err error) (netip.AddrPort, bool) {
	if err != nil {
		return netip.AddrPort{}, false
	}
	a := sockname.AddrPort(sa)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), a.IsValid()
}
