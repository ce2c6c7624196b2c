package coremain

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postern-link/postern/internal/freeport"
)

// datagramEndpoint is where withDatagrams has an endpoint of UDP.
const datagramEndpoint = "127.0.98.7"

// withDatagrams adds a service of UDP to a Corefile, and an endpoint of it unless it was withdrawn.
func withDatagrams(conf, target string, port uint16, withdrawn bool) string {
	text := fmt.Sprintf(" linkservice dg {\n  protocol udp\n  target %s\n  port %d\n  approve here\n }\n", target, port)
	if !withdrawn {
		text += " linkendpoint d {\n  service dg\n  network here\n  address " + datagramEndpoint + "\n }\n"
	}
	return strings.TrimSuffix(conf, "}\n") + text + "}\n"
}

// datagramTarget answers each datagram with what it says and the port that it is from.
func datagramTarget(t *testing.T) string {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		for b := make([]byte, 1500); ; {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(fmt.Appendf(nil, "%s %d", b[:n], from.(*net.UDPAddr).Port), from)
		}
	}()
	return c.LocalAddr().String()
}

// numbered is a client of UDP that asks with numbers, one after the other.
type numbered struct {
	conn      net.Conn
	next, sum int    // the next number, and the bytes of those before
	port      string // that the target sees
}

func newNumbered(t *testing.T, at string) *numbered {
	t.Helper()
	c, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &numbered{conn: c}
}

// ask asks once. The error is of an answer that doesn't come, is another's, or shows another port.
func (a *numbered) ask() error {
	question := strconv.Itoa(a.next)
	a.conn.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := a.conn.Write([]byte(question)); err != nil {
		return err
	}
	a.next, a.sum = a.next+1, a.sum+len(question)
	b := make([]byte, 64)
	n, err := a.conn.Read(b)
	if err != nil {
		return fmt.Errorf("question %s: %w", question, err)
	}
	number, port, _ := strings.Cut(string(b[:n]), " ")
	if a.port == "" {
		a.port = port
	}
	if number != question || port != a.port {
		return fmt.Errorf("question %s from port %s: %q", question, a.port, b[:n])
	}
	return nil
}

// load has them all ask again and again until the function that it returns is called.
func load(t *testing.T, clients []*numbered) (end func()) {
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i, a := range clients {
		all.Go(func() {
			pace(stop, 5*time.Millisecond, func() bool {
				err := a.ask()
				if err != nil {
					t.Errorf("flow %d: %v", i, err)
				}
				return err == nil
			})
		})
	}
	return sync.OnceFunc(func() {
		close(stop)
		all.Wait()
	})
}

// startDatagrams starts a server with a service of UDP, and clients that have asked once. withdraw writes a Corefile
// without its endpoint.
func startDatagrams(t *testing.T, flows int, silent string) (u *upgraded, clients []*numbered, withdraw func()) {
	t.Helper()
	target, port := datagramTarget(t), freeport.Get(t)
	u = startUpgraded(t, func(d, to string) string {
		withdraw = func() { u.write(withDatagrams(upgradeCorefile(d, to, silent, false), target, port, true)) }
		return withDatagrams(upgradeCorefile(d, to, silent, false), target, port, false)
	})
	for range flows {
		a := newNumbered(t, fmt.Sprintf("%s:%d", datagramEndpoint, port))
		if err := a.ask(); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, a)
	}
	return u, clients, withdraw
}

var reDatagramEnd = regexp.MustCompile(`flow ended.* protocol=udp.* source=127\.0\.0\.1:(\d+).* reason=(\w+).* to_target=(\d+)`)

// TestUpgradeDatagrams (P13): two processes follow on one, and one that ends at once doesn't, under a load of questions by UDP. None
// stays without its answer, and the target sees each client from the same port all the time. An endpoint that the last Corefile
// doesn't have is gone with the upgrade that reads it, and each flow has had one line, with all bytes.
func TestUpgradeDatagrams(t *testing.T) {
	t.Parallel()
	const flows = 20
	u, clients, withdraw := startDatagrams(t, flows, "")
	end := load(t, clients)
	defer end()
	u.upgrade()
	u.script(t, "exit 3")
	if why := u.refused(); !strings.Contains(why, "exit status 3") {
		t.Errorf("refused with %q", why)
	}
	u.install(t)
	u.upgrade()
	const over = "flows of UDP of the process before this one go on here"
	u.eventually("flows that go on", func() bool { return strings.Count(u.output(), over) == 2 })
	end()
	asked := 0
	for i, a := range clients {
		if err := a.ask(); err != nil {
			t.Errorf("flow %d afterwards: %v", i, err)
		}
		asked += a.next
	}
	t.Logf("%d questions", asked)
	if n := strings.Count(u.output(), fmt.Sprintf("flows=%d ended=0", flows)); n != 4 { // of both sides
		t.Errorf("%d lines say that all flows go on", n)
	}
	if all := reDatagramEnd.FindAllString(u.output(), -1); len(all) != 0 {
		t.Errorf("flows have ended: %q", all)
	}
	if t.Failed() {
		t.Fatal(u.output())
	}

	withdraw()
	u.upgrade()
	u.eventually("end of the flows", func() bool { return len(reDatagramEnd.FindAllString(u.output(), -1)) == flows })
	lines := map[string][]string{}
	for _, m := range reDatagramEnd.FindAllStringSubmatch(u.output(), -1) {
		lines[m[1]] = m[2:]
	}
	for i, a := range clients {
		_, port, _ := net.SplitHostPort(a.conn.LocalAddr().String())
		if l := lines[port]; len(l) != 2 || l[0] != "revoked" || l[1] != strconv.Itoa(a.sum) {
			t.Errorf("flow %d of %d bytes has the line %q", i, a.sum, l)
		}
		a.conn.SetDeadline(time.Now().Add(5 * time.Second))
		a.conn.Write([]byte("x"))
		if n, err := a.conn.Read(make([]byte, 64)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("flow %d of an endpoint that is gone: %d bytes, %v", i, n, err)
		}
	}
}

