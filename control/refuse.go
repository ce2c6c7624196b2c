package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// How many refusals become entries of the audit record: each is a commit, and whoever is refused can
// ask again at once, as often as a client can.
const (
	refusalWindow    = time.Minute
	refusalsPerActor = 20 // entries in a window
	refusalsInAll    = 60
	refusalWait      = 2 * time.Second  // the longest that an answer waits for its entry
	refusalPause     = 10 * time.Second // without entries, after one that couldn't be stored
)

// refusal is what makes refusals one entry: the same within a window are counted.
type refusal struct {
	actor, from, action, object, class string
}

// refusals bounds the entries of what is refused.
type refusals struct {
	mu     sync.Mutex
	begun  time.Time        // of the window
	paused time.Time        // until when none is written
	seen   map[refusal]bool // of the window
	actors map[string]int   // entries of the window by actor
	left   int              // refusals since the last summary that have no entry
}

// audited are the errors that are refusals, with the word for each. Others are mistakes in what was
// asked for, which tell nobody anything.
var audited = []struct {
	err   error
	class string
}{
	{ErrNoSubscription, "no subscription"},
	{ErrForbidden, "forbidden"},
	{ErrLinkedForbidden, "linked forbidden"},
	{ErrNoService, "no service"},
	{ErrEgress, "egress"},
	{ErrUnproven, "unproven"},
	{ErrLimit, "limit"},
	{ErrOften, "often"},
	{ErrAddress, "address"},
	{link.ErrStale, "stale"},
}

// classOf returns the word for a refusal, "" for an error that is none.
func classOf(action string, err error) string {
	for _, a := range audited {
		if errors.Is(err, a.err) {
			return a.class
		}
	}
	if errors.Is(err, ErrPrecondition) && decides(action) {
		return "stale"
	}
	return ""
}

// Refused records that an operation was refused before it got as far as one of Control's: in which subscription,
// with an error of [Control.View]. It is bounded like every record of a refusal. action is one of a fixed set.
func (c *Control) Refused(ctx context.Context, op Op, action, object, subscription string, err error) {
	c.metrics.count(action, outcome(op, Result{}, err))
	c.refuse(ctx, op, write{action: action, object: object, subscription: subscription}, err)
}

// refuse records that an operation was refused. What its caller may not see isn't in the entry: that
// goes to the caller's own subscription.
func (c *Control) refuse(ctx context.Context, op Op, w write, err error) {
	class := classOf(w.action, err)
	if class == "" {
		return
	}
	key := refusal{op.Caller.Name, op.Caller.From, w.action, w.object, class}
	now := c.config.Now()
	write, left := c.refusals.admit(key, now)
	if !write {
		c.metrics.unwritten.Inc()
		return
	}
	entry := store.Entry{
		At: now, Actor: readable(op.Caller.Name, maxActor), From: readable(op.Caller.From, maxActor),
		Action: w.action, Object: readable(w.object, maxReason), Reason: readable(err.Error(), maxReason), Result: store.Refused,
	}
	if _, exists := c.config.Tenants.SubscriptionOwner(w.subscription); exists { // else the word is the caller's own
		entry.Scopes = scopes(w.subscription, w.scopes)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalWait)
	defer cancel()
	c.summarise(ctx, left, now)
	c.record(ctx, entry)
}

// summarise writes one entry for refusals that have none of their own.
func (c *Control) summarise(ctx context.Context, left int, now time.Time) {
	if left == 0 {
		return
	}
	c.record(ctx, store.Entry{
		At: now, Actor: "node " + c.config.Node, Action: "refusals.summary", Result: store.Refused,
		Reason: fmt.Sprintf("%d more refusals on this node have no entry of their own: the same as another, or too many", left),
	})
}

// record stores an entry that comes with no change.
func (c *Control) record(ctx context.Context, e store.Entry) {
	_, err := store.Update(ctx, c.config.Store, func(*link.Snapshot) (store.Entry, []link.Change, error) { return e, nil, nil })
	if err != nil {
		c.metrics.unwritten.Inc()
		c.refusals.pause(c.config.Now())
		c.config.Log.Error("a refusal isn't in the audit record", "action", e.Action, "object", e.Object, "actor", e.Actor, "reason", e.Reason, "err", err)
	}
}

// admit reports whether a refusal gets an entry, and how many before it had none and shall be summed up
// first.
func (r *refusals) admit(key refusal, now time.Time) (write bool, left int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left = r.roll(now)
	if r.seen[key] || len(r.seen) >= refusalsInAll || r.actors[key.actor] >= refusalsPerActor || now.Before(r.paused) {
		r.left += 1 + left
		return false, 0
	}
	r.seen[key] = true
	r.actors[key.actor]++
	return true, left
}

// roll begins a new window where one is over, and returns how many refusals to sum up then.
func (r *refusals) roll(now time.Time) (left int) {
	if d := now.Sub(r.begun); d >= 0 && d < refusalWindow && r.seen != nil {
		return 0
	}
	left, r.left = r.left, 0
	r.begun, r.seen, r.actors = now, map[refusal]bool{}, map[string]int{}
	return left
}

func (r *refusals) pause(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = now.Add(refusalPause)
}

// flushRefusals sums up what is left of a window that is over.
func (c *Control) flushRefusals(ctx context.Context) {
	now := c.config.Now()
	c.refusals.mu.Lock()
	left := 0
	if !now.Before(c.refusals.paused) {
		left = c.refusals.roll(now)
	}
	c.refusals.mu.Unlock()
	c.summarise(ctx, left, now)
}

// decides reports whether an action is a decision on a connection.
func decides(action string) bool { return strings.HasPrefix(action, "connection.") }
