// Package engine moves the bytes of the data plane. It accepts and dials TCP connections, lets the goroutine
// of a flow talk on them while the flow is being decided, and then copies between two of them.
//
// There are two engines. That of [New] is the platform's best: on Linux loops over epoll of our own, in
// which a flow that is only copied has no goroutine, no buffer and no pipe of its own. [Portable] is made of
// the standard library alone, with a goroutine for each direction. Both pass the same tests.
package engine

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// Engine accepts, dials and copies. Its methods are safe for concurrent use.
type Engine interface {
	// Listen takes a listening socket over. The engine accepts from it, and it must not be used otherwise.
	Listen(l *net.TCPListener, to Accepting) (Listener, error)
	// Begin connects from an address to another, from the kernel's choice where from isn't valid, and doesn't
	// wait: where the connection isn't there yet, finish is to be called, whatever happens. control sees the socket
	// before anything else is done with it. near is the connection that the new one will be copied to and from.
	// Errors wrap those of the system.
	Begin(from, to netip.AddrPort, near Conn, control Control) (now Conn, finish Finish, err error)
	// Move makes a connection of this engine, on which nothing was read or written yet, one to be copied to and from near,
	// and returns it; the one that was given isn't used any more. Nil: it was closed.
	Move(c, near Conn) Conn
	// Copy copies between two connections of this engine until both directions have ended, and returns
	// at once, or after a first turn. Nobody else may read from or write to them any more.
	Copy(c Copy)
	// Close ends the engine; again, it does nothing. All that is copied must have ended before.
	Close()
}

// Control prepares a socket that is about to be connected to an address.
type Control func(fd uintptr, to netip.AddrPort) error

// Finish waits for a connection that was begun. Errors wrap those of the system, or of ctx.
type Finish func(ctx context.Context) (Conn, error)

// Dial connects as [Engine.Begin] does, and waits.
func Dial(ctx context.Context, e Engine, from, to netip.AddrPort, near Conn, control Control) (Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	now, finish, err := e.Begin(from, to, near, control)
	if finish == nil {
		return now, err
	}
	return finish(ctx)
}

// Accepting takes what a listener accepts.
type Accepting struct {
	// Conn is given each connection, with the address of the peer and its own, as they are. It must not block.
	Conn func(conn Conn, peer, local netip.AddrPort)
	// Failed is told of an error, all of which pass, and returns how long nothing is to be accepted.
	Failed func(err error) (pause time.Duration)
}

// Listener is a listening socket that is accepted from.
type Listener interface {
	// Close ends it. When it has returned, no connection is given away any more. It must not be called by what
	// connections are given to.
	Close() error
	// Control calls f with the descriptor, which stays open meanwhile; nothing is called after Close.
	Control(f func(fd uintptr))
}

// Conn is a TCP connection. One goroutine may read and write it, until it is copied; the other methods
// may be called by anybody at any time.
type Conn interface {
	io.ReadWriter
	// SetReadDeadline ends a Read that waits, as that of [net.Conn] does; it is called by who reads.
	SetReadDeadline(t time.Time) error
	// SetWriteDeadline is the same for Write, which may then have written a part.
	SetWriteDeadline(t time.Time) error
	// ReadNow reads what is there now, without waiting: 0 for nothing. ended: there is nothing more to come, or an
	// error, and Read says which.
	ReadNow(b []byte) (n int, ended bool)
	// WriteNow writes what there is room for, without waiting. An error comes again.
	WriteNow(b []byte) int
	// Readable has f called once, by an engine's goroutine that f must not block, when there may be something to
	// read, an end, or the connection was closed. It reports false where this engine can't, or there may be already.
	Readable(f func()) bool
	// CloseWrite tells the peer that no more will come.
	CloseWrite() error
	Close() error
	// Reset closes the connection with a TCP reset: what is queued is dropped, and the peer is told so.
	Reset()
	// Control calls f with the descriptor, which stays open meanwhile; nothing is called after Close.
	Control(f func(fd uintptr))
}

// Side is an end of what is copied.
type Side uint8

// The sides.
const (
	Nobody Side = iota
	Client
	Target
)

// Copy is what is copied, and who is told.
type Copy struct {
	Client, Target Conn
	// Guard is asked about the first bytes of the client, all that were read so far, beginning with Held.
	// They reach the target when it has said that they are neither what it looks for nor may become it,
	// which it must be sure of in GuardSize bytes. Nil: nothing is looked for.
	Guard     func(b []byte) (is, maybe bool)
	GuardSize int
	Held      []byte
	// Watch looks at what the target sends, before the client has it, until it says something else than
	// [Shut]. Until then nothing of the client is read, only its end is passed on where nothing is left
	// before that. Where the target ends first, the gate opens. Nil: it is open from the start. It must
	// not block.
	Watch func(b []byte) Gate
	// Ask is called when Watch has said [Asking], and may block: it alone may read the client meanwhile, and
	// nothing is copied from there. It returns what goes to the target instead of Held, and then the gate is open;
	// or false, where it has ended the flow.
	Ask func() (held []byte, ok bool)
	// ToTarget and ToClient count bytes that were written; Moved is set when there was progress.
	ToTarget, ToClient *atomic.Int64
	Moved              *atomic.Bool
	// Ended is called once, when both directions have ended or one side broke. Both connections are still
	// to be closed then. It must not block.
	Ended func(e End)
}

// Gate says whether what the client sends may pass.
type Gate uint8

// The answers of Watch.
const (
	Shut   Gate = iota // not yet
	Open               // it may, and Held goes first
	Asking             // ask
)

// End is how copying ended.
type End struct {
	First   Side // who ended first, in order
	Broken  Side // whose connection failed; Nobody where both directions ended in order
	Guarded bool // Guard has found what it looks for
}

// note counts bytes that moved to one side.
func (c *Copy) note(to Side, n int) {
	if n > 0 {
		if to == Target {
			c.ToTarget.Add(int64(n))
		} else {
			c.ToClient.Add(int64(n))
		}
	}
	if !c.Moved.Load() {
		c.Moved.Store(true)
	}
}

// How much is moved at once. Together they keep what is held of a direction, in a buffer or in a
// pipe, at 64 KiB however large the pipe is.
const (
	bufferSize = 32 << 10
	spliceSize = 64 << 10
	// quietSize: a splice that brought less is the end of bulk for now, since small messages cost
	// fewer system calls through a buffer.
	quietSize = 8 << 10
)
