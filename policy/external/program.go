package external

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// Bounds of how a program is asked.
const (
	maxFlows    = 256 // questions about flows at once, and as many more that wait
	maxReviews  = 8
	reviewTime  = 5 * time.Second
	changedTime = 5 * time.Second
	tellEvery   = time.Second // least time between two tellings of what has changed
)

// How long a program that has ended stays so: doubled from the first to the last, and from the first again
// after it has run for as long as the last.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
)

// Program is a policy program that runs, or is about to run again. It implements [policy.Program]; its methods
// are safe for concurrent use.
type Program struct {
	config  Config // complete
	log     *slog.Logger
	metrics *metrics
	exe     *executable
	out     *output

	current atomic.Pointer[instance] // nil: it doesn't run
	flows   slots
	reviews slots

	newest atomic.Pointer[link.Snapshot] // of Changed
	wake   chan struct{}                 // holds a token where tell has something to do

	life    context.Context // until Close
	stop    context.CancelFunc
	running sync.WaitGroup // supervise, tell
}

var _ policy.Program = (*Program)(nil)

// Start runs a program and returns when it answers; it must be closed then. An error is a [*StartError]. ctx
// bounds the start alone, which takes 10 s at most. A nil log is silent, nil metrics count nothing.
//
// The binary must call [Launch] first of all.
func Start(ctx context.Context, c Config, log *slog.Logger, m *Metrics) (*Program, error) {
	c = c.complete()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	exe, err := openExecutable(c.Path, c.Checksum)
	if err != nil {
		return nil, &StartError{Name: c.Name, Err: err}
	}
	p := &Program{
		config: c, log: log.With("policy", c.Name), metrics: m.take(c.Name), exe: exe,
		flows: newSlots(maxFlows), reviews: newSlots(maxReviews), wake: make(chan struct{}, 1),
	}
	p.out = &output{log: p.log, dropped: p.metrics.dropped, now: time.Now}
	sweep()
	in, err := begin(ctx, c, exe, p.out)
	if err != nil {
		exe.close()
		p.metrics.release()
		return nil, &StartError{Name: c.Name, Err: err, Output: p.out.last()}
	}
	if missing := unprotected(); missing != "" {
		p.log.Warn("the policy program runs with less of a sandbox than it should: this kernel lacks " + missing)
	}
	p.life, p.stop = context.WithCancel(context.Background())
	p.enter(in)
	p.running.Go(func() { p.supervise(in) })
	if c.Changes {
		p.running.Go(p.tell)
	}
	return p, nil
}

// Config returns what the program was started with.
func (p *Program) Config() Config { return p.config }

// AsksFlows reports whether the program is asked about flows, for [policy.AsksFlows].
func (p *Program) AsksFlows() bool { return p.config.Flows }

// Close ends the program and waits until nothing of it is left. Questions that it was asked already have their
// time to be answered; later ones are refused. It may be called once.
func (p *Program) Close() error {
	p.stop()
	p.running.Wait()
	p.exe.close()
	p.metrics.release()
	return nil
}

// enter makes in the run that is asked.
func (p *Program) enter(in *instance) {
	p.current.Store(in)
	p.metrics.up.Set(1)
	p.kick()
}

// leave has nobody ask any more.
func (p *Program) leave() {
	p.current.Store(nil)
	p.metrics.up.Set(0)
}

// supervise starts the program again whenever it ends, until Close.
func (p *Program) supervise(in *instance) {
	for pause := firstPause; in != nil; {
		began := time.Now()
		select {
		case <-p.life.Done():
			p.leave()
			p.flows.drain(p.config.Timeout)
			p.reviews.drain(0)
			in.end()
			return
		case <-in.done():
		}
		p.leave()
		in.end()
		p.log.Error("the policy program has ended, what it is asked is refused until it runs again", "error", in.why(), "output", p.out.last())
		if time.Since(began) >= lastPause {
			pause = firstPause
		}
		in = p.again(&pause)
	}
}

// again starts the program until it runs; nil after Close.
func (p *Program) again(pause *time.Duration) *instance {
	for {
		wait := *pause/2 + rand.N(*pause/2+1) // many nodes don't all come back at once
		*pause = min(2**pause, lastPause)
		select {
		case <-p.life.Done():
			return nil
		case <-time.After(wait):
		}
		in, err := begin(p.life, p.config, p.exe, p.out)
		if err == nil {
			p.metrics.restarts.Inc()
			p.enter(in)
			p.log.Info("the policy program runs again")
			return in
		}
		if p.life.Err() == nil {
			p.log.Error("the policy program can't be started again yet", "error", err, "output", p.out.last())
		}
	}
}

// slots bounds how many do something at once, and how many wait for it.
type slots struct{ free, waiting chan struct{} }

func newSlots(n int) slots { return slots{make(chan struct{}, n), make(chan struct{}, n)} }

// take reports whether there is a slot within wait. There is none at once where as many wait already.
func (s slots) take(ctx context.Context, wait time.Duration) bool {
	select {
	case s.free <- struct{}{}:
		return true
	default:
	}
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return false
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case s.free <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// give gives a slot back.
func (s slots) give() { <-s.free }

// drain waits until all slots are given back, or for a while, and keeps them.
func (s slots) drain(most time.Duration) {
	t := time.NewTimer(most)
	defer t.Stop()
	for range cap(s.free) {
		select {
		case s.free <- struct{}{}:
		case <-t.C:
			return
		}
	}
}
