package link

import (
	"fmt"
	"strconv"
	"time"
)

// State is the state of a connection.
//
//	request ─────────────► Pending ──approve──► Approved ◄─┐
//	   │  (auto-approved) ─────┼───────────────────▲│      │ approve
//	   │                       └──────reject──► Rejected ──┘
//	   │                                        ▲   reject from Approved
//	   └── any of the three ──remove, service deleted──► Disconnected ──ask again──► Pending
//
// Only an Approved connection that isn't suspended carries traffic or answers DNS.
type State string

// The states of a connection.
const (
	Pending      State = "Pending"
	Approved     State = "Approved"
	Rejected     State = "Rejected"
	Disconnected State = "Disconnected"
)

// LinkID is the number of a connection. 0 is none.
type LinkID uint32

// String returns the eight hexadecimal digits of the link ID.
func (l LinkID) String() string { return fmt.Sprintf("%08x", uint32(l)) }

// ParseLinkID returns the link ID of eight hexadecimal digits, or an error wrapping [ErrInvalid].
func ParseLinkID(s string) (LinkID, error) {
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil || len(s) != 8 {
		return 0, fmt.Errorf("%w: link ID %q isn't eight hexadecimal digits", ErrInvalid, clip(s))
	}
	return LinkID(n), nil
}

// LinkIDRest is how long a link ID rests before another connection may have it.
const LinkIDRest = 7 * 24 * time.Hour

// Decision says who or which rule brought a connection where it is.
type Decision struct {
	Actor  string    `json:"actor,omitempty"` // who decided; empty when a rule did
	Rule   string    `json:"rule,omitempty"`  // which rule decided, such as "auto-approve: corp"
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"` // set by Apply
}

// Connection is the provider-side half of an endpoint.
type Connection struct {
	LinkID      LinkID    `json:"linkId"`
	State       State     `json:"state"`
	Decision    Decision  `json:"decision"`
	Suspended   *Decision `json:"suspended,omitempty"` // nil: not suspended
	Message     string    `json:"message,omitempty"`   // the consumer's words to the provider
	RequestedAt time.Time `json:"requestedAt"`
	// Asked counts the requests made on the endpoint, 1 for the first.
	Asked uint32 `json:"asked"`
	// Lasting: whoever approved it allowed later changes of the service's targets and names.
	Lasting bool `json:"lasting,omitempty"`
}

// Live reports whether the connection carries traffic and answers DNS.
func (c *Connection) Live() bool { return c.State == Approved && c.Suspended == nil }
