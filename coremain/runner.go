package coremain

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coredns/caddy"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/postern-link/postern/plugin/linkstore"
)

// runner is a started server and the signals that it follows. It takes the place of
// caddy.TrapSignals, which purges all event hooks at a reload by SIGUSR1. The reload plugin registers
// its hook once per process, so it would never watch the file again (coredns issue 6263, C14).
type runner struct {
	loader  *loader
	signals chan os.Signal
	// current is the instance whose start or reload was completed last. Caddy's list holds two
	// instances during a reload, and the new one alone before the old one's callbacks have run.
	current  atomic.Pointer[caddy.Instance]
	manager  *manager // the service manager
	upgrades upgrader
	clients  *warden // of CoreDNS's listeners, nil: nobody's
	hurried  bool    // the time of connections behind another process is short already
}

// theRunner is the runner that the event hook reports to: hooks belong to the process.
var theRunner atomic.Pointer[runner]

var hookOnce sync.Once

func newRunner(l *loader, m *manager) *runner {
	r := &runner{loader: l, signals: make(chan os.Signal, 8), manager: m, upgrades: upgrader{asked: make(chan chan error), done: make(chan error, 1)}}
	var err error
	if r.clients, err = newWarden(); err != nil {
		clog.Warningf("the connections of clients of DNS aren't bounded: %v", err)
	}
	signal.Notify(r.signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	theRunner.Store(r)
	hookOnce.Do(func() {
		caddy.RegisterEventHook("postern", func(event caddy.EventName, info any) error {
			if inst, ok := info.(*caddy.Instance); ok && event == caddy.InstanceStartupEvent {
				if r := theRunner.Load(); r != nil {
					r.current.Store(inst)
					r.clients.listening()
				}
			}
			return nil
		})
	})
	return r
}

// errInterrupted: a signal came before the start was complete.
var errInterrupted = errors.New("ended by a signal before the start was complete")

// startGrace is how long a start that was told to end may still take to complete, so that the end is
// an orderly one. A second signal doesn't wait for it.
const startGrace = 2 * time.Second

// start has begin start the server with its first configuration. A signal that comes meanwhile is put off, not
// lost: the Corefile may have changed after it was read, and a server that is told to end when its
// sockets are open already ends as any other.
func (r *runner) start(begin func() error) error {
	started := make(chan error, 1)
	go func() { started <- begin() }()
	var later os.Signal // the weightiest that came
	var late <-chan time.Time
	for {
		select {
		case err := <-started:
			if later != nil {
				select {
				case r.signals <- later:
				default: // as many signals wait as fit, and are looked at first
				}
			}
			return err
		case <-late:
			return errInterrupted // nothing is served yet, and the state survives a kill
		case s := <-r.signals:
			switch s {
			case syscall.SIGTERM, syscall.SIGINT:
				if late != nil {
					return errInterrupted
				}
				later, late = s, time.After(startGrace)
			case syscall.SIGQUIT:
				return errInterrupted
			case syscall.SIGUSR1:
				if later == nil {
					later = s
				}
			}
		}
	}
}

// run follows signals until one of them ends the server, and returns the exit code.
func (r *runner) run() int {
	defer r.clients.close()
	ended := make(chan struct{})
	go func() {
		r.current.Load().Wait() // the wait group is handed from instance to instance
		close(ended)
	}()
	if n := linkstore.Running(); n != nil {
		n.OnUpgrade(r.upgrades.ask)
	}
	var pulse <-chan time.Time
	if every := r.manager.pulse; every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		pulse = ticker.C
	}
	r.manager.tell("READY=1")
	var stopped chan int // open while the server is being ended
	var later os.Signal  // for after an upgrade
	for {
		select {
		case <-pulse:
			r.manager.tell("WATCHDOG=1")
		case <-ended:
			if stopped == nil {
				clog.Error("all listeners have ended by themselves")
				return 1
			}
			ended = nil
		case code := <-stopped:
			return code
		case reply := <-r.upgrades.asked:
			if stopped != nil {
				reply <- errors.New("this process is ending")
				break
			}
			r.beginUpgrade(reply)
		case err := <-r.upgrades.done:
			if err == nil {
				linkstore.Running().Retire(r.upgrades.child.Conn, r.upgrades.hands)
				pulse, stopped = nil, make(chan int, 1)
				go func() { stopped <- r.retire() }()
			}
			r.endUpgrade(err)
			if err == nil && later == syscall.SIGUSR1 {
				clog.Warning("SIGUSR1 came during the upgrade: the new process may have read the Corefile before; send it to that one")
			}
			if later == nil {
				break
			}
			code, end := r.follow(later, &stopped)
			if later = nil; end {
				return code
			}
		case s := <-r.signals:
			if r.upgrades.stop != nil && r.putOff(s, &later) {
				break
			}
			code, end := r.follow(s, &stopped)
			if end {
				return code
			}
		}
	}
}

