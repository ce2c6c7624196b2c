package proxy

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/hello"
	"github.com/postern-link/postern/policy/preface"
)

// maxUndecided is how many flows of one source may have a target while their name isn't judged. A client of
// a protocol in which the target speaks first holds one of the target's few connections by saying nothing; a pool
// of such clients that starts is well below.
const maxUndecided = 64

// prefaced is what a flow keeps whose hello comes behind a preface in clear.
type prefaced struct {
	left    time.Duration      // of the time that the client has for its first bytes
	hello   []byte             // judged, and to be sent when the target has agreed to TLS
	packets *preface.Unwrapper // what the client's hellos are wrapped in; nil: nothing
}

// undecided counts the flows that have a target and no judged name, by source. The zero value is ready.
type undecided struct {
	mu      sync.Mutex
	sources map[netip.Addr]int // by sourceOf
}

// undecided counts the flow until it is judged or has ended. It refuses one beyond what its source may have.
func (f *flow) undecided(ctx context.Context) *refusal {
	u, source := &f.proxy.undecided, sourceOf(f.request.Source.Addr())
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sources[source] >= maxUndecided {
		return &refusal{policy.Limit, "too many flows of the source that haven't told their name"}
	}
	if u.sources == nil {
		u.sources = make(map[netip.Addr]int)
	}
	u.sources[source]++
	context.AfterFunc(ctx, func() { // ctx ends when the flow is copied, or is over
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.sources[source]--; u.sources[source] == 0 {
			delete(u.sources, source)
		}
	})
	return nil
}

// helloBehind reads and judges the hello behind a preface, within the deadline that is set. What came behind it is held.
func (f *flow) helloBehind(ctx context.Context, from *prefixed) ([]byte, *refusal) {
	h, err := hello.Read(from)
	if err != nil {
		return nil, refusedHello(err)
	}
	f.client.SetReadDeadline(time.Time{})
	f.held = slices.Concat(h.Rest, from.first)
	return h.Bytes, f.judged(ctx, h)
}

// tellClient writes what the target, or we in its place, said before the name was judged.
func (f *flow) tellClient(b []byte) *refusal {
	f.client.SetWriteDeadline(time.Now().Add(f.settings.HelloTimeout))
	n, err := f.client.Write(b)
	f.client.SetWriteDeadline(time.Time{})
	f.toClient.Add(int64(n))
	if err != nil {
		return &refusal{policy.Client, err.Error()}
	}
	return nil
}
