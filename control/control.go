// Package control is the operations of the control plane. Each one authorises its caller, decides on a
// snapshot, commits the change together with its audit entry, and decides again where the state has
// changed meanwhile. It knows no HTTP: package armapi is its wire format.
//
// Operations that write take an edit: a function from the object as it is to the object as it shall be,
// nil for none. It is called once for each try, on the snapshot that will be committed against, so that
// a precondition checked in it holds at the commit. It must not act on its own.
//
// What a caller may not see isn't there: a subscription without a role is [ErrNoSubscription], as one
// that doesn't exist; a service that isn't visible is [ErrNoService]. Refusals are audited too.
package control

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/store"
)

// Why an operation is refused. Errors wrap one of these, one of package link's, or one of package store's.
var (
	// ErrNoSubscription: it doesn't exist, or the caller has no role in it.
	ErrNoSubscription = errors.New("subscription not found")
	// ErrForbidden: the caller may see the subscription and lacks the right.
	ErrForbidden = errors.New("forbidden")
	// ErrLinkedForbidden: the caller lacks a right on an object that the request refers to.
	ErrLinkedForbidden = errors.New("forbidden on a linked object")
	// ErrNoService: no service has the ID or alias, or the caller's network may not see it.
	ErrNoService = errors.New("no such service")
	// ErrReference: an object that the request refers to isn't there.
	ErrReference = errors.New("referenced object not found")
	// ErrPrecondition: the state isn't the one that the caller named.
	ErrPrecondition = errors.New("precondition failed")
	// ErrLimit: a limit is reached. The error is a [*LimitError].
	ErrLimit = errors.New("limit reached")
	// ErrOften: the caller has asked too often. The error is an [*OftenError].
	ErrOften = errors.New("asked too often")
	// ErrInUse: others need the object that shall be deleted. The error is an [*InUseError].
	ErrInUse = errors.New("in use")
	// ErrUnproven: the names of a service are not its tenant's, and no TXT record says otherwise.
	ErrUnproven = errors.New("domain not proven")
	// ErrEgress: the consumer's network may not have endpoints to the service.
	ErrEgress = errors.New("egress list of the network")
	// ErrAddress: an address or port that nobody gave the tenant. It comes with [link.ErrInvalid].
	ErrAddress = errors.New("address not allowed")
	// ErrUnavailable: the store can't take the change now. Nothing was changed. Where that isn't known the error is
	// [store.ErrUnknownOutcome]: the change may yet turn out to have been made.
	ErrUnavailable = errors.New("state can't be changed now")
)

// LimitError says which limit is reached, with its figure.
type LimitError struct {
	What  string // such as "endpoints of a network"
	Limit int
}

// OftenError says what was asked too often, and when to ask again.
type OftenError struct {
	What  string // such as "failed look-ups of services"
	Limit int    // in a minute
	Wait  time.Duration
}

// InUseError says what needs an object.
type InUseError struct {
	By []string // "kind id", at most 20
	N  int      // how many in all
}

// Limits bound what a subscription may hold. Zero values are Azure's figures.
type Limits struct {
	Networks            int // of a subscription: 1000
	Subnets             int // of a network: 3000
	EndpointsPerNetwork int // 1000
	Services            int // of a subscription: 800
	EndpointsPerService int // 1000
	NAT                 int // addresses of a service: 8
	Visibility          int // entries of a visibility list: 100
	AutoApproval        int // entries of an auto-approval list: 100
	Zones               int // private zones of a subscription: 1000
	RecordSets          int // of a zone: 25000
	LinksPerZone        int // 1000
	PendingPerConsumer  int // requests of a tenant that wait for a decision, at one service: 100
	NamesPerService     int // 50
	TargetsPerService   int // 256
	RestingLinkIDs      int // of a tenant, whose connections have left them within [link.LinkIDRest]: 10000
}

