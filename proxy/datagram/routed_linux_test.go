package datagram

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// inNamespace marks the process that TestRoutedPool starts in a network of its own.
const inNamespace = "POSTERN_TEST_DATAGRAM_NAMESPACE"

// TestRoutedPool: one listener for all addresses of pools that are routed to this machine answers from the very
// address that was asked, of both families.
func TestRoutedPool(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		if os.Getuid() != 0 {
			t.Skip("to make a network namespace one has to be root")
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestRoutedPool$", "-test.v")
		cmd.Env = append(os.Environ(), inNamespace+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestRoutedPool") {
			t.Fatalf("in a network namespace: %v\n%s", err, out)
		}
		return
	}
	for _, line := range []string{
		"link set lo up",
		"addr add 10.9.0.1/32 dev lo", "-6 addr add fd09::1/128 dev lo nodad", // of the clients
		"route add local 10.77.0.0/24 dev lo", "-6 route add local fd77::/64 dev lo", // the pools
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", line, err, out)
		}
	}
	for _, tt := range []struct{ listen, to string }{
		{"0.0.0.0:7001", "10.77.0.5"}, {"0.0.0.0:7001", "10.77.0.200"}, {"[::]:7001", "fd77::5"}, {"[::]:7001", "fd77::ffff"},
	} {
		t.Run(tt.to, func(t *testing.T) {
			w := newWorld(t, echo(t, "127.0.0.1"))
			w.listen(tt.listen)
			c := client(t, netip.AddrPortFrom(netip.MustParseAddr(tt.to), 7001)) // connected: it takes answers from there alone
			c.Write([]byte("who are you"))
			b := make([]byte, 64)
			if n, err := c.Read(b); err != nil || string(b[:n]) != "who are you" {
				t.Errorf("%q, %v", b[:n], err)
			}
			if f := w.first(); f.Local().Addr().String() != tt.to || f.Client().Addr() != local(c).Addr().Unmap() {
				t.Errorf("a flow of %v to %v", f.Client(), f.Local())
			}
		})
	}
}
