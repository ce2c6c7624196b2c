package coremain

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"
	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/node/succession"
	"github.com/postern-link/postern/plugin/privatelink/fastpath"
)

// The sockets that a process listens on outlive it with a service manager that keeps descriptors (sd_notify(3), FDSTORE=1;
// sd_listen_fds(3)). What comes while no process is there waits in them. Each is kept under a name that says what it is, so that
// the next process can tell whether it is what it is called; and by the manager alone no longer than that takes: what a
// process gives up must refuse, and a copy elsewhere would not.

// firstKept is the number of the first descriptor that a manager hands to a process.
const firstKept = 3

// maxKept bounds how many are taken from it. An endpoint on a loopback address has one of its own.
const maxKept = 1 << 16

// keptName returns the name of a socket: without colons, which the names are joined by.
func keptName(s succession.Socket) string {
	return fmt.Sprintf("%s-%s-%d", s.Network, strings.ReplaceAll(s.Addr.Addr().String(), ":", "_"), s.Addr.Port())
}

// keep gives the manager all that this process listens on, for the process after it.
func (m *manager) keep() error {
	if m.conn == nil {
		return nil
	}
	if err := m.conn.SetWriteDeadline(time.Now().Add(keepTime)); err != nil {
		return err
	}
	defer m.conn.SetWriteDeadline(time.Time{})
	raw, err := m.conn.SyscallConn()
	if err != nil {
		return err
	}
	return succession.Listening(func(s succession.Socket, kept int) error {
		if _, is := fastpath.Owns(kept); is {
			return nil // it is emptied and closed, and nobody would read it meanwhile
		}
		var failed error
		text := []byte("FDSTORE=1\nFDPOLL=0\nFDNAME=" + keptName(s))
		err := raw.Write(func(fd uintptr) bool { // WriteMsgUnix refuses a socket that is connected
			failed = unix.Sendmsg(int(fd), text, unix.UnixRights(kept), nil, 0)
			return failed != unix.EAGAIN
		})
		return cmp.Or(err, failed)
	})
}

// keepTime bounds how long a manager may take to read what it is given to keep.
const keepTime = 5 * time.Second

// forget has the manager close what it keeps under these names.
func (m *manager) forget(names []string) {
	for _, name := range names {
		m.tell("FDSTOREREMOVE=1", "FDNAME="+name)
	}
}

// kept is what a manager has handed to this process.
type kept struct {
	sockets []succession.Socket
	fds     []int
	names   []string // under which it keeps them, each once, those of what isn't taken too
}

// receiveKept returns what the environment says that the manager hands over. What this process starts doesn't see it.
func receiveKept(getenv func(string) string) kept {
	pid, number, names := getenv("LISTEN_PID"), getenv("LISTEN_FDS"), getenv("LISTEN_FDNAMES")
	for _, v := range []string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(v)
	}
	n, err := keptNumber(pid, number)
	if err != nil {
		clog.Warningf("sockets of the service manager are not taken: %v", err)
	}
	k := kept{names: keptNames(names)}
	for i, name := range each(n, names) {
		k.take(firstKept+i, name)
	}
	return k
}

// keptNumber returns how many descriptors there are for this process; none where they are for another.
func keptNumber(pid, number string) (int, error) {
	if number == "" || pid != strconv.Itoa(os.Getpid()) {
		return 0, nil
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n > maxKept {
		return 0, fmt.Errorf("LISTEN_FDS=%s: 0 to %d are taken", quote(number), maxKept)
	}
	return n, nil
}

// each returns the names of n descriptors; "" for those that have none.
func each(n int, names string) []string {
	all := strings.Split(names, ":")
	for len(all) < n {
		all = append(all, "")
	}
	return all[:n]
}

// keptNames returns the names of a list, each once and only what can be one.
func keptNames(list string) (names []string) {
	seen := map[string]bool{"": true}
	for _, name := range strings.Split(list, ":") {
		if !seen[name] && strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r > '~' }) < 0 {
			names = append(names, name)
		}
		seen[name] = true
	}
	return names
}

// take keeps a descriptor that is what it is called, and closes any other: nothing else is listened on.
func (k *kept) take(fd int, name string) {
	s, err := examine(fd, name)
	if err != nil {
		clog.Warningf("descriptor %d of the service manager, %s, is closed: %v", fd, quote(name), err)
		_ = unix.Close(fd)
		return
	}
	unix.CloseOnExec(fd)
	k.sockets, k.fds = append(k.sockets, s), append(k.fds, fd)
}

// examine returns what a descriptor listens on, where that is what the name says.
func examine(fd int, name string) (succession.Socket, error) {
	s, ok := succession.Describe(fd)
	switch {
	case !ok:
		return s, errors.New("no socket that is listened on")
	case keptName(s) != name:
		return s, fmt.Errorf("it is %s", keptName(s))
	}
	return s, nil
}

// estate returns what was taken as that of a process that has ended; nil where nothing was.
func (k *kept) estate() *estate {
	if len(k.fds) == 0 {
		return nil
	}
	e := &estate{notify: -1}
	if err := e.sort(k.sockets, k.fds); err != nil {
		clog.Warningf("sockets of the service manager: %v", err)
	}
	clog.Infof("%s of the process before this one go on", count(len(k.fds), "listening socket"))
	return e
}
