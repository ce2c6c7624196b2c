package control

import (
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
)

// Control runs operations. Its methods are safe for concurrent use.
type Control struct {
	config   Config
	metrics  *metrics
	refusals refusals
	seekers  seekers
	own      ownSockets
	newest   atomic.Pointer[link.Snapshot] // that an operation here has led to; nil: none yet
	turn     chan struct{}                 // held by the writer that decides and commits
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
	if c.Zones == nil {
		c.Zones = link.DefaultZones()
	}
	if c.Resolver == nil {
		c.Resolver = net.DefaultResolver
	}
	c.Limits = c.Limits.orDefault()
	control := &Control{metrics: newMetrics(c.Registerer), turn: make(chan struct{}, 1)}
	installed := c.Snapshot
	c.Snapshot = func() *link.Snapshot { return control.seen(installed()) }
	control.config = c
	return control
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
