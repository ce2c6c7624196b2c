package integration

import (
	endian "encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// A node under a clock of its own is started by this test's own program, told by a variable to be its tracer. The
// clock of the machine isn't touched: what the node is told of CLOCK_REALTIME is shifted, and nothing else.
const clockVariable = "POSTERN_TEST_CLOCK" // the file with the shift in nanoseconds, 8 bytes in the machine's order

// cmdClock: clock FILE HH:MM makes it that time of today (UTC) for the node that was started with clock=FILE, or
// will be.
func cmdClock(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "clock FILE HH:MM")
	to, err := time.Parse("15:04", args[1])
	ts.Check(err)
	now := time.Now().UTC()
	to = time.Date(now.Year(), now.Month(), now.Day(), to.Hour(), to.Minute(), 0, 0, time.UTC)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_CREATE|os.O_WRONLY, 0o644)
	ts.Check(err)
	defer f.Close()
	_, err = f.WriteAt(endian.NativeEndian.AppendUint64(nil, uint64(to.Sub(now))), 0) // in one write: it is read at any time
	ts.Check(err)
	of(ts).act()
}

// condition tells scripts what there is here: "[!clock] skip" is for those that need a clock of their own, where no
// process can be traced.
func condition(name string) (bool, error) {
	if name != "clock" {
		return false, fmt.Errorf("no condition %q", name)
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	c := exec.Command(self, "true")
	c.Env = append(os.Environ(), clockVariable+"=/dev/zero")
	return c.Run() == nil, nil
}

// runClock is the main function of a tracer: it runs the command in its arguments. It returns the exit code.
func runClock() int {
	shift, err := os.Open(os.Getenv(clockVariable))
	if err != nil {
		return clockFailed(err)
	}
	os.Unsetenv(clockVariable)
	path, err := exec.LookPath(os.Args[1])
	if err != nil {
		return clockFailed(err)
	}
	var child atomic.Int64
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGINT)
	go func() {
		for s := range signals { // those for the node arrive here
			if pid := int(child.Load()); pid > 0 {
				_ = unix.Kill(pid, s.(syscall.Signal))
			}
		}
	}()
	runtime.LockOSThread() // ptrace(2): a tracer is one thread, which also has the filter that the node inherits
	if err := trapClock(); err != nil {
		return clockFailed(err)
	}
	p, err := os.StartProcess(path, os.Args[1:], &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Env: os.Environ(), Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return clockFailed(err)
	}
	child.Store(int64(p.Pid))
	t := &tracer{root: p.Pid, shift: shift, threads: map[int]bool{}, asked: map[int]uintptr{}}
	code, err := t.run()
	if err != nil {
		return clockFailed(err)
	}
	return code
}

func clockFailed(err error) int {
	fmt.Fprintf(os.Stderr, "clock: %v\n", err)
	return 111
}

// tracer follows all threads of a process and of what it starts, and shifts what clock_gettime(CLOCK_REALTIME) tells them.
type tracer struct {
	root    int
	shift   *os.File
	threads map[int]bool    // that have begun
	asked   map[int]uintptr // threads in the call, and where they want the time
}

// run lets them go on until the end of the first process, and returns its exit code.
func (t *tracer) run() (int, error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return 0, fmt.Errorf("wait: %w", err)
		}
		if !status.Stopped() {
			delete(t.threads, pid)
			delete(t.asked, pid)
			if pid == t.root && status.Exited() {
				return status.ExitStatus(), nil
			} else if pid == t.root && status.Signaled() {
				return 128 + int(status.Signal()), nil
			}
			continue
		}
		// A thread may be killed while it is stopped, at any of these steps: then it is waited for as all.
		if err := t.stopped(pid, status); err != nil && !errors.Is(err, unix.ESRCH) {
			return 0, err
		}
	}
}

// stopped deals with one stop of a thread and lets it go on.
func (t *tracer) stopped(pid int, status unix.WaitStatus) error {
	first := !t.threads[pid]
	t.threads[pid] = true
	switch sig := status.StopSignal(); {
	case pid == t.root && first: // after its exec
		err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_TRACEFORK|
			unix.PTRACE_O_TRACEVFORK|unix.PTRACE_O_TRACEEXEC|unix.PTRACE_O_TRACESECCOMP|unix.PTRACE_O_EXITKILL)
		if err != nil {
			return fmt.Errorf("options of ptrace: %w", err)
		}
		return errors.Join(hideVDSO(pid), unix.PtraceCont(pid, 0))
	case sig == unix.SIGTRAP && status.TrapCause() == unix.PTRACE_EVENT_EXEC:
		return errors.Join(hideVDSO(pid), unix.PtraceCont(pid, 0))
	case sig == unix.SIGTRAP && status.TrapCause() == unix.PTRACE_EVENT_SECCOMP:
		call, err := systemCall(pid)
		if err != nil {
			return err
		}
		t.asked[pid] = uintptr(call.args[1])
		return unix.PtraceSyscall(pid, 0) // to its end
	case sig == unix.SIGTRAP|0x80:
		at := t.asked[pid]
		delete(t.asked, pid)
		return errors.Join(t.tell(pid, at), unix.PtraceCont(pid, 0))
	case sig == unix.SIGTRAP && status.TrapCause() > 0, sig == unix.SIGSTOP && first:
		return unix.PtraceCont(pid, 0)
	default:
		return unix.PtraceCont(pid, int(sig))
	}
}

// tell shifts the time that a thread was given.
func (t *tracer) tell(pid int, at uintptr) error {
	var b [8]byte
	if _, err := t.shift.ReadAt(b[:], 0); err != nil {
		return err
	}
	shift := int64(endian.NativeEndian.Uint64(b[:]))
	var spec [16]byte // of two 64-bit numbers on the machines of trapClock
	if at == 0 {
		return nil
	}
	if _, err := unix.PtracePeekData(pid, at, spec[:]); err != nil {
		return fmt.Errorf("read the time: %w", err)
	}
	now := int64(endian.NativeEndian.Uint64(spec[:]))*int64(time.Second) + int64(endian.NativeEndian.Uint64(spec[8:])) + shift
	endian.NativeEndian.PutUint64(spec[:], uint64(now/int64(time.Second)))
	endian.NativeEndian.PutUint64(spec[8:], uint64(now%int64(time.Second)))
	if _, err := unix.PtracePokeData(pid, at, spec[:]); err != nil {
		return fmt.Errorf("write the time: %w", err)
	}
	return nil
}
