package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// write is one operation that changes the state, as [Control.change] runs it.
type write struct {
	// action says for the audit and the metrics what is done, "noun.verb". It is one of a fixed set. A
	// verdict may name it more exactly.
	action string
	object string // on what, "kind/key"
	// subscription is the object's, in which the caller must have the right.
	subscription string
	right        Right
	// scopes are other subscriptions that may read of it in the audit, also where it is refused.
	scopes []string
	// prepare finds out what the decision takes and the state doesn't have; nil: nothing. It runs once,
	// when the caller is known to have the right.
	prepare func(ctx context.Context) error
	// decide says what to change in s, at the time at, which the commit will have too. It is called for
	// each try and acts on nothing by itself. What it returns beside an error may say the action.
	decide func(s *link.Snapshot, at time.Time) (verdict, error)
	// before is told what is about to be committed, for each try, and nothing in a dry run; nil: nobody is. What a change ends is there
	// to be seen then, and not any more afterwards. Other writes wait for it.
	before func(t trial)
}

// patience is how long a write waits for its turn and is decided again. A commit that has begun isn't cut short,
// since then nobody would know its outcome: the store bounds it.
const patience = 10 * time.Second

var errLate = errors.New("others have kept changing the state meanwhile")

// verdict is what a decide step has come to. The zero verdict changes nothing.
type verdict struct {
	changes []link.Change
	action  string   // "": that of the write
	created bool     // the object of the write isn't there before
	scopes  []string // more that may read of it in the audit, where it is done
	reason  string   // for the audit, where the caller gave none
	near    fills    // limits of which little is left afterwards
}

// trial is one verdict tried on one snapshot.
type trial struct {
	verdict
	before, after *link.Snapshot
	deltas        []link.Delta
}

// change is the path of every write: it authorises the caller, decides on the newest snapshot, and
// commits the changes with their audit entry, deciding again where the state has changed meanwhile. What
// changes nothing commits nothing and makes no entry. A refusal is recorded as well.
func (c *Control) change(ctx context.Context, op Op, w write) (Result, error) {
	var t trial
	result, err := c.attempt(ctx, op, w, &t)
	if t.action != "" {
		w.action = t.action
	}
	c.metrics.count(w.action, outcome(op, result, err))
	if err != nil {
		c.refuse(ctx, op, w, err)
		return Result{}, err
	}
	return result, nil
}

// attempt is change without its records of what went wrong. t is left as the last try was.
func (c *Control) attempt(ctx context.Context, op Op, w write, t *trial) (Result, error) {
	if err := c.authorise(op.Caller, w.subscription, w.right); err != nil {
		return Result{}, err
	}
	if err := checkText("reason", op.Reason, maxReason); err != nil {
		return Result{}, err
	}
	if w.prepare != nil {
		if err := w.prepare(ctx); err != nil {
			return Result{}, err
		}
	}
	w = c.narrow(c.review(ctx, op, w), op, w)
	patient, cancel := context.WithTimeoutCause(ctx, patience, errLate)
	defer cancel()
	// One after the other: writers of this node that race for a revision would only make each other decide again.
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-patient.Done():
		return Result{}, fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(patient))
	}
	var decided error // as opposed to an error of the store
	s, err := store.UpdateFrom(ctx, c.config.Store, c.config.Snapshot(), func(s *link.Snapshot) (store.Entry, []link.Change, error) {
		if patient.Err() != nil {
			return store.Entry{}, nil, context.Cause(patient)
		}
		at := c.config.Now()
		if *t, decided = try(w, s, at); decided != nil {
			return store.Entry{}, nil, decided
		}
		if w.before != nil && !op.DryRun {
			w.before(*t)
		}
		if op.DryRun || len(t.deltas) == 0 {
			return store.Entry{}, nil, nil
		}
		return c.entry(op, w, *t, at), t.changes, nil
	})
	switch {
	case decided != nil:
		return Result{}, decided
	case errors.Is(err, store.ErrUnknownOutcome):
		c.config.Log.Error("the outcome of a change is unknown", "action", w.action, "object", w.object, "actor", op.Caller.Name, "err", err)
		return Result{}, err
	case err != nil:
		level := slog.LevelError
		if ctx.Err() != nil {
			level = slog.LevelInfo // whoever asked has gone
		}
		c.config.Log.Log(ctx, level, "the state can't be changed", "action", w.action, "object", w.object, "actor", op.Caller.Name, "err", err)
		return Result{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if op.DryRun {
		s = t.after
	} else if len(t.deltas) > 0 {
		c.saw(s)
		c.warn(t.near)
	}
	return Result{Snapshot: s, Created: t.created, Changed: len(t.deltas) > 0, trial: *t}, nil
}

// try decides on s and applies the verdict, without an effect on anything.
func try(w write, s *link.Snapshot, at time.Time) (trial, error) {
	v, err := w.decide(s, at)
	t := trial{verdict: v, before: s, after: s}
	if err != nil || len(v.changes) == 0 {
		return t, err
	}
	after, deltas, err := s.Apply(at, v.changes...)
	if err != nil {
		return t, mapped(err)
	}
	if len(deltas) > 0 {
		t.after, t.deltas = after, deltas
	}
	return t, nil
}

// mapped makes an error of package link one of this package where that has a finer word for it.
func mapped(err error) error {
	if errors.Is(err, link.ErrEgress) {
		return fmt.Errorf("%w: %v", ErrEgress, err) // which is no conflict
	}
	return err
}

// entry is the audit entry of a commit.
func (c *Control) entry(op Op, w write, t trial, at time.Time) store.Entry {
	action, reason := w.action, op.Reason
	if t.action != "" {
		action = t.action
	}
	if reason == "" {
		reason = t.reason
	}
	return store.Entry{
		At: at, Actor: op.Caller.Name, From: op.Caller.From,
		Action: action, Object: w.object, Reason: reason,
		Scopes: scopes(w.subscription, w.scopes, t.scopes),
	}
}

// scopes joins subscriptions as an audit entry has them.
func scopes(first string, more ...[]string) []string {
	all := append([]string{first}, slices.Concat(more...)...)
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(s string) bool { return s == "" })
}

