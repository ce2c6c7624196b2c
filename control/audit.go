package control

import (
	"context"
	"iter"

	"github.com/postern-link/postern/store"
)

// Audit returns the entries that a query selects, oldest first, as far as the caller may see them.
func (c *Control) Audit(ctx context.Context, caller Caller, q AuditQuery) ([]store.Entry, error) {
	panic("unfinished")
}

// AuditLines yields the raw record from a revision on, for an operator to verify.
func (c *Control) AuditLines(ctx context.Context, caller Caller, from uint64) (iter.Seq2[store.Line, error], error) {
	panic("unfinished")
}
