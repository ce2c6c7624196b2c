package control

import (
	"context"
	"iter"
)

// Flows yields the live flows of this node whose endpoint or service is in the subscription.
func (c *Control) Flows(ctx context.Context, caller Caller, subscription string) (iter.Seq[Flow], error) {
	panic("unfinished")
}
