// Package proxy is the data plane: it accepts connections on endpoint addresses, decides, dials a
// healthy target of the service, writes the PROXY header, and copies until both sides are done.
package proxy

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/prometheus/client_golang/prometheus"
)

// Settings is what an operator may set. Zero values mean the default in the comment.
type Settings struct {
	HelloTimeout   time.Duration  // to send the first bytes of a pinned flow: 5 s
	DialTimeout    time.Duration  // to reach one target: 5 s
	DrainTimeout   time.Duration  // for live flows at shutdown: 30 s
	MaxFlows       int            // at once: (descriptor limit - 512) / 6
	MaxPerSource   int            // flows at once of one client address: a tenth of MaxFlows
	ProbeInterval  time.Duration  // between two probes of a target: 2 s
	InboundHeaders []netip.Prefix // peers that send, and must send, a PROXY header: none
	PerAddress     bool           // bind each endpoint address, even if it isn't loopback: false
}

// Config is what a proxy is made of.
type Config struct {
	Snapshot   func() *link.Snapshot // the newest; nil: none yet, every flow is refused
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Proxy is a running data plane.
type Proxy struct{}

// New returns a proxy that listens on nothing.
func New(Config) *Proxy { panic("unfinished") }

// Prepared is a step to new settings and listeners: everything new is open and nothing has changed.
type Prepared struct{}

// Prepare opens the listeners that the snapshot wants and that aren't open yet. They accept nothing
// before Commit. The error names the address that can't be had.
func (p *Proxy) Prepare(s *link.Snapshot, settings Settings) (*Prepared, error) { panic("unfinished") }

// Commit starts what was prepared and closes the listeners that are no longer wanted. Live flows go on.
func (*Prepared) Commit() {}

// Abandon closes what was opened for it.
func (*Prepared) Abandon() {}

// Update follows a new snapshot, which Config.Snapshot must return already: it ends the flows that
// policy no longer allows, opens and closes listeners, and starts and stops probes. A listener that
// can't be opened is logged, counted and tried again.
func (p *Proxy) Update(s *link.Snapshot) { panic("unfinished") }

// Published reports whether a target of the service has ever answered a probe. It never goes back
// while the service has targets. Safe for concurrent use, no lock.
func (p *Proxy) Published(service link.ID) bool { panic("unfinished") }

// Healthy reports whether a target of the service answers now. Safe for concurrent use, no lock.
func (p *Proxy) Healthy(service link.ID) bool { panic("unfinished") }

// Inherit takes the services as published: their connections were approved before this process began.
func (p *Proxy) Inherit(services ...link.ID) { panic("unfinished") }

// Probed waits until each target of each service with a live connection was probed once, or ctx is done.
func (p *Proxy) Probed(ctx context.Context) error { panic("unfinished") }

// Flows returns the number of live flows.
func (p *Proxy) Flows() int { panic("unfinished") }

// Drain accepts no more and waits until every flow has ended, or ctx is done, when it resets those left.
func (p *Proxy) Drain(ctx context.Context) { panic("unfinished") }

// Close ends everything at once and waits for its goroutines.
func (p *Proxy) Close() error { panic("unfinished") }
