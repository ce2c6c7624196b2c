package coremain

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// systemd is what a service manager does with descriptors: it keeps them by name and starts a process with them.
type systemd struct {
	t         *testing.T
	at        string // NOTIFY_SOCKET
	l         *net.UnixConn
	dir, port string // of what is started: its directory, and its port of DNS

	barrier chan struct{} // gets a value for each message that says so

	mu    sync.Mutex
	names []string
	files []*os.File
}

// startManaged starts a server as startUpgraded does, by a manager that keeps descriptors.
func startManaged(t *testing.T, text func(dns, target string) string) (*systemd, *upgraded) {
	t.Helper()
	u, port := newUpgraded(t, text)
	manager := newSystemd(t, u.dir, port)
	u.server = manager.start()
	u.eventually("an answer", u.resolves)
	return manager, u
}

func newSystemd(t *testing.T, dir, port string) *systemd {
	t.Helper()
	s := &systemd{t: t, at: filepath.Join(t.TempDir(), "notify"), dir: dir, port: port, barrier: make(chan struct{}, 1)}
	var err error
	if s.l, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: s.at}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.run()
	}()
	t.Cleanup(func() {
		s.l.Close()
		<-done
		for _, f := range s.files {
			f.Close()
		}
	})
	return s
}

// run reads messages until the socket is closed.
func (s *systemd) run() {
	b, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		n, oobn, _, _, err := s.l.ReadMsgUnix(b, oob)
		if err != nil {
			return
		}
		var fds []int
		if all, err := syscall.ParseSocketControlMessage(oob[:oobn]); err == nil {
			for i := range all {
				more, _ := syscall.ParseUnixRights(&all[i])
				fds = append(fds, more...)
			}
		}
		if string(b[:n]) == barrier {
			s.barrier <- struct{}{}
			continue
		}
		s.message(strings.Split(string(b[:n]), "\n"), fds)
	}
}

const barrier = "BARRIER"

// settle returns when all messages that were sent until now are read: a manager starts nothing before.
func (s *systemd) settle() {
	s.t.Helper()
	c, err := net.DialUnix("unixgram", nil, s.l.LocalAddr().(*net.UnixAddr))
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(barrier)); err != nil {
		s.t.Fatal(err)
	}
	<-s.barrier
}

func (s *systemd) message(lines []string, fds []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := ""
	for _, line := range lines {
		if v, ok := strings.CutPrefix(line, "FDNAME="); ok {
			name = v
		}
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		if !slices.Contains(lines, "FDSTORE=1") || name == "" {
			unix.Close(fd)
			continue
		}
		s.names, s.files = append(s.names, name), append(s.files, os.NewFile(uintptr(fd), name))
	}
	if slices.Contains(lines, "FDSTOREREMOVE=1") {
		for i := len(s.names) - 1; i >= 0; i-- {
			if s.names[i] == name {
				s.files[i].Close()
				s.names, s.files = slices.Delete(s.names, i, i+1), slices.Delete(s.files, i, i+1)
			}
		}
	}
}

// keep has it keep one more.
func (s *systemd) keep(name string, f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names, s.files = append(s.names, name), append(s.files, f)
}

func (s *systemd) keeps() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.names)
}

// start starts a process with what it keeps. LISTEN_PID is that of the process, which is known in it alone.
func (s *systemd) start() *server {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, self)
	cmd.Dir, cmd.ExtraFiles = s.dir, s.files
	cmd.Env = append(programEnv(), "NOTIFY_SOCKET="+s.at)
	if len(s.files) > 0 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(s.files)), "LISTEN_FDNAMES="+strings.Join(s.names, ":"))
	}
	return startCommand(s.t, cmd, s.dir, s.port)
}

// restart ends a process and starts the next one.
func (s *systemd) restart(old *server, between func()) *server {
	s.t.Helper()
	if err := old.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	state, err := old.cmd.Process.Wait()
	if err != nil || !state.Success() {
		s.t.Fatalf("%v, %v\n%s", state, err, strings.Join(old.lines, "\n"))
	}
	s.settle()
	between()
	return s.start()
}

