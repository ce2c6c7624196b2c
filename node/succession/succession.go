// Package succession lets one process of Postern take the place of another: a running one starts the binary that is now
// at its path, hands it the sockets that it listens on, and they tell each other how far they are. What is behind a
// message, such as the state and the flows, is for others: this package knows processes and descriptors.
//
// The two speak over a pair of Unix sockets without a name, which nobody else can reach, in whole messages:
//
//	old                                   new
//	starts it
//	sockets ... begin ──────────────────►
//	                                      reads the Corefile
//	closes the state ◄───────────── claim
//	granted ────────────────────────────►
//	                                      opens the state, listens
//	stops listening ◄─────────────── ready
//	hand ... settled ───────────────────►
//	                                      receives datagrams
//	flows, gone, elder ─────────────────►
//	ends flows ◄──────── cut, sync, hush
//
// With "hand" come the sockets of live flows of UDP, which the new process goes on with, and with "begin anew" what is held of those that
// aren't decided; with "settled" the old one says that it reads none of those that are listened on either. They are sent where "ready" says
// that they are understood: an older version ends its flows, and closes the sockets. "hush" says that what the old process hasn't handed over yet
// may have been revoked: nothing of it passes until it is.
//
// Who reads a field that it doesn't know leaves it out, and after "ready" a kind too: so a later version may say more. Before "ready" each waits for
// one kind, and any other one ends the upgrade. What can't be understood that way has another number, [Protocol], which both tell before
// anything is given away.
//
// Until it has read "ready" the old process serves. Whatever else it reads, the end of the other one included, makes it
// go on as before. The new process takes the end of the old one for any answer that it waits for: then nobody holds what
// it asked for.
package succession

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/node/confine"
)

// Protocol is the number of the messages' meaning. Processes with different ones don't follow each other.
const Protocol = 2

// Hands is the number of the meaning of [Hand], [Anew] and [Settled], which a process that knows them says in [Ready]. One that
// says nothing is handed no flows, and one that says another number neither.
const Hands = 1

// Kind is what a message is about.
type Kind string

// The kinds.
const (
	Sockets Kind = "sockets" // with descriptors, one for each of Message.Sockets
	Begin   Kind = "begin"   // all sockets were sent
	Claim   Kind = "claim"   // the state is wanted
	Granted Kind = "granted" // the state is closed
	Refused Kind = "refused" // it can't be closed: Message.Why
	Ready   Kind = "ready"   // the new process serves
	Failed  Kind = "failed"  // it won't: Message.Why
	Flows   Kind = "flows"   // live flows of the old process, new or changed
	Gone    Kind = "gone"    // flows that have ended
	Elder   Kind = "elder"   // with a descriptor: the connection to a process before the old one
	Cut     Kind = "cut"     // flows that must end now
	Sync    Kind = "sync"    // all flows are to be sent again
	Hush    Kind = "hush"    // flows that weren't handed over may have been revoked: nothing of them may pass
	Hand    Kind = "hand"    // with descriptors, one for each of Message.Handed: flows that the new process goes on with
	Anew    Kind = "anew"    // what is held of flows that aren't decided yet
	Settled Kind = "settled" // there are no more of them, and the old process receives no datagrams
)

// Message is one message. Fields that a kind doesn't speak of are zero.
type Message struct {
	Kind     Kind            `json:"kind"`
	Protocol int             `json:"protocol,omitempty"` // of begin and claim; 0 in the claim of an older version
	Version  string          `json:"version,omitempty"`  // of begin: of the old process, for the log
	Why      string          `json:"why,omitempty"`
	Sockets  []Socket        `json:"sockets,omitempty"`
	Sandbox  []confine.Rules `json:"sandbox,omitempty"` // of begin: what the old process is kept to, all of it together
	Notify   bool            `json:"notify,omitempty"`  // of begin: with the descriptor of the service manager's socket
	Flows    []Flow          `json:"flows,omitempty"`
	IDs      []string        `json:"ids,omitempty"`   // of gone and cut
	Hands    int             `json:"hands,omitempty"` // of ready: see [Hands]
	Handed   []Handed        `json:"handed,omitempty"`
	Anew     []Waiting       `json:"anew,omitempty"`
}

// Socket is one that is listened on. One of UDP that isn't shared is of endpoints.
type Socket struct {
	Network string         `json:"network"` // tcp or udp
	Addr    netip.AddrPort `json:"addr"`
	Shared  bool           `json:"shared,omitempty"` // SO_REUSEPORT is set
	Apart   bool           `json:"apart,omitempty"`  // it is none of CoreDNS's, but of who answers beside it
	Place   int            `json:"place,omitempty"`  // what that one knows of its place among them; 0: nothing
}

// Flow is a live flow as the process that carries it knows it: what it takes to say whether it may go on
// ([policy.Standing]), and what is told of it.
type Flow struct {
	ID       string         `json:"id"`
	State    string         `json:"state"`
	Endpoint link.ID        `json:"endpoint,omitempty"`
	Service  link.ID        `json:"service,omitempty"`
	LinkID   link.LinkID    `json:"link,omitempty"`
	Source   netip.AddrPort `json:"source"`
	Local    netip.AddrPort `json:"local"`
	Target   netip.AddrPort `json:"target"`
	Name     link.Name      `json:"name,omitempty"`
	Started  time.Time      `json:"started"`
	ToTarget int64          `json:"toTarget,omitempty"`
	ToClient int64          `json:"toClient,omitempty"`

	// The standing, where it isn't what is above.
	Judged   bool            `json:"judged,omitempty"`
	ECH      bool            `json:"ech,omitempty"`
	Waits    bool            `json:"waits,omitempty"`
	Unread   bool            `json:"unread,omitempty"`
	For      link.ID         `json:"for,omitempty"`     // the service that it was let in for
	ForLink  link.LinkID     `json:"forLink,omitempty"` // the connection that it was let in for
	StandsAt netip.AddrPort  `json:"standsAt"`          // the target that it stands or falls with
	FoundBy  []link.NamePort `json:"foundBy,omitempty"` // the names that the target was found by
}

