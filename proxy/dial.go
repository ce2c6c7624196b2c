package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/engine"
)

// dial connects the flow to a target: each is tried once at most, healthy ones first, all within
// one deadline, of which each gets an equal share of what is left. Waiting for a place is within it too.
func (f *flow) dial(ctx context.Context) *refusal {
	began := time.Now()
	ctx, cancel := context.WithDeadline(ctx, began.Add(f.settings.DialTimeout))
	defer cancel()
	var tried []netip.AddrPort
	var last error = errors.New("the service has no target")
	for ctx.Err() == nil {
		service, addr, left, refused := f.line(ctx, tried)
		if left == 0 {
			if crowded(refused) {
				return &refusal{policy.Limit, refused.Error()}
			}
			if refused != nil && len(tried) == 0 {
				last = refused
			}
			break
		}
		tried = append(tried, addr)
		deadline, _ := ctx.Deadline()
		d := dialling{f.proxy.engine, f.client, f.proxy.guardDial(service)}
		conn, err := d.target(ctx, service, addr, time.Until(deadline)/time.Duration(left))
		if !f.queued || !timedOut(err) { // else it had what time the line had left
			f.proxy.health.report(service.ID, addr, err)
		}
		if err != nil {
			last = err
			continue
		}
		if !f.attach(conn) {
			return &refusal{policy.Revoked, "ended while dialling"}
		}
		f.proxy.metrics.dialSeconds.Observe(time.Since(began).Seconds())
		return nil
	}
	if errors.Is(last, syscall.EADDRNOTAVAIL) {
		return &refusal{policy.Limit, "no NAT port left: " + last.Error()}
	}
	return &refusal{policy.NoTarget, last.Error()}
}

// target connects to a target of a service, from one of its NAT addresses where it has any of
// the target's family. Where the ports of one are used up the next is tried. guard may refuse the address
// before anything is sent.
func (d dialling) target(ctx context.Context, service *link.Service, addr netip.AddrPort, timeout time.Duration) (engine.Conn, error) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var nat bool
	var last error
	for _, from := range service.NAT {
		if from.Is4() != addr.Addr().Is4() {
			continue
		}
		nat = true
		conn, err := d.connect(ctx, netip.AddrPortFrom(from, 0), addr)
		if err == nil || !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return conn, err
		}
		last = err
	}
	if nat {
		return nil, last
	}
	return d.connect(ctx, netip.AddrPort{}, addr)
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

// dialling is who dials: a flow for its client, or a probe.
type dialling struct {
	engine engine.Engine
	near   engine.Conn // of the client; nil for a probe
	guard  func(to netip.AddrPort) error
}

// connect dials from an address; from the kernel's choice where from isn't valid.
func (d dialling) connect(ctx context.Context, from, to netip.AddrPort) (engine.Conn, error) {
	options := dialOptions(from.IsValid())
	conn, err := d.engine.Dial(ctx, from, to, d.near, func(fd uintptr, to netip.AddrPort) error {
		if err := d.guard(to); err != nil {
			return err
		}
		return options(fd)
	})
	if err != nil {
		return nil, fmt.Errorf("dial %v: %w", to, err)
	}
	return conn, nil
}