// putOff keeps a signal until the upgrade under way is over, which ends for one that ends this process. It reports false
// where it can't wait.
func (r *runner) putOff(s os.Signal, later *os.Signal) bool {
	switch s {
	case syscall.SIGTERM, syscall.SIGINT:
		*later = s
		r.upgrades.stop()
	case syscall.SIGUSR1:
		if *later == nil {
			*later = s // an upgrade has the loader
		}
	default:
		return false
	}
	return true
}

// follow does what a signal says. end: this process ends at once, with the code.
func (r *runner) follow(s os.Signal, stopped *chan int) (code int, end bool) {
	switch s {
	case syscall.SIGQUIT:
		clog.Info("SIGQUIT: ending at once")
		return 0, true
	case syscall.SIGTERM, syscall.SIGINT:
		switch {
		case *stopped == nil:
			clog.Infof("%s: ending; a second signal ends at once", signalName(s))
			if err := r.manager.keep(); err != nil {
				clog.Warningf("the service manager can't keep what is listened on: %v", err)
			}
			r.manager.tell("STOPPING=1")
			*stopped = make(chan int, 1)
			go func() { *stopped <- stop(signalName(s)) }()
		case r.hurry():
			clog.Infof("%s: connections have the drain time left; a second signal ends at once", signalName(s))
		default:
			clog.Warning("second signal: ending at once")
			return 2, true
		}
	case syscall.SIGUSR1:
		if *stopped == nil {
			clog.Info("SIGUSR1: loading the Corefile again")
			r.manager.reloading()
			r.reload()
			r.manager.tell("READY=1")
		}
	case syscall.SIGUSR2:
		if *stopped == nil {
			r.beginUpgrade(nil)
		} else {
			clog.Warning("SIGUSR2: this process is ending, and none takes its place any more")
		}
	}
	return 0, false
}

// hurry shortens the time of connections behind another process, once. It reports whether it has.
func (r *runner) hurry() bool {
	if r.upgrades.child == nil || r.hurried {
		return false
	}
	r.hurried = true
	n := linkstore.Running()
	return n != nil && n.Hurry()
}

// settleTime is how long a reload by signal waits for one of the reload plugin to be over.
const settleTime = 30 * time.Second

// reload reloads by signal, after a reload that the plugin has begun is complete.
func (r *runner) reload() {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(settleTime); ; <-tick.C {
		if all, cur := caddy.Instances(), r.current.Load(); len(all) == 1 && all[0] == cur {
			r.loader.reload(cur)
			return
		}
		if time.Now().After(end) {
			clog.Error("SIGUSR1: another reload isn't over; try again")
			return
		}
	}
}

// stop ends the server in order: callbacks first, while DNS goes on, so that the data plane drains
// behind answers that are still given, then the servers. It returns the exit code.
func stop(why string) int {
	caddy.EmitEvent(caddy.ShutdownEvent, why)
	code := callbacks(caddy.Instances())
	if err := caddy.Stop(); err != nil {
		clog.Errorf("while ending: %v", err)
		code = 4
	}
	return code
}

// callbacks runs those for the end, and returns the exit code.
func callbacks(instances []*caddy.Instance) (code int) {
	for _, inst := range instances {
		for _, err := range inst.ShutdownCallbacks() {
			clog.Errorf("while ending: %v", err)
			code = 4 // as CoreDNS
		}
	}
	return code
}

func signalName(s os.Signal) string {
	if s == syscall.SIGINT {
		return "SIGINT"
	}
	return "SIGTERM"
}
