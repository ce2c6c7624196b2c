package control

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
)

// Control runs operations. Its methods are safe for concurrent use.
type Control struct {
	config   Config
	metrics  *metrics
	refusals refusals
	newest   atomic.Pointer[link.Snapshot] // that an operation here has led to; nil: none yet
}

// New returns a Control. Store, Snapshot and Tenants of c must be there; what else it leaves out has a
// default.
func New(c Config) *Control {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Control{config: c, metrics: newMetrics(c.Registerer)}
}

// View returns the newest snapshot for reading the objects of a subscription: with [ErrNoSubscription]
// where the caller has no role in it. What others own may be followed from there only as far as an
// object of the subscription refers to it.
func (c *Control) View(caller Caller, subscription string) (*link.Snapshot, error) {
	if err := c.authorise(caller, subscription, Read); err != nil {
		return nil, err
	}
	return c.view()
}

// EditDocument creates, replaces or deletes a document. right is what it takes.
func (c *Control) EditDocument(ctx context.Context, op Op, right Right, typ string, id link.ID, edit func(s *link.Snapshot, old *link.Document) (*link.Document, error)) (Result, error) {
	panic("unfinished")
}

// EditBalancer is EditDocument for a load balancer, with the services whose targets it changes: retarget
// returns each as it shall be.
func (c *Control) EditBalancer(ctx context.Context, op Op, id link.ID, edit func(s *link.Snapshot, old *link.Document) (*link.Document, []link.Service, error)) (Result, error) {
	panic("unfinished")
}

// EditNetwork creates, replaces or deletes a network.
func (c *Control) EditNetwork(ctx context.Context, op Op, id link.ID, edit func(s *link.Snapshot, old *link.Network) (*link.Network, error)) (Result, error) {
	panic("unfinished")
}

// EditService creates, replaces or deletes a service. Deleting one with connections is an [*InUseError].
func (c *Control) EditService(ctx context.Context, op Op, id link.ID, edit func(s *link.Snapshot, old *link.Service) (*link.Service, error)) (Result, error) {
	panic("unfinished")
}

// ForceDeleteService deletes a service; its connections become Disconnected.
func (c *Control) ForceDeleteService(ctx context.Context, op Op, id link.ID, check func(s *link.Snapshot, old *link.Service) error) (Result, error) {
	panic("unfinished")
}

// EditEndpoint asks for an endpoint, changes one, or deletes it.
func (c *Control) EditEndpoint(ctx context.Context, op Op, id link.ID, edit func(s *link.Snapshot, old *link.Endpoint) (*Ask, error)) (Result, error) {
	panic("unfinished")
}

// AskAgain makes the Disconnected connection of an endpoint a new request.
func (c *Control) AskAgain(ctx context.Context, op Op, endpoint link.ID, message string) (Result, error) {
	panic("unfinished")
}

// Decide approves or rejects a connection.
func (c *Control) Decide(ctx context.Context, op Op, d Decision) (Result, error) {
	panic("unfinished")
}

// Disconnect removes a connection for its provider.
func (c *Control) Disconnect(ctx context.Context, op Op, d Decision) (Result, error) {
	panic("unfinished")
}

// Suspend stops an Approved connection until [Control.Resume].
func (c *Control) Suspend(ctx context.Context, op Op, d Decision) (Result, error) {
	panic("unfinished")
}

// Resume undoes Suspend.
func (c *Control) Resume(ctx context.Context, op Op, d Decision) (Result, error) {
	panic("unfinished")
}

// EditZone creates, replaces or deletes a private zone. One with links isn't deleted; one without takes
// its record sets along.
func (c *Control) EditZone(ctx context.Context, op Op, id link.ID, edit func(s *link.Snapshot, old *link.PrivateZone) (*link.PrivateZone, error)) (Result, error) {
	panic("unfinished")
}

// EditRecordSet creates, replaces or deletes a record set of a private zone. rtype and name are as
// [link.RecordKey] takes them.
func (c *Control) EditRecordSet(ctx context.Context, op Op, zone link.ID, rtype, name string, edit func(s *link.Snapshot, old *link.RecordSet) (*link.RecordSet, error)) (Result, error) {
	panic("unfinished")
}

// VisibleService returns the service of an alias that a network of the subscription may ask for, or
// [ErrNoService].
func (c *Control) VisibleService(caller Caller, subscription, alias string) (*link.Service, error) {
	panic("unfinished")
}

// Run ends requests that have waited too long, until ctx is done. Any number of nodes may run it.
func (c *Control) Run(ctx context.Context) { panic("unfinished") }
