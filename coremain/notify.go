package coremain

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// manager is the service manager that has started this process and wants to know how far it is (sd_notify(3)). The
// zero manager is none. It is connected to before the sandbox is in force, which may keep its socket out of reach.
type manager struct {
	conn *net.UnixConn
	// pulse is how often it wants to hear of this process, 0: never. Half of WatchdogSec=.
	pulse time.Duration
}

// newManager connects to the manager that the environment names. inherited is the descriptor that the process before
// this one had of it, -1 for none.
func newManager(inherited int) (*manager, error) {
	m := &manager{pulse: pulse(os.Getenv, inherited >= 0)}
	if inherited >= 0 {
		f := os.NewFile(uintptr(inherited), "service manager")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			return m, fmt.Errorf("socket of the service manager: %w", err)
		}
		var ok bool
		if m.conn, ok = c.(*net.UnixConn); !ok {
			return m, errors.Join(errors.New("socket of the service manager: it is none"), c.Close())
		}
		return m, nil
	}
	at := os.Getenv("NOTIFY_SOCKET")
	if at == "" {
		return m, nil
	}
	var err error
	if m.conn, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: at}); err != nil {
		return m, fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return m, nil
}

// pulse reads what systemd says in the environment. The variable WATCHDOG_PID is of the first process of the unit.
func pulse(getenv func(string) string, follows bool) time.Duration {
	micros, err := strconv.ParseUint(getenv("WATCHDOG_USEC"), 10, 62)
	if err != nil || micros > uint64(time.Hour/time.Microsecond) {
		return 0
	}
	if pid := getenv("WATCHDOG_PID"); !follows && pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(micros) * time.Microsecond / 2
}

// tell sends assignments, one a line. One that is lost is lost: nothing depends on it here.
func (m *manager) tell(lines ...string) {
	if m.conn != nil {
		_, _ = m.conn.Write([]byte(strings.Join(lines, "\n")))
	}
}

// reloading says that a reload has begun; tell("READY=1") that it is over.
func (m *manager) reloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
		m.tell("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
	}
}

// with calls f with the descriptor of the manager's socket, -1 where there is none.
func (m *manager) with(f func(fd int) error) error {
	if m.conn == nil {
		return f(-1)
	}
	raw, err := m.conn.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}
