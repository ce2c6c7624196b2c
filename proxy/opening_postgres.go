package proxy

import (
	"context"
	"time"

	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/preface"
)

// answering reads what was read of a client already, then the client, and writes to it.
type answering struct {
	prefixed
	flow *flow
}

func (a *answering) Write(b []byte) (int, error) {
	if r := a.flow.tellClient(b); r != nil {
		return 0, r
	}
	return len(b), nil
}

// postgresHello says yes to a client's request for TLS, since nothing is dialled before the hello that follows
// was judged (docs/decisions/0023). What goes to the target is our own request. A client that begins with TLS is
// one of pin tls.
func (f *flow) postgresHello(ctx context.Context, first []byte) ([]byte, *refusal) {
	f.client.SetReadDeadline(time.Now().Add(f.settings.HelloTimeout))
	from := &answering{prefixed{first, f.client}, f}
	begun, direct, err := preface.Postgres(from)
	if err != nil {
		return nil, refusedHello(err)
	}
	if len(from.first) > 0 && !direct {
		return nil, &refusal{policy.Malformed, "bytes behind the request for TLS, before its answer"}
	}
	from.first = append(begun, from.first...)
	h, r := f.helloBehind(ctx, &from.prefixed)
	if r != nil || direct {
		return h, r
	}
	f.preface = &prefaced{hello: h}
	return preface.PostgresSSLRequest(), nil
}

// postgresAnswer waits for the target to agree to TLS, and sends the hello.
func (f *flow) postgresAnswer(context.Context) *refusal {
	if f.preface == nil {
		return nil // the hello is there already
	}
	f.target.SetReadDeadline(time.Now().Add(f.settings.DialTimeout))
	if err := preface.PostgresAnswer(f.target); err != nil {
		return refusedHello(err)
	}
	f.target.SetReadDeadline(time.Time{})
	h := f.preface.hello
	f.preface = nil
	return f.send(h)
}
