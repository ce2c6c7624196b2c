package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// How many refusals become entries of the audit record: each is a commit, and whoever is refused can
// ask again at once, as often as a client can.
const (
	refusalWindow     = time.Minute
	refusalsPerActor  = 20  // entries in a window
	refusalsPerTenant = 60  // of its actors together: none can crowd out what another is refused
	summedActors      = 100 // of a tenant that get a summary of their own in a window; the others share one
	summedScopes      = 20  // subscriptions that may read a summary
	actionSummary     = "refusals.summary"
	refusalWait       = 2 * time.Second  // the longest that an answer waits for its entry
	refusalPause      = 10 * time.Second // without entries, after one that couldn't be stored
)

// refusal is what makes refusals one entry: the same within a window are counted.
type refusal struct {
	tenant, actor, from, action, object, class string
}

// unwritten is what a summary says: refusals of one actor that have no entry of their own.
type unwritten struct {
	count  int
	scopes []string
}

// refusals bounds the entries of what is refused.
type refusals struct {
	mu     sync.Mutex
	begun  time.Time         // of the window
	paused time.Time         // until when none is written
	seen   map[refusal]bool  // of the window
	actors map[who]int       // entries of the window by actor; of a tenant where the actor is ""
	left   map[who]unwritten // since the last summaries
}

// who is an actor of a tenant. "" is the actors that are too many to tell apart.
type who struct{ tenant, actor string }

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
	key := refusal{op.Caller.Tenant, op.Caller.Name, op.Caller.From, w.action, w.object, class}
	now := c.config.Now()
	var concerned []string
	if _, exists := c.config.Tenants.SubscriptionOwner(w.subscription); exists { // else the word is the caller's own
		concerned = scopes(w.subscription, w.scopes)
	}
	write, left := c.refusals.admit(key, concerned, now)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalWait)
	defer cancel()
	c.summarise(ctx, left, now)
	if !write {
		c.metrics.unwritten.Inc()
		return
	}
	entry := store.Entry{
		At: now, Actor: readable(op.Caller.Name, maxActor), Tenant: op.Caller.Tenant, From: readable(op.Caller.From, maxActor), Scopes: concerned,
		Action: w.action, Object: readable(w.object, maxReason), Reason: readable(err.Error(), maxReason), Result: store.Refused,
	}
	c.record(ctx, entry)
}

// summarise writes an entry for the refusals of each actor that have none of their own.
func (c *Control) summarise(ctx context.Context, left map[who]unwritten, now time.Time) {
	order := func(a, b who) int { return cmp.Or(cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.actor, b.actor)) }
	for _, by := range slices.SortedFunc(maps.Keys(left), order) {
		c.record(ctx, store.Entry{
			At: now, Actor: readable(cmp.Or(by.actor, "others"), maxActor), Tenant: by.tenant, From: "node " + c.config.Node, Action: actionSummary, Result: store.Refused,
			Scopes: left[by].scopes,
			Reason: fmt.Sprintf("%d more refusals on this node have no entry of their own: the same as another, or too many", left[by].count),
		})
	}
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

// admit reports whether a refusal gets an entry, and which before it had none and shall be summed up
// first. scopes are the subscriptions that it concerns.
func (r *refusals) admit(key refusal, scopes []string, now time.Time) (write bool, left map[who]unwritten) {
	r.mu.Lock()
	defer r.mu.Unlock()
	by, all := who{key.tenant, key.actor}, who{tenant: key.tenant}
	paused := now.Before(r.paused)
	if !paused {
		left = r.roll(now)
	}
	if paused || r.seen[key] || r.actors[by] >= refusalsPerActor || r.actors[all] >= refusalsPerTenant {
		r.leave(by, scopes)
		return false, left
	}
	r.seen[key] = true
	r.actors[by]++
	r.actors[all]++
	return true, left
}

// leave counts a refusal without an entry.
func (r *refusals) leave(by who, scopes []string) {
	if _, known := r.left[by]; !known && r.summed(by.tenant) >= summedActors {
		by.actor = ""
	}
	if r.left == nil {
		r.left = map[who]unwritten{}
	}
	u := r.left[by]
	u.count++
	for _, s := range scopes {
		if at, known := slices.BinarySearch(u.scopes, s); !known && len(u.scopes) < summedScopes {
			u.scopes = slices.Insert(u.scopes, at, s)
		}
	}
	r.left[by] = u
}

// summed returns how many actors of a tenant have a summary to come.
func (r *refusals) summed(tenant string) (n int) {
	for by := range r.left {
		if by.tenant == tenant {
			n++
		}
	}
	return n
}

// roll begins a new window where one is over, and returns what to sum up then.
func (r *refusals) roll(now time.Time) (left map[who]unwritten) {
	if d := now.Sub(r.begun); d >= 0 && d < refusalWindow && r.seen != nil {
		return nil
	}
	left, r.left = r.left, nil
	r.begun, r.seen, r.actors = now, map[refusal]bool{}, map[who]int{}
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
	var left map[who]unwritten
	if !now.Before(c.refusals.paused) {
		left = c.refusals.roll(now)
	}
	c.refusals.mu.Unlock()
	c.summarise(ctx, left, now)
}

// decides reports whether an action is a decision on a connection.
func decides(action string) bool { return strings.HasPrefix(action, "connection.") }
