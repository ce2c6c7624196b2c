package proxy

import (
	"context"
	"time"

	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/preface"
)

// mysqlWait lets the target be dialled before the client has said a word, as MySQL wants it, for so many flows of a
// source at once.
func (f *flow) mysqlWait(ctx context.Context, first []byte) ([]byte, *refusal) {
	f.held = first
	return nil, f.undecided(ctx)
}

// mysqlHello passes the target's greeting to the client, and reads and judges the hello behind the client's request for
// TLS. Both are held until then.
func (f *flow) mysqlHello(ctx context.Context) *refusal {
	f.target.SetReadDeadline(time.Now().Add(f.settings.DialTimeout))
	greeting, over, err := preface.Greeting(f.target)
	if err != nil {
		return refusedHello(err)
	}
	f.target.SetReadDeadline(time.Time{})
	if r := f.tellClient(greeting); r != nil {
		return r
	}
	if over {
		return f.mysqlOver()
	}
	f.client.SetReadDeadline(time.Now().Add(f.settings.HelloTimeout))
	from := &prefixed{f.held, f.client}
	request, err := preface.SSLRequest(from)
	if err != nil {
		return refusedHello(err)
	}
	h, r := f.helloBehind(ctx, from)
	if r != nil {
		return r
	}
	return f.send(append(request, h...))
}

// mysqlOver ends a flow whose target greeted with an error. The client closes when it has read it, which a
// reset of ours would keep it from.
func (f *flow) mysqlOver() *refusal {
	f.client.CloseWrite()
	f.client.SetReadDeadline(time.Now().Add(f.settings.HelloTimeout))
	f.client.Read(make([]byte, 1))
	return &refusal{policy.Target, "target greets with an error"}
}
