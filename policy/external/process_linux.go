package external

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin/runner"
	"golang.org/x/sys/unix"
)

// maxHandshake is the longest first line that a program may print, in bytes: its address and certificate.
const maxHandshake = 8 << 10

// nobody is who a program runs as where the node is root and its Corefile says nothing. It is the same number
// on every Linux, also where there is no list of users.
const nobody = 65534

// process is one run of a program: a [runner.Runner] for go-plugin's handshake, which is all that it does.
type process struct {
	name string
	exe  *executable
	cmd  *exec.Cmd // of the launcher
	dir  string    // that the program makes its socket in
	out  *output

	first  *io.PipeReader // its first line
	reads  sync.WaitGroup // goroutines that read what it prints
	exited chan struct{}  // it has ended, and all of its group

	mu   sync.Mutex
	pid  int   // 0: not started, or reaped
	told int   // an eventfd that has live kill it, while pid isn't 0
	code error // why it ended, after exited
}

// newProcess prepares a run. cmd holds the environment that go-plugin has made for it.
func newProcess(c Config, exe *executable, cmd *exec.Cmd, dir string, out *output) (*process, error) {
	if !launchable.Load() {
		return nil, errors.New("this binary can't launch programs: it doesn't call Launch")
	}
	uid, gid, err := identity(c.User)
	if err != nil {
		return nil, err
	}
	if uid >= 0 {
		if err := os.Chown(dir, uid, gid); err != nil {
			return nil, err
		}
	}
	told, err := json.Marshal(order{
		Parent: os.Getpid(), Args: append([]string{c.Path}, c.Args...), Socket: dir, Files: c.Files,
		Network: c.Network, Memory: c.Memory, UID: uid, GID: gid, Script: exe.script,
	})
	if err != nil {
		return nil, err
	}
	if c.Memory > 0 { // a program in Go keeps below what the kernel grants
		cmd.Env = append(cmd.Env, fmt.Sprintf("GOMEMLIMIT=%d", c.Memory/4*3))
	}
	cmd.Path, cmd.Args, cmd.Err = "/proc/self/exe", []string{"postern", launcher, string(told)}, nil
	cmd.Dir, cmd.Stdin, cmd.ExtraFiles = "/", nil, []*os.File{exe.file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return &process{name: c.Name, exe: exe, cmd: cmd, dir: dir, out: out, exited: make(chan struct{})}, nil
}

// identity returns who a program runs as; -1 for who we are.
func identity(name string) (uid, gid int, err error) {
	root := os.Geteuid() == 0
	switch {
	case name == "" && root:
		return nobody, nobody, nil
	case name == "":
		return -1, -1, nil
	}
	u, err := user.Lookup(name)
	if n, numeric := strconv.Atoi(name); numeric == nil {
		if u, err = user.LookupId(name); err != nil { // a number needs no name
			u, err = &user.User{Uid: name, Gid: strconv.Itoa(n)}, nil
		}
	}
	if err != nil {
		return 0, 0, fmt.Errorf("user %s: %w", name, err)
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	switch {
	case err != nil || uid < 0 || gid < 0:
		return 0, 0, fmt.Errorf("user %s: %s and %s are no numbers of a user and a group", name, u.Uid, u.Gid)
	case uid == os.Geteuid() && !root:
		return -1, -1, nil
	case !root:
		return 0, 0, fmt.Errorf("user %s: only a node that runs as root can run a program as another user", name)
	case uid == 0:
		return 0, 0, fmt.Errorf("user %s: a program doesn't run as root", name)
	}
	return uid, gid, nil
}

// Start implements [runner.Runner].
func (p *process) Start(context.Context) error {
	outR, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, outR.Close(), outW.Close())
	}
	p.cmd.Stdout, p.cmd.Stderr = outW, errW
	started := make(chan error, 1)
	go p.live(started)
	err = <-started
	outW.Close()
	errW.Close()
	if err != nil {
		return errors.Join(err, outR.Close(), errR.Close())
	}
	first, toFirst := io.Pipe()
	p.first = first
	p.reads.Go(func() { p.readOutput(outR, toFirst) })
	p.reads.Go(func() { p.readOutput(errR, nil) })
	return nil
}

