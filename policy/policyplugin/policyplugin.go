// Package policyplugin is for people who write a policy program: implement [Policy] and call [Serve].
//
// A policy program is a process of its own that a node of Postern starts and asks: whether a flow may be, what
// becomes of a request for a connection, or to be told what has changed. It is asked last, about what state and
// rules allow, and can only narrow. Whole, a program that lets nobody in at night:
//
//	package main
//
//	type night struct{ policyplugin.Base }
//
//	func (night) Authorize(_ context.Context, f *policyplugin.Flow) (policyplugin.Verdict, error) {
//		if h := time.Now().UTC().Hour(); h < 6 {
//			return policyplugin.Deny("closed until 6:00 UTC"), nil
//		}
//		return policyplugin.Allow(), nil
//	}
//
//	func main() { policyplugin.Serve(night{}) }
//
// What its author has to know:
//
//   - It fails closed. An error, a panic, and no answer within 250 ms refuse the flow; a request for a
//     connection stays Pending without an answer within 5 s.
//   - Methods are called concurrently, up to 256 Authorize and 8 Review at once. Contexts end with the time.
//   - A verdict is kept and not asked for again only where the program says so: [Verdict.For].
//   - It runs in a sandbox, as nobody, with no other file than its own executable, shared libraries and
//     certificates, no connections, no environment, 1 GiB of memory, and can't start processes. The Corefile gives it files
//     and the network where it needs them. What the kernel has no means for isn't enforced; see the README
//     of linkpolicy.
//   - What it prints is logged by the node, 20 lines a second, with escapes. Print no secrets.
//   - It is started again when it ends, and killed when the node does.
//
// Package policytest runs a program in a test as a node would ask it. In another language than Go, implement
// policypb/policy.proto as a plugin of hashicorp/go-plugin: protocol version 1 over gRPC with AutoMTLS, the cookie
// of [Handshake], a Unix socket in the directory that PLUGIN_UNIX_SOCKET_DIR names.
package policyplugin

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Policy is a policy program. Embed [Base] for what it isn't asked.
type Policy interface {
	// Authorize says whether a flow may be. The context ends with the time that the node waits. An error
	// refuses the flow, and its text goes to the node's flow log.
	Authorize(ctx context.Context, f *Flow) (Verdict, error)
	// Review says what becomes of a request that a list of the service would approve. An error leaves it
	// Pending.
	Review(ctx context.Context, r *Request) (Decision, error)
	// Changed tells of connections, at most once a second. An error means to be told the whole again.
	Changed(ctx context.Context, c *Changes) error
}

// Base is a [Policy] that refuses every flow, leaves every request Pending and needs to be told nothing.
type Base struct{}

// ErrUnasked is what [Base] says: the program is asked what it doesn't answer.
var ErrUnasked = errors.New("this program doesn't answer that: see the words after \"ask\" in the Corefile")

// Authorize implements [Policy]: [ErrUnasked].
func (Base) Authorize(context.Context, *Flow) (Verdict, error) { return Verdict{}, ErrUnasked }

// Review implements [Policy]: [ErrUnasked].
func (Base) Review(context.Context, *Request) (Decision, error) { return Decision{}, ErrUnasked }

// Changed implements [Policy]: nil.
func (Base) Changed(context.Context, *Changes) error { return nil }

// Flow is a TCP connection that state and rules allow.
type Flow struct {
	ID     string         // that of logs and PROXY headers
	Source netip.AddrPort // the client
	Local  netip.AddrPort // the endpoint address and port that it connected to
	// ServerName is that of its TLS hello, lower case; "" where the service isn't pinned to names.
	ServerName string
	Endpoint   Endpoint
	Service    Service
}

// Network is a consumer's address space.
type Network struct {
	ID       string
	Tenant   string // "" is the operator's own
	Prefixes []netip.Prefix
}

// Service is what a provider publishes.
type Service struct {
	ID     string
	Tenant string   // "" is the operator's own
	Names  []string // public DNS names, at most 64 of them
	Port   uint16
}

// Endpoint is an address in a consumer's network that stands for one service, with its connection.
type Endpoint struct {
	ID      string
	Tenant  string // "" is the operator's own
	Network string
	Service string
	Address netip.Addr
	LinkID  uint32 // of the connection; 0: it has none
}

// Verdict is the answer about a flow: [Allow] or [Deny]. The zero Verdict refuses.
type Verdict struct {
	Allow  bool
	Reason string // of a refusal, for the flow log; 200 bytes of it are kept
	// ValidFor is how long the same question, but for flow and source port, has this answer. 0: ask again.
	// At most 5 minutes count. A change of endpoint or service ends it, and so does a restart.
	ValidFor time.Duration
}

// Allow lets a flow be.
func Allow() Verdict { return Verdict{Allow: true} }

// Deny refuses a flow.
func Deny(reason string) Verdict { return Verdict{Reason: reason} }

// For returns the verdict as one that holds for a while.
func (v Verdict) For(d time.Duration) Verdict {
	v.ValidFor = d
	return v
}

// Request is a request for a connection that a list of the service would approve.
type Request struct {
	Network  Network
	Service  Service
	Endpoint Endpoint // as it would be
	Message  string   // of the consumer to the provider
	Caller   string   // who asks, as the audit names it
}

// Outcome is what becomes of a request.
type Outcome int

// The outcomes. The zero Outcome is Wait.
const (
	Wait    Outcome = iota // it is Pending, for a person to decide
	Approve                // the approval of the list stands
	Reject                 // it is Rejected; the provider may approve it later
)

// Decision is the answer about a request. The zero Decision leaves it Pending.
type Decision struct {
	Outcome Outcome
	Reason  string // for consumer and provider; 200 bytes of it are kept. Unused by Approve
}

// Changes are the connections that have changed since the last call.
type Changes struct {
	Revision uint64 // of the state
	// Whole: these are all that there are; forget what was told before. It is so in the first call after a
	// start. More: the rest of the same revision comes with the next call.
	Whole, More bool
	Connections []Connection
}

// Connection is one that is there, has changed, or has gone.
type Connection struct {
	Endpoint  Endpoint
	State     string // Pending, Approved, Rejected, Disconnected
	Suspended bool
	Gone      bool // the endpoint was deleted; State is what it was
}
