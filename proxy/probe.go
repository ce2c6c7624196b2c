package proxy

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/header"
)

// lane is a number of probes that may be under way at once.
type lane chan struct{}

func newLane(n int) lane { return make(lane, n) }

// ask probes a target once there is room, first in the share of its service, then in the lane. The wait
// is not part of the timeout. The error is that of ctx where it is done before. Where another service
// has just asked the same of the same address, its answer serves.
func (h *health) ask(ctx context.Context, t *targetHealth, l, share lane, timeout time.Duration) error {
	service := t.service.Load()
	if why := h.proxy.refuses(h.proxy.snapshot(), service, t.addr); why != "" {
		return forbidden{t.addr, why} // nor is it told what another service has found out
	}
	for _, one := range [...]lane{share, l} {
		select {
		case one <- struct{}{}:
			defer func() { <-one }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if len(service.NAT) > 0 { // from where it asks is part of the question
		return h.proxy.probeTarget(ctx, service, t.addr, timeout)
	}
	fresh := min(h.proxy.settings.Load().ProbeInterval, unpublishedPace) / 2
	return h.asked.once(question{t.addr, service.ProxyProtocol, wordsOf(service), timeout}, fresh, func() error {
		return h.proxy.probeTarget(ctx, service, t.addr, timeout)
	})
}

// question is what a probe asks.
type question struct {
	addr    netip.AddrPort
	header  link.ProxyProtocol
	words   words
	timeout time.Duration
}

// asked remembers the newest answer to each question, so that a backend of a thousand services isn't
// probed a thousand times. The zero value is ready.
type asked struct {
	mu      sync.Mutex
	answers map[question]*reply
	swept   time.Time // when forget last looked at them
}

type reply struct {
	began time.Time
	done  chan struct{}
	err   error // once done is closed
}

// once returns the answer to a question: one that is younger than fresh or on its way, else that of f.
func (a *asked) once(q question, fresh time.Duration, f func() error) error {
	a.mu.Lock()
	r := a.answers[q]
	if r != nil && time.Since(r.began) < max(fresh, r.running()) {
		a.mu.Unlock()
		<-r.done
		return r.err
	}
	r = &reply{began: time.Now(), done: make(chan struct{})}
	if a.answers == nil {
		a.answers = make(map[question]*reply)
	}
	a.answers[q] = r
	a.mu.Unlock()
	r.err = f()
	close(r.done)
	return r.err
}

// running returns a time that hasn't passed while the answer is on its way.
func (r *reply) running() time.Duration {
	select {
	case <-r.done:
		return 0
	default:
		return 1<<63 - 1
	}
}

// askedKept is how long an answer is kept at least.
const askedKept = time.Minute

// forget drops answers that nobody has asked for in a while.
func (a *asked) forget(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.swept) < askedKept {
		return // there may be many, and changes may be too
	}
	a.swept = now
	for q, r := range a.answers {
		if now.Sub(r.began) > askedKept && r.running() == 0 {
			delete(a.answers, q)
		}
	}
}

// timedOut reports whether a target said nothing at all.
func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT)
}

// probeTarget connects to a target as a flow would, says in the header that it is no client, and asks what the service
// wants asked. It ends with a reset: an orderly end would leave a socket in TIME_WAIT here for each probe.
func (p *Proxy) probeTarget(ctx context.Context, service *link.Service, addr netip.AddrPort, timeout time.Duration) error {
	until := time.Now().Add(timeout)
	d := dialling{engine: p.engine, guard: p.guardDial(service)}
	conn, err := d.target(ctx, service, addr, timeout)
	if err != nil {
		return err
	}
	defer conn.Reset()
	stop := context.AfterFunc(ctx, conn.Reset)
	defer stop()
	conn.SetReadDeadline(until)
	conn.SetWriteDeadline(until)
	if head := header.AppendLocal(nil, service.ProxyProtocol); len(head) > 0 {
		if _, err := conn.Write(head); err != nil {
			return err
		}
	}
	err = wordsOf(service).ask(ctx, conn, addr)
	if ctx.Err() != nil {
		return ctx.Err() // it was we who ended it
	}
	return err
}
