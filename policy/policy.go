// Package policy decides whether a flow may reach a service, and says why.
//
// It is a function of a [link.Snapshot] and a [Request]; it does no I/O. It can be asked again for
// a live flow: the proxy does so for every new snapshot, and ends the flows that are no longer allowed.
package policy

import (
	"net/netip"

	"github.com/postern-link/postern/link"
)

// Reason is why a flow was refused or ended: one word of a closed list.
type Reason string

// Request is what is known of a flow.
type Request struct {
	Source netip.AddrPort // the client, unmapped
	Local  netip.AddrPort // the endpoint address and port that it connected to, unmapped
	// Judged: the first bytes were read, and Name is the server name that they carry.
	Judged bool
	Name   link.Name
}

// Verdict is the answer to a request. The zero Verdict denies.
type Verdict struct {
	Allow  bool
	Reason Reason // empty when allowed
	Rule   string // the rule that decided, such as "allow-list 10.1.0.0/16" or "auto-approve: corp"
	// What the flow was routed to, nil as far as it wasn't found.
	Endpoint *link.Endpoint
	Service  *link.Service
}

// Decide judges a request: route by local address and port, connection Approved and not suspended,
// source in the allow-list, and, once the request is judged, name among those of a pinned service.
func Decide(s *link.Snapshot, r Request) Verdict { panic("unfinished") }