// Config is what a Control is made of.
type Config struct {
	Store    store.Store
	Snapshot func() *link.Snapshot // the newest installed, nil while there is none
	Tenants  Tenants
	Limits   Limits
	Zones    *link.Zones // spells the names of services in their privatelink zones
	// Resolver looks up the TXT records that prove a domain; nil: the system's.
	Resolver interface {
		LookupTXT(ctx context.Context, name string) ([]string, error)
	}
	// Own are addresses and ports of TCP that the node itself listens on: no service has them as targets, no
	// service of a tenant has their ports with that protocol, and no endpoint or network their addresses.
	Own func() []netip.AddrPort
	// OwnUDP are addresses and ports of UDP that the node itself listens on beside the data plane: no service of a
	// tenant has their ports with that protocol.
	OwnUDP []netip.AddrPort
	// Local returns the addresses of this machine: no service of a tenant has them as targets on any port, and
	// no network of a tenant holds them unless it was granted. The address of the resolver isn't among them:
	// Reserved is for it, and holds for networks alone.
	Local    func() []netip.Addr
	Reserved []netip.Addr
	// Plane are those of Own that the data plane has opened for endpoints; nil: none.
	Plane func() []netip.AddrPort
	// Ground is what the data plane goes by where it says whether a flow may reach its target; nil: it has none,
	// and Own and Local are what is known.
	Ground func() link.Ground
	// Flows yields the live flows of this node; nil where it has no data plane.
	Flows func(yield func(Flow) bool)
	// Published and Healthy are what the data plane observes of a service's targets; nil where there is none.
	Published, Healthy func(service link.ID) bool
	// HealthyAt is Healthy for an endpoint at a site; nil where there is no data plane.
	HealthyAt func(service link.ID, site string) bool
	// Targets is what the data plane observes of each target of a service, in their order; nil where there is none.
	Targets func(service link.ID) []TargetState
	// TargetNames is what the data plane finds of the names of a service's targets, in their order; nil where there is none.
	TargetNames func(service link.ID) []TargetName
	// Policy is what narrows the state on this node now; nil, or nil from it: nothing does.
	Policy func() *policy.Policy
	// Exits say what becomes of a question for the address of a name that is asked elsewhere, one for each place where that is judged: the
	// result, and the rule that decided.
	Exits []func(network link.ID, asked link.Name) (result, rule string)
	// View says how fresh the snapshot is; nil: as fresh as can be.
	View func() policy.Freshness
	// Expiry ends requests that nobody has decided on for so long. 0: never.
	Expiry     time.Duration
	Node       string // this node's name, for the audit
	Version    string // of the program, for the status
	Now        func() time.Time
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Op is the part of an operation that all have in common.
type Op struct {
	Caller Caller
	Reason string // the caller's words, for the audit
	// DryRun decides and commits nothing.
	DryRun bool
}

// Result is what a write has led to.
type Result struct {
	Snapshot *link.Snapshot // the state after it
	Created  bool           // the object wasn't there before
	Changed  bool           // something was committed; of a dry run: would be

	trial trial // what led to it
}

// Ask is what a consumer wants of an endpoint.
type Ask struct {
	Endpoint link.Endpoint // Service is set where Alias is not
	Alias    string        // of the service, instead of its ID
	// Manual leaves the decision to the provider. Without it the caller must be one who may decide, or
	// the service must approve by its lists: else [ErrLinkedForbidden].
	Manual  bool
	Message string // the consumer's words to the provider
}

// Decision is what a provider wants of a connection.
type Decision struct {
	Endpoint link.ID
	LinkID   link.LinkID // the one that was looked at; 0: the one at the commit
	Service  link.ID     // the service that the caller decides for; the endpoint must be connected to it
	State    link.State  // Approved or Rejected; unused by Disconnect, Suspend and Resume
	Reason   string
	Lasting  bool // approve later changes of targets and names too
	// If is checked at the commit; nil: always true.
	If func(s *link.Snapshot, e *link.Endpoint) error
}

// Flow is a live flow through the proxy: a TCP connection, or the datagrams of one client to one endpoint.
type Flow struct {
	ID         string         `json:"id"`
	Node       string         `json:"node"`
	Endpoint   link.ID        `json:"endpoint"`
	Service    link.ID        `json:"service"`
	LinkID     link.LinkID    `json:"linkId"`
	Source     netip.AddrPort `json:"source,omitzero"`
	Local      netip.AddrPort `json:"local,omitzero"`
	Protocol   string         `json:"protocol"` // "tcp" or "udp"
	Target     netip.AddrPort `json:"target,omitzero"`
	ServerName link.Name      `json:"serverName,omitempty"`
	State      string         `json:"state"` // what it is doing, such as "hello", "dial", "copy"
	Started    time.Time      `json:"started"`
	Sent       uint64         `json:"sent"`     // bytes from the client to the target
	Received   uint64         `json:"received"` // bytes from the target to the client
	// Standing is what a plan asks whether it would go on.
	Standing policy.Standing `json:"-"`
}

// AuditQuery selects audit entries. Zero fields select all that the caller may see.
type AuditQuery struct {
	Subscription string // "" is the whole record, for an operator
	Since, Until time.Time
	Actor        string
	Object       string // "kind/id", or the end of one with a leading "*"
	Action       string
	// After selects later revisions. With Forward the limit is of the oldest that follow, for paging; else of
	// the newest.
	After   uint64
	Forward bool
	Limit   int // at most this many; 0 is 1000
}