// Handed is a live flow of UDP, whose socket towards its target comes with the message. Times are told as durations: the clock may
// be set meanwhile.
type Handed struct {
	Flow
	Age      time.Duration `json:"age"`                // since it began, in nanoseconds
	Quiet    time.Duration `json:"quiet,omitempty"`    // since something moved
	Observed []string      `json:"observed,omitempty"` // rules on trial that would have refused it
}

// Waiting is a flow of UDP that isn't decided yet.
type Waiting struct {
	Source netip.AddrPort `json:"source"`
	Local  netip.AddrPort `json:"local"`
	Held   []Held         `json:"held,omitempty"`
}

// Held is what a client has sent, a datagram or a train of some.
type Held struct {
	Data    []byte `json:"data,omitempty"`
	Segment int    `json:"segment,omitempty"` // see datagram.Held
}

// Bounds of a message. The kernel takes what fits a socket's buffer, of which 208 KiB are the default, and 253
// descriptors at once (SCM_MAX_FD).
const (
	maxMessage = 160 << 10
	MaxSockets = 200
	MaxFlows   = 64
	MaxIDs     = 1024
	MaxAnew    = 128
	MaxHeld    = 80 << 10 // bytes of Held.Data, unless a flow has more by itself, which has no more than a little
)

// Conn is the connection between the two. Sends may come from any goroutine, receives from one.
type Conn struct {
	unix        *net.UnixConn
	mu          sync.Mutex // one sends at a time
	buf         []byte
	patience    atomic.Int64 // how long a send waits, in nanoseconds; 0: for ever
	interrupted atomic.Bool
}

// NewConn takes over a descriptor of the connection.
func NewConn(fd int) (*Conn, error) {
	f := os.NewFile(uintptr(fd), "succession")
	if f == nil {
		return nil, fmt.Errorf("descriptor %d isn't open", fd)
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok || u.LocalAddr().Network() != "unixpacket" {
		return nil, errors.Join(fmt.Errorf("descriptor %d is no socket of a hand-over", fd), c.Close())
	}
	return &Conn{unix: u, buf: make([]byte, maxMessage)}, nil
}

// Patience bounds the wait of each later [Conn.Send].
func (c *Conn) Patience(d time.Duration) { c.patience.Store(int64(d)) }

// Send sends a message, with descriptors, which stay the caller's. It waits until there is room; the error is [os.ErrDeadlineExceeded] where
// the other process has read nothing for as long as [Conn.Patience] says.
func (c *Conn) Send(m Message, fds ...int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("a message of %d bytes is too long", len(b))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := time.Duration(c.patience.Load()); d > 0 && !c.interrupted.Load() {
		_ = c.unix.SetWriteDeadline(time.Now().Add(d)) // of a closed one nothing is sent
		if c.interrupted.Load() {
			c.Interrupt()
		}
	}
	_, _, err = c.unix.WriteMsgUnix(b, rights(fds), nil)
	return err
}

// Receive returns the next message, with its descriptors, which are the caller's to close. The error is [io.EOF] where
// the other process has ended. Of [Hand] the last descriptors may be missing, where this process can't have more.
func (c *Conn) Receive() (Message, []int, error) {
	oob := make([]byte, rightsSpace)
	n, oobn, flags, _, err := c.unix.ReadMsgUnix(c.buf, oob)
	if errors.Is(err, syscall.ECONNRESET) { // it has ended with something of ours unread
		err = io.EOF
	}
	if err != nil {
		return Message{}, nil, err
	}
	fds, err := received(oob[:oobn])
	var m Message
	switch {
	case err != nil:
	case n == 0:
		err = io.EOF
	default:
		data, descriptors := truncated(flags)
		m, err = decode(c.buf[:n])
		if data || descriptors && m.Kind != Hand {
			err = errors.New("a message was cut")
		}
	}
	if err != nil {
		CloseAll(fds)
		return Message{}, nil, err
	}
	return m, fds, nil
}

// decode reads one message.
func decode(b []byte) (Message, error) {
	var m Message
	if err := json.Unmarshal(b, &m); err != nil {
		return Message{}, fmt.Errorf("message: %w", err)
	}
	if m.Kind == "" {
		return Message{}, errors.New("a message without a kind")
	}
	return m, nil
}

// SetReadDeadline bounds Receive.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.unix.SetReadDeadline(t) }

// Interrupt ends all sends and receives, those under way too.
func (c *Conn) Interrupt() {
	c.interrupted.Store(true)
	_ = c.unix.SetDeadline(time.Unix(1, 0))
}

// Close closes this process's end. Where no other process holds it, the other side reads its end.
func (c *Conn) Close() error { return c.unix.Close() }

// Pass sends the connection itself to another process, over its own connection.
func (c *Conn) Pass(to *Conn) error {
	raw, err := c.unix.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = to.Send(Message{Kind: Elder}, int(fd)) }); e != nil {
		return e
	}
	return err
}
