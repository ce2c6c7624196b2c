package coremain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/coredns/caddy"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/postern-link/postern/node"
	"github.com/postern-link/postern/node/succession"
	"github.com/postern-link/postern/plugin/linkstore"
	"github.com/postern-link/postern/plugin/privatelink"
	"github.com/postern-link/postern/plugin/privatelink/fastpath"
)

// How long the steps of an upgrade may take. Changes of the state are refused from the end of the second to that of the third.
const (
	claimTime   = 30 * time.Second // the new process starts and reads the Corefile
	suspendTime = 5 * time.Second  // what reads or writes the state ends
	readyTime   = 45 * time.Second // the new process opens the state and serves
	resumeTime  = 30 * time.Second // this one opens the state again
)

// ownPath is the path that this process was started by, so that what is there later is the new binary. Links in it
// are not followed: they may lead elsewhere then.
var ownPath, ownPathErr = findOwnPath()

func findOwnPath() (string, error) {
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return os.Executable()
	}
	return filepath.Abs(path)
}

// upgrader runs upgrades of a runner, one at a time.
type upgrader struct {
	asked chan chan error // by the socket beside the state
	done  chan error      // of the one under way
	stop  context.CancelFunc
	reply chan error // who waits for it; nil: nobody
	child *succession.Child
	hands bool // the child takes flows of UDP
}

var (
	errBusy      = errors.New("an upgrade is under way") // a second one was asked for
	errToldToEnd = errors.New("this process was told to end")
)

// ask is [node.Node.OnUpgrade]'s.
func (u *upgrader) ask(ctx context.Context) error {
	reply := make(chan error, 1)
	select {
	case u.asked <- reply:
	case <-ctx.Done():
		return ctx.Err()
	}
	return <-reply // also where who has asked is gone: the upgrade isn't
}

// begin starts an upgrade.
func (r *runner) beginUpgrade(reply chan error) {
	u := &r.upgrades
	if u.stop != nil {
		if reply == nil {
			clog.Warningf("upgrade refused: %v", errBusy)
		}
		answer(reply, errBusy)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	u.stop, u.reply = cancel, reply
	go func() { u.done <- r.upgrade(ctx) }()
}

// endUpgrade notes the result of one. It reports whether another process has taken this one's place.
func (r *runner) endUpgrade(err error) bool {
	u := &r.upgrades
	u.stop()
	if err != nil {
		clog.Errorf("upgrade refused, this process goes on: %v", err)
	}
	answer(u.reply, err)
	u.stop, u.reply = nil, nil
	return err == nil
}

func answer(reply chan error, err error) {
	if reply != nil {
		reply <- err
	}
}

// upgrade starts the binary that is at the path of this one now, and has it take the place of this process. On an error
// this one serves as before.
func (r *runner) upgrade(ctx context.Context) error {
	n := linkstore.Running()
	if n == nil {
		return errors.New("no node is running")
	}
	if ownPathErr != nil {
		return ownPathErr
	}
	// One that has just taken another's place has what that one hands over first: the next would have to wait for both.
	if err := n.Settle(ctx); err != nil {
		return errToldToEnd
	}
	r.loader.mu.Lock() // no reload from here on
	defer r.loader.mu.Unlock()
	stdin, err := r.loader.asStdin()
	if err != nil {
		return err
	}
	if stdin != nil {
		defer stdin.Close()
	}
	child, err := succession.Launch(ownPath, stdin)
	if err != nil {
		return fmt.Errorf("%w%s", err, r.loader.startHint(err))
	}
	child.Patience(claimTime) // with many sockets there is more to send than is held for one that doesn't read
	clog.Infof("upgrade: process %d, %s, is to take the place of this one", child.Pid(), ownPath)
	stop := context.AfterFunc(ctx, child.Interrupt)
	release := fastpath.Hold() // the other process has the same sockets for a while
	if err = r.handOver(n, child); err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		switch {
		case ctx.Err() != nil:
			err = errToldToEnd
		case errors.Is(err, syscall.EPIPE):
			err = errEnded
		}
		return r.takeBack(n, child, release, err)
	}
	r.loader.retired = true
	r.upgrades.child = child
	return nil
}

