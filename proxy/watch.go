package proxy

import (
	"time"

	"github.com/postern-link/postern/policy/hello"
	"github.com/postern-link/postern/proxy/engine"
)

// Until the target's first handshake message is known, nothing that the client sends behind its hello passes: early
// data too stays in the kernel. After a HelloRetryRequest the next hello is judged as the first was.

// watch is shown what the target sends.
func (f *flow) watch(b []byte) engine.Gate {
	switch f.watcher.Watch(b) {
	case hello.Unknown:
		return engine.Shut
	case hello.Retry:
		return engine.Asking
	}
	return engine.Open
}

// second judges the second hello, and returns it with what the client sent around it.
func (f *flow) second() ([]byte, bool) {
	if r := f.secondHello(); r != nil {
		f.fail(r)
		return nil, false
	}
	return f.held, true
}

// secondHello reads and judges the hello behind a HelloRetryRequest, which must say what the first one said. What
// was read is held.
func (f *flow) secondHello() *refusal {
	f.client.SetReadDeadline(time.Now().Add(f.settings.HelloTimeout))
	if f.preface != nil {
		return f.secondWrapped()
	}
	from := &prefixed{f.held, f.client}
	h, err := hello.ReadSecond(from, hello.Hello{Name: f.request.Name, ECH: f.request.ECH})
	if err != nil {
		return refusedHello(err)
	}
	f.client.SetReadDeadline(time.Time{})
	f.held = append(h.Bytes[:len(h.Bytes)+len(h.Rest)], from.first...) // Rest lies right behind
	return nil
}
