package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/engine"
)

// attempt is a dial that was begun, and isn't over or has failed. The zero value is none.
type attempt struct {
	service *link.Service
	addr    netip.AddrPort
	left    int // how many targets there are to try, this one included
	finish  engine.Finish
	err     error // instead of finish
	at      time.Time
}

// dial connects the flow to a target: each is tried once at most, healthy ones first, all within
// one deadline, of which each gets an equal share of what is left. Waiting for a place is within it too. b is the first
// try, where there was one.
func (f *flow) dial(ctx context.Context, b attempt) *refusal {
	if b.at.IsZero() {
		b.at = time.Now()
	}
	ctx, cancel := context.WithDeadline(ctx, b.at.Add(f.settings.DialTimeout))
	defer cancel()
	var tried []netip.AddrPort
	var last error = errors.New("the service has no target")
	for b.addr.IsValid() || ctx.Err() == nil {
		if !b.addr.IsValid() {
			var refused error
			if b.service, b.addr, b.left, refused = f.line(ctx, tried); b.left == 0 {
				if crowded(refused) {
					return &refusal{policy.Limit, refused.Error()}
				}
				if refused != nil && len(tried) == 0 {
					last = refused
				}
				break
			}
		}
		tried = append(tried, b.addr)
		deadline, _ := ctx.Deadline()
		conn, err := f.try(ctx, b, time.Until(deadline)/time.Duration(b.left))
		if err == nil {
			if !f.reached(b, conn) {
				return &refusal{policy.Revoked, "ended while dialling"}
			}
			return nil
		}
		if !f.queued || !timedOut(err) { // else it had what time the line had left
			f.proxy.health.report(b.service.ID, b.addr, err)
		}
		last, b = err, attempt{at: b.at}
	}
	if errors.Is(last, syscall.EADDRNOTAVAIL) {
		return &refusal{policy.Limit, "no NAT port left: " + last.Error()}
	}
	return &refusal{policy.NoTarget, last.Error()}
}

// try waits for one target, and dials it if that wasn't begun.
func (f *flow) try(ctx context.Context, b attempt, timeout time.Duration) (engine.Conn, error) {
	if b.err != nil {
		return nil, b.err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if b.finish == nil {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		conn, finish, err := f.seek(f.dialling(b.service), b.service, b.addr)
		if finish == nil {
			return conn, err
		}
		b.finish = finish
	}
	return b.finish(ctx)
}

// seek takes a connection to a target that is ready, or begins to dial one.
func (f *flow) seek(d dialling, service *link.Service, addr netip.AddrPort) (engine.Conn, engine.Finish, error) {
	f.warmed = false
	if service.Warm > 0 && d.guard(netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())) == nil { // else begin says why not
		if conn := f.proxy.warm.take(service, addr, f.client); conn != nil {
			f.warmed = true
			return conn, nil, nil
		}
	}
	return d.begin(service, addr)
}

// reached makes a connection the flow's. It reports false where the flow was ended meanwhile.
func (f *flow) reached(b attempt, conn engine.Conn) bool {
	if !f.warmed { // else it was reached a while ago
		f.proxy.health.report(b.service.ID, b.addr, nil)
	}
	if b.service.Warm > 0 {
		f.proxy.warm.used(b.service, b.addr, f.warmed)
	}
	if !f.attach(conn) {
		return false
	}
	f.proxy.metrics.dialSeconds.Observe(time.Since(b.at).Seconds())
	return true
}

// target connects to a target of a service, and waits. See begin.
func (d dialling) target(ctx context.Context, service *link.Service, addr netip.AddrPort, timeout time.Duration) (engine.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, finish, err := d.begin(service, addr)
	if finish == nil {
		return conn, err
	}
	return finish(ctx)
}

// begin begins to connect to a target of a service, from one of its NAT addresses where it has any of
// the target's family. Where the ports of one are used up the next is tried. guard may refuse the address
// before anything is sent.
func (d dialling) begin(service *link.Service, addr netip.AddrPort) (engine.Conn, engine.Finish, error) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if len(service.NAT) == 0 || !slices.ContainsFunc(service.NAT, func(a netip.Addr) bool { return a.Is4() == addr.Addr().Is4() }) {
		return d.connect(netip.AddrPort{}, addr)
	}
	return d.fromOneOf(service.NAT, addr)
}

func (d dialling) fromOneOf(nat []netip.Addr, to netip.AddrPort) (_ engine.Conn, _ engine.Finish, last error) {
	for i, from := range nat {
		if from.Is4() != to.Addr().Is4() {
			continue
		}
		conn, finish, err := d.connect(netip.AddrPortFrom(from, 0), to)
		if finish != nil {
			return nil, func(ctx context.Context) (engine.Conn, error) { return d.orFromOneOf(ctx, finish, nat[i+1:], to) }, nil
		}
		if err == nil || !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return conn, nil, err
		}
		last = err
	}
	return nil, nil, last
}

// orFromOneOf waits for a connection, and tries other addresses where only then it is found out that one has no port left.
func (d dialling) orFromOneOf(ctx context.Context, finish engine.Finish, nat []netip.Addr, to netip.AddrPort) (engine.Conn, error) {
	conn, err := finish(ctx)
	if err == nil || !errors.Is(err, syscall.EADDRNOTAVAIL) || len(nat) == 0 {
		return conn, err
	}
	conn, finish, later := d.fromOneOf(nat, to)
	switch {
	case finish != nil:
		return finish(ctx)
	case conn == nil && later == nil:
		return nil, err // none of the family was left
	}
	return conn, later
}

// blames reports whether an error of reaching a target is the target's or its network's: it refused,
// can't be reached, or didn't answer in our time. All else, such as no descriptor or port left here, or
// a flow that was revoked meanwhile, says nothing about the target.
func blames(err error) bool {
	if errors.As(err, new(unfit)) {
		return true
	}
	for _, of := range targetErrors {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

var targetErrors = [...]error{
	syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ETIMEDOUT,
	// EPIPE is what a write is told after the reset.
	syscall.ECONNRESET, syscall.EPIPE,
	// Ours: of the context of a dial, of a write.
	context.DeadlineExceeded, os.ErrDeadlineExceeded,
}

// dialling returns how the flow dials.
func (f *flow) dialling(service *link.Service) dialling {
	return dialling{f.proxy.engine, f.client, f.proxy.guardDial(service), service.ProxyProtocol != link.ProxyOff}
}

// dialling is who dials: a flow for its client, or a probe.
type dialling struct {
	engine engine.Engine
	near   engine.Conn // of the client; nil for a probe
	guard  func(to netip.AddrPort) error
	speaks bool // something is written as soon as the connection is there
}

// connect begins to dial from an address; from the kernel's choice where from isn't valid.
func (d dialling) connect(from, to netip.AddrPort) (engine.Conn, engine.Finish, error) {
	conn, finish, err := d.engine.Begin(from, to, d.near, func(fd uintptr, to netip.AddrPort) error {
		if err := d.guard(to); err != nil {
			return err
		}
		return dialOptions(fd, from.IsValid(), d.speaks)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("dial %v: %w", to, err)
	}
	if finish == nil {
		return conn, nil, nil
	}
	return nil, func(ctx context.Context) (engine.Conn, error) {
		conn, err := finish(ctx)
		if err != nil {
			return nil, fmt.Errorf("dial %v: %w", to, err)
		}
		return conn, nil
	}, nil
}
