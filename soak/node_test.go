package soak

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/internal/freeport"
)

// node is the program under test.
type node struct {
	cmd      *exec.Cmd
	corefile string
	metrics  string
	dns      uint16
	out      output
	ended    chan struct{}
}

// output reads what a process says as it comes, which is too much to keep.
type output struct {
	mu      sync.Mutex
	line    []byte   // the last, as far as it has come
	last    []string // lines
	bad     []string
	reloads int // that are over, in whatever way
}

// descriptors is how many the node may have open.
const descriptors = 1024

// kept is how many lines are.
const kept = 200

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for part := range bytes.Lines(b) {
		if o.line = append(o.line, part...); part[len(part)-1] != '\n' {
			break
		}
		line := string(o.line)
		o.line = o.line[:0]
		if o.last = append(o.last, line); len(o.last) > 2*kept {
			o.last = slices.Delete(o.last, 0, kept)
		}
		switch {
		case strings.Contains(line, "[INFO] Reloading complete"):
			o.reloads++
		case strings.Contains(line, "[ERROR]"), strings.Contains(line, "[PANIC]"), strings.Contains(line, "panic:"),
			strings.Contains(line, "fatal error:"), strings.Contains(line, "RELOAD NOT IN FORCE"), strings.HasPrefix(line, "goroutine "):
			o.reloads++
			o.bad = append(o.bad, line)
		}
	}
	return len(b), nil
}

// words returns the last lines, those that complain of something, and how many reloads are over.
func (o *output) words() (last string, bad []string, reloads int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.last[max(0, len(o.last)-kept):], ""), slices.Clone(o.bad), o.reloads
}

func startNode(w *world) *node {
	t := w.t
	path, err := filepath.Abs(*program)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n := &node{corefile: filepath.Join(dir, "Corefile"), dns: freeport.Get(t), ended: make(chan struct{})}
	n.metrics = fmt.Sprintf("127.0.0.1:%d", freeport.Get(t))
	w.ports, w.node = freeport.Get(t), n
	n.write(w)
	// The crowd is to find too few of them.
	n.cmd = exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, descriptors), path, "-conf", n.corefile)
	n.cmd.Dir = dir // where its state is
	n.cmd.Stdout, n.cmd.Stderr = &n.out, &n.out
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		n.cmd.Wait()
		close(n.ended)
	}()
	t.Cleanup(func() {
		n.cmd.Process.Kill()
		<-n.ended
		if t.Failed() {
			last, _, _ := n.out.words()
			t.Logf("the node's last words:\n%s", last)
		}
	})
	n.eventually(t, "the node serves and all targets but one are up", func() bool {
		m, err := n.scrape()
		return err == nil && m["postern_proxy_target_up"] >= float64(len(kinds)-1)
	})
	if t.Failed() {
		t.FailNow()
	}
	return n
}

// write makes the Corefile that fits what is allowed.
func (n *node) write(w *world) {
	var b strings.Builder
	fmt.Fprintf(&b, ".:%d {\n bind 127.0.0.1\n errors\n prometheus %s\n linknetwork soak 127.0.0.0/24 {\n  endpoints 127.30.0.0/24\n }\n", n.dns, n.metrics)
	for _, k := range kinds {
		approve := "approve soak"
		if k.cut && !w.allowed.Load() {
			approve = "reject soak"
		}
		fmt.Fprintf(&b, " linkservice %[1]s {\n  names %[1]s.%[6]s\n  pin address\n  target %[2]s\n  port %[3]d\n  %[4]s\n }\n linkendpoint %[1]s {\n  service %[1]s\n  network soak\n  address %[5]s\n }\n",
			k.name, w.targets[k.name].at, w.ports, approve, k.endpoint(), zone)
	}
	b.WriteString(" privatelink\n linkproxy {\n  dial_timeout 1s\n  probe 500ms\n  max_flows 10000\n  max_per_source 10000\n }\n}\n")
	if err := os.WriteFile(n.corefile, []byte(b.String()), 0o600); err != nil {
		w.t.Error(err)
	}
}

// reload has the node read the Corefile that fits.
func (n *node) reload(w *world) {
	n.write(w)
	_, _, before := n.out.words()
	if err := n.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		w.fault("reload: %v", err)
		return
	}
	n.eventually(w.t, "the reload is over", func() bool {
		_, _, reloads := n.out.words()
		return reloads > before
	})
}

func (n *node) eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(quiet); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		select {
		case <-n.ended:
			t.Errorf("the node ended by itself before %s", what)
			return
		default:
		}
		if is() {
			return
		}
	}
	t.Errorf("not so after %v: %s", quiet, what)
}

// client gives up in time.
var client = http.Client{Timeout: quiet / 4}

// scrape returns the metrics, those with labels added up.
func (n *node) scrape() (map[string]float64, error) {
	r, err := client.Get("http://" + n.metrics + "/metrics")
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	m := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			name, _, _ = strings.Cut(name, "{")
			if v, err := strconv.ParseFloat(value[strings.LastIndexByte(value, ' ')+1:], 64); err == nil {
				m[name] += v
			}
		}
	}
	return m, nil
}

// zone is below which the services have their names.
const zone = "soak.example"

// ask reports whether DNS answers with the endpoint of a service.
func (n *node) ask(k kind) (err error) {
	q := new(dns.Msg).SetQuestion(fmt.Sprintf("%s.%s.", k.name, zone), dns.TypeA)
	c := dns.Client{Timeout: 2 * time.Second}
	var m *dns.Msg
	for range 5 { // a machine that is busy may lose one
		if m, _, err = c.Exchange(q, fmt.Sprintf("127.0.0.1:%d", n.dns)); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	if len(m.Answer) == 0 || !strings.HasSuffix(m.Answer[len(m.Answer)-1].String(), k.endpoint().String()) {
		return fmt.Errorf("the answer is %v", m)
	}
	return nil
}

// usage is what a node has open and in use.
type usage struct{ goroutines, descriptors, pipes, memory int }

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors and %d of pipes, %d MB", u.goroutines, u.descriptors, u.pipes, u.memory>>20)
}

// like reports whether nothing was left since. What the proxy keeps for later (64 pipes) isn't left, the connections of a
// scrape come and go, and a heap is a quarter larger at one time than at another.
func (u usage) like(before usage) bool {
	return u.goroutines <= before.goroutines+10 && u.descriptors <= before.descriptors+5 && u.pipes <= 2*64 &&
		u.memory <= before.memory+before.memory/4+(16<<20)
}

// rest waits until no flow is left, and looks.
func (n *node) rest(t *testing.T) (u usage) {
	n.eventually(t, "no flow is left", func() bool {
		m, err := n.scrape()
		return err == nil && m["postern_proxy_flows_active"] == 0
	})
	time.Sleep(3 * time.Second) // for what the last flows have left to do: lines, records, pauses of probes
	m, err := n.scrape()
	if err != nil {
		t.Error(err)
	}
	u.goroutines, u.memory = int(m["go_goroutines"]), int(m["process_resident_memory_bytes"])
	dir := fmt.Sprintf("/proc/%d/fd/", n.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink(dir + e.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			u.pipes++
		} else {
			u.descriptors++
		}
	}
	return u
}

// stop ends the node as a service manager does.
func (n *node) stop(t *testing.T) {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	select {
	case <-n.ended:
		if code := n.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	case <-time.After(quiet):
		t.Error("it doesn't end")
	}
}
