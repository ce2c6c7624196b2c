// Package datagram moves the datagrams of the data plane: those of UDP services.
//
// A flow is what one client address and port sends to one local address and port. A listener receives the
// datagrams of every client on one unconnected socket; each flow has a connected socket towards its target, so
// that the kernel lets in what the target sends and nothing else, and tells when the target's port is closed. What
// is received is sent on in as few system calls as there are, and with the kernel's segmentation where it has it: a
// train of datagrams of one client goes to one target, or back, in one call.
//
// An idle flow has a descriptor, and neither a goroutine nor a buffer: the sockets towards the targets are watched
// by a few goroutines, one for each processor. Which flows there are, and when they end, is for a [Handler] to say.
// Nothing is ever sent but what was received: no answer of our own, to nobody.
package datagram

import (
	"errors"
	"net/netip"
	"sync/atomic"
)

// Handler decides about flows.
type Handler interface {
	// Begin is called with a flow that isn't known, by the goroutine that has received its first datagram, and
	// should return soon. False: its datagrams are dropped, and the next one of the same client begins it anew. True:
	// they are held, few of them, until [Flow.Start]; [Flow.End] may have been called before it returns.
	Begin(f *Flow) bool
	// Unreachable is called when the target of a flow, or the way to it, refuses datagrams. The flow ends when
	// the handler calls End. No lock is held.
	Unreachable(f *Flow, err error)
	// Failing is called when a listener can't receive, and tries again. The error passes.
	Failing(at netip.AddrPort, err error)
}

// Account is where a flow counts what it carries: payload bytes that were sent, and that anything was.
type Account struct {
	ToTarget, ToClient *atomic.Int64
	Moved              *atomic.Bool
}

// Drop is why a datagram that was let in was dropped.
type Drop uint8

// The reasons.
const (
	Full      Drop = iota // the socket or the network that it goes to has no room, or the listener is gone
	TooLarge              // it doesn't fit: with the PROXY header in front, or from IPv6 to IPv4
	Waiting               // more came than are held while the flow is decided
	Malformed             // it can't be told where from or where to it is, it came cut, or to the socket of a flow from another than its target
	Forbidden             // it says what the flow may not say
	drops
)

// String returns the word for it in metrics.
func (d Drop) String() string {
	return [...]string{"full", "too_large", "waiting", "malformed", "forbidden", "unknown"}[min(d, drops)]
}

// Drops returns every [Drop].
func Drops() []Drop { return []Drop{Full, TooLarge, Waiting, Malformed, Forbidden} }

// Counts are what a relay has moved and dropped since it began, in datagrams.
type Counts struct {
	ToTarget, ToClient atomic.Int64
	dropped            [drops]atomic.Int64
}

// Dropped returns how many datagrams were dropped for a reason.
func (c *Counts) Dropped(d Drop) int64 { return c.dropped[d].Load() }

func (c *Counts) drop(d Drop, n int) {
	if n > 0 {
		c.dropped[d].Add(int64(n))
	}
}

// What is held of a flow that isn't decided yet, and of all such flows together.
const (
	maxHeld         = 8
	maxHeldBytes    = 16 << 10 // beyond the first one, which may be as large as a datagram can be
	maxHeldBytesAll = 16 << 20
)

var (
	// errEnded is of a flow that was ended meanwhile.
	errEnded = errors.New("the flow has ended")
	// errReplaced is of a flow from another process whose client has begun one here since.
	errReplaced = errors.New("its client has begun another flow since")
)
