package proxy

import (
	"bufio"
	"errors"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/engine"
	"github.com/postern-link/postern/proxy/header"
)

// inbound reads the PROXY header of a peer that must send one, and takes its source as the flow's,
// and its destination where that is an endpoint address. It returns what the peer sent behind it.
// A header of another peer is never read: it is payload, and guarded against. What such a peer has sent
// by now is looked at before anything is dialled; a header that comes later is found by the guard of the
// copy, with the target dialled, since waiting for it would stop protocols in which the server speaks first.
func (f *flow) inbound() (first []byte, r *refusal) {
	if len(f.settings.InboundHeaders) == 0 {
		return nil, nil
	}
	if !f.settings.sendsHeader(f.peer.Addr()) {
		f.stranger = true
		first = f.waiting()
		if is, _ := header.Begins(first); is {
			return nil, &refusal{policy.Malformed, headerFirst}
		}
		return first, nil
	}
	f.mu.Lock()
	f.awaits = policy.Awaited(f.proxy.snapshot(), f.local)
	f.mu.Unlock()
	f.client.SetReadDeadline(time.Now().Add(headerTimeout))
	// Small, so that little of the payload is read ahead. The parser needs no more at once.
	b := bufio.NewReaderSize(f.client, 256)
	h, err := proxyproto.Read(b)
	if err != nil {
		return nil, refusedHeader(err)
	}
	f.client.SetReadDeadline(time.Time{})
	// LOCAL and UNKNOWN: the peer speaks for itself, and is judged by its own address.
	if h.Command.IsProxy() {
		source, dest, ok := h.TCPAddrs()
		if !ok {
			return nil, &refusal{policy.Malformed, "PROXY header is not of TCP"}
		}
		f.request.Source = engine.Unmapped(source)
		if d := engine.Unmapped(dest); f.isEndpoint(d.Addr()) {
			f.request.Local = d
		}
	}
	first, _ = b.Peek(b.Buffered())
	return first, nil
}

func (f *flow) isEndpoint(a netip.Addr) bool {
	s := f.proxy.snapshot()
	return s != nil && s.EndpointAt(a) != nil
}

func refusedHeader(err error) *refusal {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &refusal{policy.Timeout, "no PROXY header in time"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &refusal{policy.Truncated, "PROXY header: " + err.Error()}
	}
	return &refusal{policy.Malformed, "PROXY header: " + err.Error()}
}
