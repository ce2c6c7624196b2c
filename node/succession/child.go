//go:build linux

package succession

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// variable is where a process finds the descriptor of its connection to the one that has started it.
const variable = "POSTERN_SUCCEEDS"

// Child is a process that was started to follow this one.
type Child struct {
	*Conn
	process *os.Process
	kill    chan struct{} // closed by Kill
	killed  sync.Once
	done    chan struct{}
	ended   string // how, once done is closed
}

// Launch starts the program at path, with the arguments and environment of this process and these standard files.
func Launch(path string, stdin *os.File) (*Child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[1])
	conn, err := NewConn(pair[0])
	if err != nil {
		return nil, err
	}
	in := uintptr(0)
	if stdin != nil {
		in = stdin.Fd()
	}
	env := append(os.Environ(), variable+"=3")
	c := &Child{Conn: conn, kill: make(chan struct{}), done: make(chan struct{})}
	started := make(chan error)
	go c.keep(started, path, &syscall.ProcAttr{Env: env, Files: []uintptr{in, 1, 2, uintptr(pair[1])}})
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", path, err), conn.Close())
	}
	return c, nil
}

// keep is the goroutine that starts the child and may end it. It is one thread's: where Landlock scopes signals, each
// thread of this process has a domain of its own, and only the one that has started the child can signal it.
func (c *Child) keep(started chan<- error, path string, attr *syscall.ProcAttr) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec(path, os.Args, attr)
	if err == nil {
		c.process, err = os.FindProcess(pid)
	}
	started <- err
	if err != nil {
		return
	}
	go c.wait()
	select {
	case <-c.done:
	case <-c.kill:
		_ = c.process.Kill() // it may have ended by itself
	}
}

// wait notes how the child has ended.
func (c *Child) wait() {
	defer close(c.done)
	c.ended = "has ended"
	if state, err := c.process.Wait(); err == nil {
		c.ended = "has ended: " + state.String()
	}
}

// Pid returns the child's process ID.
func (c *Child) Pid() int { return c.process.Pid }

// Kill ends the child for good, and returns how it has ended.
func (c *Child) Kill() string {
	c.killed.Do(func() { close(c.kill) })
	<-c.done
	_ = c.Close()
	return c.ended
}

// Done is closed when the child has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// Predecessor returns the connection to the process that has started this one to be followed by it; nil where this
// process follows none. What this process starts doesn't see it.
func Predecessor() (*Conn, error) {
	word, ok := os.LookupEnv(variable)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(variable); err != nil {
		return nil, err
	}
	fd, err := strconv.Atoi(word)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%q names no descriptor", variable, word)
	}
	unix.CloseOnExec(fd)
	return NewConn(fd)
}

// rightsSpace is the room for the descriptors of a message.
var rightsSpace = syscall.CmsgSpace(4 * 253)

func rights(fds []int) []byte {
	if len(fds) == 0 {
		return nil
	}
	return syscall.UnixRights(fds...)
}

// truncated reports whether bytes or descriptors of a message are missing.
func truncated(flags int) (data, descriptors bool) {
	return flags&syscall.MSG_TRUNC != 0, flags&syscall.MSG_CTRUNC != 0
}

// received returns the descriptors of a message.
func received(oob []byte) (fds []int, err error) {
	all, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range all {
		more, err := syscall.ParseUnixRights(&all[i])
		if err != nil {
			CloseAll(fds)
			return nil, err
		}
		fds = append(fds, more...)
	}
	return fds, nil
}

// CloseAll closes descriptors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