// authorise returns nil where the caller has a right in a subscription, [ErrForbidden] where it has only
// others, and [ErrNoSubscription] where it has none, whether or not there is such a subscription.
func (c *Control) authorise(caller Caller, subscription string, right Right) error {
	have := caller.Rights(subscription)
	if _, exists := c.config.Tenants.SubscriptionOwner(subscription); !exists || have == 0 {
		return fmt.Errorf("%w: %s", ErrNoSubscription, subscription)
	}
	if have&right != right {
		return fmt.Errorf("%w: %s has no role in subscription %s that allows it", ErrForbidden, caller.Name, subscription)
	}
	return nil
}

// MayRefer returns nil where the caller has a right on an object that a request refers to,
// [ErrLinkedForbidden] where it has only others in the object's subscription, and [ErrReference], as for
// an object that doesn't exist, where it has none. An edit asks it before it looks at the object.
func (c *Control) MayRefer(caller Caller, kind link.Kind, id link.ID, right Right) error {
	err := c.authorise(caller, c.SubscriptionOf(id), right)
	switch {
	case errors.Is(err, ErrNoSubscription):
		return fmt.Errorf("%w: %s %s", ErrReference, kind, id)
	case err != nil:
		return fmt.Errorf("%w: %s %s: %s has no role in subscription %s that allows it", ErrLinkedForbidden, kind, id, caller.Name, c.SubscriptionOf(id))
	}
	return nil
}

// SubscriptionOf returns the subscription that an object is in: the first segment of its ID, and for an
// object of a Corefile the operator's first.
func (c *Control) SubscriptionOf(id link.ID) string {
	if sub := id.Subscription(); sub != "" {
		return sub
	}
	for _, t := range c.config.Tenants.Tenants() {
		if t.Operator && len(t.Subscriptions) > 0 {
			return t.Subscriptions[0].ID
		}
	}
	return ""
}

// owner returns the tenant that a subscription belongs to; the zero Tenant where there is none, which
// no operation gets as far as.
func (c *Control) owner(subscription string) Tenant {
	t, _ := c.config.Tenants.SubscriptionOwner(subscription)
	return t
}

// saw notes a snapshot that an operation has led to, which this node may not have installed yet.
func (c *Control) saw(s *link.Snapshot) {
	for {
		now := c.newest.Load()
		if now != nil && now.Revision() >= s.Revision() || c.newest.CompareAndSwap(now, s) {
			return
		}
	}
}

// seen returns the newest snapshot that this node has seen, nil for none: installed is the newest that it has
// installed, and an operation may have led to a newer one, which who wrote shall read.
func (c *Control) seen(installed *link.Snapshot) *link.Snapshot {
	if mine := c.newest.Load(); mine != nil && (installed == nil || mine.Revision() > installed.Revision()) {
		return mine
	}
	return installed
}

// view returns the newest snapshot, or [ErrUnavailable] while there is none.
func (c *Control) view() (*link.Snapshot, error) {
	s := c.config.Snapshot()
	if s == nil {
		return nil, fmt.Errorf("%w: it hasn't been read yet", ErrUnavailable)
	}
	return s, nil
}