// TestRestartKeepsSockets (P13): the service is restarted under load by a manager that keeps descriptors. No connection is refused or
// reset and no question is lost; once a process serves, the manager keeps nothing. An endpoint that was withdrawn meanwhile refuses.
func TestRestartKeepsSockets(t *testing.T) {
	t.Parallel()
	var conf func(withdrawn bool) string
	manager, u := startManaged(t, func(d, to string) string {
		conf = func(withdrawn bool) string {
			return strings.Replace(upgradeCorefile(d, to, "", withdrawn), " linkproxy\n", " linkproxy {\n  drain 1s\n }\n", 1)
		}
		return conf(false)
	})

	var load sync.WaitGroup
	var connects, questions atomic.Int64
	stop := make(chan struct{})
	load.Go(func() {
		pace(stop, 10*time.Millisecond, func() bool { // a steady rate, whatever waits
			load.Go(func() {
				c, err := u.dial()
				if err != nil {
					t.Errorf("after %d: %v", connects.Load(), err)
					return
				}
				c.Close()
				connects.Add(1)
			})
			return true
		})
	})
	load.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if !u.resolves() {
				t.Error("no answer")
				return
			}
			questions.Add(1)
		}
	})
	now := u.server
	more := func() { // connections since
		want := connects.Load() + 20
		u.eventually("connections", func() bool { return connects.Load() >= want || t.Failed() })
	}
	for range 2 {
		more()
		now = manager.restart(now, func() {
			if len(manager.keeps()) == 0 {
				t.Error("the manager keeps nothing")
			}
		})
		u.eventually("manager that keeps nothing", func() bool { return len(manager.keeps()) == 0 })
	}
	more()
	close(stop)
	load.Wait()
	t.Logf("%d connections and %d questions across two restarts", connects.Load(), questions.Load())
	if t.Failed() {
		t.Fatal(strings.Join(now.lines, "\n"))
	}

	foreign, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := foreign.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := foreign.Addr().String()
	foreign.Close()
	now = manager.restart(now, func() {
		now.write(conf(true))
		_, port, _ := net.SplitHostPort(u.at)
		manager.keep("tcp-127.0.98.5-"+port, file) // not what it is called
	})
	u.eventually("manager that keeps nothing", func() bool { return len(manager.keeps()) == 0 })
	for _, at := range []string{u.at, elsewhere} {
		if c, err := net.DialTimeout("tcp", at, 10*time.Second); err == nil {
			c.Close()
			t.Errorf("%s is still listened on", at)
		}
	}
	if said := (&upgraded{server: now}).output(); !strings.Contains(said, "is closed: it is tcp-127.0.0.1-") {
		t.Errorf("nothing is said of a descriptor that isn't what it is called:\n%s", said)
	}
}

// TestExamine: a descriptor of the manager is taken where it listens on what it is called, and not otherwise.
func TestExamine(t *testing.T) {
	descriptor := func(f *os.File, err error) int {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return int(f.Fd())
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	six, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer six.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	unixSocket, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer unixSocket.Close()
	datagrams := func(options ...int) (*os.File, string) {
		t.Helper()
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		f, err := c.(*net.UDPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range options {
			if err := unix.SetsockoptInt(int(f.Fd()), unix.IPPROTO_IP, o, 1); err != nil {
				t.Fatal(err)
			}
		}
		return f, fmt.Sprintf("udp-127.0.0.1-%d", c.LocalAddr().(*net.UDPAddr).Port)
	}
	ours, ourName := datagrams(unix.IP_PKTINFO, unix.IP_FREEBIND)
	another, anotherName := datagrams(unix.IP_PKTINFO)
	flow, flowName := datagrams(unix.IP_PKTINFO, unix.IP_FREEBIND)
	if err := unix.Connect(int(flow.Fd()), &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	listening := descriptor(l.(*net.TCPListener).File())
	name := fmt.Sprintf("tcp-127.0.0.1-%d", port)
	for what, test := range map[string]struct {
		fd   int
		name string
		want string
	}{
		"right":           {listening, name, ""},
		"IPv6":            {descriptor(six.(*net.TCPListener).File()), fmt.Sprintf("tcp-__1-%d", six.Addr().(*net.TCPAddr).Port), ""},
		"no name":         {listening, "", "it is " + name},
		"another address": {listening, fmt.Sprintf("tcp-127.0.0.2-%d", port), "it is " + name},
		"another port":    {listening, "tcp-127.0.0.1-1", "it is " + name},
		"another kind":    {listening, fmt.Sprintf("udp-127.0.0.1-%d", port), "it is " + name},
		"UDP":             {descriptor(ours, nil), ourName, ""},
		"UDP of others":   {descriptor(another, nil), anotherName, "no socket that is listened on"},
		"a flow of UDP":   {descriptor(flow, nil), flowName, "no socket that is listened on"},
		"a connection":    {descriptor(c.(*net.TCPConn).File()), name, "no socket that is listened on"},
		"another family":  {descriptor(unixSocket.(*net.UnixListener).File()), name, "no socket that is listened on"},
		"a file":          {descriptor(os.Open(os.DevNull)), name, "no socket that is listened on"},
		"not open":        {1 << 20, name, "no socket that is listened on"},
	} {
		_, err := examine(test.fd, test.name)
		if (err == nil) != (test.want == "") || err != nil && err.Error() != test.want {
			t.Errorf("%s: %v, want %q", what, err, test.want)
		}
	}
}

// FuzzKept: what the environment says never makes more of itself than it may.
func FuzzKept(f *testing.F) {
	self := fmt.Sprint(os.Getpid())
	f.Add(self, "2", "tcp-127.0.0.1-80:udp-127.0.0.1-53")
	f.Add("1", "2", "a:b")
	f.Add(self, "-1", ":")
	f.Add(self, "9999999999999999999", "")
	f.Add(self, "3", "a\nFDSTORE=1:b")
	f.Fuzz(func(t *testing.T, pid, number, names string) {
		n, err := keptNumber(pid, number)
		if n < 0 || n > maxKept || n > 0 && (err != nil || pid != fmt.Sprint(os.Getpid())) {
			t.Fatalf("%d descriptors, %v", n, err)
		}
		if got := each(n, names); len(got) != n {
			t.Fatalf("%d names of %d", len(got), n)
		}
		for _, name := range keptNames(names) {
			if name == "" || strings.ContainsAny(name, "\n:") {
				t.Fatalf("%q", name)
			}
		}
	})
}
