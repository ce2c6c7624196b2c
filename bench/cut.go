//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// few is the number of flows of the smaller of the tests in which flows are cut.
const few = 1000

// keyCut is the time from the signal to reload until the clients have seen the last reset, in seconds.
const keyCut = "cut"

var columnCut = column{key: keyCut, head: "cut s", digits: 2}

// cutTests are the tests in which the connection of idle flows is rejected.
func (b *bench) cutTests() []proxyTest {
	of := func(name string, flows int) proxyTest {
		return proxyTest{kind: loadCut, conns: flows, test: test{
			name: name, title: fmt.Sprintf("Proxy: from a reload that rejects until the last of %d idle flows is reset", flows),
			columns: []column{columnCut, {key: keyFlows, head: "flows"}},
		}}
	}
	return []proxyTest{of("cut-few", min(few, b.flows)), of("cut", b.idleFlows())}
}

// runCut measures each of them once.
func (b *bench) runCut(round int) {
	for _, t := range rotated(b.cutTests(), round) {
		if b.wants(t.name, serverPostern) {
			b.cell(round, t.name, serverPostern, func() (map[string]float64, float64, error) { return b.measureCut(t) })
		}
	}
}

// measureCut starts a node, opens the flows, and has the node load a Corefile that rejects their network.
func (b *bench) measureCut(t proxyTest) (map[string]float64, float64, error) {
	p, err := b.start(server{serverPostern, b.posternProxy})
	if err != nil {
		return nil, 0, err
	}
	defer p.stop()
	if err := p.await(func() error { return b.ask(t) }); err != nil {
		return nil, 0, err
	}
	l, err := b.startLoad(order{Kind: t.kind, Target: b.net.endpoint, Sources: b.net.sources, Conns: t.conns})
	if err != nil {
		return nil, 0, err
	}
	defer l.stop()
	if err := l.awaitBegan(); err != nil {
		return nil, 0, err
	}
	settle()
	if err := rejects(filepath.Join(p.dir, "Corefile")); err != nil {
		return nil, 0, err
	}
	w := observe(tree(p.cmd.Process.Pid), append(tree(l.cmd.Process.Pid), b.sink.cmd.Process.Pid))
	signalled := uptime()
	if err := p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return nil, 0, err
	}
	out, err := l.outcome()
	if err != nil {
		return nil, 0, fmt.Errorf("%w; the node's log ends: %s", err, p.tail())
	}
	u := w.end(0)
	if out.Errors > 0 {
		return nil, 0, fmt.Errorf("%d flows ended otherwise than with a reset, or couldn't be opened", out.Errors)
	}
	return map[string]float64{keyCut: out.Last - signalled.Seconds(), keyFlows: float64(out.Count)}, u.others, nil
}

// rejects changes a Corefile so that the service rejects the network that it approved.
func rejects(corefile string) error {
	text, err := os.ReadFile(corefile)
	if err != nil {
		return err
	}
	next := strings.Replace(string(text), "  approve consumer\n", "  visible consumer\n  reject consumer\n", 1)
	if next == string(text) {
		return errors.New("the Corefile approves nobody")
	}
	return os.WriteFile(corefile, []byte(next), 0o644)
}

// uptime is a clock that all processes of a machine share.
func uptime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // there is no Linux without it
	}
	return time.Duration(now.Nano())
}

// cut opens idle connections and waits until all of them are reset. One that ends otherwise is an error.
func (g *generator) cut() error {
	live, err := g.idle()
	if err != nil {
		return err
	}
	g.out.Count = 0
	for deadline := time.Now().Add(60 * time.Second); len(live) > 0; {
		events, err := g.poll.wait(100)
		if err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d connections weren't cut within 60 s", len(live))
		}
		for _, e := range events {
			n, err := unix.Read(int(e.Fd), g.buf)
			if n > 0 || err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if err == unix.ECONNRESET {
				g.out.Count++
			} else {
				g.out.Errors++
			}
			delete(live, int(e.Fd))
			unix.Close(int(e.Fd))
		}
	}
	g.out.Last = uptime().Seconds()
	return nil
}