// live starts the process, waits for its end and kills it where Kill says so, all on one thread. The kernel sends the
// parent death signal when that thread ends, not when the node does. And where the node has a sandbox of its own, each of
// its threads has another one, for landlock, and may signal only what was started in that.
func (p *process) live(started chan<- error) {
	runtime.LockOSThread() // never undone: the thread ends here
	pidfd, err := -1, error(nil)
	p.cmd.SysProcAttr.PidFD = &pidfd
	p.mu.Lock()
	if p.told, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		if err = p.cmd.Start(); err != nil {
			unix.Close(p.told)
		} else {
			p.pid = p.cmd.Process.Pid
		}
	}
	p.mu.Unlock()
	started <- err
	if err != nil {
		close(p.exited)
		return
	}
	// Its number must not be given to another before its group is killed: Wait comes after that.
	for p.lives(pidfd) {
		_ = unix.Kill(-p.pid, unix.SIGKILL)
		_, _ = unix.Read(p.told, make([]byte, 8))
	}
	p.mu.Lock()
	_ = unix.Kill(-p.pid, unix.SIGKILL) // whom it may have left, where no filter keeps it from that
	p.code = p.cmd.Wait()
	p.pid = 0
	unix.Close(p.told)
	p.mu.Unlock()
	if pidfd >= 0 {
		unix.Close(pidfd)
	}
	close(p.exited)
}

// lives waits until the process has ended, or shall be killed: true.
func (p *process) lives(pidfd int) bool {
	all := []unix.PollFd{{Fd: int32(p.told), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		if pidfd >= 0 {
			if _, err := unix.Poll(all, -1); err == unix.EINTR {
				continue
			}
			return all[1].Revents == 0
		}
		// A kernel without pidfds (before 5.4) has no landlock either: Kill needs nobody's help.
		if err := unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			return false
		}
	}
}

// readOutput reads one stream until nobody has it open any more; the first line goes to first, if given.
func (p *process) readOutput(r *os.File, first *io.PipeWriter) {
	defer r.Close()
	go func() { // who has left the group may have the stream open for ever
		<-p.exited
		time.AfterFunc(time.Second, func() { r.Close() })
	}()
	lines, buf := p.out.stream(), make([]byte, 32<<10)
	defer lines.flush()
	var head []byte
	for {
		n, err := r.Read(buf)
		b := buf[:n]
		if first != nil {
			head = append(head, b...)
			b = nil
			end := indexNewline(head)
			if end < len(head) || len(head) > maxHandshake || err != nil {
				b = head[end:]
				if !strings.HasPrefix(string(head), "1|") { // it isn't a handshake: say what it is
					b = head
				}
				line := head[:min(end, maxHandshake)]
				if len(line) > 0 {
					_, _ = first.Write(append(line[:len(line):len(line)], '\n')) // nobody reads on after a time-out
				}
				first.Close()
				first = nil
			}
		}
		_, _ = lines.Write(b)
		if err != nil {
			return
		}
	}
}

// Wait implements [runner.AttachedRunner].
func (p *process) Wait(context.Context) error {
	<-p.exited
	return p.code
}

// Kill implements [runner.AttachedRunner]: the whole group, at once. It doesn't wait.
func (p *process) Kill(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 {
		return nil
	}
	_ = unix.Kill(-p.pid, unix.SIGKILL) // as far as this thread may: see live
	_, err := unix.Write(p.told, binary.NativeEndian.AppendUint64(nil, 1))
	return err
}

// end kills it and waits until nothing of it is left.
func (p *process) end() {
	_ = p.Kill(context.Background())
	<-p.exited
	if p.first != nil {
		p.first.Close()
	}
	p.reads.Wait()
}

// PluginToHost implements [runner.AddrTranslator]: the one address that a program may name is a socket in the
// directory that is its own. Anything else would have us connect to where it likes.
func (p *process) PluginToHost(network, address string) (string, string, error) {
	if network != "unix" || filepath.Dir(address) != p.dir {
		return "", "", fmt.Errorf("its address %q %q isn't a socket in its directory", clipped(network, 100), clipped(address, 200))
	}
	st, err := os.Lstat(address)
	if err != nil {
		return "", "", err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return "", "", fmt.Errorf("%q is no socket", clipped(address, 200))
	}
	return network, address, nil
}

// HostToPlugin implements [runner.AddrTranslator].
func (p *process) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// Stdout implements [runner.Runner]: the first line, which is all that go-plugin needs.
func (p *process) Stdout() io.ReadCloser { return p.first }

// Stderr implements [runner.Runner]: nothing. It is read by us.
func (p *process) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name implements [runner.Runner].
func (p *process) Name() string { return p.name }

// ID implements [runner.AttachedRunner].
func (p *process) ID() string { return p.name }

// Diagnose implements [runner.Runner].
func (p *process) Diagnose(context.Context) string { return "" }

var _ runner.Runner = (*process)(nil)
