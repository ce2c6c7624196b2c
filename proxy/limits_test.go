package proxy

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/postern-link/postern/policy"
)

// P09, P11: both caps refuse with a reset and their reason.
func TestLimits(t *testing.T) {
	for name, settings := range map[string]Settings{
		"P09 per source": {MaxPerSource: 2}, "P11 all": {MaxFlows: 2, MaxPerSource: 9},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, settings, service("svc", 7001, echo(t)), endpoint("e", "svc", nextAddr(t)))
			one, two := dial(t, w.first()), dial(t, w.first())
			eventually(t, "both are carried", func() bool { return w.dials(t) == 2 })
			c, err := net.DialTimeout("tcp", w.first(), patience)
			if err == nil {
				c.SetDeadline(time.Now().Add(patience))
				if !isReset(c.(*net.TCPConn)) {
					t.Error("not reset")
				}
				c.Close()
			}
			eventually(t, "the line of the flow", func() bool { return len(w.log.lines("flow refused", "reason=limit")) == 1 })
			one.Close()
			eventually(t, "there is room again", func() bool { return w.proxy.Flows() == 1 })
			three := dial(t, w.first())
			for _, c := range []*net.TCPConn{two, three} {
				io.WriteString(c, "x")
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// P09: addresses of one IPv6 /64 are one source, those of IPv4 are each one.
func TestSources(t *testing.T) {
	var l live
	l.init()
	f := new(flow)
	for _, test := range []struct {
		addr string
		ok   bool
	}{
		{"2001:db8::1", true}, {"2001:db8::2:1", false}, {"2001:db8:0:1::1", true}, {"192.0.2.1", true}, {"192.0.2.2", true}, {"192.0.2.1", false},
	} {
		if ok := l.claim(netip.MustParseAddr(test.addr), 1); ok != test.ok {
			t.Errorf("%s: let in %v", test.addr, ok)
		}
	}
	l.leave(f, netip.MustParseAddr("2001:db8::1"))
	if !l.claim(netip.MustParseAddr("2001:db8::3"), 1) || len(l.sources) != 4 {
		t.Errorf("left, and still counted: %v", l.sources)
	}
}

// oneWindow has all refusals from now on in one window, however slow the machine is.
func (w *world) oneWindow() {
	r := &w.proxy.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	r.began = time.Now().Add(time.Hour)
}

// X26: many refusals of one source are a few lines and one summary; each is counted.
func TestRefusalLines(t *testing.T) {
	w := newWorld(t, Settings{}, service("svc", 7001, echo(t)), endpoint("e", "svc", nextAddr(t), "192.0.2.0/24"))
	w.oneWindow()
	const n = 3 * refusalLines
	for range n {
		if c, err := net.DialTimeout("tcp", w.first(), patience); err == nil {
			io.Copy(io.Discard, c)
			c.Close()
		}
	}
	eventually(t, "all are counted", func() bool {
		return w.metric(t, "postern_proxy_refused_total", string(policy.SourceDenied)) == n
	})
	w.proxy.Close()
	if got := len(w.log.lines("flow refused")); got != refusalLines {
		t.Errorf("%d lines", got)
	}
	if lines := w.log.lines("more flows refused", "source=127.0.0.1", "flows=20", "source_denied=20"); len(lines) != 1 {
		t.Errorf("summary %q", w.log.lines("more"))
	}
}

// descriptors returns how many descriptors this process has open.
func descriptors(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// P10: at the limit of descriptors accepting pauses, existing flows go on, and it resumes by itself.
// It runs in a process of its own, whose limit is 1,024.
func TestDescriptorLimit(t *testing.T) {
	if os.Getenv("POSTERN_TEST_LIMIT") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDescriptorLimit$", "-test.v")
		cmd.Env = append(os.Environ(), "POSTERN_TEST_LIMIT=1024")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	limit := syscall.Rlimit{Cur: 1024, Max: 1024}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	w, client, far := pair(t, Settings{MaxFlows: 10_000, MaxPerSource: 10_000})
	// Every descriptor that is left but a few, which connecting takes.
	var held []*os.File
	for {
		f, err := os.Open("/dev/null")
		if err != nil {
			break
		}
		held = append(held, f)
	}
	release := func(n int) {
		for range n {
			held[len(held)-1].Close()
			held = held[:len(held)-1]
		}
	}
	release(1) // for the socket below; the kernel connects it, and accept finds no descriptor
	c := dial(t, w.first())
	eventually(t, "accept fails", func() bool { return w.metric(t, "postern_proxy_accept_errors_total") > 0 })
	io.WriteString(client, "on")
	if _, err := io.ReadFull(far, make([]byte, 2)); err != nil {
		t.Errorf("the existing flow doesn't go on: %v", err)
	}
	release(20)
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is carried", func() bool { return w.dials(t) == 2 })
	for _, f := range held {
		f.Close()
	}
}