// TestUpgradeDatagramsKilled (P13): a new process that has the sockets of UDP and is killed before it serves takes nothing out of
// them; and one that is killed afterwards ends the flows with it.
func TestUpgradeDatagramsKilled(t *testing.T) {
	t.Parallel()
	u, clients, _ := startDatagrams(t, 5, silent(t))
	end := load(t, clients)
	defer end()
	const opened = "limits of the data plane" // told when the state is open, and the sockets are taken
	if err := syscall.Kill(u.pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	u.eventually("new process with the sockets", func() bool { return strings.Count(u.output(), opened) == 2 })
	if err := syscall.Kill(u.newest(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	u.eventually("refusal", func() bool { return strings.Contains(u.output(), "upgrade refused, this process goes on") })
	u.upgrade()
	end()
	for i, a := range clients {
		if err := a.ask(); err != nil {
			t.Errorf("flow %d: %v", i, err)
		}
	}
	if all := reDatagramEnd.FindAllString(u.output(), -1); len(all) != 0 {
		t.Errorf("flows have ended: %q", all)
	}
}

// TestRestartKeepsDatagrams (P13): the service is restarted by a manager that keeps descriptors, while a client goes on asking. It is never
// told that the port is closed, what it asks while no process is there is answered by the next one, and the manager keeps nothing then. A
// port that the new Corefile doesn't have is closed.
func TestRestartKeepsDatagrams(t *testing.T) {
	t.Parallel()
	target, port := datagramTarget(t), freeport.Get(t)
	var conf func(withdrawn bool) string
	manager, u := startManaged(t, func(d, to string) string {
		base := strings.Replace(upgradeCorefile(d, to, "", false), " linkproxy\n", " linkproxy {\n  drain 1s\n }\n", 1)
		conf = func(withdrawn bool) string { return withDatagrams(base, target, port, withdrawn) }
		return conf(false)
	})
	now := u.server

	c := newNumbered(t, fmt.Sprintf("%s:%d", datagramEndpoint, port)).conn
	var answers atomic.Int64
	stop := make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() {
		pace(stop, 5*time.Millisecond, func() bool {
			_, err := c.Write([]byte("x"))
			if err != nil {
				t.Errorf("after %d answers: %v", answers.Load(), err)
			}
			return err == nil
		})
	})
	both.Go(func() {
		for b := make([]byte, 64); ; answers.Add(1) {
			if _, err := c.Read(b); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("after %d answers: %v", answers.Load(), err)
				}
				return
			}
		}
	})
	end := sync.OnceFunc(func() {
		close(stop)
		c.SetReadDeadline(time.Now())
		both.Wait()
	})
	defer end()
	more := func() {
		want := answers.Load() + 20
		u.eventually("answers", func() bool { return answers.Load() >= want || t.Failed() })
	}
	more()
	now = manager.restart(now, func() {
		if !strings.Contains(strings.Join(manager.keeps(), " "), fmt.Sprintf("udp-%s-%d", datagramEndpoint, port)) {
			t.Errorf("the manager keeps %v", manager.keeps())
		}
		waits := newNumbered(t, c.RemoteAddr().String())
		waits.conn.Write([]byte("0"))
		t.Cleanup(func() { waits.conn.Close() })
		answered := make(chan error, 1)
		go func() {
			waits.conn.SetReadDeadline(time.Now().Add(40 * time.Second))
			_, err := waits.conn.Read(make([]byte, 64))
			answered <- err
		}()
		both.Go(func() {
			if err := <-answered; err != nil {
				t.Errorf("a question while no process was there: %v", err)
			}
		})
	})
	u.eventually("manager that keeps nothing", func() bool { return len(manager.keeps()) == 0 })
	more()
	end()
	if t.Failed() {
		t.Fatal(strings.Join(now.lines, "\n"))
	}
	now = manager.restart(now, func() { now.write(conf(true)) })
	u.eventually("manager that keeps nothing", func() bool { return len(manager.keeps()) == 0 })
	c.SetDeadline(time.Now().Add(5 * time.Second))
	c.Write([]byte("x"))
	var err error
	for err == nil { // answers may wait
		_, err = c.Read(make([]byte, 64))
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port that isn't wanted any more: %v", err)
	}
}
