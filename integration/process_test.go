package integration

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// output collects what a process or a provider of ours says.
type output struct {
	mu   sync.Mutex
	text strings.Builder
	grew chan struct{} // closed and renewed with each write
}

func newOutput() *output { return &output{grew: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.grew)
	o.grew = make(chan struct{})
	return o.text.Write(p)
}

func (o *output) read() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.grew
}

func (o *output) String() string {
	s, _ := o.read()
	return s
}

// find waits until re matches what was written after the first from bytes, and returns the match; "" where
// timeout or stop came first.
func (o *output) find(re *regexp.Regexp, from int, timeout time.Duration, stop <-chan struct{}) string {
	deadline := time.After(timeout)
	for {
		text, grew := o.read()
		if m := re.FindString(text[min(from, len(text)):]); m != "" {
			return m
		}
		select {
		case <-grew:
		case <-deadline:
			return ""
		case <-stop:
			text, _ := o.read()
			return re.FindString(text[min(from, len(text)):])
		}
	}
}

// process is a running program in a host's namespace.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *output
	done chan struct{} // closed when it has ended
	code int           // its exit code once done is closed, -1 after a signal
}

// launch starts a command; its output goes to one place.
func launch(name, dir string, env []string, cmd *exec.Cmd) (*process, error) {
	p := &process{name: name, cmd: cmd, out: newOutput(), done: make(chan struct{})}
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, p.out, p.out
	// A group of its own: what it forks ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A child that holds the output open must not hold up Wait.
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // the exit code is what counts
		p.code = cmd.ProcessState.ExitCode()
	}()
	return p, nil
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// wait reports whether the process ended within d.
func (p *process) wait(d time.Duration) bool {
	select {
	case <-p.done:
		return true
	case <-time.After(d):
		return false
	}
}

// end ends the process and all that it forked: politely, and after patience for good.
func (p *process) end(patience time.Duration) error {
	if !p.running() {
		return nil
	}
	_ = p.signal(syscall.SIGTERM) // it may have ended meanwhile
	polite := p.wait(patience)
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
	if !polite {
		return fmt.Errorf("%s didn't end within %v of SIGTERM", p.name, patience)
	}
	return nil
}
