package proxy

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-link/postern/policy"
	"golang.org/x/sys/unix"
)

// slowFlows is how many clients with slow hellos there are, where the limit of descriptors has room for both ends.
const slowFlows = 10_000

// X16, X23, and 10,000 of them: flows that wait for their hello cost a bounded amount of memory each, hinder no other
// client, and leave nothing behind when their time is over.
func TestSlowHellos(t *testing.T) {
	n := min(slowFlows, (descriptorLimit()-descriptors(t)-200)/2)
	if raceDetector {
		n = min(n, 1000)
	}
	g := newTarget(t)
	const timeout = 6 * time.Second
	w := newWorld(t, Settings{HelloTimeout: timeout, MaxFlows: 2 * slowFlows, MaxPerSource: 2 * slowFlows},
		service("svc", 7001, g.addr(), pinned), endpoint("e", "svc", nextAddr(t)))
	hello := helloFor(t, "allowed.example")
	long := append(append([]byte{}, hello...), make([]byte, 4000)...) // a record of so many bytes, of which 3 KB come
	long[3], long[4] = byte((len(long)-5)>>8), byte(len(long)-5)
	long[7], long[8] = byte((len(long)-9)>>8), byte(len(long)-9)
	sends := [][]byte{nil, long[:1], long[:3000]}
	read := 0

	// The clients are sockets and no more, so that what is measured is the proxy's.
	at := netip.MustParseAddrPort(w.first())
	clients := make([]int, 0, n)
	defer func() {
		for _, fd := range clients {
			unix.Close(fd)
		}
	}()
	began := time.Now()
	before, goroutines := inUse(), runtime.NumGoroutine()
	for i := range n {
		if time.Since(began) > timeout/3 { // a busy machine has time for fewer
			n = i
			break
		}
		clients = append(clients, slowClient(t, at, sends[i%len(sends)]))
		read += len(sends[i%len(sends)])
	}
	eventually(t, "all wait for more, with what there is read", func() bool { return w.unjudged() == n && unread(t, at) == 0 })

	each := (int(inUse()-before) - read) / n
	t.Logf("%d flows: %d bytes of heap and stack each, and the %d that came of it; %d goroutines", n, each, read/n, runtime.NumGoroutine()-goroutines)
	if !raceDetector && each > 24<<10 { // the race detector has its own
		t.Errorf("%d bytes for a flow that waits", each)
	}

	c := dial(t, w.first())
	c.Write(hello)
	far, _ := g.next()
	if _, err := io.ReadFull(far, make([]byte, len(hello)-1)); err != nil {
		t.Fatal(err)
	}
	far.Close()
	c.Close()
	dialled := w.dials(t)

	eventually(t, "all have timed out", func() bool { return w.proxy.Flows() == 0 })
	if got := w.metric(t, "postern_proxy_refused_total", string(policy.Timeout)); got != float64(n) || w.dials(t) != dialled {
		t.Errorf("%v flows of %d are counted as timed out", got, n)
	}
	eventually(t, "their goroutines are gone", func() bool { return runtime.NumGoroutine() <= goroutines+4 }) // those of the target, which accepts
	var b [1]byte
	for i, fd := range clients {
		if _, err := unix.Read(fd, b[:]); err != unix.ECONNRESET {
			t.Fatalf("client %d: %v", i, err)
		}
	}
}

// slowClient connects and sends some bytes.
func slowClient(t *testing.T, at netip.AddrPort, send []byte) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		unix.Close(fd)
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, send); err != nil {
		t.Error(err)
	}
	return fd
}

// unread returns how many bytes of clients lie in the kernel, as /proc/net/tcp has it.
func unread(t *testing.T, at netip.AddrPort) (n int64) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	a := at.Addr().As4()
	local := fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(a[:]), at.Port())
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[1] != local || f[3] == "0A" { // a listener counts connections there
			continue
		}
		_, queue, _ := strings.Cut(f[4], ":")
		bytes, err := strconv.ParseInt(queue, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		n += bytes
	}
	return n
}
