package policy

import (
	"context"

	"github.com/postern-link/postern/link"
)

// Program is a policy program. It is asked last, about what state and rules allow, and can only narrow.
// It fails closed: what goes wrong, takes too long or makes no sense is a refusal.
type Program interface {
	// Authorize says whether a flow may be. It returns within 1.25 times the program's timeout: a quarter of it for its
	// turn, where the program has many questions to answer, and the whole for the answer.
	Authorize(ctx context.Context, q Question) Answer
	// Review says whether a request that its service approves by itself may be approved. It returns
	// within 5 s, whatever the program's timeout is.
	Review(ctx context.Context, r Review) Decision
	// Changed tells of a new snapshot. It doesn't wait, and the program may be told of the newest alone.
	Changed(s *link.Snapshot)
}

// AsksFlows reports whether a program is asked about flows: nil isn't, and one that says nothing of it is.
func AsksFlows(p Program) bool {
	if p == nil {
		return false
	}
	says, ok := p.(interface{ AsksFlows() bool })
	return !ok || says.AsksFlows()
}

// Question is a flow that state and rules allow.
type Question struct {
	Flow    string // its ID: that of logs and PROXY headers
	Request Request
	Verdict Verdict // Endpoint and Service are set
}

// Answer is what a program says of a flow. The zero Answer denies.
type Answer struct {
	Allow  bool
	Reason Reason // [PolicyDenied] or [PolicyError]; empty when allowed
	Rule   string // "policy NAME: " and what the program or its absence says
}

// Review is a request for a connection that automatic approval would approve.
type Review struct {
	Network  *link.Network
	Service  *link.Service
	Endpoint *link.Endpoint // as it would be
	Message  string         // of the consumer
	Caller   string         // who asks, as the audit names it
}

// Decision is what a program says of a request. The zero Decision leaves it Pending.
type Decision struct {
	State  link.State // [link.Approved], [link.Rejected] or [link.Pending]; "" is Pending
	Reason string     // for consumer and provider
	Rule   string     // "policy NAME"
}
