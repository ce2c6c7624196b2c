// Package node is one process of Postern: it holds the store, the newest snapshot and the proxy, and
// carries them from one configuration to the next in two steps.
package node

import (
	"context"
	"log/slog"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is one configuration of a node, as a Corefile says it.
type Config struct {
	// StatePath is the bolt file. It can't change while the node lives.
	StatePath string
	// Declaration is the name that owns the declared objects, by default the host's.
	Declaration link.Declare
	// Proxy are the settings of the data plane; nil: this node only answers DNS.
	Proxy *proxy.Settings
	Log   *slog.Logger
	// Registerer takes the metrics, for the life of the node.
	Registerer prometheus.Registerer
}

// Node is one running process.
type Node struct{}

// Open starts a node: it opens the state, applies the declaration, and starts the data plane.
func Open(ctx context.Context, c Config) (*Node, error) { panic("unfinished") }

// Prepared is a step to a new configuration; nothing has changed before Commit.
type Prepared struct{}

// Prepare checks a new configuration against the state and opens what is new.
func (n *Node) Prepare(ctx context.Context, c Config) (*Prepared, error) { panic("unfinished") }

// Commit makes the prepared configuration the one in force.
func (p *Prepared) Commit(ctx context.Context) error { panic("unfinished") }

// Abandon undoes Prepare.
func (p *Prepared) Abandon() {}

// Snapshot returns the newest snapshot; nil while there is none.
func (n *Node) Snapshot() *link.Snapshot { panic("unfinished") }

// Published and Healthy are those of the proxy; both true on a node without one.
func (n *Node) Published(service link.ID) bool { panic("unfinished") }
func (n *Node) Healthy(service link.ID) bool   { panic("unfinished") }

// Drain ends the data plane's work within its drain time; Close ends everything.
func (n *Node) Drain(ctx context.Context) { panic("unfinished") }
func (n *Node) Close() error              { panic("unfinished") }
