package handover

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-link/postern/node"
)

// stepTime bounds one step of a node: to open, to prepare, to commit.
const stepTime = 30 * time.Second

var errEnding = errors.New("the process is ending")

// held is a running node with what drafts need to pass it on. Several drafts may hold it, one after
// the other; it ends once.
type held struct {
	node   *node.Node
	place  Place  // of its state
	origin string // the name of its declaration
	log    *slog.Logger

	mu       sync.Mutex
	prepared *node.Prepared // by a successor that isn't in force yet
	ending   bool
	ended    chan struct{} // closed when the node is closed
}

// prepare makes the node ready for a new configuration.
func (h *held) prepare(c node.Config) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ending {
		return errEnding
	}
	ctx, cancel := context.WithTimeout(context.Background(), stepTime)
	defer cancel()
	p, err := h.node.Prepare(ctx, c)
	if err != nil {
		return err
	}
	h.prepared = p
	return nil
}

// commit puts what was prepared in force. It reports whether there was anything.
func (h *held) commit() (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.prepared
	if p == nil {
		return false, nil
	}
	h.prepared = nil
	ctx, cancel := context.WithTimeout(context.Background(), stepTime)
	defer cancel()
	return true, p.Commit(ctx)
}

// abandon undoes what was prepared, if anything.
func (h *held) abandon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.prepared != nil {
		h.prepared.Abandon()
		h.prepared = nil
	}
}

// end drains and closes the node, once; a second caller waits for the first.
func (h *held) end() {
	h.mu.Lock()
	if h.ending {
		h.mu.Unlock()
		<-h.ended
		return
	}
	h.ending = true
	if h.prepared != nil {
		h.prepared.Abandon()
		h.prepared = nil
	}
	h.mu.Unlock()
	defer close(h.ended)
	h.node.Drain(context.Background()) // it has its own bound
	if err := h.node.Close(); err != nil {
		h.log.Error("closing the node", "err", err)
	}
	running.remove(h)
}
