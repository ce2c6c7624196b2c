package proxy

import (
	"io"
	"testing"
	"time"

	"github.com/postern-link/postern/policy"
)

// A program that comes while clients have said nothing yet is asked about them, and however long it takes, no loop waits with
// it: other flows go on, and the flow that it is asked about can be revoked.
func TestProgramComesMeanwhile(t *testing.T) {
	g := newTarget(t)
	w := newWorld(t, Settings{}, service("pr", 7001, g.addr(), pinned), endpoint("e", "pr", nextAddr(t)),
		service("svc", 7001, echo(t)), endpoint("f", "svc", nextAddr(t)))
	waiting := make([]io.Writer, 8) // more than there are loops
	for i := range waiting {
		waiting[i] = dial(t, w.first())
	}
	eventually(t, "they wait", func() bool { return w.proxy.Flows() == len(waiting) })
	program := &hangs{release: make(chan struct{})}
	w.rules.Store(&policy.Policy{Sets: []policy.Set{{Name: "slow", Program: program}}})
	for _, c := range waiting {
		c.Write(helloFor(t, "allowed.example"))
	}
	eventually(t, "the program is asked about all", func() bool { return int(program.waiting.Load()) == len(waiting) })
	other := dial(t, w.now.Load().Endpoint("f").Address.String()+":7001")
	io.WriteString(other, "x")
	if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
		t.Error("another flow waits for the program:", err)
	}
	close(program.release)
	for range waiting {
		g.next()
	}
}

// X23: the time for a hello is one time, also for a client that says nothing at first and little then.
func TestOneDeadlineForTheHello(t *testing.T) {
	t.Parallel()
	const most = 2 * time.Second
	g := newTarget(t)
	w := newWorld(t, Settings{HelloTimeout: most}, service("svc", 7001, g.addr(), pinned), endpoint("e", "svc", nextAddr(t)))
	began := time.Now()
	c := dial(t, w.first())
	time.Sleep(most * 3 / 4)
	c.Write(helloFor(t, "allowed.example")[:10])
	if !isReset(c) {
		t.Error("it isn't reset")
	}
	if took := time.Since(began); took > most*3/2 {
		t.Errorf("it had %v", took)
	}
	eventually(t, "its line", func() bool { return len(w.log.lines("flow refused", "reason=timeout")) == 1 })
}

// X14: a hello with much behind it, and one that comes byte by byte, are carried whole.
func TestHelloWithMuchBehind(t *testing.T) {
	g := newTarget(t)
	w := newWorld(t, Settings{}, service("svc", 7001, g.addr(), pinned), endpoint("e", "svc", nextAddr(t)))
	hello := helloFor(t, "allowed.example")
	c := dial(t, w.first())
	c.Write(append(hello[:len(hello):len(hello)], make([]byte, 12<<10)...))
	far, first := g.next()
	rest := make([]byte, len(hello)-1)
	if _, err := io.ReadFull(far, rest); err != nil || first != hello[0] || string(rest) != string(hello[1:]) {
		t.Errorf("the hello isn't whole: %v", err)
	}
	slow := dial(t, w.first())
	for i := range hello {
		slow.Write(hello[i : i+1])
	}
	far, first = g.next()
	if _, err := io.ReadFull(far, rest); err != nil || first != hello[0] || string(rest) != string(hello[1:]) {
		t.Errorf("the hello in pieces isn't whole: %v", err)
	}
}
