package policyplugin_test

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/postern-link/postern/policy/policyplugin"
)

// gate is a program that lets in what a change freeze doesn't stop, and remembers which connections there are.
type gate struct {
	policyplugin.Base
	frozen string // services whose ID begins so

	mu   sync.Mutex
	live map[string]bool // endpoints by ID
}

// Authorize is asked once for a source and connection in a minute.
func (g *gate) Authorize(_ context.Context, f *policyplugin.Flow) (policyplugin.Verdict, error) {
	if strings.HasPrefix(f.Service.ID, g.frozen) {
		return policyplugin.Deny("change freeze"), nil
	}
	return policyplugin.Allow().For(time.Minute), nil
}

// Review wants a change number in the consumer's message.
func (g *gate) Review(_ context.Context, r *policyplugin.Request) (policyplugin.Decision, error) {
	if !strings.Contains(r.Message, "CHG") {
		return policyplugin.Decision{Outcome: policyplugin.Wait, Reason: "no change number in the message"}, nil
	}
	return policyplugin.Decision{Outcome: policyplugin.Approve}, nil
}

// Changed keeps the list up to date.
func (g *gate) Changed(_ context.Context, c *policyplugin.Changes) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.Whole {
		g.live = map[string]bool{}
	}
	for _, k := range c.Connections {
		if g.live[k.Endpoint.ID] = k.State == "Approved" && !k.Suspended && !k.Gone; !g.live[k.Endpoint.ID] {
			delete(g.live, k.Endpoint.ID)
		}
	}
	return nil
}

// The main function of a program is one line.
func Example() {
	main := func() { policyplugin.Serve(&gate{frozen: "payments-"}) }
	_ = main // which doesn't return
}
