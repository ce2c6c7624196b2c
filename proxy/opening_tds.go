package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/hello"
	"github.com/postern-link/postern/policy/preface"
)

// tdsPrelogin reads the PRELOGIN of a client of TDS 7, which goes to the target before the name is known. A client that
// begins with TLS, as in TDS 8, is one of pin tls.
func (f *flow) tdsPrelogin(ctx context.Context, first []byte) ([]byte, *refusal) {
	by := time.Now().Add(f.settings.HelloTimeout)
	f.client.SetReadDeadline(by)
	from := &prefixed{first, f.client}
	raw, direct, err := preface.Prelogin(from)
	if err != nil {
		return nil, refusedHello(err)
	}
	if direct {
		from.first = append(raw, from.first...)
		return f.helloBehind(ctx, from)
	}
	if len(from.first) > 0 {
		return nil, &refusal{policy.Malformed, "bytes behind the PRELOGIN, before its answer"}
	}
	f.client.SetReadDeadline(time.Time{})
	f.preface = &prefaced{left: time.Until(by), packets: new(preface.Unwrapper)}
	return raw, f.undecided(ctx)
}

// tdsHello passes the target's answer to the client, and reads and judges the hello in the packets that follow. They
// go to the target as they are.
func (f *flow) tdsHello(ctx context.Context) *refusal {
	if f.preface == nil {
		return nil // TDS 8
	}
	f.target.SetReadDeadline(time.Now().Add(f.settings.DialTimeout))
	answer, err := preface.PreloginAnswer(f.target)
	if err != nil {
		return refusedHello(err)
	}
	f.target.SetReadDeadline(time.Time{})
	if r := f.tellClient(answer); r != nil {
		return r
	}
	f.client.SetReadDeadline(time.Now().Add(f.preface.left))
	from := &preface.UnwrapReader{From: f.client, Packets: f.preface.packets}
	h, err := hello.Read(from)
	if err != nil {
		return refusedWrapped(err)
	}
	f.client.SetReadDeadline(time.Time{})
	if len(h.Rest) > 0 || !from.Whole() {
		return &refusal{policy.Malformed, "bytes behind the hello, before its answer"}
	}
	if r := f.judged(ctx, h); r != nil {
		return r
	}
	return f.send(from.Raw)
}

// secondWrapped is secondHello for hellos in packets. What was read is held.
func (f *flow) secondWrapped() *refusal {
	from := &preface.UnwrapReader{From: &prefixed{f.held, f.client}, Packets: f.preface.packets}
	if _, err := hello.ReadSecond(from, hello.Hello{Name: f.request.Name, ECH: f.request.ECH}); err != nil {
		return refusedWrapped(err)
	}
	f.client.SetReadDeadline(time.Time{})
	f.held = from.Raw
	return nil
}

// refusedWrapped returns the refusal for a hello in packets: that of the packets, where they are the cause.
func refusedWrapped(err error) *refusal {
	var of *hello.Error
	if errors.As(errors.Unwrap(err), &of) {
		err = of
	}
	return refusedHello(err)
}

// unwrapping watches a target whose TLS is in packets.
type unwrapping struct {
	packets preface.Unwrapper
	tls     []byte
	hello.Watcher
}

// Watch implements [watcher]. What isn't such packets can't be read: then the client has to send a second hello, if it
// sends anything, so that nothing of it passes unjudged.
func (u *unwrapping) Watch(b []byte) hello.Answer {
	var err error
	u.tls, err = u.packets.Unwrap(u.tls[:0], b)
	if a := u.Watcher.Watch(u.tls); a != hello.Unknown || err == nil {
		return a
	}
	return hello.Retry
}

// tdsWatcher returns the look at a target that is right for how the flow began.
func (f *flow) tdsWatcher() watcher {
	if f.preface == nil {
		return new(hello.Watcher)
	}
	return &unwrapping{packets: preface.Unwrapper{Target: true}}
}
