package proxy

import (
	"iter"
	"net/netip"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// FlowState is how far a flow has come.
type FlowState string

// The states.
const (
	FlowDeciding    FlowState = "deciding"    // not decided yet, or the first bytes aren't read
	FlowDialing     FlowState = "dialing"     // allowed, and on its way to a target
	FlowEstablished FlowState = "established" // the target may have bytes of it
	FlowEnding      FlowState = "ending"      // was ended, and is being cleaned up
)

// FlowInfo is a live flow as of one moment. What isn't known yet is zero.
type FlowInfo struct {
	ID         string         // 32 hexadecimal digits, unique among all nodes: that of logs and PROXY headers
	Endpoint   link.ID        // what it was routed to
	Service    link.ID        // of the endpoint
	LinkID     link.LinkID    // of the connection
	Source     netip.AddrPort // the client
	Local      netip.AddrPort // the endpoint's address and port
	Protocol   link.Protocol
	Target     netip.AddrPort // that is dialled or connected
	ServerName link.Name      // that the client asked for, of a service pinned to names
	// Standing is what it takes to say whether the flow may go on: [policy.Policy.Stands].
	Standing policy.Standing
	State    FlowState
	Started  time.Time
	ToTarget int64 // payload bytes
	ToClient int64 // payload bytes
	// Guest: an earlier process carries it, and its bytes are those of when it was handed over.
	Guest bool
}

// List yields the live flows of this moment and after them those of guests, in no order. No lock is held meanwhile: a
// flow may have ended before it is yielded, and one that has begun since is missing.
func (p *Proxy) List() iter.Seq[FlowInfo] {
	return func(yield func(FlowInfo) bool) {
		for f := range p.Own() {
			if !yield(f) {
				return
			}
		}
		for _, g := range p.hosts.list() {
			for _, f := range g.list() {
				if !yield(f) {
					return
				}
			}
		}
	}
}

// Own yields what List does without the guests.
func (p *Proxy) Own() iter.Seq[FlowInfo] {
	return func(yield func(FlowInfo) bool) {
		for _, f := range p.live.all() {
			if !yield(f.info()) {
				return
			}
		}
	}
}

func (f *flow) info() FlowInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.infoLocked()
}

// infoLocked is info. The caller holds mu.
func (f *flow) infoLocked() FlowInfo {
	i := FlowInfo{
		ID: f.id.String(), Source: f.peer, Local: f.local, Protocol: f.protocol, Target: f.address, State: f.state(), Started: f.began,
		ToTarget: f.toTarget.Load(), ToClient: f.toClient.Load(),
	}
	if f.routed { // before, the request is of the goroutine that reads the PROXY header
		i.Source, i.Local, i.ServerName = f.request.Source, f.request.Local, f.request.Name
	}
	if e := f.verdict.Endpoint; e != nil {
		i.Endpoint, i.Service, i.LinkID = e.ID, e.Service, e.Connection.LinkID
	} else if e := f.awaitedLocked(); e != nil {
		i.Endpoint, i.Service, i.LinkID = e.ID, e.Service, f.awaits
	}
	i.Standing = f.standingLocked()
	return i
}

// awaitedLocked returns the endpoint that a PROXY header is read for, nil where none is. The caller holds mu.
func (f *flow) awaitedLocked() *link.Endpoint {
	s := f.proxy.snapshot()
	if s == nil || f.routed || f.awaits == 0 || policy.Awaited(s, f.local) != f.awaits {
		return nil
	}
	return s.EndpointAt(f.local.Addr())
}

// standingLocked is what it takes to say whether the flow may go on: of one that was denied or ended, nothing by
// which it might. The caller holds mu.
func (f *flow) standingLocked() policy.Standing {
	if !f.routed {
		return policy.Standing{Request: policy.Request{Local: f.local}, Waits: true, LinkID: f.awaits}
	}
	st := policy.Standing{Request: f.request, Unread: f.verdict.Unjudged, Target: f.address, By: f.foundBy}
	if e := f.verdict.Endpoint; e != nil && f.verdict.Allow && f.reason == "" {
		st.Service, st.LinkID = e.Service, e.Connection.LinkID
	}
	return st
}

// state returns how far the flow has come. The caller holds mu.
func (f *flow) state() FlowState {
	switch {
	case f.reason != "":
		return FlowEnding
	case f.established:
		return FlowEstablished
	case f.verdict.Allow && !f.verdict.Unjudged:
		return FlowDialing
	}
	return FlowDeciding
}
