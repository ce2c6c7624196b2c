package proxy

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFastOpen: a client that was here before sends its first bytes with the SYN where settings allow it, and as ever where they
// don't. Settings reach listeners that are open already. The listeners are in a namespace of the test's, which allows it.
func TestFastOpen(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for a network namespace")
	}
	far := echo(t)
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("ip: %v: %s", err, out)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_fastopen", []byte("3"), 0); err != nil { // of this namespace
		t.Fatal(err)
	}
	w := newWorld(t, Settings{}, service("s", 7001, far), endpoint("e", "s", "127.77.0.5"))
	addr := netip.MustParseAddrPort(w.first())
	for _, tt := range []struct {
		name     string
		fastOpen int
		with     bool
	}{
		{"off", 0, false},
		{"switched on", 16, true},
		{"switched off", 0, false},
	} {
		// Not a subtest, which would be in another thread.
		next, err := w.proxy.Prepare(w.now.Load(), Settings{FastOpen: tt.fastOpen})
		if err != nil {
			t.Fatal(err)
		}
		next.Commit()
		fastDial(t, addr) // is given the cookie
		if with := fastDial(t, addr); with != tt.with {
			t.Errorf("%s: bytes with the SYN: %v", tt.name, with)
		}
	}
}

// TestFastOpenIsTakenBack: a listener of the process before this one has no fast open any more where the settings don't say it.
func TestFastOpenIsTakenBack(t *testing.T) {
	t.Parallel()
	host := nextAddr(t)
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort(host+":7001")))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int // of the same socket, whoever has the listener
	if e := raw.Control(func(its uintptr) { fd, err = unix.FcntlInt(its, unix.F_DUPFD_CLOEXEC, 0) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 16); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN); err != nil || n != 16 {
		t.Fatalf("%d wait, %v", n, err)
	}
	w := newWorld(t, Settings{})
	w.proxy.mu.Lock()
	w.proxy.inherited = func(netip.AddrPort) *net.TCPListener { return l }
	w.proxy.mu.Unlock()
	w.apply(service("s", 7001, echo(t)), endpoint("e", "s", host))
	if n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN); err != nil || n != 0 {
		t.Errorf("%d wait, %v", n, err)
	}
}

// fastDial sends bytes with its SYN if it can, and has them echoed. It reports whether it could.
func fastDial(t *testing.T, addr netip.AddrPort) (with bool) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close()
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	const said = "first bytes"
	if err := unix.Sendto(fd, []byte(said), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(said))
	if _, err := io.ReadFull(f, b); err != nil || string(b) != said {
		t.Fatalf("read %q, %v", b, err)
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Fatal(err)
	}
	const synData = 32 // TCPI_OPT_SYN_DATA of linux/tcp.h
	return info.Options&synData != 0
}
