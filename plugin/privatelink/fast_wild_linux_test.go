package privatelink_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin/metrics/vars"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-link/postern/plugin/privatelink"
)

// inNamespace marks the process that TestFastpathWildcard starts in a network of its own.
const inNamespace = "POSTERN_TEST_FASTPATH_NAMESPACE"

// TestFastpathWildcard: a server block without bind has the fast path. Whichever address is asked, the answer comes from there, is the one of
// the plugins byte for byte, and is counted as theirs; each network has its own (D13).
func TestFastpathWildcard(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		if os.Getuid() != 0 {
			t.Skip("to make a network namespace one has to be root")
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestFastpathWildcard$", "-test.v")
		cmd.Env = append(os.Environ(), inNamespace+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestFastpathWildcard") {
			t.Fatalf("in a network namespace: %v\n%s", err, out)
		}
		return
	}
	for _, line := range []string{
		"link set lo up", "link add v0 type veth peer name v1", "link set v0 up", "link set v1 up",
		"addr add 10.9.0.1/24 dev v0", "addr add 10.9.0.2/24 dev v0", "-6 addr add fd09::1/64 dev v0 nodad", "-6 addr add fd09::2/64 dev v0 nodad",
		"-6 addr add fe80::1/64 dev v0 nodad", "-6 addr add fe80::2/64 dev v0 nodad", // of one link
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", line, err, out)
		}
	}
	for i, bind := range []string{"", "bind 0.0.0.0", "bind ::"} {
		t.Run("listen "+bind, func(t *testing.T) { checkWildcard(t, 5300+10*i, bind) })
	}
}

func checkWildcard(t *testing.T, port int, bind string) {
	block := func(port int, privatelink string) string {
		return fmt.Sprintf(".:%d {\n%s\nprometheus 127.0.0.1:%d\n%s\n}\n", port, bind, port+2, privatelink)
	}
	corefile := func(properties string) caddy.Input {
		return caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(block(port, `linknetwork corp 127.0.0.0/8 fd09::2/128 fe80::2/128 {
		endpoints 10.200.0.0/24
	}
	linknetwork lab 10.9.0.0/24 {
		endpoints 10.201.0.0/24
	}
	linkservice sql {
		names contoso.database.windows.net
		target 10.20.0.4:1433
		approve *
	}
	linkendpoint sql-corp {
		service sql
		network corp
		address 10.200.0.5
	}
	linkendpoint sql-lab {
		service sql
		network lab
		address 10.201.0.5
	}
	privatelink {
		`+properties+`
	}`) + block(port+1, "privatelink {\nfastpath off\n}"))}
	}
	instance := startInstance(t, corefile(""))
	defer func() { end(t, instance) }()
	name := func(port int) string {
		host := ""
		if _, h, ok := strings.Cut(bind, " "); ok {
			host = h
		}
		return "dns://" + net.JoinHostPort(host, fmt.Sprint(port))
	}
	clients := []struct{ from, to, want, family string }{
		{"127.0.0.9", "127.0.0.1", "10.200.0.5", "1"},
		{"127.0.0.9", "127.0.0.2", "10.200.0.5", "1"},
		{"127.0.0.1", "127.9.9.9", "10.200.0.5", "1"},
		{"10.9.0.1", "10.9.0.1", "10.201.0.5", "1"},
		{"10.9.0.1", "10.9.0.2", "10.201.0.5", "1"},
		{"10.9.0.2", "127.0.0.1", "10.201.0.5", "1"},
		{"fd09::2", "fd09::1", "10.200.0.5", "2"},
		{"fd09::2", "fd09::2", "10.200.0.5", "2"},
		{"fd09::2", "::1", "10.200.0.5", "2"},
		{"fe80::2%v0", "fe80::1%v0", "10.200.0.5", "2"},
	}
	counted := func(port int, family string) float64 {
		return testutil.ToFloat64(vars.RequestCount.WithLabelValues(name(port), ".", "", "udp", family, "A"))
	}
	for i, c := range clients {
		quick, slow := connect(t, c.from, c.to, port), connect(t, c.from, c.to, port+1)
		b, err := new(dns.Msg).SetQuestion("contoso.database.windows.net.", dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		known := privatelink.FastAnswered(t, name(port))
		before := [2]float64{counted(port, c.family), counted(port+1, c.family)}
		asked := 0.0
		for fast := false; !fast; asked++ { // the first answers may still be on their way into the table
			binary.BigEndian.PutUint16(b, uint16(100*i+int(asked)))
			got, want := exchange(t, quick, b), exchange(t, slow, b)
			if !bytes.Equal(got, want) {
				t.Fatalf("%s to %s:\ngot\n%x\nwant\n%x", c.from, c.to, got, want)
			}
			m := new(dns.Msg)
			if err := m.Unpack(got); err != nil || lastA(m) != c.want {
				t.Fatalf("%s to %s: answer %v, error %v, want %s", c.from, c.to, m, err, c.want)
			}
			for deadline := time.Now().Add(20 * time.Millisecond); !fast && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				fast = privatelink.FastAnswered(t, name(port)) > known // it is counted when it is sent
			}
			if asked > 100 {
				t.Fatalf("%s to %s: no answer from the table", c.from, c.to)
			}
		}
		for deadline := time.Now().Add(10 * time.Second); counted(port, c.family)-before[0] != asked || counted(port+1, c.family)-before[1] != asked; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s to %s: %v and %v of %v queries are counted for family %s", c.from, c.to, counted(port, c.family)-before[0], counted(port+1, c.family)-before[1], asked, c.family)
			}
		}
	}
	if got := fastGauge(t, name(port)); got != "" {
		t.Errorf("reason %q", got)
	}
	next, err := instance.Restart(corefile("fastpath off"))
	if err != nil {
		t.Fatal(err)
	}
	instance = next
	before := privatelink.FastAnswered(t, name(port))
	for _, c := range clients {
		conn := &client{t, &dns.Conn{Conn: connect(t, c.from, c.to, port)}}
		for range 3 {
			if got := lastA(conn.ask("contoso.database.windows.net.", dns.TypeA)); got != c.want {
				t.Errorf("without the fast path %s to %s: answer %s, want %s", c.from, c.to, got, c.want)
			}
		}
	}
	if n := privatelink.FastAnswered(t, name(port)); n != before {
		t.Errorf("%v answers from the table after it was switched off", n-before)
	}
}

// connect returns a socket that takes answers from the address that it asks alone.
func connect(t *testing.T, from, to string, port int) net.Conn {
	t.Helper()
	local, err := net.ResolveUDPAddr("udp", net.JoinHostPort(from, "0"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&net.Dialer{LocalAddr: local}).Dial("udp", net.JoinHostPort(to, fmt.Sprint(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// exchange returns the answer to a query.
func exchange(t *testing.T, conn net.Conn, b []byte) []byte {
	t.Helper()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatalf("%s to %s: %v", conn.LocalAddr(), conn.RemoteAddr(), err)
	}
	return buf[:n]
}
