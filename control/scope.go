package control

import (
	"fmt"
	"strings"

	"github.com/postern-link/postern/link"
)

// scope is what a caller may see from one subscription. The zero scope sees nothing.
type scope struct {
	all          bool   // everything: the operator's
	subscription string // its objects, and of others what they have to do with it
	// role reports whether the caller may read another object; nil: no.
	role func(id link.ID) bool
}

// scopeOf returns the scope of a caller in a subscription, [ErrNoSubscription] where it has no role there.
func (c *Control) scopeOf(caller Caller, subscription string) (scope, error) {
	if err := c.authorise(caller, subscription, Read); err != nil {
		return scope{}, err
	}
	role := func(id link.ID) bool { return c.sees(caller, id) }
	return scope{all: caller.Operator, subscription: subscription, role: role}, nil
}

// service returns what a service is called in what the caller is shown: its ID tells where its provider has it,
// and others know its alias, if anything. "" is a service that they can't know.
func (s scope) service(snap *link.Snapshot, id link.ID) link.ID {
	if id == "" || s.holds(id) || s.role != nil && s.role(id) {
		return id
	}
	if v := snap.Service(id); v != nil {
		return link.ID(v.Alias)
	}
	return ""
}

// holds reports whether the object of an ID is the subscription's own, or in the operator's sight.
func (s scope) holds(id link.ID) bool {
	return s.all || s.subscription != "" && id.Subscription() == s.subscription
}

// holdsKey is holds for an object as the audit names it, "kind/key". The key of a document begins with its
// type, that of a record ends with its name.
func (s scope) holdsKey(object string) bool {
	if s.all {
		return true
	}
	_, key, _ := strings.Cut(object, "/")
	if typ, rest, ok := strings.Cut(key, ":"); ok && !strings.Contains(typ, "/") {
		key = rest
	}
	first, _, _ := strings.Cut(key, "/")
	return s.subscription != "" && first == s.subscription
}

// overseer returns an error unless the caller has the owner role in a subscription of the operator's: what
// shows the whole state or record is for those alone.
func (c *Control) overseer(caller Caller, what string) error {
	if err := operator(caller, what); err != nil {
		return err
	}
	for _, g := range caller.Grants {
		if g.Role == Owner && c.owner(g.Subscription).Operator {
			return nil
		}
	}
	return fmt.Errorf("%w: %s is for owners of a subscription of the operator's", ErrForbidden, what)
}

// operator returns an error unless the caller is the operator's.
func operator(caller Caller, what string) error {
	if !caller.Operator || len(caller.Subscriptions()) == 0 {
		return fmt.Errorf("%w: %s is for the operator", ErrForbidden, what)
	}
	return nil
}
