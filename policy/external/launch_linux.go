package external

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// launcher is the first argument of our own binary where it shall become a program. The second is an [order].
const launcher = "policy-launch"

// executableFD is where the launcher finds the executable.
const executableFD = 3

// launchable says that Launch was called: that this binary can be the launcher. Another one, such as a test
// without it, would do whatever it does, and start itself over and over.
var launchable atomic.Bool

// order is what the launcher is told, as JSON.
type order struct {
	Parent  int      // process ID of the node
	Args    []string // of the program, with its name
	Socket  string   // directory that it makes its socket in
	Files   []string // that it may read and execute from
	Network bool
	Memory  int64 // bytes of data; 0 or less: no bound
	// UID and GID are who it runs as; -1: who we are.
	UID, GID int
	Script   bool // the executable is for an interpreter, which opens it again
}

// Launch makes this process a policy program where it was started to become one, and doesn't return then. It
// must be the first thing that main does.
func Launch() {
	if len(os.Args) != 3 || os.Args[1] != launcher {
		launchable.Store(true)
		return
	}
	// All that follows is of one thread, and the program gets what that thread has.
	runtime.LockOSThread()
	var o order
	err := json.Unmarshal([]byte(os.Args[2]), &o)
	if err == nil {
		err = o.run()
	}
	fmt.Fprintf(os.Stderr, "launch: %v\n", err)
	os.Exit(125)
}

// run becomes the program, or says why not. Rights are given up in the order in which they are no longer needed.
func (o *order) run() error {
	if err := o.dieWithParent(); err != nil {
		return err
	}
	unix.Umask(0o077)
	if err := os.Chdir("/"); err != nil {
		return err
	}
	// The kernel's first choice where memory runs out. Anybody may ask for that, but a node in a sandbox of its own,
	// to which all of /proc is only to be read.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	rules, err := openRuleset(o) // opens what the program's user may not
	if err != nil {
		return err
	}
	if err := o.limit(); err != nil {
		return err
	}
	if err := o.become(); err != nil {
		return err
	}
	// A change of user has ended it.
	if err := o.dieWithParent(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	if err := rules.restrict(); err != nil {
		return err
	}
	if err := closeOthers(o.Script); err != nil {
		return err
	}
	if err := filter(o.Network); err != nil {
		return err
	}
	err = syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", executableFD), o.Args, os.Environ())
	return fmt.Errorf("execute %s: %w", o.Args[0], err)
}

// dieWithParent has the kernel kill this process when the thread that started it ends.
func (o *order) dieWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("parent death signal: %w", err)
	}
	if os.Getppid() != o.Parent { // it ended before
		return errors.New("the node has gone")
	}
	return nil
}

// limit sets what the kernel bounds by process. RLIMIT_AS is not among them: Go reserves addresses that it
// doesn't use. RLIMIT_DATA counts what can be written to.
func (o *order) limit() error {
	limits := []struct {
		resource int
		name     string
		most     uint64
	}{
		{unix.RLIMIT_CORE, "core", 0},
		{unix.RLIMIT_FSIZE, "fsize", 0}, // it creates a file of no bytes where its socket will be
		{unix.RLIMIT_NOFILE, "nofile", 1024},
		{unix.RLIMIT_NPROC, "nproc", 4096}, // of its user as a whole
		{unix.RLIMIT_MEMLOCK, "memlock", 1 << 20},
		{unix.RLIMIT_MSGQUEUE, "msgqueue", 0},
	}
	if o.Memory > 0 {
		limits = append(limits, struct {
			resource int
			name     string
			most     uint64
		}{unix.RLIMIT_DATA, "data", uint64(o.Memory)})
	}
	for _, l := range limits {
		var now syscall.Rlimit
		if err := syscall.Getrlimit(l.resource, &now); err != nil {
			return fmt.Errorf("limit %s: %w", l.name, err)
		}
		most := min(l.most, now.Max)
		// Of package syscall, which then doesn't set NOFILE back before it executes.
		if err := syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("limit %s: %w", l.name, err)
		}
	}
	return nil
}

// become gives up what root has. The calls are those of the kernel, for this thread: the one that executes.
func (o *order) become() error {
	if o.UID >= 0 {
		for _, c := range []struct {
			what       string
			call, a, b uintptr
		}{
			{"groups", unix.SYS_SETGROUPS, 0, 0},
			{"group", unix.SYS_SETRESGID, uintptr(o.GID), uintptr(o.GID)},
			{"user", unix.SYS_SETRESUID, uintptr(o.UID), uintptr(o.UID)},
		} {
			if _, _, e := unix.RawSyscall(c.call, c.a, c.b, c.b); e != 0 {
				return fmt.Errorf("become user %d, group %d: %s: %w", o.UID, o.GID, c.what, e)
			}
		}
	}
	// What a service manager gave the node to listen on low ports. Kernels before 4.3 have none.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// closeOthers leaves the program its standard streams alone, and a script the descriptor that it is read from.
func closeOthers(script bool) error {
	if err := unix.CloseRange(executableFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("close descriptors: %w", err)
		}
		for fd := executableFD; fd < 1024; fd++ { // before 5.11
			unix.CloseOnExec(fd)
		}
	}
	if script {
		if _, err := unix.FcntlInt(executableFD, unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keep the script: %w", err)
		}
	}
	return nil
}
