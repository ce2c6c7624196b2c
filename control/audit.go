package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/postern-link/postern/store"
)

const (
	auditLimit = 1000 // entries of a query that names no limit, and the most of any
	// auditBlock is how many lines are looked at from the newest backwards before older ones are: a query for
	// the last few must not read a record of years.
	auditBlock = 4096
	// clockSkew is how far the clocks of two nodes may differ before a query by time misses an entry.
	clockSkew = time.Hour
)

// Audit returns the entries that a query selects, oldest first, as far as the caller may see them: an
// operator all of them as they are, others those that concern the subscription, reduced to what is its own.
// Where there are more than the limit it is the newest, or with Forward the oldest.
func (c *Control) Audit(ctx context.Context, caller Caller, q AuditQuery) ([]store.Entry, error) {
	var sees scope
	var err error
	if q.Subscription == "" {
		sees.all, err = true, c.overseer(caller, "the whole audit record")
	} else {
		sees, err = c.scopeOf(caller, q.Subscription)
	}
	if err != nil {
		return nil, err
	}
	if q.Limit <= 0 || q.Limit > auditLimit {
		q.Limit = auditLimit
	}
	a := auditor{control: c, query: q, sees: sees, needles: q.needles()}
	if q.Forward {
		return a.scan(ctx, q.After+1, ^uint64(0), q.Limit)
	}
	return a.newest(ctx)
}

// auditor answers one query.
type auditor struct {
	control *Control
	query   AuditQuery
	sees    scope
	needles [][]byte // that the stored line of an entry to be selected has all of
}

// newest returns the last entries that are selected. It reads the record in blocks from its end.
func (a *auditor) newest(ctx context.Context) ([]store.Entry, error) {
	s, err := a.control.view()
	if err != nil {
		return nil, err
	}
	var found []store.Entry
	end := ^uint64(0) // of the last block: what was written since the snapshot too
	first := a.query.After + 1
	for from := s.Revision() + 1; from > first && len(found) < a.query.Limit; {
		to := end
		from -= min(auditBlock, from-first)
		end = from - 1
		block, err := a.scan(ctx, from, to, 0)
		if err != nil {
			return nil, err
		}
		found = append(block, found...)
		if !a.query.Since.IsZero() && from > first {
			at, err := a.firstAt(ctx, from)
			if err != nil {
				return nil, err
			}
			if at.Before(a.query.Since.Add(-clockSkew)) {
				break
			}
		}
	}
	return found[max(0, len(found)-a.query.Limit):], nil
}

// firstAt returns the time of the first entry from a revision on.
func (a *auditor) firstAt(ctx context.Context, from uint64) (time.Time, error) {
	for e, err := range a.control.config.Store.Audit(ctx, from) {
		return e.At, err
	}
	return time.Time{}, nil
}

// scan returns the selected entries of the revisions from from to to, at most limit of them, 0 for all. Each
// that is selected is checked against the line before it; one that can't be is passed over undecoded.
func (a *auditor) scan(ctx context.Context, from, to uint64, limit int) ([]store.Entry, error) {
	var found []store.Entry
	var chain store.Chain
	for l, err := range a.control.config.Store.Lines(ctx, max(from, 2)-1) { // with the line before
		if err != nil {
			return nil, err
		}
		if l.Revision > to {
			break
		}
		before := chain
		if chain, err = store.LineChain(l.Bytes); err != nil {
			return nil, fmt.Errorf("audit entry %d: %w", l.Revision, err)
		}
		if l.Revision < from || !a.mayMatch(l.Bytes) {
			continue
		}
		e, _, err := before.Next(l.Revision, l.Bytes)
		if err != nil {
			return nil, err
		}
		if e, ok := a.selects(e); ok {
			if found = append(found, e); len(found) == limit {
				break
			}
		}
	}
	return found, nil
}

// needles returns what the stored line of an entry must have to be selected, as far as the query says.
func (q AuditQuery) needles() [][]byte {
	var all [][]byte
	for _, word := range []string{q.Subscription, q.Actor, strings.TrimPrefix(q.Object, "*"), q.Action} {
		if word == "" || word == byProvider || word == byConsumer || word == byOther {
			continue
		}
		if text, err := json.Marshal(word); err == nil {
			all = append(all, text[1:len(text)-1])
		}
	}
	return all
}

// mayMatch reports whether a line is worth decoding.
func (a *auditor) mayMatch(line []byte) bool {
	return !slices.ContainsFunc(a.needles, func(n []byte) bool { return !bytes.Contains(line, n) })
}

// selects returns an entry as the caller may see it, and whether the query wants it. What the caller may not
// see can't be asked for either.
func (a *auditor) selects(e store.Entry) (store.Entry, bool) {
	q := &a.query
	if q.Subscription != "" && !slices.Contains(e.Scopes, q.Subscription) {
		return e, false
	}
	if !q.Since.IsZero() && e.At.Before(q.Since) || !q.Until.IsZero() && !e.At.Before(q.Until) {
		return e, false
	}
	if !a.sees.all {
		e = a.reduce(e)
	}
	suffix, ends := strings.CutPrefix(q.Object, "*")
	switch {
	case q.Actor != "" && e.Actor != q.Actor,
		q.Action != "" && e.Action != q.Action,
		q.Object != "" && !ends && e.Object != q.Object,
		ends && !strings.HasSuffix(e.Object, suffix):
		return e, false
	}
	return e, true
}

// AuditLines yields the raw record from a revision on, for an operator to verify.
func (c *Control) AuditLines(ctx context.Context, caller Caller, from uint64) (iter.Seq2[store.Line, error], error) {
	if err := c.overseer(caller, "the raw audit record"); err != nil {
		return nil, err
	}
	return c.config.Store.Lines(ctx, from), nil
}
