package node

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy"
	"github.com/postern-link/postern/store"
)

// API is the control API of one configuration, as a directive makes it: a node knows neither HTTP nor
// who may do what, it only says when to listen and when to stop. Each configuration brings a value of
// its own. These are the calls to it, from one goroutine at a time:
//
//	start            Prepare(node, nil)   Commit
//	reload           Prepare(node, old)   Commit    then Close of old
//	refused reload   Prepare(node, old)   Abandon   old goes on as if nothing had been
//	API dropped                                     Close of old
//	end              Close, before data plane and store end
//
// The node need not have a snapshot in Prepare and Commit: [Node.Snapshot] is nil until the store was
// reached for the first time, and until then what [Node.Store] is asked for fails.
type API interface {
	// Prepare opens what the configuration needs and its predecessor doesn't have open: files are
	// read, a new address is listened on. Nothing is served yet. Errors name the file or address and
	// leave no trace. before is the API in force, nil where there is none; what it has open, such as a
	// listener of the same address, may be taken from it in Commit and not earlier.
	Prepare(n *Node, before API) error
	// Commit begins to serve. It can't fail and doesn't block.
	Commit()
	// Abandon closes what Prepare opened.
	Abandon()
	// Close accepts nothing more, and lets what is under way end until ctx is done, when it ends that.
	// What a successor has taken in its Commit stays open. Nothing of it runs afterwards.
	Close(ctx context.Context) error
}

// APIError is an error of [API.Prepare].
type APIError struct{ Err error }

func (e *APIError) Error() string { return e.Err.Error() }

func (e *APIError) Unwrap() error { return e.Err }

// prepareAPI prepares the API of a configuration, if it has one.
func (n *Node) prepareAPI(next API) error {
	if next == nil {
		return nil
	}
	if err := next.Prepare(n, n.apis.now); err != nil {
		return &APIError{err}
	}
	return nil
}

// abandonAPI undoes prepareAPI.
func abandonAPI(prepared API) {
	if prepared != nil {
		prepared.Abandon()
	}
}

// drainAPI is how long requests that are under way may take when their API ends.
const drainAPI = 10 * time.Second

// Name returns the name of the node, for logs and audit: that of its host.
func (n *Node) Name() string { return n.name }

// hostName returns the name of this host, "node" where it has none.
func hostName() string {
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "node"
}

// Store returns the store, for commits beside the declaration: what is committed is installed on this
// node and on all others that share the store. It isn't the caller's to close.
func (n *Node) Store() store.Store { return n.store }

// Flows yields the live flows of this node, as [proxy.Proxy.List] does; none without a data plane.
func (n *Node) Flows() iter.Seq[proxy.FlowInfo] {
	if p := n.proxy.Load(); p != nil {
		return p.List()
	}
	return func(func(proxy.FlowInfo) bool) {}
}

// Listeners returns what the data plane listens on for endpoints; nothing without one.
func (n *Node) Listeners() []netip.AddrPort {
	if p := n.proxy.Load(); p != nil {
		return p.Listeners()
	}
	return nil
}

// TargetNames returns what the data plane finds of the names of a service's targets; nothing without one.
func (n *Node) TargetNames(service link.ID) []proxy.NameStatus {
	if p := n.proxy.Load(); p != nil {
		return p.Names(service)
	}
	return nil
}

// Targets returns what the data plane observes of a service's targets; nothing without one.
func (n *Node) Targets(service link.ID) []proxy.TargetStatus {
	if p := n.proxy.Load(); p != nil {
		return p.Targets(service)
	}
	return nil
}

// Ground returns what the data plane knows of this node, for the rules about targets; nothing without one.
func (n *Node) Ground() link.Ground {
	if p := n.proxy.Load(); p != nil {
		return p.Ground()
	}
	return link.Ground{}
}

// apis are the control API in force and those that are ending.
type apis struct {
	now    API // nil: none. Guarded by the node's change
	ending sync.WaitGroup
	mu     sync.Mutex
	errs   []error // of those that have ended
}

// replace makes next, which is prepared, the API in force; nil for none. Its predecessor ends in the
// background: a reload doesn't wait for slow requests.
func (a *apis) replace(next API) {
	old := a.now
	a.now = next
	if next != nil {
		next.Commit()
	}
	if old == nil {
		return
	}
	a.ending.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), drainAPI)
		defer cancel()
		if err := old.Close(ctx); err != nil {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.errs = append(a.errs, err)
		}
	})
}

// close ends the API in force and waits for all.
func (a *apis) close() error {
	a.replace(nil)
	a.ending.Wait()
	return errors.Join(a.errs...)
}