// handOver goes through the steps until the new process is ready.
func (r *runner) handOver(n *node.Node, child *succession.Child) error {
	begin := succession.Message{Version: Version(), Sandbox: r.loader.sandbox.Rules()}
	if err := r.manager.with(func(fd int) error { return child.SendSockets(begin, fd, fastpath.Owns) }); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("the new process has read nothing for %v", claimTime)
		}
		return err
	}
	claim, err := await(child, succession.Claim, claimTime)
	if err != nil {
		return err
	}
	if p := claim.Protocol; p != 0 && p != succession.Protocol {
		return fmt.Errorf("the new process takes over in another way (%d) than this one hands over (%d); restart it", p, succession.Protocol)
	}
	ctx, cancel := context.WithTimeout(context.Background(), suspendTime)
	defer cancel()
	if err := n.Suspend(ctx); err != nil {
		_ = child.Send(succession.Message{Kind: succession.Refused, Why: err.Error()})
		return err
	}
	if err := child.Send(succession.Message{Kind: succession.Granted}); err != nil {
		return err
	}
	ready, err := await(child, succession.Ready, readyTime)
	if err != nil {
		return err
	}
	r.upgrades.hands = ready.Hands == succession.Hands
	return child.SetReadDeadline(time.Time{})
}

// await returns a message when it has come, or why it won't.
func await(child *succession.Child, kind succession.Kind, within time.Duration) (m succession.Message, err error) {
	if err := child.SetReadDeadline(time.Now().Add(within)); err != nil {
		return m, err
	}
	m, fds, err := child.Receive()
	succession.CloseAll(fds)
	switch {
	case errors.Is(err, io.EOF):
		err = errEnded
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("the new process isn't as far as %q after %v", kind, within)
	case err != nil:
	case m.Kind == succession.Failed:
		err = fmt.Errorf("the new process: %s", m.Why)
	case m.Kind != kind:
		err = fmt.Errorf("the new process says %q instead of %q", m.Kind, kind)
	}
	return m, err
}

// errEnded: the new process has ended without a word of why; its output may have one.
var errEnded = errors.New("the new process has ended")

// takeBack ends the new process and has the node go on with its state.
func (r *runner) takeBack(n *node.Node, child *succession.Child, release func(), err error) error {
	how := child.Kill() // before all else: it may have the state
	release()
	if errors.Is(err, errEnded) {
		err = fmt.Errorf("the new process %s", how)
	}
	ctx, cancel := context.WithTimeout(context.Background(), resumeTime)
	defer cancel()
	if back := n.Resume(ctx); back != nil {
		clog.Errorf("STATE CAN'T BE OPENED AGAIN: DNS and connections go on, no change is taken until a restart: %v", back)
	}
	privatelink.SteerFast() // last: changes wait for the state, and addresses are searched one after another
	return err
}

// retire ends this process behind the one that has taken its place: that one has all sockets, and serves. What is left
// here are flows, and what DNS and the API have under way.
func (r *runner) retire() int {
	child := r.upgrades.child
	r.manager.tell(fmt.Sprintf("MAINPID=%d", child.Pid()))
	clog.Infof("upgrade: process %d serves now; connections that this one has go on here", child.Pid())
	caddy.PidFile = ""     // the file is the other process's
	privatelink.StopFast() // else it would answer from a state that isn't followed any more, for as long as flows last
	instances := slices.Clone(caddy.Instances())
	code := 0
	if err := caddy.Stop(); err != nil {
		clog.Errorf("while ending: %v", err)
		code = 4
	}
	return max(code, callbacks(instances))
}

// upgradeCommand has the running process do it, and says what came of it.
func upgradeCommand(args []string, stdout, stderr io.Writer) int {
	f := newStateFlags("upgrade", stderr)
	if code := f.parse(args, 0, 0); code >= 0 {
		return code
	}
	place, err := f.place()
	if err != nil {
		return fail(stderr, err)
	}
	ctx, stop := interruptible()
	defer stop()
	resp, err := ask(ctx, place, http.MethodPost, "/upgrade", nil)
	if err != nil {
		return fail(stderr, fmt.Errorf("upgrade: %w", err))
	}
	resp.Body.Close()
	fmt.Fprintln(stdout, "another process has taken the place of the running one")
	return 0
}
